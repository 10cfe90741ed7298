"""Names imported from huggingface_hub (extra `hub`); an error if it is not installed."""

from charloom.errors import MissingExtraError

try:
    import jinja2  # noqa: F401  # imported because ModelCard.from_template requires it
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
    raise MissingExtraError(
        "Hugging Face Hub requires huggingface_hub and Jinja2, which cannot be imported "
        f"({error}): pip install 'charloom[hub]'"
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
