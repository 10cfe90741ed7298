"""The page of a search."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from charloom.errors import CharloomError, printable
from charloom.pages.page import make_page, write_page
from charloom.runs.report import REST, RunStatus
from charloom.tuning.settings import Settings, Trial, best_trial, settings_key


def make_search_page(
    settings: Settings,
    trials: Sequence[Trial],
    status: RunStatus,
    importances: Mapping[str, float] | None,
) -> str:
    """Return the page of a search.

    Args:
        settings: the settings of the search.
        trials: its trials.
        status: its status: `searching`, `finished` or `interrupted`.
        importances: of the searched options, with a sum of 1.
    """
    best, now = best_trial(trials), time.time()
    data = {
        "name": printable(settings.text["name"]),
        "standing": {"state": status.state, "done": status.done},
        "written": round(now),
        "written_at": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)),
        "minutes": settings.minutes,
        "trial_seconds": settings.trial_seconds,
        "trials": [asdict(trial) for trial in trials],
        "best": None if best is None else best.number,
        "searched": [
            {"name": name, "option": settings_key(name), **range_}
            for name, range_ in settings.ranges.items()
        ],
        "given": {settings_key(name): str(value) for name, value in settings.options.items()},
        "importances": importances,
        "command": None if best is None else shlex.join(settings.command(best, ["TEXT"])),
    }
    return make_page(f"{settings.text['name']}: search", ["charts.js", "tune.js"], data, {})


class LivePage:
    """The page of a running search, updated so rarely that it takes at most 2% of the time."""

    def __init__(self, path: Path, notify: Callable[[str], None]) -> None:
        """Prepare the page.

        Args:
            path: the page's file.
            notify: called with a sentence if the page cannot be written.
        """
        self._path = path
        self._notify = notify
        self._updated_at = -math.inf
        self._seconds = 0.0  # that the last update took

    def update(self, make: Callable[[], str], *, now: bool = False) -> None:
        """Write the page, unless the last update is too recent.

        Args:
            make: makes the page.
            now: write the page in any case.
        """
        before = time.monotonic()
        if not now and before - self._updated_at < REST * self._seconds:
            return
        try:
            write_page(self._path, make(), "the search continues")
        except (CharloomError, OSError) as error:
            self._notify(str(error))
        self._updated_at = time.monotonic()
        self._seconds = self._updated_at - before
