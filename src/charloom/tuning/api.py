"""Search for options from Python: `charloom.tune`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charloom.runs.api import text_opener
from charloom.runs.run import RunControl
from charloom.text.sources import Texts
from charloom.tuning.opening import open_search
from charloom.tuning.search import Search, SearchProgress


def tune(
    text: Texts,
    *,
    out: str | os.PathLike[str],
    minutes: float | None = None,
    trial_minutes: float | None = None,
    resume: bool = False,
    progress: Callable[[SearchProgress], None] | None = None,
    **options: Any,
) -> Search:
    """Search for the options that suit a text best.

    Args:
        text: as for `charloom.train`.
        out: the search's folder.
        minutes: the time of the whole search, by default 30 minutes.
        trial_minutes: the time of a trial, by default a twentieth of the search's.
        resume: resume the search in `out`, or start it.
        progress: called after every step of a trial's training, and at its end.
        **options: those of `charloom.train`. Options that are set are not searched.

    Returns:
        The search. Its `best` is the best trial, `best_options` are the options of that trial for
        `charloom.train`, and `model()` returns its model.

    Raises:
        CharloomError: if the text, the options or the folder are unsuitable, or Optuna is not
            installed.
    """
    started = time.monotonic()
    options = {name: value for name, value in options.items() if value is not None}
    if minutes is not None:
        options["minutes"] = minutes
    opening = open_search(
        text_opener(text, options),
        Path(out),
        options,
        trial_minutes=trial_minutes,
        resume=resume,
        control=RunControl(started=started),
    )
    with opening as search, contextlib.closing(iter(search)) as events:
        for event in events:
            if progress is not None:
                progress(event)
    return search
