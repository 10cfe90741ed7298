"""A search's page."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from charloom.errors import printable
from charloom.pages.page import make_page
from charloom.runs.report import RunStatus
from charloom.tuning.settings import Settings, Trial, settings_key


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    complete = [t for t in trials if t.state == "complete" and t.loss is not None]
    return min(complete, key=lambda t: (t.loss, t.number), default=None)


def make_search_page(
    settings: Settings,
    trials: Sequence[Trial],
    status: RunStatus,
    importances: Mapping[str, float] | None,
) -> str:
    """The page of a search: its trials and its status (`searching`, `finished` or
    `interrupted`). importances: of the options that were searched, in parts of one."""
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
            {"name": name, "option": settings_key(name), **found}
            for name, found in settings.ranges.items()
        ],
        "given": {settings_key(name): str(value) for name, value in settings.given.items()},
        "importances": importances,
        "command": None if best is None else shlex.join(settings.command(best, ["TEXT"])),
    }
    return make_page(f"{settings.text['name']}: search", ["charts.js", "tune.js"], data, {})
