"""The history of a run, read from its folder: metrics by step, validations and samples.

Incomplete lines, as a killed process leaves them, are skipped, and so are lines of unknown kinds.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from charloom.errors import CharloomError, printable
from charloom.storage.folders import METRICS_FILE, RESUME_FILE, SAMPLES_FILE
from charloom.training.samples import SAMPLE_LENGTH, sample_heading

# The columns of a history whose names differ from those in metrics.jsonl.
METRIC_NAMES = {
    "loss": "loss",
    "smoothed": "smoothed_loss",
    "rate": "learning_rate",
    "norm": "gradient_norm",
}

CONTROLS = frozenset(map(chr, range(0x80, 0xA0)))  # which no text has, but UTF-8 has such bytes

Number = int | float | None
Columns = dict[str, list[Number]]


def _columns(*names: str) -> Columns:
    return {name: [] for name in names}


@dataclass
class History:
    """The lines of metrics.jsonl as columns; a missing or invalid number is None."""

    reports: Columns = field(
        default_factory=lambda: _columns("step", "epoch", "seconds", "speed", *METRIC_NAMES)
    )
    validations: Columns = field(
        default_factory=lambda: _columns("step", "epoch", "seconds", "nats", "characters", "best")
    )
    baselines: list[dict[str, Any]] = field(default_factory=list)
    sample_headings: list[str] = field(default_factory=list)  # in samples.txt, by validation
    last_step: Number = None

    def add(self, line: dict[str, Any]) -> None:
        """Add one line of metrics.jsonl."""
        event, step = line.get("event"), _number(line.get("step"))
        if event == "start":
            self.baselines = _baseline_rows(line.get("baselines"))
        if event not in ("report", "validation") or step is None:
            return
        self.last_step = step
        timing = _object(line.get("timing"))
        columns = self.reports if event == "report" else self.validations
        columns["step"].append(step)
        columns["epoch"].append(_number(line.get("epoch")))
        columns["seconds"].append(_number(timing.get("elapsed_seconds")))
        if event == "report":
            columns["speed"].append(_number(timing.get("characters_per_second")))
            for column, name in METRIC_NAMES.items():
                columns[column].append(_number(line.get(name)))
        else:
            validation = _object(line.get("validation"))
            nats = _number(validation.get("nats_per_character"))
            columns["nats"].append(nats)
            columns["characters"].append(_number(validation.get("characters")))
            columns["best"].append(int(line.get("best") is True))
            self.sample_headings.append(sample_heading(step, nats))


def read_history(folder: Path) -> History:
    """Read the metrics of a run.

    Raises:
        CharloomError: if the folder is not that of a run, or its metrics cannot be read.
    """
    history = History()
    for text in _read_metrics(folder).split(b"\n"):
        history.add(_parsed(text))
    return history


def _read_metrics(folder: Path) -> bytes:
    shown = printable(str(folder))
    try:
        return (folder / METRICS_FILE).read_bytes()
    except FileNotFoundError:
        if not folder.is_dir():
            raise CharloomError(f"folder {shown} not found: pass the folder of a run") from None
        if not (folder / RESUME_FILE).is_file():
            raise CharloomError(
                f"{METRICS_FILE} not found in {shown}: pass a folder that charloom train wrote"
            ) from None
        return b""  # the file was deleted, but this is a run
    except NotADirectoryError:
        raise CharloomError(f"{shown} is a file: pass the folder of its run") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise CharloomError(f"cannot read {shown}/{METRICS_FILE}: {reason}") from None


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        return _object(json.loads(text))
    except (ValueError, RecursionError):  # incomplete, or not JSON
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> Number:
    """Return a number if JavaScript can represent it; otherwise None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e300 else None  # excludes NaN too


def _baseline_rows(baselines: Any) -> list[dict[str, Any]]:
    """Return the baselines that have a value, as rows."""
    rows = []
    for name, value in _object(baselines).items():
        baseline = _object(value)
        bits = _number(baseline.get("bits_per_character"))
        if bits is not None:
            rows.append({"name": str(name), "bits": bits, "note": str(baseline.get("note", ""))})
    return rows


def thin(columns: Columns, most: int) -> Columns:
    """Return at most `most` rows of the columns, evenly spaced, always with the last one."""
    length = len(columns["step"])
    if length <= most:
        return columns
    places = [(i + 1) * length // most - 1 for i in range(most)]
    return {name: [values[i] for i in places] for name, values in columns.items()}


class _Place(NamedTuple):
    """A sample in samples.txt: the offsets of its heading and text, and its validation's index."""

    heading: int
    text: int
    validation: int


def read_samples(
    folder: Path, history: History, most: int, as_bytes: bool
) -> tuple[list[dict[str, Any]], int]:
    """Read the samples of a run in their order.

    Args:
        folder: the run's folder.
        history: its metrics.
        most: characters of JSON; if all samples take more, only some are read, always the last one.
        as_bytes: whether the model is one of bytes. In a sample that an earlier version wrote, each
            character is then a byte of UTF-8.

    Returns:
        The samples (number, step, nats, text), and the number of all samples.
    """
    try:
        content = (folder / SAMPLES_FILE).read_bytes().decode("utf-8", "replace")
    except OSError:
        return [], 0
    places = _find_samples(content, history.sample_headings)
    ends = [place.heading - 2 for place in places[1:]] + [len(content)]
    # A character takes at most six characters of JSON.
    every = max(1, math.ceil(6 * len(content) / most)) if len(content) > most // 6 else 1
    samples = []
    for number in range((len(places) - 1) % every, len(places), every) if places else ():
        place = places[number]
        text = content[place.text : max(place.text, ends[number])]
        if number == len(places) - 1:
            text = text.removesuffix("\n\n")
        if as_bytes:
            text = _decoded(text)
        nats = history.validations["nats"][place.validation]
        step = history.validations["step"][place.validation]
        samples.append({"number": number + 1, "step": step, "nats": nats, "text": text})
    return samples, len(places)


def _decoded(text: str) -> str:
    """Return a sample of bytes as text. Samples of earlier versions are not decoded yet."""
    try:
        content = text.encode("latin-1")
        return content.decode(
            "utf-8", "strict" if CONTROLS.isdisjoint(text) else "backslashreplace"
        )
    except UnicodeError:
        return text


def _find_samples(content: str, headings: list[str]) -> list[_Place]:
    """Find the samples by their headings.

    A sample can contain the heading of the next one, so the search skips the length of a sample
    if the next heading follows there.
    """
    places = []
    following = [f"\n\n{heading}\n" for heading in headings[1:]] + ["\n\n"]
    position = 0
    for validation, heading in enumerate(headings):
        begin = content.find(heading + "\n", position)
        if begin < 0 or (begin and content[begin - 2 : begin] != "\n\n"):
            continue
        position = begin + len(heading) + 1
        places.append(_Place(begin, position, validation))
        if content.startswith(following[validation], position + SAMPLE_LENGTH):
            position += SAMPLE_LENGTH
    return places
