"""Evaluate scores on held-out text: confidence interval, overlap with the training text, result."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError
from charloom.evaluation.baselines import Baseline
from charloom.prediction.scoring import Protocol, Scores
from charloom.text.dataset import Ids
from charloom.text.overlap import LONGEST_TO_INDEX, Overlap, longest_overlap
from charloom.text.vocabulary import Vocabulary

RESAMPLES = 2_000  # of the bootstrap
BLOCK = 1_000  # characters, at most; longer than what one character tells of the next ones
FEWEST_BLOCKS = 10  # for fewer there is no interval


def confidence_interval(log_probabilities: NDArray[np.float64]) -> tuple[float, float] | None:
    """Between which nats per character the mean of such a text's (N,) lies, in 95 of 100 cases.

    By a circular block bootstrap (Politis and Romano 1992): as many blocks as fill the text are
    drawn from it, with their neighbors, since what is hard to predict comes in stretches. None for
    a text of few blocks.
    """
    length = len(log_probabilities)
    block = min(BLOCK, length // (2 * FEWEST_BLOCKS))
    if block < FEWEST_BLOCKS:
        return None
    around = np.concatenate([[0.0], np.cumsum(np.resize(log_probabilities, length + block))])
    sums = around[block : block + length] - around[:length]  # of the block that begins at each
    generator = np.random.Generator(np.random.PCG64(0))
    means = np.empty(RESAMPLES)
    for sample in range(RESAMPLES):
        means[sample] = sums[generator.integers(0, length, length // block)].mean()
    low, high = np.quantile(-means / block, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a text. Perplexity is per character; accuracy is the top guess's.

    model: `mixture` of network and counts, or `network`. interval: of nats per character, in 95 of
    100 cases; None for a short text. overlap: the longest stretch of the text that stands in the
    training text, None where that is not known.
    """

    text: str
    protocol: str
    characters: int
    utf8_bytes: int
    nats_per_character: float
    accuracy: float
    model: str = "network"
    interval: tuple[float, float] | None = None
    overlap: Overlap | None = None
    overlap_text: str = ""
    baselines: dict[str, Baseline] = field(default_factory=dict)
    skipped_characters: int = 0

    @property
    def bits_per_character(self) -> float:
        return self.nats_per_character / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        return self.bits_per_character * self.characters / self.utf8_bytes

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nats_per_character, 700))

    def as_dict(self) -> dict[str, Any]:
        """The evaluation as plain JSON values."""
        return {
            "text": self.text,
            "model": self.model,
            "protocol": self.protocol,
            "characters": self.characters,
            "utf8_bytes": self.utf8_bytes,
            "skipped_characters": self.skipped_characters,
            "nats_per_character": self.nats_per_character,
            "nats_per_character_95_percent": self.interval and list(self.interval),
            "bits_per_character": self.bits_per_character,
            "bits_per_byte": self.bits_per_byte,
            "perplexity": self.perplexity,
            "accuracy": self.accuracy,
            "longest_overlap": self.overlap
            and {
                "characters": self.overlap.length,
                "place": self.overlap.place,
                "training_place": self.overlap.training_place,
                "text": self.overlap_text,
            },
            "baselines": {name: baseline.as_dict() for name, baseline in self.baselines.items()},
        }


def evaluation_of(
    scores: Scores, vocabulary: Vocabulary, ids: Ids, protocol: Protocol, *, text: str, **more: Any
) -> Evaluation:
    """What the scores of a part's ids, (N,), come to; without baselines."""
    if not math.isfinite(scores.nats_per_character):
        raise CharloomError(
            "the model gives a character no probability, or its numbers overflow: train again with "
            "a lower --learning-rate"
        )
    return Evaluation(
        text=text,
        protocol=str(protocol),
        characters=len(ids),
        utf8_bytes=count_bytes(vocabulary, ids),
        nats_per_character=scores.nats_per_character,
        accuracy=float(scores.guessed.mean()),
        interval=confidence_interval(scores.log_probabilities),
        **more,
    )


def find_overlap(train: Ids, part: Ids) -> Overlap | None:
    """The longest stretch of a part, (N,), that stands in the training part; None where looking for
    it takes too long, or needs a library that is missing."""
    if len(train) + len(part) > LONGEST_TO_INDEX:
        return None
    try:
        return longest_overlap(train, part)
    except ImportError:
        return None


def count_bytes(vocabulary: Vocabulary, ids: Ids) -> int:
    """The bytes of the text that ids, (N,), stand for: UTF-8, or one each where they are bytes."""
    sizes = np.array([1 if vocabulary.as_bytes else len(c.encode()) for c in vocabulary.characters])
    return int(np.bincount(ids, minlength=len(vocabulary)) @ sizes)
