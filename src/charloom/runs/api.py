"""Train a model from Python: `charloom.train`."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError
from charloom.language_model import LanguageModel
from charloom.runs.run import TrainingRun
from charloom.text.corpora import open_text
from charloom.text.source import Text, join_texts, text_from_string
from charloom.training.options import TrainingConfig
from charloom.training.state import Progress


def text_opener(
    text: str | Path | Text | Sequence[str | Path | Text], given: dict[str, Any]
) -> Callable[[TrainingConfig], Text]:
    """What opens the text of a call from Python, as `train` takes it, for a configuration. What the
    text and the types of Python say of the options is put into `given`."""
    texts = [text] if isinstance(text, (str, Path, Text)) else list(text)
    if not texts:
        raise CharloomError("there is no text to train on: give at least one")
    if isinstance(texts[0], Text):
        given["bytes"] = texts[0].as_bytes
    if isinstance(given.get("from_run"), os.PathLike):
        given["from_run"] = os.fspath(given["from_run"])

    def open_one(text: str | Path | Text, config: TrainingConfig) -> Text:
        if isinstance(text, Text):
            return text
        newlines, as_bytes = config.normalize_newlines, config.bytes
        if isinstance(text, str) and ("\n" in text or len(text) > 255 or not text):
            return text_from_string(text, normalize_newlines=newlines, as_bytes=as_bytes)
        return open_text(text, raw=config.raw, normalize_newlines=newlines, as_bytes=as_bytes)

    def open_source(config: TrainingConfig) -> Text:
        return join_texts([open_one(one, config) for one in texts])

    return open_source


def train(
    text: str | Path | Text | Sequence[str | Path | Text],
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    tensorboard: bool = False,
    **options: Any,
) -> LanguageModel:
    """Trains a model and returns its best weights.

    text: a Path, or a str: the name of a corpus or of a file; a str with a line break, or of more
    than 255 characters, is the text itself; several in a list are joined, in that order.
    out: the run's folder; None keeps no files. options:
    those of `charloom train`, with underscores: cell, hidden_size, steps, minutes, seed, … (see
    TrainingConfig). progress: called after every step. tensorboard: write event files for
    TensorBoard into the folder too.
    Raises CharloomError for whatever is wrong with text, options or folder.
    """
    started = time.monotonic()
    given = {name: value for name, value in options.items() if value is not None}
    open_source = text_opener(text, given)
    with contextlib.ExitStack() as stack:
        if out is None:
            out = stack.enter_context(tempfile.TemporaryDirectory(prefix="charloom-"))
        run = TrainingRun(
            open_source,
            Path(out),
            given,
            resume=resume,
            started=started,
            tensorboard=tensorboard,
        )
        for event in run:
            if progress is not None:
                progress(event)
        return run.model()
