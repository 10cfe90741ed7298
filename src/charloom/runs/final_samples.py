"""Samples of a finished model for its report: several, each with the seed that writes it again.

They are kept beside the model, with the SHA-256 of its weights, so that a report that is written
again shows them without sampling.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError, error_reason, printable
from charloom.json_text import to_json
from charloom.language_model import load
from charloom.storage.atomic import write_atomically
from charloom.storage.checkpoint import read_header
from charloom.storage.folders import DRAWN_FILE, METRICS_FILE, MODEL_FILE

SEEDS = range(1, 7)
LENGTH = 500  # characters of a sample, at most
DOCUMENTS = 10  # of a model of documents, under each seed


def draw_samples(folder: Path) -> None:
    """Sample from a run's model for its report, unless its samples are kept already.

    Raises:
        CharloomError: if the model cannot be loaded, or the samples cannot be written.
    """
    header = read_header(folder / MODEL_FILE)
    if header is None or not (folder / METRICS_FILE).is_file():
        return
    if read_drawn(folder, header.get("sha256")):
        return
    model = load(folder)
    samples = []
    for seed in SEEDS:
        if model.vocabulary.end_id is None:
            texts = [model.sample(length=LENGTH, seed=seed)]
        else:
            found = model.sample_documents(DOCUMENTS, length=LENGTH, seed=seed)
            texts = [document.text for document in found]
        samples.append({"seed": seed, "texts": texts})
    kept = {"sha256": model.checkpoint.sha256, "samples": samples}
    path = folder / DRAWN_FILE
    try:
        write_atomically(path, (to_json(kept, indent=1) + "\n").encode())
    except OSError as error:
        raise CharloomError(
            f"cannot write {printable(str(path))} ({error_reason(error)}): the report has no "
            "samples of the finished model"
        ) from None


def read_drawn(folder: Path, sha256: str | None) -> list[dict[str, Any]]:
    """Return the samples that `draw_samples` kept for these weights: `seed` and `texts`.

    A damaged file contains no samples.
    """
    try:
        kept = json.loads((folder / DRAWN_FILE).read_bytes())
        if sha256 is None or kept["sha256"] != sha256:
            return []
        return [
            {"seed": int(one["seed"]), "texts": [str(text) for text in one["texts"]]}
            for one in kept["samples"]
        ]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return []


def sample_command(folder: Path, seed: int, *, documents: bool) -> str:
    """Return the command that writes the sample of a seed.

    A folder outside the current one is shown by its name, because a page can be shared.
    """
    try:
        shown = folder.resolve().relative_to(Path.cwd())
    except (OSError, ValueError, RuntimeError):
        shown = folder if not folder.is_absolute() else Path(folder.name)
    count = ["--count", str(DOCUMENTS)] if documents else []
    parts = ["charloom", "sample", printable(str(shown)), *count, "--length", str(LENGTH)]
    return shlex.join([*parts, "--seed", str(seed)])
