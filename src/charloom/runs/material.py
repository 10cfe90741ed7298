"""Read a training text: encode it, split it and compute the baselines of the validation split."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.evaluation.baselines import baselines_of_validation
from charloom.prediction.mixture import choose_ngram_context
from charloom.progress import OnProgress
from charloom.storage.checkpoint import Checkpoint
from charloom.text.dataset import Dataset, Split, character_counts, load_dataset
from charloom.text.source import Text
from charloom.training.options import TrainingConfig
from charloom.training.planner import SHORT
from charloom.training.setup import VALIDATED_AT_ONCE

# Characters, at most, and of each second of the budget, that are compressed for a baseline.
LONGEST_COMPRESSED, COMPRESSED_A_SECOND = 10_000_000, 40_000


@dataclass(frozen=True)
class Material:
    """What is found out about a text before training begins: runs on the same text can share it."""

    dataset: Dataset
    counts: NDArray[np.int64] | None  # how often each character stands in the training part, (V,)
    context: int | None  # characters of context that the counts look back; None: no counts
    counting: float  # seconds that choosing it took
    baselines: dict[str, Any]  # what validations can be held against, by name
    speed: float | None = None  # of the machine, as measure_speed gives it, if it was asked


def read_material(
    text: Text,
    config: TrainingConfig,
    *,
    base: Checkpoint | None = None,
    earlier: Checkpoint | None = None,
    folder: Path | None = None,
    report: OnProgress | None = None,
) -> Material:
    """Reads a text and counts what a run with that configuration needs. base: the model that it
    starts from. earlier: the run's own checkpoint, which knows the text and needs no baselines.

    Raises OtherTextError where it is not the text of `earlier`, and CharloomError for one that
    cannot be learned from.
    """
    known = earlier or base
    dataset = load_dataset(
        text,
        Split.parse(config.split),
        base=None if known is None else known.vocabulary,
        sha256=None if earlier is None else earlier.text["sha256"],
        folder=folder,
        on_progress=report,
    )
    before = time.monotonic()
    context, loss_of_counts = None, None
    if not config.no_mix:
        context, loss_of_counts = choose_ngram_context(
            dataset.train, dataset.validation, len(dataset.vocabulary)
        )
    counting = time.monotonic() - before
    if earlier is not None:
        return Material(dataset, None, context, counting, {})
    counts = character_counts(dataset.train, len(dataset.vocabulary))
    baselines = _find_baselines(dataset, config, counts, loss_of_counts)
    return Material(dataset, counts, context, counting, baselines)


def _find_baselines(
    dataset: Dataset,
    config: TrainingConfig,
    counts: NDArray[np.int64],
    loss_of_counts: float | None,
) -> dict[str, Any]:
    """What validations can be held against, as far as it is quickly found. The time it takes is
    foreseen, not measured: no clock may decide what is written down."""
    part = dataset.validation[:VALIDATED_AT_ONCE]
    if not len(part):
        return {}
    most = LONGEST_COMPRESSED
    if config.minutes is not None:
        seconds = config.minutes * 60
        most = min(most, int(seconds * COMPRESSED_A_SECOND)) if seconds >= SHORT else 0
    found = baselines_of_validation(
        dataset.vocabulary,
        dataset.train,
        part,
        counts=counts,
        ngram=loss_of_counts,
        compressed=len(dataset.ids) <= most,
    )
    return {name: baseline.as_dict() for name, baseline in found.items()}
