"""Names of a run's files, and the lock on its folder."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from charloom.errors import CharloomError, error_reason, shortened

MODEL_FILE = "model.safetensors"
RESUME_FILE = "resume.safetensors"
METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.txt"
REPORT_FILE = "report.html"
EVALUATIONS_FILE = "evaluations.json"
DRAWN_FILE = "drawn.json"  # samples of the finished model
EVENTS_FOLDER = "tensorboard"
LOCK_FILE = ".lock"


def model_path(run: str | os.PathLike[str]) -> Path:
    """Return the path of a model's file; a run's folder stands for its model."""
    if not isinstance(run, str | os.PathLike):
        raise CharloomError(f"the run is {shortened(run)}: pass its folder or a checkpoint file")
    path = Path(run)
    try:
        found, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise CharloomError(f"{shortened(str(run))} is not a valid path ({error})") from None
    if is_folder:
        if not (path / MODEL_FILE).is_file():
            raise CharloomError(
                f"{path} holds no {MODEL_FILE}: pass a run's folder or a checkpoint file"
            )
        return path / MODEL_FILE
    if not found:
        raise CharloomError(
            f"{path} does not exist: pass a folder that charloom train wrote, or a checkpoint file"
        )
    return path


def free_folder(folder: Path) -> Path:
    """Return a path that does not exist: the folder's, or with -2, -3 and so on at its end."""
    number, candidate = 1, folder
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


class LockedFolder:
    """A folder with a lock: one process at a time writes its files."""

    doing, holds = "at work", "something"  # for messages
    atomic: tuple[str, ...] = ()  # names of files that are written atomically
    files: tuple[Path, ...] = ()  # the files of a folder of this kind

    def __init__(self, path: Path) -> None:
        self.path = path
        from filelock import FileLock  # not needed to load a model

        self._lock = FileLock(path / LOCK_FILE)
        self._created: list[Path] = []

    def open(self) -> None:
        """Create the folder and acquire its lock, which the system releases if its owner dies."""
        from filelock import Timeout

        try:
            self._created = [path for path in (self.path, *self.path.parents) if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            for path in self._unfinished():
                path.unlink()
        except Timeout:
            raise CharloomError(
                f"another charloom is {self.doing} in {self.path}: wait for it, or use another "
                "--out"
            ) from None
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            self._remove_created()
            reason = getattr(error, "strerror", None) or error
            raise CharloomError(
                f"cannot write to the folder {shortened(str(self.path))} ({reason}): use another "
                "--out"
            ) from None

    def close(self) -> None:
        """Release the lock. If no run began, remove everything that was created here."""
        if not self._lock.is_locked:
            return
        if not any(path.exists() for path in self.files):
            with contextlib.suppress(OSError):
                (self.path / LOCK_FILE).unlink()
        self._lock.release()
        self._remove_created()

    def _remove_created(self) -> None:
        """Remove the folders that were created here and are empty."""
        for path in self._created:
            with contextlib.suppress(OSError):
                path.rmdir()

    def _unfinished(self) -> list[Path]:
        """Return the temporary files of processes that were killed while saving."""
        found = [self.path.glob(f".{name}.*.tmp") for name in self.atomic]
        return [path for paths in found for path in paths if path.is_file()]

    def refuse_if_used(self, resume: bool) -> None:
        """Raise CharloomError if the folder holds other files, or files that need `resume`."""
        try:
            found = sorted(self.path.iterdir()) if self.path.is_dir() else []
        except OSError as error:
            raise CharloomError(
                f"cannot read the folder {self.path} ({error_reason(error)}): use another --out"
            ) from None
        # A report alone does not count, because both runs and searches have one.
        if any(path in self.files and path.name != REPORT_FILE for path in found):
            if resume:
                return
            raise CharloomError(
                f"{self.path} already holds {self.holds}: add --resume to continue it, or use "
                "another --out"
            )
        for path in found:
            if path.name != LOCK_FILE and path not in self._unfinished():
                raise CharloomError(
                    f"{self.path} is not empty ({path.name} is in it): use a new folder for --out"
                )


class RunFolder(LockedFolder):
    """The folder of a run: the paths of its files, and its lock."""

    doing, holds = "training", "a run"
    atomic = (MODEL_FILE, RESUME_FILE, REPORT_FILE, EVALUATIONS_FILE, DRAWN_FILE)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.model = path / MODEL_FILE
        self.resume = path / RESUME_FILE
        self.metrics = path / METRICS_FILE
        self.samples = path / SAMPLES_FILE
        self.report = path / REPORT_FILE
        self.evaluations = path / EVALUATIONS_FILE
        self.drawn = path / DRAWN_FILE
        self.events = path / EVENTS_FOLDER
        texts = self.metrics, self.samples, self.report, self.evaluations, self.drawn
        self.files = self.model, self.resume, *texts, self.events
