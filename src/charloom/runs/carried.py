"""Decide whether a run starts from the carried base model.

A run with a time budget starts from it by default. Its options must fit, and the text must have a
length at which this helps. The network must predict the beginning of the text well already.

N is the number of ids of a text, V that of characters in the vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from charloom.base_model.carried import load_base, with_characters_of
from charloom.base_model.choices import ENGLISH
from charloom.network.initialization import grow_vocabulary
from charloom.prediction.validation import validate
from charloom.runs.start import Start, fine_tuned
from charloom.storage.checkpoint import Checkpoint
from charloom.text.dataset import Dataset, TextIds, character_counts
from charloom.training.options import SHAPE_OPTIONS, TrainingConfig
from charloom.training.planner import SHORT

TESTED, ROWS = 4_000, 8  # characters of the quick test, and the rows that read them
FEWEST, MOST = 1_500, 200_000  # characters of a text that the base model helps with
WELL_ENOUGH = 0.8  # its bits per character at most, as a share of the characters' entropy


def start_from_english(start: Start, dataset: Dataset) -> tuple[Start, list[str]]:
    """Return the start of a new run, from the base model where that is set or helps.

    Args:
        start: the start, from the whole base model or from nothing.
        dataset: the text, with its own vocabulary.

    Returns:
        The start, and sentences for the user.
    """
    if start.config.from_run == ENGLISH:
        assert start.base is not None
        return replace(start, base=_reduced(start.base, dataset)), []
    if not (_could_be(start.config, start.fixed) and _suits(dataset)):
        return start, []
    base = _reduced(load_base(ENGLISH), dataset)
    bits = bits_of_beginning(base, dataset, start.config)
    if bits > WELL_ENOUGH * _entropy(dataset.train[:TESTED], len(dataset.vocabulary)):
        return start, []
    if any(start.fixed.get(n, getattr(base.config, n)) != getattr(base.config, n) for n in _SHAPE):
        return start, []
    started = fine_tuned(base, start.fixed | {"from_run": ENGLISH})
    note = (
        "starts from the English base model, which predicts the beginning of the text with "
        f"{bits:.2f} bits per character: --from none starts from nothing"
    )
    return started, [note]


_SHAPE = (*SHAPE_OPTIONS, "dtype")


def _reduced(base: Checkpoint, dataset: Dataset) -> Checkpoint:
    return with_characters_of(base, dataset.vocabulary.characters)


def _could_be(config: TrainingConfig, fixed: dict[str, Any]) -> bool:
    """Return True if the planner chooses the network, and nothing forbids the base model."""
    return (
        config.is_to_be_planned
        and config.from_run is None
        and config.minutes is not None
        and config.minutes * 60 >= SHORT
        and not config.bytes
        and not config.read_counts
    )


def _suits(dataset: Dataset) -> bool:
    return dataset.vocabulary.end_id is None and FEWEST <= len(dataset.train) <= MOST


def bits_of_beginning(base: Checkpoint, dataset: Dataset, config: TrainingConfig) -> float:
    """Return the bits per character of a base model on the beginning of a text's training split."""
    vocabulary = base.vocabulary.grown(dataset.vocabulary.characters)
    model = replace(base.config, vocabulary_size=len(vocabulary))
    engine = config.backend.for_inference().open(grow_vocabulary(base.parameters, model))
    text = dataset.vocabulary.decode(dataset.train[:TESTED])
    ids = vocabulary.encode(text)
    scored = validate(engine, ids, vocabulary.start_id, max(1, min(ROWS, len(ids) // 256)))
    while True:
        try:
            next(scored)
        except StopIteration as result:
            return float(result.value.nats_per_character) / math.log(2)


def _entropy(ids: TextIds, size: int) -> float:
    """Return the entropy of the characters of a text, in bits."""
    counts = character_counts(ids, size)
    shares = counts[counts > 0] / len(ids)
    return float(-(shares * np.log2(shares)).sum())
