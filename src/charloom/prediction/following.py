"""Counts that follow a text while it is scored: each character is predicted, then counted.

N is the number of characters of a stretch of the text, V that of the vocabulary, K that of the
n-gram model's characters of context.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from charloom.ngrams.counts import Counts
from charloom.ngrams.table import NGramPredictions, NGramTable

if TYPE_CHECKING:  # Importing it requires Numba.
    from charloom.context_mixing.mixer import ContextMixer

# The weight of the probabilities before the recent counts, in characters, by characters of context.
PRIOR: Mapping[int, float] = {4: 10.0, 5: 5.0, 6: 2.0, 7: 1.0, 8: 1.0}
DISCOUNT = 0.5  # subtracted from each recent count
MOST_CONTEXTS = 1_000_000  # of recent counts, of all lengths


class RecentCounts:
    """Counts of the scored text, on top of a table's probabilities:

        p_k(w|h) = (c(hw) - D [c(hw) > 0] + (τ_k + D n(h)) p_{k-1}(w|h')) / (c(h) + τ_k)

    for every k in `prior`, which holds τ_k, from the shortest to K. n(h) is the number of distinct
    characters seen after h. This is hierarchical Pitman-Yor smoothing (Teh 2006) with constants.

    A context consists of the visible characters, at most K. In a collection it begins with the last
    END, and no h is longer.

    Of a long text, the contexts that have not occurred for the longest time are forgotten, because
    each takes some 400 bytes.
    """

    def __init__(self, context: int, prior: Mapping[int, float] = PRIOR) -> None:
        self._prior = prior
        self._lengths = [k for k in prior if k <= context]
        # By length, those of the present generation of contexts and of the one before it.
        self._counts: dict[int, dict[bytes, dict[int, int]]] = {k: {} for k in self._lengths}
        self._earlier: dict[int, dict[bytes, dict[int, int]]] = {k: {} for k in self._lengths}

    def _seen(self, context: NDArray[np.int32], k: int) -> dict[int, int] | None:
        """Return the counts after the last k characters, which then belong to the present."""
        h = context[len(context) - k :].tobytes()
        found = self._counts[k].get(h)
        if found is None and (found := self._earlier[k].pop(h, None)) is not None:
            self._counts[k][h] = found
        return found

    def refine(self, probabilities: NDArray[np.float32], context: NDArray[np.int32]) -> None:
        """Update the probabilities after a context, (V,), in place, by the counts after it."""
        for k in self._lengths:
            if k > len(context):
                return
            seen = self._seen(context, k)
            if seen is None:
                return  # Longer contexts were not seen either.
            whole = sum(seen.values()) + self._prior[k]
            probabilities *= (self._prior[k] + DISCOUNT * len(seen)) / whole
            for w, times in seen.items():
                probabilities[w] += (times - DISCOUNT) / whole

    def add(self, context: NDArray[np.int32], w: int) -> None:
        """Count a character after its context."""
        for k in self._lengths:
            if k > len(context):
                break
            seen = self._seen(context, k)
            if seen is None:
                seen = self._counts[k][context[len(context) - k :].tobytes()] = {}
            seen[w] = seen.get(w, 0) + 1
        if sum(map(len, self._counts.values())) > MOST_CONTEXTS // 2:
            self._earlier, self._counts = self._counts, {k: {} for k in self._lengths}


class Follower(Protocol):
    """Counts that follow a text. The counts from which they were made do not change."""

    def follow(self, ids: NDArray[np.intp]) -> NGramPredictions:
        """Predict each of the next ids, (N,), from all before it, and count them."""
        ...


def follower_of(
    counts: Counts, before: int, end_id: int | None, prior: Mapping[int, float] = PRIOR
) -> Follower:
    """Return a follower of a text.

    Args:
        counts: the counts before the text.
        before: the id of the character before the text.
        end_id: the id of END in a collection, else None.
        prior: the `prior` of an n-gram table's recent counts.
    """
    if isinstance(counts, NGramTable):
        return _TableFollower(counts, before, end_id, prior)
    return _MixerFollower(cast("ContextMixer", counts), before)


class _TableFollower:
    """An n-gram table, with the recent counts of the text on top."""

    def __init__(
        self, table: NGramTable, before: int, end_id: int | None, prior: Mapping[int, float]
    ) -> None:
        self._table, self._end_id = table, end_id
        self._read = np.full(table.context, -1, np.int32)  # (K,) the ids before the next one
        self._read[table.context - 1 :] = before
        self._visible = 1 if end_id is not None else table.context  # of them, without a limit
        self._recent = RecentCounts(table.context, prior)

    def follow(self, ids: NDArray[np.intp]) -> NGramPredictions:
        contexts, longest = self._contexts(ids), self._table.context
        ngram = self._table.look_up(contexts)
        for row, w in enumerate(ids.tolist()):
            visible = contexts[row, longest - min(self._visible, longest) :]
            self._recent.refine(ngram.probabilities[row], visible)
            self._recent.add(visible, w)
            if self._end_id is not None:
                self._visible = 1 if w == self._end_id else self._visible + 1
        return ngram

    def _contexts(self, ids: NDArray[np.intp]) -> NDArray[np.int32]:
        """Return the last K ids before each of the next ids, (N, K), and add these."""
        context = len(self._read)
        read = np.concatenate([self._read, ids.astype(np.int32)])
        self._read = read[len(ids) :]
        if not context:
            return np.zeros((len(ids), 0), np.int32)
        return np.lib.stride_tricks.sliding_window_view(read, context)[: len(ids)]


class _MixerFollower:
    """A copy of a context mixer, which learns the text."""

    def __init__(self, mixer: ContextMixer, before: int) -> None:
        self._mixer = mixer.copy()
        start = mixer.read(np.array([[before]]), mixer.zero_state(1))
        self._mixer.state[:] = start[0]

    def follow(self, ids: NDArray[np.intp]) -> NGramPredictions:
        blocks = zip(*self._mixer.follow(ids), strict=True)
        return NGramPredictions(*(np.concatenate(arrays) for arrays in blocks))
