"""Names imported from huggingface_hub (extra `hub`); an error if it is not installed."""

from charloom.errors import CharloomError

try:
    import jinja2  # noqa: F401  # by which huggingface_hub fills in a card's template
    from huggingface_hub import (
        EvalResult,
        HfApi,
        ModelCard,
        ModelCardData,
        ModelHubMixin,
        hf_hub_download,
    )
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
except ImportError as error:
    raise CharloomError(
        f"Hugging Face's hub needs huggingface_hub, which cannot be imported ({error}): pip "
        "install 'charloom[hub]'"
    ) from None

__all__ = [
    "EntryNotFoundError",
    "EvalResult",
    "GatedRepoError",
    "HFValidationError",
    "HfApi",
    "HfHubHTTPError",
    "LocalEntryNotFoundError",
    "ModelCard",
    "ModelCardData",
    "ModelHubMixin",
    "RepositoryNotFoundError",
    "RevisionNotFoundError",
    "hf_hub_download",
]
