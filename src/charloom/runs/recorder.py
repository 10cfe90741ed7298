"""Record a run as it trains: metrics, samples and TensorBoard events.

A `Recorder` turns Progress into records and writes each of them to every sink. Before a checkpoint
is saved, it makes all sinks durable; the checkpoint holds their positions. A run that resumes cuts
its files to these positions, and then writes the same bytes again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from charloom.errors import CharloomError, error_reason
from charloom.runs.clock import Clock
from charloom.runs.tensorboard import EventFile
from charloom.storage.folders import RunFolder
from charloom.training.samples import sample_heading
from charloom.training.state import Progress, TrainingState

Line = Mapping[
    str, Any
]  # an object of metrics.jsonl; values that depend on a clock are in `timing`


@dataclass(frozen=True)
class Record:
    """A line of metrics, and the sample of a validation."""

    line: Line
    sample: str | None = None


class Sink(Protocol):
    """A file, or several, that records are written to. All methods can raise OSError."""

    def write(self, record: Record) -> None:
        """Append a record."""
        ...

    def sync(self) -> None:
        """Make all records durable."""
        ...

    def position(self) -> dict[str, int]:
        """Return the length of the file, under the name that a checkpoint has for it."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class MetricsFile:
    """metrics.jsonl: one JSON object for each record. The lines after the first n are cut off."""

    def __init__(self, path: Path, lines: int) -> None:
        self._path = path
        self._lines = lines
        with path.open("a+b") as file:
            file.seek(0)
            for _ in range(lines):
                file.readline()
            file.truncate(file.tell())

    def write(self, record: Record) -> None:
        _append(self._path, json.dumps(record.line, allow_nan=False) + "\n")
        self._lines += 1

    def sync(self) -> None:
        _sync(self._path)

    def position(self) -> dict[str, int]:
        return {"metrics_lines": self._lines}

    def last(self) -> Line:
        """Return the last line; an empty object in an empty file."""
        lines = self._path.read_text("utf-8").splitlines()
        last: Line = json.loads(lines[-1]) if lines else {}
        return last

    def close(self) -> None:
        """Do nothing, because every write closes the file."""


class SamplesFile:
    """samples.txt: the sample of each validation. The bytes after the first n are cut off."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        with path.open("a+b") as file:
            # A file that the user has emptied must not be filled up with zeros.
            self._size = min(size, file.tell())
            file.truncate(self._size)

    def write(self, record: Record) -> None:
        if record.sample is None:
            return
        validation = record.line["validation"]
        nats = None if validation is None else validation["nats_per_character"]
        heading = sample_heading(record.line["step"], nats)
        self._size += _append(self._path, f"{heading}\n{record.sample}\n\n")

    def sync(self) -> None:
        _sync(self._path)

    def position(self) -> dict[str, int]:
        return {"samples_bytes": self._size}

    def close(self) -> None:
        """Do nothing, because every write closes the file."""


class EventSink:
    """TensorBoard's event files."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._file = EventFile(folder, first_step)

    def write(self, record: Record) -> None:
        self._file.add(record.line["step"], metrics_of(record.line), record.sample)

    def sync(self) -> None:
        self._file.flush()

    def position(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self._file.close()


class Recorder:
    """Write the progress of a run to its sinks.

    Args:
        files: the run's folder.
        position: the position of a resumed run, else an empty mapping.
        clock: the run's clock.

    Raises:
        CharloomError: if a file cannot be written.
    """

    def __init__(self, files: RunFolder, position: Mapping[str, Any], clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._speed = SpeedMeter()
        with explained(files.path):
            self._metrics = MetricsFile(files.metrics, int(position.get("metrics_lines", 0)))
            samples = SamplesFile(files.samples, int(position.get("samples_bytes", 0)))
        self._sinks: list[Sink] = [self._metrics, samples]

    def start(self, step: int, baselines: Mapping[str, Any]) -> None:
        """Record everything that does not change during a run."""
        self._write(
            Record(
                {
                    "event": "start",
                    "step": step,
                    "baselines": baselines,
                    "timing": {"elapsed_seconds": round(self._clock.elapsed(), 3)},
                }
            )
        )

    def add_events(self, state: TrainingState) -> None:
        """Record for TensorBoard too, in a new event file.

        TensorBoard drops the events of an earlier file for the steps that the run repeats. So the
        report of the current step is written again if its validation is still to come.
        """
        step = state.step
        validated = state.validated_step == step
        with explained(self._files.path):
            events = EventSink(self._files.events, step + validated)
            self._sinks.append(events)
            last = self._metrics.last()
            if not validated and last.get("event") == "report" and last["step"] == step:
                events.write(Record(last))

    def record(self, progress: Progress) -> None:
        """Record a report or a validation; other kinds of progress are not recorded."""
        if progress.kind not in ("report", "validation"):
            return
        line: dict[str, Any] = {
            "event": progress.kind,
            "step": progress.step,
            "epoch": progress.epoch,
            "loss": progress.loss,
            "smoothed_loss": progress.smoothed_loss,
            "learning_rate": progress.learning_rate,
            "gradient_norm": progress.gradient_norm,
        }
        if progress.kind == "validation":
            validation = progress.validation
            line["validation"] = None if validation is None else asdict(validation)
            line["best"] = progress.best
        line["timing"] = {
            "elapsed_seconds": round(progress.elapsed, 3),
            "characters_per_second": self._speed(progress),
        }
        self._write(Record(line, progress.sample))

    def _write(self, record: Record) -> None:
        with explained(self._files.path):
            for sink in self._sinks:
                sink.write(record)

    def sync(self) -> dict[str, int]:
        """Make all records durable and return the positions, which a checkpoint holds."""
        position: dict[str, int] = {}
        with explained(self._files.path):
            for sink in self._sinks:
                sink.sync()
                position |= sink.position()
        return position

    def close(self) -> None:
        """Close the sinks. A full disk was reported before, by the last `sync`."""
        for sink in self._sinks:
            with contextlib.suppress(OSError):
                sink.close()


class SpeedMeter:
    """Characters per second since the last call."""

    def __init__(self) -> None:
        self._before: tuple[int, float] | None = None

    def __call__(self, progress: Progress) -> float | None:
        """Return the speed; None at the first call."""
        now = (progress.characters, progress.elapsed)
        before, self._before = self._before, now
        if before is None or now[1] <= before[1]:
            return None
        return round((now[0] - before[0]) / (now[1] - before[1]), 1)


def metrics_of(line: Line) -> dict[str, float | None]:
    """Return the metrics that TensorBoard shows of a line of metrics.jsonl, by name."""
    if line["event"] == "start":
        return {}
    if line["event"] == "validation":
        validation = line["validation"]
        return {"loss/validation": validation and validation["nats_per_character"]}
    return {
        "loss/training": line["loss"],
        "loss/smoothed": line["smoothed_loss"],
        "learning_rate": line["learning_rate"],
        "gradient_norm": line["gradient_norm"],
        "characters_per_second": line["timing"]["characters_per_second"],
    }


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn an OSError into a CharloomError that explains how to resume."""
    try:
        yield
    except OSError as error:
        raise CharloomError(
            f"cannot write to {folder} ({error_reason(error)}): the last checkpoint there "
            "is intact; free some space or set permissions, then resume with --resume"
        ) from None


def _append(path: Path, text: str) -> int:
    data = text.encode("utf-8")
    with path.open("ab") as file:
        file.write(data)
    return len(data)


def _sync(path: Path) -> None:
    with path.open("ab") as file:
        os.fsync(file.fileno())
