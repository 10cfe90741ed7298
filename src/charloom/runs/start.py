"""The start of a run: new, resumed, or fine-tuned from another run's model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from charloom.base_model.carried import load_base
from charloom.base_model.choices import ENGLISH, NOTHING, base_of
from charloom.errors import CharloomError, shortened
from charloom.runs.resuming import (
    continued_config,
    recorded_options,
    resume_position,
    with_shape_of,
)
from charloom.storage.checkpoint import Checkpoint, load_checkpoint
from charloom.storage.folders import RESUME_FILE, RunFolder
from charloom.text.format import TextFormat
from charloom.training.options import OPTIONS, TrainingConfig
from charloom.training.state import TrainingState

DOCUMENT_OPTIONS = ("lines", "separator", "column")


@dataclass(frozen=True)
class Start:
    """A run before its text is read.

    Attributes:
        config: the options; some can still be open (see `charloom.training.planner`).
        fixed: the options that no plan changes, by name.
        state: the state between two steps.
        earlier: the checkpoint of a resumed run.
        base: the checkpoint of the model that is fine-tuned.
        position: the position of a resumed run, as its checkpoint holds it.
    """

    config: TrainingConfig
    fixed: dict[str, Any]
    state: TrainingState = field(default_factory=TrainingState)
    earlier: Checkpoint | None = None
    base: Checkpoint | None = None
    position: Mapping[str, Any] = field(default_factory=dict)

    def text_format(self) -> TextFormat:
        """Return how the run's texts are read.

        A resumed run reads them as before. A text that a model of documents is trained on further
        consists of documents too.
        """
        collection = None
        if self.earlier is not None:
            collection = self.earlier.vocabulary.end_id is not None
        elif self.base is not None and self.base.vocabulary.end_id is not None:
            collection = True
        return TextFormat.of_training(
            self.training, as_bytes=self.config.bytes, collection=collection
        )

    @property
    def training(self) -> Mapping[str, Any]:
        """The options by name; those of a resumed run as its checkpoint records them."""
        if self.earlier is None:
            return asdict(self.config)
        return recorded_options(self.earlier, self.config)

    @property
    def earlier_record(self) -> dict[str, Any]:
        """The options of a resumed run that only earlier versions have."""
        return {name: value for name, value in self.training.items() if name not in OPTIONS}

    @property
    def descends_from(self) -> str | None:
        """The name of the carried model that the run descends from; None without one."""
        if self.config.from_run == ENGLISH:
            return ENGLISH
        before = self.earlier or self.base
        return None if before is None else base_of(before.text)

    def notes(self) -> tuple[str, ...]:
        """Return sentences for the user on how a run that is fine-tuned reads its text."""
        notes = []
        if inherited := self._inherited_documents():
            notes.append(f"documents are read as for the model of --from: {inherited}")
        if (
            self.base is not None
            and self.config.keep_newlines
            and "keep_newlines" not in self.fixed
        ):
            notes.append("line ends are kept, as for the model of --from")
        return tuple(notes)

    def _inherited_documents(self) -> str:
        """Return how documents are cut if only the model of --from decides it, else nothing."""
        config = self.config
        if self.base is None or any(name in self.fixed for name in DOCUMENT_OPTIONS):
            return ""
        if config.lines:
            return "each line is one"
        if config.separator is not None:
            return f"{shortened(config.separator)} separates them"
        return "" if config.column is None else f"they are the column {shortened(config.column)}"


def fresh(options: dict[str, Any]) -> Start:
    """Return the start of a new run."""
    return Start(TrainingConfig.of(options), options)


def fine_tuned(base: Checkpoint, options: dict[str, Any]) -> Start:
    """Return the start of a run that trains another run's model further."""
    config = with_shape_of(base.config, TrainingConfig.of(options), options)
    if base.vocabulary.end_id is not None and not any(n in options for n in DOCUMENT_OPTIONS):
        cuts = TextFormat.of_training(base.training, as_bytes=config.bytes, collection=True)
        config = replace(config, **{name: getattr(cuts, name) for name in DOCUMENT_OPTIONS})
    before = TextFormat.of_training(base.training, as_bytes=config.bytes, collection=None)
    if (
        "keep_newlines" not in options
        and not config.bytes
        and before.for_model(base.vocabulary).keep_newlines
    ):
        config = replace(config, keep_newlines=True)
    kept = ("cell", "hidden_size", "layers", "norm", "read_counts")
    shape = {name: getattr(config, name) for name in kept}
    if config.read_counts:
        shape["counts"] = config.counts
    return Start(config, options | shape, base=base)


def resumed(folder: RunFolder, options: dict[str, Any]) -> Start:
    """Return the start of a run that resumes from its last checkpoint."""
    earlier = load_checkpoint(folder.resume)
    stored, state, position = resume_position(folder.resume, earlier)
    config = continued_config(stored, options)
    return Start(config, options, state, earlier=earlier, position=position)


def start_of(folder: RunFolder, options: dict[str, Any], *, resume: bool) -> Start:
    """Return the start of the run in a folder, which this process has locked.

    Args:
        folder: the run's folder.
        options: options of TrainingConfig, by name.
        resume: resume if the folder holds a checkpoint.

    Raises:
        CharloomError: if the options are invalid, or the folder holds another run.
    """
    if resume and folder.resume.exists():
        return resumed(folder, options)
    folder.refuse_if_used(resume)  # again, now that no other process can write to it
    if folder.model.exists():
        raise CharloomError(
            f"{folder.path} holds a model but no {RESUME_FILE} to resume from: use --from "
            f"{folder.path} with a different --out to train it further"
        )
    config = TrainingConfig.of(options)
    if config.from_run not in (None, NOTHING):
        return fine_tuned(load_base(config.from_run), options)
    return fresh(options)
