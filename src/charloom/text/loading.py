"""Read, encode and split a training text, with the options of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError
from charloom.progress import OnProgress
from charloom.text.corpora import CORPORA, can_be_read_again
from charloom.text.dataset import Dataset, OtherTextError, OwnParts, Split, load_dataset
from charloom.text.format import TextFormat, open_texts
from charloom.text.growth import refuse_grown_text
from charloom.text.source import Text, shown_origin
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
        GrownTextError: if the text begins with the recorded one.
        OtherTextError: if a text is not the recorded one.
        CharloomError: if a text is missing or unsuitable.
    """
    record = record or {}
    reading = TextFormat.of_training(training, as_bytes=text.as_bytes, collection=text.ends)
    reading = replace(reading, lines=reading.lines or (text.lines and not reading.cuts))
    own, parts = {}, record.get("own")
    for name in ("validation", "test"):
        source = training.get(name)
        if source is not None:
            if record and not can_be_read_again(str(source)):
                raise CharloomError(f"the text of --{name} cannot be read again")
            found = _found_again(name, str(source), text) if record else str(source)
            try:
                own[name] = open_texts([found], reading, on_progress=on_progress)
            except CharloomError as error:
                raise CharloomError(f"--{name}: {error}") from None
    min_count = training.get("min_count")
    try:
        return load_dataset(
            text,
            Split.parse(str(training.get("split", Split()))),
            own=OwnParts(
                own.get("validation"),
                own.get("test"),
                _expected(parts) if isinstance(parts, Mapping) else {},
            ),
            min_count=min_count if isinstance(min_count, int) and min_count > 0 else 0,
            base=base,
            sha256=record.get("sha256"),
            folder=folder,
            on_progress=on_progress,
        )
    except OtherTextError:
        refuse_grown_text(text, record)
        raise


def _found_again(name: str, source: str, text: Text) -> str:
    """Return a recorded source; if its file is missing, the one of that name beside the text."""
    if source in CORPORA or Path(source).exists():
        return source
    moved = Path(text.origin).parent / Path(source).name
    if text.origin in ("", "-", *CORPORA) or not moved.is_file():
        raise CharloomError(
            f"the text of --{name} was not found at {shown_origin(source)}: put it beside the "
            f"training text, or pass its new path with `charloom train … --resume --{name} PATH`"
        )
    return str(moved)


def _expected(parts: Mapping[str, Any]) -> dict[str, str]:
    """Return the recorded SHA-256 of texts that are splits."""
    return {
        name: str(part.get("sha256")) for name, part in parts.items() if isinstance(part, Mapping)
    }
