"""The folder of a search: study, best run and best options.

It holds

    best/          the best run so far, an ordinary run's folder with its n-gram model
    best.toml      its options, for `charloom train --config`
    report.html    a page with all trials, updated during the search
    study.db       Optuna's storage: every trial's options, curve and result
    trials/        the run that is training; runs that ended are removed, except the best
    .lock          held during the search
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

from charloom.errors import CharloomError, error_reason, printable
from charloom.runs.report import RunStatus, refresh_report
from charloom.storage.atomic import sync_folder, write_atomically
from charloom.storage.checkpoint import read_header
from charloom.storage.folders import REPORT_FILE, RESUME_FILE, LockedFolder, RunFolder
from charloom.tuning.settings import Settings, Trial, best_trial, settings_key, to_toml

STUDY_FILE = "study.db"
OPTIONS_FILE = "best.toml"
BEST, BEFORE, TRIALS = "best", "best.old", "trials"


class SearchFolder(LockedFolder):
    """The files of a search, locked from `with` to its end."""

    doing, holds = "searching", "a search"
    atomic = (REPORT_FILE, OPTIONS_FILE)

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        """Name the files.

        Args:
            path: the folder, which is created if needed.
            resume: whether it can hold a search already.
        """
        super().__init__(path)
        self.study_file = path / STUDY_FILE
        self.options_file = path / OPTIONS_FILE
        self.report = path / REPORT_FILE
        self.best, self.before, self.trials = path / BEST, path / BEFORE, path / TRIALS
        # The study is the first file that a search writes.
        self.files = (self.study_file,)
        self._resume = resume

    def __enter__(self) -> SearchFolder:
        self.refuse_if_used(resume=True)
        self.open()
        try:
            # Check again, because another process can have written to it before the lock was taken.
            self.refuse_if_used(self._resume)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def trial_run(self, number: int) -> Path:
        """Return the folder of a trial's run, as long as it trains."""
        return self.trials / f"{number:04d}"

    def best_run(self, best: Trial | None) -> Path:
        """Return the folder of the best run."""
        if best is not None and self.trial_run(best.number).exists():
            return self.trial_run(best.number)  # because best/ is in use
        return self.best

    def keep_best(self, settings: Settings, trials: Sequence[Trial]) -> list[str]:
        """Move the best run to best/, and remove all others that ended.

        If the process is killed at any moment, the next call completes the work.

        Returns:
            Notes for the user.
        """
        best, notes = best_trial(trials), []
        try:
            if best is not None:
                if self.trial_run(best.number).exists():
                    notes = self._move_to_best(self.trial_run(best.number), settings.trial_seconds)
                elif self.before.exists() and not self.best.exists():
                    self.before.rename(self.best)
                self._write_options(settings, best)
            shutil.rmtree(self.before, ignore_errors=True)
            for trial in trials:
                if trial.state != "running" and trial is not best:
                    shutil.rmtree(self.trial_run(trial.number), ignore_errors=True)
            with contextlib.suppress(OSError):
                self.trials.rmdir()
        except OSError as error:
            raise CharloomError(
                f"cannot write to {self.path} ({error_reason(error)}), but all results are in "
                f"{self.study_file.name}: free space or change the permissions, then use --resume"
            ) from None
        return notes

    def _move_to_best(self, run: Path, trial_seconds: float) -> list[str]:
        """Move a run with two renames, so that a kill between them leaves the earlier one whole."""
        notes = []
        if self.best.exists():
            in_place = RunFolder(self.best)
            try:
                in_place.open()
            except CharloomError:
                return [f"{self.best} is in use, so the best run stays in {run} for now"]
            in_place.close()
            if _was_trained_further(self.best, trial_seconds):
                aside = next(
                    path
                    for number in itertools.count(1)
                    if not (path := self.path / f"{BEST}-{number}").exists()
                )
                self.best.rename(aside)
                notes.append(f"{self.best} was trained further, so it was renamed to {aside}")
            else:
                shutil.rmtree(self.before, ignore_errors=True)
                self.best.rename(self.before)
        run.rename(self.best)
        sync_folder(self.path)
        with contextlib.suppress(CharloomError):  # because a page without an update ends nothing
            refresh_report(self.best, RunStatus("finished", 1.0))
        return notes

    def _write_options(self, settings: Settings, best: Trial) -> None:
        name, minutes = printable(settings.text["name"]), settings.trial_seconds / 60
        lines = [
            f"# The best options that charloom tune found for {name}, in trials of {minutes:.3g}",
            f"# minutes: {best.loss:.4f} nats per character.",
            *(
                f"{settings_key(option)} = {to_toml(value)}"
                for option, value in settings.options_with(best).items()
            ),
        ]
        content = "".join(line + "\n" for line in lines).encode(errors="backslashreplace")
        path = self.options_file
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)


def _was_trained_further(run: Path, trial_seconds: float) -> bool:
    """Return whether a run has another time budget than its search gave it."""
    header = read_header(run / RESUME_FILE) or {}
    ends = header.get("position", {}).get("ends")
    return not isinstance(ends, dict) or ends.get("minutes") != trial_seconds / 60
