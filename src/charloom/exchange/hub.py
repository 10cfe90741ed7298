"""A model in the layout of Hugging Face Hub: its file, a configuration, evaluations, a card.

    model = HubModel.from_pretrained("owner/book")  # or a run's folder, or a saved one
    model.save_pretrained("book")
    model.push_to_hub("owner/book")

`model.safetensors` is charloom's own checkpoint, and loading it requires no other file.
`config.json` describes it for other programs, `evaluations.json` is the same as in a run's folder,
and `README.md` is the model card. Values in a card that come from a file, such as the text's name,
are escaped, so that they cannot become Markdown, HTML or YAML.

Importing this module requires huggingface_hub and Jinja2 (extra `hub`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from charloom.engines.backend import Backend
from charloom.errors import CharloomError, CharloomWarning, printable, shortened
from charloom.evaluation.records import Records, read_evaluations
from charloom.exchange.card import card_kept, model_card
from charloom.exchange.html import DEFAULT_SIZE, export_html
from charloom.exchange.hub_client import (
    card_was_changed,
    download_files,
    explained,
    file_exists,
    lacks_file,
)
from charloom.exchange.hub_folder import (
    CARD_FILE,
    CONFIG_FILE,
    hub_config,
    read_config,
    write_folder,
)
from charloom.exchange.hub_library import (
    HfApi,
    ModelCard,
    ModelHubMixin,
)
from charloom.language_model import LanguageModel
from charloom.storage.checkpoint import Checkpoint, load_checkpoint
from charloom.storage.folders import MODEL_FILE, model_path


class HubModel(LanguageModel, ModelHubMixin):  # type: ignore[misc]  # not imported by mypy
    """A LanguageModel that can be saved to Hugging Face Hub and loaded from it.

    HubModel(model.checkpoint) converts any model.

    Args:
        checkpoint: the model.
        evaluations: evaluations for the card, as in a run's `evaluations.json`. Those of other
            weights are skipped.
        engine: as in `load`, like the other arguments.
    """

    evaluations: Records = ()  # of a copy

    def __new__(cls, *arguments: Any, **settings: Any) -> HubModel:
        return object.__new__(cls)  # because the mixin's copies every weight into a configuration

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        evaluations: Records = (),
        engine: str = "auto",
        threads: int | None = None,
        device: str = "cpu",
        network_only: bool = False,
    ) -> None:
        backend = Backend(engine, threads, device)
        super().__init__(checkpoint, backend=backend, network_only=network_only)
        self.evaluations = evaluations

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **settings: Any,
    ) -> HubModel:
        """Load a model from a run, from a saved folder or from the Hub.

        Args:
            pretrained_model_name_or_path: a folder, or the model's name on the Hub, OWNER/NAME.
            force_download: whether files in the cache are downloaded again.
            token: the access token.
            cache_dir: the cache's folder.
            local_files_only: whether only the cache is used.
            revision: a branch, tag or commit.
            settings: engine, threads, device and network_only, as in `charloom.load`.

        Raises:
            CharloomError: if the model is missing, not charloom's, damaged or inconsistent, or if
                the Hub cannot be reached.
        """
        name = os.fspath(pretrained_model_name_or_path)
        path = Path(name)
        if not file_exists(path):
            path = download_files(
                name,
                force_download=force_download,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                revision=revision,
            )
        config = read_config(path, name) if path.is_dir() else {}
        if path.is_dir() and not (path / MODEL_FILE).is_file():
            raise lacks_file(name, MODEL_FILE)
        file = model_path(path)
        checkpoint = load_checkpoint(file)
        for entry, value in hub_config(checkpoint).items():
            if config.get(entry, value) != value:
                raise CharloomError(
                    f"{printable(name)} is inconsistent, because {entry} is "
                    f"{shortened(config[entry])} in {CONFIG_FILE} and {shortened(value)} in "
                    f"{MODEL_FILE}: export the model again"
                )
        return cls(checkpoint, evaluations=read_evaluations(file.parent), **settings)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        config: None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write the model's folder, over an earlier one of this kind.

        An edited card is kept, with a warning.

        Args:
            save_directory: the folder.
            config: must be omitted, because the configuration is the model's.
            repo_id: the model's name on the Hub, by default that of the folder.
            push_to_hub: whether the model is uploaded too.
            model_card_kwargs: entries of the card's metadata, such as {"license": "mit"}.
            push_to_hub_kwargs: other arguments of `push_to_hub`.

        Returns:
            The URL of the commit, if the model was uploaded.

        Raises:
            CharloomError: if the folder contains files of another origin or cannot be written.
        """
        if config is not None:
            raise CharloomError(f"{CONFIG_FILE} is derived from the model: omit config")
        folder = Path(save_directory)
        kept = write_folder(self.checkpoint, self.evaluations, folder, **model_card_kwargs or {})
        if kept:
            warnings.warn(card_kept(folder / CARD_FILE), CharloomWarning, stacklevel=2)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or folder.resolve().name,
            model_card_kwargs=model_card_kwargs,
            **push_to_hub_kwargs,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        ignore_patterns: Sequence[str] | str | None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> str:
        """Upload the model to the Hub, into a repository that is created if it is missing.

        A card that was edited on the Hub is kept, with a warning.

        Args:
            repo_id: the repository, OWNER/NAME, or NAME for your own.
            private: whether a new repository is private.
            token: the access token.
            branch: the branch, by default the main one.
            ignore_patterns: files that are not uploaded.
            model_card_kwargs: entries of the card's metadata, such as {"license": "mit"}.
            settings: other arguments of the mixin, such as commit_message and create_pr.

        Returns:
            The URL of the commit.

        Raises:
            CharloomError: if the Hub cannot be reached or rejects the upload.
        """
        with explained(repo_id):
            if "/" not in repo_id:  # the Hub completes it with the owner
                api = HfApi(token=token)
                repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
            ignored = [ignore_patterns] if isinstance(ignore_patterns, str) else ignore_patterns
            if card_was_changed(repo_id, branch, token):
                warnings.warn(card_kept(f"{repo_id}/{CARD_FILE}"), CharloomWarning, stacklevel=2)
                ignored = [*(ignored or ()), CARD_FILE]
            commit: str = super().push_to_hub(
                repo_id,
                private=private,
                token=token,
                branch=branch,
                ignore_patterns=ignored and list(ignored),
                model_card_kwargs={"model_name": repo_id} | dict(model_card_kwargs or {}),
                **settings,
            )
        return commit

    def push_page(
        self,
        repo_id: str,
        *,
        size: float = DEFAULT_SIZE,
        private: bool | None = None,
        token: str | None = None,
    ) -> str:
        """Upload the model's web page as a static Space, which is created if it is missing.

        Args:
            repo_id: the Space, OWNER/NAME, or NAME for your own.
            size: megabytes of the page, as in `charloom.export_html`.
            private: whether a new Space is private.
            token: the access token.

        Returns:
            The URL of the commit.

        Raises:
            CharloomError: if the Hub cannot be reached or rejects the upload, or if the page cannot
                have this size.
        """
        page = export_html(self, size=size)
        with explained(repo_id):
            api = HfApi(token=token)
            space = api.create_repo(
                repo_id, repo_type="space", space_sdk="static", private=private, exist_ok=True
            )
            commit = api.upload_file(
                path_or_fileobj=page.encode(),
                path_in_repo="index.html",
                repo_id=space.repo_id,
                repo_type="space",
                commit_message="Upload the page of a model with charloom",
            )
        return str(commit.commit_url)

    def generate_model_card(self, model_name: str = "model", **metadata: Any) -> ModelCard:
        """Return the model card. `metadata` contains entries that replace charloom's."""
        return model_card(self.checkpoint, self.evaluations, model_name, **metadata)
