"""An n-gram model as a table for storage and lookup: compact, of a limited size, with a kernel.

Symbols:

- V: characters in the vocabulary
- K: characters of context
- E: entries of the table
- I: nodes that can have children
- N: contexts that are looked up
- h: a context, w: the character after it, h': h without its first character

The table is the trie of all grams hw of `charloom.ngrams.kneser_ney`, breadth first. It holds the
entries of one character, then of two, up to K + 1, each length in lexicographic order. The root is
node 0, entry e is node e + 1, and a node's children are adjacent. An entry holds p(w|h), a node
λ(h), and

    p(w|h) = the entry's, if there is one, else λ(h) p(w|h')

Contexts shorter than K have probabilities from continuation counts, even where only these are
visible. A table that exceeds its size limit loses characters of context, not single grams. The
longer grams of Kneser-Ney cannot be pruned without loss, because the counts of the shorter ones
depend on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.kernels.kernel import Kernel
from charloom.ngrams.kneser_ney import NO_CODE, NGramModel

LOOK_UP = Kernel("charloom.ngrams.lookup:look_up", "counting")

LARGEST_CONTEXT = 32
BYTES_OF_P, BYTES_OF_A_NODE = 4, 8  # p in float32; the first child and λ
LOOKED_UP_AT_ONCE = 1 << 22  # probabilities, which bounds the memory of a lookup in NumPy


class NGramPredictions(NamedTuple):
    """The predictions of an n-gram table after N contexts."""

    probabilities: NDArray[np.float32]  # (N, V)
    length: NDArray[np.int32]  # (N,) characters of the longest context seen, 0 to K
    weight: NDArray[np.float32]  # (N,) λ of that context, smaller the more often it was seen

    def at(self, places: NDArray[np.intp] | slice) -> NGramPredictions:
        """Return the predictions at some of the places."""
        return NGramPredictions(
            self.probabilities[places], self.length[places], self.weight[places]
        )


@dataclass(frozen=True)
class NGramTable:
    """An n-gram model as a trie in arrays (see the module).

    Raises ValueError for arrays that are not a valid table.
    """

    vocabulary_size: int
    context: int
    characters: NDArray[np.unsignedinteger]  # (E,) w
    probabilities: NDArray[np.float32]  # (E,) p(w|h)
    first: NDArray[np.int32]  # (I + 1,) the entry where a node's children begin
    weights: NDArray[np.float32]  # (I,) λ(h)

    @classmethod
    def of(cls, model: NGramModel, most_bytes: float = math.inf) -> NGramTable:
        """Return the table of a model, with as many characters of context as fit `most_bytes`."""
        size = model.vocabulary_size
        kind = np.dtype(np.min_scalar_type(size))
        entries = [len(level.codes) - 1 for level in model.levels]  # by level
        context = _context_that_fits(entries, model.context, kind.itemsize, most_bytes)
        characters, parents, probabilities, weights = [], [], [], []
        before = 0  # entries of the levels before the last one
        for k, level in enumerate(model.levels[: context + 1]):
            face = level.highest if level.lower is None or k == context else level.lower
            above, w = np.divmod(level.codes[:-1], size)
            characters.append(w.astype(kind))
            parents.append(above if k == 0 else 1 + before + above)
            probabilities.append(face.probability[:-1].astype(np.float32))
            weights.append(face.weight[:-1].astype(np.float32))
            before += entries[k - 1] if k else 0
        inner = 1 + sum(entries[:context])
        # λ is 1 for a gram whose only occurrence ends the text, because no character follows it.
        weight = np.ones(inner, np.float32)
        known = np.concatenate([*weights, np.zeros(0, np.float32)])
        weight[: len(known)] = known
        parent = np.concatenate([*parents, np.zeros(0, np.int64)])
        return cls(
            size,
            context,
            np.concatenate([*characters, np.zeros(0, kind)]),
            np.concatenate([*probabilities, np.zeros(0, np.float32)]),
            np.searchsorted(parent, np.arange(inner + 1)).astype(np.int32),
            weight,
        )

    def __post_init__(self) -> None:
        nodes = len(self.weights)
        first, characters = self.first, self.characters
        if not 1 <= self.vocabulary_size < 2**31 or not 0 <= self.context <= LARGEST_CONTEXT:
            raise ValueError("its vocabulary size or context is invalid")
        if (
            nodes < 1
            or first.shape != (nodes + 1,)
            or first[0] != 0
            or first[-1] != len(characters)
        ):
            raise ValueError("its nodes do not cover its entries")
        if (np.diff(first) < 0).any() or nodes > 1 + len(characters):
            raise ValueError("its nodes are out of order")
        parents = np.flatnonzero(np.diff(first))
        if (first[parents] < parents).any():
            raise ValueError("a node comes after its children")
        if len(characters) and int(characters.max()) >= self.vocabulary_size:
            raise ValueError("it has characters outside the vocabulary")
        if (np.diff(self._codes) <= 0).any():
            raise ValueError("its characters are out of order")
        for name, values in (("probabilities", self.probabilities), ("weights", self.weights)):
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise ValueError(f"its {name} are not above 0")

    @cached_property
    def _codes(self) -> NDArray[np.int64]:
        """The parent's node times V plus w, (E + 1,), ascending, with NO_CODE at the end."""
        parent = np.repeat(np.arange(len(self.weights)), np.diff(self.first))
        return np.append(parent * self.vocabulary_size + self.characters, NO_CODE)

    @property
    def nbytes(self) -> int:
        """The size of the arrays in bytes."""
        arrays = (self.characters, self.probabilities, self.first, self.weights)
        return sum(array.nbytes for array in arrays)

    def zero_state(self, rows: int) -> NDArray[np.int32]:
        """Return the ids before the beginning of rows of a text: -1, (B, K)."""
        return np.full((rows, self.context), -1, np.int32)

    def read(self, ids: NDArray[np.integer[Any]], state: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the last K ids of each row, (B, K), after ids (T, B)."""
        return self._joined(ids, state)[:, len(ids) :]

    def predict(
        self, ids: NDArray[np.integer[Any]], state: NDArray[np.int32]
    ) -> tuple[NGramPredictions, NDArray[np.int32]]:
        """Return the predictions after ids (T, B) as `Counts.predict` does, and the state."""
        if not len(ids):
            return self.look_up(np.empty((0, self.context), np.int32)), state
        read = self._joined(ids, state)
        windows = np.lib.stride_tricks.sliding_window_view(read, self.context + 1, axis=1)
        contexts = windows[:, :, 1:].transpose(1, 0, 2).reshape(ids.size, self.context)
        return self.look_up(contexts), read[:, len(ids) :]

    def _joined(self, ids: NDArray[np.integer[Any]], state: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the ids that a state holds and those after it, (B, K + T)."""
        return np.concatenate([state, ids.T.astype(np.int32)], axis=1)

    def look_up(
        self, contexts: NDArray[np.int32], *, at_once: int = LOOKED_UP_AT_ONCE
    ) -> NGramPredictions:
        """Return the predictions after contexts, ids (N, K) with the latest last.

        Args:
            contexts: ids, with -1 before the beginning of the text.
            at_once: probabilities that are computed at a time where Numba is missing.
        """
        predictions = NGramPredictions(
            np.empty((len(contexts), self.vocabulary_size), np.float32),
            np.zeros(len(contexts), np.int32),
            np.ones(len(contexts), np.float32),
        )
        if self._kernel is not None:
            self._kernel(
                self.first, self.characters, self.probabilities, self.weights,
                np.ascontiguousarray(contexts), *predictions,
            )  # fmt: skip
            return predictions
        rows = max(1, at_once // self.vocabulary_size)
        for begin in range(0, len(contexts), rows):
            block = slice(begin, begin + rows)
            p, length, weight = predictions
            self._look_up_in_numpy(
                contexts[block], NGramPredictions(p[block], length[block], weight[block])
            )
        return predictions

    def _look_up_in_numpy(self, contexts: NDArray[np.int32], predictions: NGramPredictions) -> None:
        """Fill in the predictions as the kernel does, for all contexts at once."""
        p, length, weight = predictions
        p[:] = 1 / self.vocabulary_size
        rows = np.arange(len(contexts))  # contexts whose last k characters were seen
        for k in range(self.context + 1):
            node = np.zeros(len(rows), np.int64)
            for i in range(self.context - k, self.context):
                node = self._child(node, contexts[rows, i])
            inside = (node >= 0) & (node < len(self.weights))
            inside[inside] = self.first[node[inside]] < self.first[node[inside] + 1]
            rows, node = rows[inside], node[inside]
            if not len(rows):
                return
            p[rows] *= self.weights[node][:, None]
            begin = self.first[node]
            count = self.first[node + 1] - begin
            entry = np.repeat(begin - np.cumsum(count) + count, count) + np.arange(count.sum())
            p[np.repeat(rows, count), self.characters[entry]] = self.probabilities[entry]
            length[rows], weight[rows] = k, self.weights[node]

    def _child(self, node: NDArray[np.int64], w: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the children of nodes (N,) for characters w (N,), -1 where one is missing."""
        code = node * self.vocabulary_size + w
        entry = np.searchsorted(self._codes, code)
        return np.where((node >= 0) & (w >= 0) & (self._codes[entry] == code), entry + 1, -1)

    @cached_property
    def _kernel(self) -> Any:
        try:
            LOOK_UP.require_compiler()
        except Exception:  # Numba is missing or broken (see charloom.engines).
            return None
        contexts = np.empty((0, self.context), np.int32)
        predictions = NGramPredictions(
            np.empty((0, 1), np.float32), np.empty(0, np.int32), np.empty(0, np.float32)
        )
        return LOOK_UP.compiled(
            (self.first, self.characters, self.probabilities, self.weights, contexts, *predictions)
        )


def _context_that_fits(
    entries: list[int], context: int, bytes_of_a_character: int, most_bytes: float
) -> int:
    """Return the largest number of characters of context whose table fits.

    Args:
        entries: the number of entries of each level.
        context: the largest number to return.
        bytes_of_a_character: of the array of characters.
        most_bytes: the size limit of the table.
    """
    while context > 0:
        inner = 1 + sum(entries[:context])
        needed = sum(entries[: context + 1]) * (bytes_of_a_character + BYTES_OF_P)
        if needed + inner * BYTES_OF_A_NODE <= most_bytes:
            break
        context -= 1
    return context
