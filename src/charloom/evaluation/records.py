"""Evaluations kept beside a model, and their table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError, printable
from charloom.evaluation.evaluation import Evaluation
from charloom.storage.atomic import write_atomically
from charloom.storage.folders import EVALUATIONS_FILE, METRICS_FILE

SHOWN = 200  # characters of an overlap, of which the page shows the beginning


def keep_evaluation(folder: Path, evaluation: Evaluation, sha256: str | None) -> bool:
    """Keep an evaluation of a run's own text, the latest of each protocol and model.

    Args:
        folder: the run's folder; a folder without a run is left alone.
        evaluation: the evaluation to keep.
        sha256: digest of the evaluated weights.

    Returns:
        True if it was kept, so that the run's report should be written again.

    Raises:
        CharloomError: if the folder cannot be written.
    """
    if not (folder / METRICS_FILE).is_file():
        return False
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
        write_atomically(path, (json.dumps(kept, indent=1) + "\n").encode())
    except OSError as error:
        raise CharloomError(
            f"cannot write {printable(str(path))} ({error.strerror or error}): the figures are not "
            "kept for the report"
        ) from None
    return True


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """What `keep_evaluation` kept in a folder, of whatever weights: their `sha256`, and the
    `evaluation` as JSON values, which may be damaged (see `rows_of_evaluation`)."""
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


def rows_of_evaluation(found: Mapping[str, Any], cell: str) -> dict[str, Any] | None:
    """An evaluation with its rows as `charloom evaluate` prints them; None where it is damaged."""
    try:
        mixture = found["model"] == "mixture"
        network = f"this {cell}"
        bits = float(found["bits_per_character"])
        note = f"{network} and the counts of n-grams" if mixture else ""
        ours = "mixture" if mixture else network
        rows = [(bits, ours, str(found["protocol"]), note)]
        missing: list[tuple[None, str, str, str]] = []
        for name, baseline in found["baselines"].items():
            shown = network if name == "network" else str(name)
            protocol = str(baseline["protocol"])
            if baseline["bits_per_character"] is None:
                missing.append((None, shown, protocol, str(baseline["reason"])))
            else:
                figure = float(baseline["bits_per_character"])
                rows.append((figure, shown, protocol, str(baseline["note"])))
        interval, overlap = found["nats_per_character_95_percent"], found["longest_overlap"]
        evaluation = {
            "text": str(found["text"]),
            "ours": ours,
            "protocol": str(found["protocol"]),
            "characters": int(found["characters"]),
            "nats": float(found["nats_per_character"]),
            "bits": bits,
            "bits_per_byte": float(found["bits_per_byte"]),
            "perplexity": float(found["perplexity"]),
            "accuracy": float(found["accuracy"]),
            "interval": interval and [float(interval[0]), float(interval[1])],
            "overlap": overlap
            and {"characters": int(overlap["characters"]), "text": str(overlap["text"])[:SHOWN]},
            "rows": [list(row) for row in (*sorted(rows), *missing)],
        }
        json.dumps([evaluation, found], allow_nan=False)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError, RecursionError):
        return None
    return evaluation
