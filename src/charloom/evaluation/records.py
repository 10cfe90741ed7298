"""Evaluations that are kept beside a model."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError, error_reason, printable
from charloom.evaluation.evaluation import Evaluation
from charloom.json_text import to_json
from charloom.storage.atomic import write_atomically
from charloom.storage.checkpoint import read_header
from charloom.storage.folders import EVALUATIONS_FILE, METRICS_FILE, MODEL_FILE

Records = Sequence[Mapping[str, Any]]  # as `read_evaluations` returns them


def keep_evaluation(
    run: str | os.PathLike[str], evaluation: Evaluation, sha256: str | None = None
) -> bool:
    """Keep an evaluation of a run's own text for its report, the latest of each protocol and model.

    Args:
        run: the run's folder; other folders are left unchanged.
        evaluation: the evaluation to keep.
        sha256: digest of the evaluated weights, by default of the run's model.

    Returns:
        True if it was kept, so that the run's report should be written again.

    Raises:
        CharloomError: if the folder cannot be written.
    """
    folder = Path(run)
    if not (folder / METRICS_FILE).is_file():
        return False
    if sha256 is None:
        sha256 = (read_header(folder / MODEL_FILE) or {}).get("sha256")
    found = evaluation.as_dict()
    kept = [
        entry
        for entry in read_evaluations(folder)
        if entry["sha256"] == sha256
        and (entry["evaluation"].get("protocol"), entry["evaluation"].get("model"))
        != (found["protocol"], found["model"])
    ]
    kept.append({"sha256": sha256, "evaluation": found})
    path = folder / EVALUATIONS_FILE
    try:
        write_atomically(path, (to_json(kept, indent=1) + "\n").encode())
    except OSError as error:
        raise CharloomError(
            f"cannot write {printable(str(path))} ({error_reason(error)}): the results are not "
            "kept for the report"
        ) from None
    return True


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Read the records that `keep_evaluation` wrote into a folder, for any weights.

    Each has a `sha256` and an `evaluation`, whose JSON values can be damaged.
    """
    try:
        entries = json.loads((folder / EVALUATIONS_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return [
        entry
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
        and isinstance(entry.get("evaluation"), dict)
        and isinstance(entry.get("sha256"), str)
    ]


def evaluations_of(records: Records, sha256: str | None) -> list[Evaluation]:
    """Return the evaluations of the weights with a SHA-256; damaged ones are skipped."""
    found = []
    for record in records:
        if sha256 is not None and record["sha256"] == sha256:
            with contextlib.suppress(CharloomError):
                found.append(Evaluation.from_dict(record["evaluation"]))
    return found
