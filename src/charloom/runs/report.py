"""A run's report: one page with its curves, samples, configuration and evaluations.

Everything in it is read back from the run's folder, so that it can be drawn at any time, of several
runs too. A line or a file that is not whole, as a killed trainer leaves it, is passed over.

`evaluations.json` holds what `charloom evaluate` found, and the SHA-256 of the weights that it was
found with: figures of earlier weights are not shown.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError, printable
from charloom.evaluation.records import read_evaluations, rows_of_evaluation
from charloom.network.parameters import ModelConfig
from charloom.pages.page import LARGEST, make_page, write_page
from charloom.storage.checkpoint import read_header
from charloom.storage.folders import (
    METRICS_FILE,
    MODEL_FILE,
    REPORT_FILE,
    RESUME_FILE,
    SAMPLES_FILE,
)
from charloom.training.loop import SAMPLE_LENGTH
from charloom.training.options import COMPUTE_OPTIONS, TrainingConfig, option_name

POINTS = 2_000  # of a curve, at most: more than a screen has pixels
VALIDATIONS = 100_000  # at most, only that a page stays one that a browser can open
SAMPLES = 20_000_000  # characters of a page's samples, as they stand in it, at most
REST = 50.0  # times as long as a drawing took, until a running trainer draws the next
# The figures of a line of metrics.jsonl: their names here and there.
FIGURES = {
    "loss": "loss",
    "smoothed": "smoothed_loss",
    "rate": "learning_rate",
    "norm": "gradient_norm",
}

Number = int | float | None
Columns = dict[str, list[Number]]


@dataclass(frozen=True)
class Standing:
    """How a run stands while its own trainer draws it: `training`, `finished` or `interrupted`."""

    state: str
    done: float  # the part of it that lies behind


@dataclass(frozen=True)
class _Metrics:
    reports: Columns  # a list for each of step, epoch, seconds, speed and FIGURES
    validations: Columns  # step, epoch, seconds, nats, characters, best
    baselines: list[dict[str, Any]]
    headings: list[str]  # the lines of samples.txt that a sample begins with
    last_step: Number


def make_report(folders: Sequence[Path], standing: Standing | None = None) -> str:
    """The page of one run, or of several side by side. standing: of a run that draws itself.

    Raises CharloomError where a folder is none, or holds no metrics.
    """
    names = _names(folders)
    share = SAMPLES // len(folders)
    runs = [_run(folder, name, share) for folder, name in zip(folders, names, strict=True)]
    now = time.time()
    data = {
        "runs": runs,
        "standing": standing and {"state": standing.state, "done": standing.done},
        "written": round(now),
        "written_at": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)),
        "configuration": _compared([_configuration(folder) for folder in folders]),
    }
    title = f"{names[0]}: training report" if len(names) == 1 else f"{len(names)} runs compared"
    page = make_page(title, ["charts.js", "report.js"], data, {})
    if len(page) > LARGEST:
        raise CharloomError("the page would be too large for a browser: give fewer runs")
    return page


def write_report(folders: Sequence[Path], path: Path | None = None) -> Path:
    """Draws runs into a file (by default the only one's own report.html) and returns its path."""
    if path is None:
        path = folders[0] / REPORT_FILE if len(folders) == 1 else Path(REPORT_FILE)
    write_page(path, make_report(folders), "give another file with --out")
    return path


def refresh_report(folder: Path, standing: Standing | None = None) -> None:
    """Draws a run's own page, while other things are done with it."""
    page = make_report([folder], standing)
    write_page(folder / REPORT_FILE, page, "the page stays as it was")


def _names(folders: Sequence[Path]) -> list[str]:
    """What to call the runs: their folders' names, with as many folders above as tell them apart;
    the same folder, given twice, gets a number."""
    paths = []
    for folder in folders:
        try:
            paths.append(folder.resolve().parts)
        except (OSError, ValueError, RuntimeError):
            paths.append(folder.parts)
    names = [parts[-1] if parts else "." for parts in paths]
    for length in range(2, max(map(len, paths)) + 1):
        alike = {name for name in names if names.count(name) > 1}
        names = [
            str(Path(*parts[-length:])) if name in alike else name
            for name, parts in zip(names, paths, strict=True)
        ]
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[i] = f"{name} ({seen[name]})"
    return [printable(name) for name in names]


def _run(folder: Path, name: str, samples: int) -> dict[str, Any]:
    """All of a run but its configuration, as plain JSON values."""
    metrics = _read_metrics(folder)
    header = read_header(folder / MODEL_FILE) or read_header(folder / RESUME_FILE) or {}
    as_bytes = header.get("config", {}).get("bytes") is True
    evaluations, stale = _evaluations(folder, header)
    drawn, total = _samples(folder, metrics, samples, as_bytes)
    return {
        "name": name,
        "last_step": metrics.last_step,
        "reports": _thinned(metrics.reports, POINTS),
        "validations": _thinned(metrics.validations, VALIDATIONS),
        "baselines": metrics.baselines,
        "samples": drawn,
        "samples_drawn": total,
        "evaluations": evaluations,
        "stale_evaluations": stale,
    }


def _read_metrics(folder: Path) -> _Metrics:
    """What metrics.jsonl holds. Raises CharloomError where the folder is no run's."""
    shown = printable(str(folder))
    try:
        content = (folder / METRICS_FILE).read_bytes()
    except FileNotFoundError:
        if not folder.is_dir():
            raise CharloomError(f"{shown}: there is no such folder; give a run's folder") from None
        if not (folder / RESUME_FILE).is_file():
            raise CharloomError(
                f"{shown} holds no {METRICS_FILE}: give a folder that charloom train wrote"
            ) from None
        content = b""  # somebody took it away
    except NotADirectoryError:
        raise CharloomError(f"{shown} is a file: give the folder of its run") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise CharloomError(f"{shown}/{METRICS_FILE} cannot be read: {reason}") from None
    reports: Columns = {name: [] for name in ("step", "epoch", "seconds", "speed", *FIGURES)}
    validations: Columns = {
        name: [] for name in ("step", "epoch", "seconds", "nats", "characters", "best")
    }
    baselines: list[dict[str, Any]] = []
    headings: list[str] = []
    last_step: Number = None
    for text in content.split(b"\n"):
        line = _object(text)
        step = _number(line.get("step"))
        timing = line.get("timing")
        timing = timing if isinstance(timing, dict) else {}
        if line.get("event") == "start":
            baselines = _baselines(line.get("baselines"))
        if line.get("event") not in ("report", "validation") or step is None:
            continue
        last_step = step
        columns = reports if line["event"] == "report" else validations
        columns["step"].append(step)
        columns["epoch"].append(_number(line.get("epoch")))
        columns["seconds"].append(_number(timing.get("elapsed_seconds")))
        if columns is reports:
            columns["speed"].append(_number(timing.get("characters_per_second")))
            for name, there in FIGURES.items():
                columns[name].append(_number(line.get(there)))
        else:
            found = line.get("validation")
            found = found if isinstance(found, dict) else {}
            nats = _number(found.get("nats_per_character"))
            columns["nats"].append(nats)
            columns["characters"].append(_number(found.get("characters")))
            columns["best"].append(int(line.get("best") is True))
            headings.append(f"--- step {step}" + ("" if nats is None else f", {nats:.4f} nats"))
    return _Metrics(reports, validations, baselines, headings, last_step)


def _object(text: bytes) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):  # torn, or no JSON
        return {}
    return line if isinstance(line, dict) else {}


def _number(value: Any) -> Number:
    """A number that a page can hold, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e300 else None  # nor NaN


def _baselines(found: Any) -> list[dict[str, Any]]:
    """Those that have a figure, as rows."""
    rows = []
    for name, baseline in found.items() if isinstance(found, dict) else ():
        bits = _number(baseline.get("bits_per_character")) if isinstance(baseline, dict) else None
        if bits is not None:
            rows.append({"name": str(name), "bits": bits, "note": str(baseline.get("note", ""))})
    return rows


def _thinned(columns: Columns, most: int) -> Columns:
    """At most so many points, evenly spread, the last one always among them."""
    length = len(columns["step"])
    if length <= most:
        return columns
    places = [(i + 1) * length // most - 1 for i in range(most)]
    return {name: [values[i] for i in places] for name, values in columns.items()}


def _samples(
    folder: Path, metrics: _Metrics, most: int, as_bytes: bool
) -> tuple[list[dict[str, Any]], int]:
    """The samples in the order in which they were drawn, of very many some; and how many there are.

    A sample may hold what looks like the next one's heading, hence the look at its length.
    """
    try:
        content = (folder / SAMPLES_FILE).read_bytes().decode("utf-8", "replace")
    except OSError:
        return [], 0
    # Where each begins and its text, and its place among the validations.
    places: list[tuple[int, int, int]] = []
    position = 0
    for index, heading in enumerate(metrics.headings):
        begin = content.find(heading + "\n", position)
        if begin < 0 or (begin and content[begin - 2 : begin] != "\n\n"):
            continue
        position = begin + len(heading) + 1
        places.append((begin, position, index))
        if content[position + SAMPLE_LENGTH : position + SAMPLE_LENGTH + 2] == "\n\n":
            position += SAMPLE_LENGTH
    ends = [begin - 2 for begin, _, _ in places[1:]] + [len(content)]
    # What a character takes in the page's JSON, at most.
    every = max(1, math.ceil(6 * len(content) / most)) if len(content) > most // 6 else 1
    drawn = []
    for number in range((len(places) - 1) % every, len(places), every) if places else ():
        _, begin, index = places[number]
        text = content[begin : max(begin, ends[number])]
        if number == len(places) - 1:
            text = text.removesuffix("\n\n")
        if as_bytes:
            text = text.encode("latin-1", "replace").decode("utf-8", "replace")
        nats = metrics.validations["nats"][index]
        step = metrics.validations["step"][index]
        drawn.append({"number": number + 1, "step": step, "nats": nats, "text": text})
    return drawn, len(places)


def _configuration(folder: Path) -> dict[str, str]:
    """What decided a run's outcome, as text, by name."""
    resume = read_header(folder / RESUME_FILE)
    header = resume or read_header(folder / MODEL_FILE)
    if header is None:
        return {}
    position = header.get("position", {})
    ends = position.get("ends")
    options = dict(header.get("training", {})) | (ends if isinstance(ends, dict) else {})
    options |= {
        name: position[name]
        for name in COMPUTE_OPTIONS
        if name in position and name != "rank_timeout"  # which changes no result
    }
    found: dict[str, str] = {}
    text = header.get("text", {})
    if "name" in text:
        found["text"] = str(text["name"])
    if _number(text.get("characters")) is not None:
        found["characters of text"] = f"{text['characters']:,}"
    found["characters in the vocabulary"] = f"{len(header.get('vocabulary', [])):,}"
    try:
        model = {k: v for k, v in header.get("config", {}).items() if k != "bytes"}
        found["parameters"] = f"{ModelConfig.from_dict(model).parameter_count:,}"
    except (CharloomError, TypeError, ValueError):
        pass
    known = [f.name for f in fields(TrainingConfig)]
    for name in [*known, *(name for name in options if name not in known)]:
        if name in options:
            found[option_name(name).lstrip("-")] = _shown(options[name])
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _compared(configurations: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Rows of a table with a column for each run."""
    names = list(dict.fromkeys(name for found in configurations for name in found))
    rows = []
    for name in names:
        values = [found.get(name, "–") for found in configurations]
        rows.append({"name": name, "values": values, "differs": len(set(values)) > 1})
    return rows


def _evaluations(folder: Path, header: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """What was found with the weights that are there now, and how much with earlier ones."""
    current = None
    if (folder / MODEL_FILE).exists():
        current = header.get("sha256")
    cell = str(header.get("config", {}).get("cell", "network"))
    entries = read_evaluations(folder)
    found = [
        rows_of_evaluation(entry["evaluation"], cell)
        for entry in entries
        if entry["sha256"] == current
    ]
    return [one for one in found if one is not None], len(entries) - len(found)


class LiveReport:
    """A running trainer's report: drawn so seldom that it costs next to nothing.

    say: called once, with a sentence, where the page cannot be written.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._failed = False
        self._drawn_at = -math.inf
        self.seconds = 0.0  # that the last drawing took

    def draw(self, standing: Standing, *, now: bool = False) -> None:
        """Draws unless it was drawn so shortly before that it would take more than 2% of the time;
        `now` draws in any case."""
        before = time.monotonic()
        if not now and before - self._drawn_at < REST * self.seconds:
            return
        try:
            refresh_report(self._folder, standing)
        except (CharloomError, OSError) as error:
            if not self._failed:
                self._say(f"{error}; training goes on")
            self._failed = True
        self._drawn_at = time.monotonic()
        self.seconds = self._drawn_at - before
