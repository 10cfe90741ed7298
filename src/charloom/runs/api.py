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
from charloom.runs.opening import open_run
from charloom.runs.run import RunControl
from charloom.text.format import Opener, TextFormat, absolute_source, open_texts
from charloom.text.source import Text
from charloom.training.options import rename_earlier
from charloom.training.state import Progress


def text_opener(
    text: str | Path | Text | Sequence[str | Path | Text], options: dict[str, Any]
) -> Opener:
    """Return a function that opens the text of a call from Python in a format.

    Args:
        text: the text, or several, as for `train`.
        options: options of TrainingConfig, by name. Options that follow from the text are added,
            and paths become strings.
    """
    texts: list[str | Path | Text] = [text] if isinstance(text, (str, Path, Text)) else list(text)
    rename_earlier(options)
    if not texts:
        raise CharloomError("no text to train on: pass at least one")
    if isinstance(texts[0], Text):
        options["bytes"] = texts[0].as_bytes
    for name in ("from_run", "validation", "test"):
        if isinstance(options.get(name), os.PathLike):
            options[name] = os.fspath(options[name])
    for name in ("validation", "test"):
        if isinstance(options.get(name), str) and options[name]:
            options[name] = absolute_source(options[name])

    def opened(text: str | Path | Text, format: TextFormat) -> str | Path | Text:
        if isinstance(text, str) and ("\n" in text or len(text) > 255 or not text):
            if "\0" in text and not (format.as_bytes or format.keep_nulls):
                raise CharloomError(
                    f"the text has a null character at position {text.index(chr(0))}: remove it, "
                    "or pass bytes=True"
                )
            return format.text_of(text)
        return text

    return lambda format: open_texts([opened(one, format) for one in texts], format)


def train(
    text: str | Path | Text | Sequence[str | Path | Text],
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    tensorboard: bool = False,
    **options: Any,
) -> LanguageModel:
    """Train a model and return its best weights.

    Args:
        text: a Path, or a str with the name of a corpus or of a file. A str with a line break, or
            of more than 255 characters, is the text itself. Several texts in a list, or the files
            of a folder, are a document each.
        out: the run's folder; None keeps no files.
        resume: resume the run in `out`, or start it.
        progress: called after every step.
        tensorboard: write event files for TensorBoard into the folder too.
        **options: those of `charloom train`, with underscores: cell, hidden_size, steps, minutes,
            seed, … (see TrainingConfig).

    Raises:
        CharloomError: if the text, the options or the folder are unsuitable.
    """
    started = time.monotonic()
    options = {name: value for name, value in options.items() if value is not None}
    open_source = text_opener(text, options)
    with contextlib.ExitStack() as stack:
        if out is None:
            out = stack.enter_context(tempfile.TemporaryDirectory(prefix="charloom-"))
        run = open_run(
            open_source,
            Path(out),
            options,
            resume=resume,
            tensorboard=tensorboard,
            control=RunControl(started=started),
        )
        for event in run:
            if progress is not None:
                progress(event)
        return run.model()
