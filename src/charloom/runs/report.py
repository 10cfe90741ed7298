"""The report of a run: one page with its curves, samples, configuration and evaluations.

All of it is read from the run's folder, so that a report can be written at any time, also of
several runs. Evaluations of earlier weights are not shown; `evaluations.json` names the weights by
their SHA-256.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from charloom.base_model.choices import base_of
from charloom.errors import CharloomError, printable
from charloom.evaluation.evaluation import Evaluation
from charloom.evaluation.records import evaluations_of, read_evaluations
from charloom.evaluation.verdict import verdict
from charloom.network.parameters import ModelConfig
from charloom.pages.page import LARGEST, LEFT_UNCHANGED, make_page, write_page
from charloom.runs.final_samples import SEEDS, draw_samples, read_drawn, sample_command
from charloom.runs.headline import headline
from charloom.runs.history import read_history, read_samples, thin
from charloom.storage.checkpoint import read_header
from charloom.storage.folders import MODEL_FILE, REPORT_FILE, RESUME_FILE
from charloom.training.options import COMPUTE_OPTIONS, TrainingConfig, option_name

MOST_POINTS = 2_000  # of a curve: more than the pixels of a screen
MOST_VALIDATIONS = 100_000  # limits the page to what a browser can open
MOST_SAMPLE_CHARACTERS = 20_000_000  # characters of JSON for the samples of a page
OVERLAP_SHOWN = 200  # characters of an overlap in the page, at most


@dataclass(frozen=True)
class RunStatus:
    """The status of a run that writes its own report.

    Attributes:
        state: `training` (of a search: `searching`), `finished` or `interrupted`.
        done: the fraction of the run that is done, from 0 to 1.
    """

    state: str
    done: float


def make_report(folders: Sequence[Path], status: RunStatus | None = None) -> str:
    """Return the page of one run, or of several for comparison.

    Args:
        folders: the folders of the runs.
        status: the status of a run that writes its own report.

    Raises:
        CharloomError: if a folder is not that of a run, or the page is too large for a browser.
    """
    names = _distinct_names(folders)
    share = MOST_SAMPLE_CHARACTERS // len(folders)
    runs = [_run_data(folder, name, share) for folder, name in zip(folders, names, strict=True)]
    now = time.time()
    units = list({run["unit"] for run in runs})
    data = {
        "runs": runs,
        "headline": headline(runs),
        "unit": units[0] if len(units) == 1 else "symbol",
        "standing": status and {"state": status.state, "done": status.done},
        "written": round(now),
        "written_at": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)),
        "configuration": _comparison([_configuration(folder) for folder in folders]),
    }
    title = f"{names[0]}: training report" if len(names) == 1 else f"{len(names)} runs compared"
    page = make_page(title, ["charts.js", "report.js"], data, {})
    if len(page) > LARGEST:
        raise CharloomError("the page is too large for a browser: pass fewer runs")
    return page


def write_report(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the page of a run, or of several for comparison.

    If a run has a model, samples of it are taken and kept in its folder, once for its weights.

    Args:
        runs: the folder of a run, or a list of folders.
        out: the file; by default report.html in the only run's folder, or in the current folder.

    Returns:
        The path of the file.

    Raises:
        CharloomError: if a folder is not that of a run, or the file cannot be written.
    """
    folders = [Path(runs)] if isinstance(runs, str | os.PathLike) else [Path(run) for run in runs]
    if not folders:
        raise CharloomError("no run to report on: pass at least one folder")
    path = None if out is None else Path(out)
    if path is None:
        path = folders[0] / REPORT_FILE if len(folders) == 1 else Path(REPORT_FILE)
    for folder in folders:
        with contextlib.suppress(CharloomError, OSError):  # a report can do without them
            draw_samples(folder)
    write_page(path, make_report(folders), "use another file with --out")
    return path


def refresh_report(folder: Path, status: RunStatus | None = None) -> None:
    """Update the report in a run's folder after a change to the run.

    Raises:
        CharloomError: if the report cannot be written; the old one is left unchanged.
    """
    page = make_report([folder], status)
    write_page(folder / REPORT_FILE, page, LEFT_UNCHANGED)


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return a distinct name for each run: its folder's name, with parent folders if needed, and a
    number if the same folder appears twice."""
    paths = []
    for folder in folders:
        try:
            paths.append(folder.resolve().parts)
        except (OSError, ValueError, RuntimeError):
            paths.append(folder.parts)
    names = [parts[-1] if parts else "." for parts in paths]
    for length in range(2, max(map(len, paths)) + 1):
        ambiguous = {name for name in names if names.count(name) > 1}
        names = [
            str(Path(*parts[-length:])) if name in ambiguous else name
            for name, parts in zip(names, paths, strict=True)
        ]
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[i] = f"{name} ({seen[name]})"
    return [printable(name) for name in names]


def _run_data(folder: Path, name: str, most_of_samples: int) -> dict[str, Any]:
    """Return all data of a run but its configuration, as plain JSON values."""
    history = read_history(folder)
    header = read_header(folder / MODEL_FILE) or read_header(folder / RESUME_FILE) or {}
    unit = _unit(header)
    evaluations, stale = _evaluations(folder, header)
    samples, total = read_samples(folder, history, most_of_samples, unit == "byte")
    documents = "" in header.get("vocabulary", [])  # the end of a document, in a header
    return {
        "name": name,
        "unit": unit,
        "last_step": history.last_step,
        "reports": thin(history.reports, MOST_POINTS),
        "validations": thin(history.validations, MOST_VALIDATIONS),
        "baselines": history.baselines,
        "samples": samples,
        "samples_drawn": total,
        "drawn": [
            one | {"command": sample_command(folder, one["seed"], documents=documents)}
            for one in read_drawn(folder, header.get("sha256"))
        ],
        "more": sample_command(folder, SEEDS.stop, documents=documents),
        "text_sha256": header.get("text", {}).get("sha256"),
        "evaluations": evaluations,
        "stale_evaluations": stale,
    }


def _unit(header: Mapping[str, Any]) -> str:
    """Return the noun for a character of a run, from a checkpoint's header."""
    return "byte" if header.get("config", {}).get("bytes") is True else "character"


def _configuration(folder: Path) -> dict[str, str]:
    """Return the options of a run and the size of its text and network, as text by name."""
    header = read_header(folder / RESUME_FILE) or read_header(folder / MODEL_FILE)
    if header is None:
        return {}
    found: dict[str, str] = {}
    text = header.get("text", {})
    if "name" in text:
        found["text"] = str(text["name"])
    if (base := base_of(text)) is not None:
        found["descends from"] = base
    characters = text.get("characters")
    if isinstance(characters, int | float) and not isinstance(characters, bool):
        found[f"{_unit(header)}s of text"] = f"{characters:,}"
    found[f"{_unit(header)}s in the vocabulary"] = f"{len(header.get('vocabulary', [])):,}"
    try:
        model = {k: v for k, v in header.get("config", {}).items() if k != "bytes"}
        found["parameters"] = f"{ModelConfig.from_dict(model).parameter_count:,}"
    except (CharloomError, TypeError, ValueError):
        pass
    options = _options(header)
    known = [f.name for f in fields(TrainingConfig)]
    for name in [*known, *(name for name in options if name not in known)]:
        if name in options:
            found[option_name(name).lstrip("-")] = _as_text(options[name])
    return found


def _options(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run, from a checkpoint's header."""
    position = header.get("position", {})
    ends = position.get("ends")
    compute = [name for name in COMPUTE_OPTIONS if name != "rank_timeout"]  # changes no result
    return (
        dict(header.get("training", {}))
        | (ends if isinstance(ends, dict) else {})
        | {name: position[name] for name in compute if name in position}
    )


def _as_text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _comparison(configurations: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the rows of a table of configurations, with a value for each run."""
    names = list(dict.fromkeys(name for found in configurations for name in found))
    rows = []
    for name in names:
        values = [found.get(name, "–") for found in configurations]
        rows.append({"name": name, "values": values, "differs": len(set(values)) > 1})
    return rows


def _evaluations(folder: Path, header: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """Return the evaluations of the current weights, and the number of all others."""
    current = header.get("sha256") if (folder / MODEL_FILE).exists() else None
    cell, unit = str(header.get("config", {}).get("cell", "network")), _unit(header)
    records = read_evaluations(folder)
    stale = sum(record["sha256"] != current for record in records)
    return [_evaluation(one, cell, unit) for one in evaluations_of(records, current)], stale


def _evaluation(found: Evaluation, cell: str, unit: str) -> dict[str, Any]:
    """Return an evaluation and its table as the page's script reads them."""
    return {
        "text": found.text,
        "ours": found.predictor(cell),
        "protocol": found.protocol,
        "characters": found.characters,
        "documents": found.documents,
        "nats_per_document": found.nats_per_document,
        "unit": found.unit,
        "nats": found.nats_per_character,
        "bits": found.bits_per_character,
        "bits_per_byte": found.bits_per_byte,
        "perplexity": found.perplexity,
        "accuracy": found.accuracy,
        "interval": found.interval and list(found.interval),
        "overlap": found.overlap
        and {
            "characters": found.overlap.length,
            "unit": unit,
            "text": printable(found.overlap_text[:OVERLAP_SHOWN]),
        },
        "rows": [list(row) for row in found.rows(cell)],
        "verdict": verdict(found),
    }
