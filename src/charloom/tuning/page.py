"""The page of a search."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from charloom.errors import printable
from charloom.pages.page import make_page
from charloom.runs.report import RunStatus
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
        "unit": "byte" if settings.options.get("bytes") else "character",
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
