"""Train a model from Python: `charloom.train`."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError
from charloom.language_model import LanguageModel
from charloom.runs.opening import open_run
from charloom.runs.run import RunControl
from charloom.text.format import Opener
from charloom.text.source import Text
from charloom.text.sources import PassedTexts, Texts, source_option, texts_to_train_on
from charloom.training.options import rename_earlier
from charloom.training.state import Progress


def text_opener(text: Texts, options: dict[str, Any]) -> Opener:
    """Return a function that opens the text of a call from Python in a format.

    Args:
        text: the text, or several, as for `train`.
        options: options of TrainingConfig, by name. Options that follow from the text are added,
            and paths become strings.
    """
    rename_earlier(options)
    opener = texts_to_train_on(text)
    if isinstance(opener, PassedTexts) and isinstance(opener.texts[0], Text):
        as_bytes = opener.texts[0].as_bytes
        if options.setdefault("bytes", as_bytes) != as_bytes:
            raise CharloomError(
                f"bytes is {options['bytes']}, but the text was opened with as_bytes={as_bytes}: "
                "omit bytes, or open the text in the same way"
            )
    for name in ("validation", "test"):
        if name in options:
            options[name] = source_option(name, options[name])
    if isinstance(options.get("from_run"), os.PathLike):
        options["from_run"] = os.fspath(options["from_run"])
    return opener


def train(
    text: Texts,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    tensorboard: bool = False,
    **options: Any,
) -> LanguageModel:
    """Train a model and return its best weights.

    Args:
        text: the text. A Path is a file or a folder, and a Text is what `open_text` returned. A str
            is the name of a corpus or of a file; with a line break, or with more than 255
            characters, it is the text itself. In a list, every str is a text itself. Several texts,
            and the files of a folder, are a document each.
        out: the run's folder; None keeps no files.
        resume: resume the run in `out`, or start it.
        progress: called after every step.
        tensorboard: write event files for TensorBoard into the folder too.
        **options: those of `charloom train`, with underscores: cell, hidden_size, steps, minutes,
            seed, … (see TrainingConfig). from_run is a run, "english" or "none".

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
            control=RunControl(every_step=progress is not None, started=started),
        )
        for event in run:
            if progress is not None:
                progress(event)
        return run.model()
