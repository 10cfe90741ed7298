"""The 95% confidence interval of the mean loss of a text, from sums of its scores.

N is the number of characters of the text, D that of its documents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000  # bootstrap samples
BLOCK = 1_000  # characters of a block, at most, because correlations are shorter than that
FEWEST_BLOCKS = 10  # a shorter text has no interval
FEWEST_DOCUMENTS = 20  # of a smaller number, blocks are sampled
MOST_GROUPS = 10_000  # of documents; more documents are sampled in groups of neighbors
MOST_CELLS = 1 << 23  # of characters; of a longer text, blocks begin at cells of several characters

Interval = tuple[float, float]


class IntervalSums:
    """The sums of a text's scores, which arrive in stretches, in cells or groups of documents.

    Args:
        characters: N. The end of a document counts.
        documents: D, None for a single text.
    """

    def __init__(self, characters: int, documents: int | None = None) -> None:
        few = documents is None or documents < FEWEST_DOCUMENTS
        self._documents = None if few else documents
        self._cell = max(1, -(-characters // MOST_CELLS))  # characters
        count = -(-characters // self._cell)
        if self._documents is not None:
            count = min(self._documents, MOST_GROUPS)
        self._log_p: NDArray[np.float64] = np.zeros(count)
        self._lengths = np.zeros(0 if few else count, np.int64)  # of each group of documents
        self._done = 0  # characters, or documents

    def add(self, log_probabilities: NDArray[np.float64], ends: NDArray[np.bool_]) -> None:
        """Add the scores of the next characters, (S,), and whether each ends a document, (S,)."""
        if not len(ends):
            return
        if self._documents is None:
            index = (self._done + np.arange(len(ends))) // self._cell
            self._done += len(ends)
        else:
            document = self._done + np.cumsum(ends) - ends
            index = document * len(self._log_p) // self._documents
            self._done += int(ends.sum())
        first, last = int(index[0]), int(index[-1]) + 1
        self._log_p[first:last] += np.bincount(index - first, log_probabilities)
        if self._documents is not None:
            self._lengths[first:last] += np.bincount(index - first)

    def interval(self) -> Interval | None:
        """Return the interval of nats per character, None for a short text."""
        if self._documents is not None:
            return interval_of_groups(-self._log_p, self._lengths)
        return confidence_interval(self._log_p[: self._done // self._cell], self._cell)


def confidence_interval(log_probabilities: NDArray[np.float64], cell: int = 1) -> Interval | None:
    """Return the 95% confidence interval of nats per character.

    A circular block bootstrap (Politis and Romano 1992) samples as many blocks as the text has.
    Blocks are sampled instead of characters, because characters that are hard to predict are
    close together. A text of few blocks has no interval.

    Args:
        log_probabilities: of each character, (N,), or their sums in cells of consecutive ones.
        cell: the number of characters of a cell.
    """
    cells = len(log_probabilities)
    characters = min(BLOCK, cells * cell // (2 * FEWEST_BLOCKS))
    if characters < FEWEST_BLOCKS:
        return None
    block = max(1, characters // cell)  # in cells
    around = np.zeros(1 + cells + block)  # sums from the beginning of the text, and once around it
    around[1 : 1 + cells] = log_probabilities
    around[1 + cells :] = log_probabilities[:block]
    np.cumsum(around, out=around)
    generator = np.random.Generator(np.random.PCG64(0))
    means = np.empty(RESAMPLES)
    for sample in range(RESAMPLES):
        first = generator.integers(0, cells, cells // block)
        means[sample] = (around[first + block] - around[first]).mean()
    low, high = np.quantile(-means / (block * cell), [0.025, 0.975])
    return float(low), float(high)


def interval_of_groups(nats: NDArray[np.float64], characters: NDArray[np.int64]) -> Interval:
    """Return the 95% confidence interval of nats per character of a collection of documents.

    A bootstrap samples as many documents as there are, because documents are independent of each
    other.

    Args:
        nats: the loss of each document or group of documents, (G,).
        characters: their numbers of characters, with the ends, (G,).
    """
    groups = len(nats)
    generator = np.random.Generator(np.random.PCG64(0))
    means = np.empty(RESAMPLES)
    for sample in range(RESAMPLES):
        chosen = generator.integers(0, groups, groups)
        means[sample] = nats[chosen].sum() / characters[chosen].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
