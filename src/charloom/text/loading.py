"""Read, encode and split a training text, with the options of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError
from charloom.progress import OnProgress
from charloom.text.corpora import can_be_read_again
from charloom.text.dataset import Dataset, OwnParts, Split, load_dataset
from charloom.text.format import TextFormat, open_texts
from charloom.text.source import Text
from charloom.text.vocabulary import Vocabulary


def read_dataset(
    text: Text,
    training: Mapping[str, Any],
    *,
    base: Vocabulary | None = None,
    record: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """Read a training text, and the texts of --validation and --test in the same way.

    Args:
        text: the text.
        training: options of TrainingConfig by name, as a checkpoint records them.
        base: a vocabulary whose characters keep their ids.
        record: the entry `text` of a checkpoint, whose SHA-256 the texts must have.
        folder: where the ids of a long text are stored.
        on_progress: called while the texts are read.

    Raises:
        OtherTextError: if a text is not the recorded one.
        CharloomError: if a text is missing or unsuitable.
    """
    record = record or {}
    reading = TextFormat.of_training(training, as_bytes=text.as_bytes, collection=text.ends)
    reading = replace(reading, lines=reading.lines or (text.lines and not reading.cuts))
    own = {}
    for name in ("validation", "test"):
        source = training.get(name)
        if source is not None:
            if record and not can_be_read_again(str(source)):
                raise CharloomError(f"the text of --{name} cannot be read again")
            try:
                own[name] = open_texts([str(source)], reading, on_progress=on_progress)
            except CharloomError as error:
                raise CharloomError(f"--{name}: {error}") from None
    parts = record.get("own") or {}
    return load_dataset(
        text,
        Split.parse(str(training.get("split", Split()))),
        own=OwnParts(
            own.get("validation"),
            own.get("test"),
            {name: str(part.get("sha256")) for name, part in parts.items()},
        ),
        min_count=int(training.get("min_count") or 0),
        base=base,
        sha256=record.get("sha256"),
        folder=folder,
        on_progress=on_progress,
    )
