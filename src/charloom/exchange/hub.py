"""A model in the layout of Hugging Face's hub: its file, a configuration, evaluations, a card.

    model = HubModel.from_pretrained("owner/book")  # or a run's folder, or one that was saved so
    model.save_pretrained("book")
    model.push_to_hub("owner/book")

`model.safetensors` is charloom's own checkpoint, whole: no other file is needed to load it.
`config.json` tells other programs what it is, `evaluations.json` is as in a run's folder, and
`README.md` is the model card. Whatever stands in a card and comes from a file, a text's name above
all, is shown as it is: it can become neither Markdown nor HTML nor YAML.

Importing this module needs huggingface_hub (extra `hub`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from charloom.engines.backend import Backend
from charloom.errors import CharloomError, printable, shortened
from charloom.evaluation.records import read_evaluations
from charloom.exchange.card import Evaluations, card_kept, model_card
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
    """A LanguageModel that goes to Hugging Face's hub and comes from there.

    HubModel(model.checkpoint) makes one of any model. evaluations: what the card is to show, as
    `read_evaluations` gives it; those of other weights are left out. The others are as for `load`.
    """

    def __new__(cls, *arguments: Any, **settings: Any) -> HubModel:
        return object.__new__(cls)  # the mixin's copies every weight into a configuration

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        evaluations: Evaluations = (),
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
        """The model of a run, of a folder that was saved for the hub, or of the hub, `owner/name`.

        settings: engine, threads, device and network_only, as for `charloom.load`; the others are
        the mixin's and mean something for the hub alone.
        Raises CharloomError where there is no such model, where the hub cannot be reached, and for
        files that are no model of charloom, damaged, or at odds with each other.
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
                    f"{printable(name)}: {CONFIG_FILE} says that {entry} is "
                    f"{shortened(config[entry])}, but in {MODEL_FILE} it is {shortened(value)}: "
                    "export the model again"
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
        """Writes the model's folder, over an earlier one of this kind, and pushes it if asked.

        A card that somebody changed is kept, with a warning. model_card_kwargs: more of the card's
        metadata, such as {"license": "mit"}. config: is what the model is, and cannot be given.
        Returns the commit's address if it was pushed.
        Raises CharloomError where the folder holds files that were not written so, or cannot be
        written.
        """
        if config is not None:
            raise CharloomError(f"{CONFIG_FILE} is what the model is: leave config out")
        folder = Path(save_directory)
        kept = write_folder(self.checkpoint, self.evaluations, folder, **model_card_kwargs or {})
        if kept:
            warnings.warn(card_kept(folder / CARD_FILE), stacklevel=2)
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
        """Saves the model on the hub, in a repository that is made where there is none, and returns
        the commit's address. settings: the mixin's, such as commit_message and create_pr.

        A card on the hub that somebody changed is kept, with a warning.
        Raises CharloomError where the hub cannot be reached, or does not take it.
        """
        with explained(repo_id):
            if "/" not in repo_id:  # the hub tells whose it is
                api = HfApi(token=token)
                repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
            ignored = [ignore_patterns] if isinstance(ignore_patterns, str) else ignore_patterns
            if card_was_changed(repo_id, branch, token):
                warnings.warn(card_kept(f"{repo_id}/{CARD_FILE}"), stacklevel=2)
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

    def generate_model_card(self, model_name: str = "model", **metadata: Any) -> ModelCard:
        """The model card, as a huggingface_hub.ModelCard; see `model_card`."""
        return model_card(self.checkpoint, self.evaluations, model_name, **metadata)
