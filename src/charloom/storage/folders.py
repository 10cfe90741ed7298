"""File names of a run's folder, and its lock."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from filelock import FileLock, Timeout

from charloom.errors import CharloomError, shortened

MODEL_FILE = "model.safetensors"


def model_path(run: str | os.PathLike[str]) -> Path:
    """The model's file, from a run's folder or from the file itself."""
    path = Path(run)
    try:
        found, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise CharloomError(f"{shortened(str(run))} names no run or file ({error})") from None
    if is_folder:
        if not (path / MODEL_FILE).is_file():
            raise CharloomError(
                f"{path} holds no {MODEL_FILE}: give the folder of a run, or a checkpoint file"
            )
        return path / MODEL_FILE
    if not found:
        raise CharloomError(
            f"{path}: there is no such run or file; give the folder that charloom train wrote"
        )
    return path


RESUME_FILE = "resume.safetensors"
METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.txt"
REPORT_FILE = "report.html"
EVALUATIONS_FILE = "evaluations.json"

EVENTS_FOLDER = "tensorboard"
LOCK_FILE = ".lock"


class LockedFolder:
    """A folder that one process at a time writes to: its lock, and what may be in it."""

    doing, holds = "at work", "something"  # in sentences
    atomic: tuple[str, ...] = ()  # names of files that are written whole or not at all
    files: tuple[Path, ...] = ()  # what of its kind a folder may hold

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / LOCK_FILE)
        self._made: list[Path] = []

    def open(self) -> None:
        """Makes the folder and takes its lock. A lock whose owner died counts for nothing: it is
        the system's, and ends with its process.
        """
        try:
            self._made = [path for path in (self.path, *self.path.parents) if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            for path in self._unfinished():
                path.unlink()
        except Timeout:
            raise CharloomError(
                f"another charloom is {self.doing} in {self.path}: wait for it, or give another "
                "--out"
            ) from None
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            self._take_away()
            reason = getattr(error, "strerror", None) or error
            raise CharloomError(
                f"cannot write to the folder {shortened(str(self.path))} ({reason}): give another "
                "--out"
            ) from None

    def close(self) -> None:
        """Gives the lock back. Where no run began, nothing that was made here is left."""
        if not self._lock.is_locked:
            return
        if not any(path.exists() for path in self.files):
            with contextlib.suppress(OSError):
                (self.path / LOCK_FILE).unlink()
        self._lock.release()
        self._take_away()

    def _take_away(self) -> None:
        """Removes what was made here and is empty."""
        for path in self._made:
            with contextlib.suppress(OSError):
                path.rmdir()

    def _unfinished(self) -> list[Path]:
        """What a process leaves that is killed while saving."""
        found = [self.path.glob(f".{name}.*.tmp") for name in self.atomic]
        return [path for paths in found for path in paths if path.is_file()]

    def refuse_if_used(self, resume: bool) -> None:
        """Raises CharloomError where the folder holds something else, or what is not to go on."""
        try:
            found = sorted(self.path.iterdir()) if self.path.is_dir() else []
        except OSError as error:
            raise CharloomError(
                f"cannot look into {self.path} ({error.strerror or error}): give another --out"
            ) from None
        # A report alone says nothing: runs have one, and searches.
        if any(path in self.files and path.name != REPORT_FILE for path in found):
            if resume:
                return
            raise CharloomError(
                f"{self.path} already holds {self.holds}: add --resume to go on with it, or give "
                "another --out"
            )
        for path in found:
            if path.name != LOCK_FILE and path not in self._unfinished():
                raise CharloomError(
                    f"{self.path} is not empty ({path.name} is in it): give a new folder with --out"
                )


class RunFolder(LockedFolder):
    """Where a run's files are, and the lock on them."""

    doing, holds = "training", "a run"
    atomic = (MODEL_FILE, RESUME_FILE, REPORT_FILE, EVALUATIONS_FILE)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.model = path / MODEL_FILE
        self.resume = path / RESUME_FILE
        self.metrics = path / METRICS_FILE
        self.samples = path / SAMPLES_FILE
        self.report = path / REPORT_FILE
        self.evaluations = path / EVALUATIONS_FILE
        self.events = path / EVENTS_FOLDER
        texts = self.metrics, self.samples, self.report, self.evaluations
        self.files = self.model, self.resume, *texts, self.events
