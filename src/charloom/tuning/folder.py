"""A search's folder: study, best run and best options."""

from __future__ import annotations

from pathlib import Path

from charloom.storage.folders import REPORT_FILE, LockedFolder

STUDY_FILE = "study.db"
OPTIONS_FILE = "best.toml"
BEST, BEFORE, TRIALS = "best", "best.old", "trials"


class SearchFolder(LockedFolder):
    """Where a search's files are, and the lock on them."""

    doing, holds = "searching", "a search"
    atomic = (REPORT_FILE, OPTIONS_FILE)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.study = path / STUDY_FILE
        self.options = path / OPTIONS_FILE
        self.report = path / REPORT_FILE
        self.best, self.before, self.trials = path / BEST, path / BEFORE, path / TRIALS
        # The storage comes before all else that a search writes.
        self.files = (self.study,)

    def trial(self, number: int) -> Path:
        return self.trials / f"{number:04d}"
