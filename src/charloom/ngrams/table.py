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
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError
from charloom.kernels.kernel import Kernel

if TYPE_CHECKING:
    from charloom.ngrams.kneser_ney import NGramModel

Nodes = NDArray[np.int32]

LOOK_UP = Kernel("charloom.ngrams.lookup:look_up", "counting")


LARGEST_CONTEXT = 32
BYTES_OF_P, BYTES_OF_A_NODE = 4, 8  # p in float32; the first child and λ
LOOKED_UP_AT_ONCE = 1 << 22  # probabilities, which bounds the memory of a lookup in NumPy


class Trie(NamedTuple):
    """The arrays of an `NGramTable`."""

    first: NDArray[np.int32]
    characters: NDArray[np.unsignedinteger]
    probabilities: NDArray[np.float32]
    weights: NDArray[np.float32]
    sizes: NDArray[np.int64]  # V, K and the number of nodes


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

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the fields, because a kernel belongs to its process."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _codes(self) -> NDArray[np.int64]:
        """The parent's node times V plus w, (E + 1,), ascending, and a larger number."""
        parent = np.repeat(np.arange(len(self.weights)), np.diff(self.first))
        codes = parent * self.vocabulary_size + self.characters
        return np.append(codes, np.iinfo(np.int64).max)

    @property
    def nbytes(self) -> int:
        """The size of the arrays in bytes."""
        arrays = (self.characters, self.probabilities, self.first, self.weights)
        return sum(array.nbytes for array in arrays)

    def with_less_context(self, context: int) -> NGramTable:
        """Return the table of the same text with at most `context` characters of context.

        The longest contexts then have the probabilities that longer ones would fall back to.
        """
        nodes = [0, 1]  # the first node of each length: nodes of a length are adjacent
        for _ in range(min(context, self.context)):
            nodes.append(1 + int(self.first[nodes[-1]]))
        inner = nodes[-1]
        entries = int(self.first[inner])
        return NGramTable(
            self.vocabulary_size,
            min(context, self.context),
            self.characters[:entries],
            self.probabilities[:entries],
            self.first[: inner + 1],
            self.weights[:inner],
        )

    def zero_state(self, rows: int) -> Nodes:
        """Return the state before the beginning of rows of a text: no node was reached, (B, K)."""
        return np.full((rows, self.context), -1, np.int32)

    def read(self, ids: NDArray[np.integer[Any]], state: Nodes) -> Nodes:
        """Return the nodes of the last 1 to K characters of each row, (B, K), after ids (T, B)."""
        return self._follow(ids.T, state, len(ids))[1]

    def predict(
        self, ids: NDArray[np.integer[Any]], state: Nodes
    ) -> tuple[NGramPredictions, Nodes]:
        """Return the predictions after ids (T, B) as `Counts.predict` does, and the state."""
        return self._follow(ids.T, state, 0)

    def look_up(
        self, contexts: NDArray[np.int32], *, at_once: int = LOOKED_UP_AT_ONCE
    ) -> NGramPredictions:
        """Return the predictions after contexts, ids (N, K) with the latest last.

        Args:
            contexts: ids, with -1 before the beginning of the text.
            at_once: probabilities that are computed at a time where Numba is missing.
        """
        start = self.zero_state(len(contexts))
        if not self.context:  # Whatever is read, nothing of it is visible.
            contexts = np.full((len(contexts), 1), -1, np.int32)
        return self._follow(contexts, start, contexts.shape[1] - 1, at_once)[0]

    def _follow(
        self,
        texts: NDArray[np.integer[Any]],
        state: Nodes,
        first: int,
        at_once: int = LOOKED_UP_AT_ONCE,
    ) -> tuple[NGramPredictions, Nodes]:
        """Return the predictions after each character of texts but the first ones, and the state.

        Args:
            texts: ids, (B, T).
            state: that before them, (B, K).
            first: the number of characters that are only read.
            at_once: as in `look_up`.
        """
        rows, steps = texts.shape
        count = rows * (steps - first)
        predictions = NGramPredictions(
            np.empty((count, self.vocabulary_size), np.float32),
            np.empty(count, np.int32),
            np.empty(count, np.float32),
        )
        if self._kernel is not None:
            state = np.array(state, np.int32, order="C")
            texts = np.ascontiguousarray(texts, np.int32)
            found = predictions.probabilities.reshape(-1)
            self._kernel(self.trie, texts, state, first, found, *predictions[1:])
            return predictions, state
        nodes, state = self._nodes(texts.T, state)
        nodes = nodes[first:].reshape(count, self.context)
        most = max(1, at_once // self.vocabulary_size)
        for begin in range(0, count, most):
            block = slice(begin, begin + most)
            p, length, weight = predictions
            self._predict_in_numpy(nodes[block], p[block], length[block], weight[block])
        return predictions, state

    def _nodes(self, ids: NDArray[np.integer[Any]], state: Nodes) -> tuple[Nodes, Nodes]:
        """Return the nodes of the last 1 to K characters after each of ids (T, B), and the last.

        These are (T, B, K) and (B, K). The node of k characters is the child of the node that
        k - 1 of them had one character before, so that all places are computed at once.
        """
        nodes = np.empty((*ids.shape, self.context), np.int32)
        shorter = np.zeros(ids.shape, np.int64)
        for k in range(self.context):
            nodes[..., k] = self._child(shorter.ravel(), ids.ravel()).reshape(ids.shape)
            shorter[:1], shorter[1:] = state[:, k], nodes[:-1, :, k]
        return nodes, nodes[-1].copy() if len(ids) else state

    def _predict_in_numpy(
        self,
        nodes: Nodes,
        p: NDArray[np.float32],
        length: NDArray[np.int32],
        weight: NDArray[np.float32],
    ) -> None:
        """Write the predictions after states (N, K) as the kernel does, for all at once."""
        p[:], length[:], weight[:] = 1 / self.vocabulary_size, 0, 1
        rows = np.arange(len(nodes))  # contexts whose last k characters were seen
        for k in range(self.context + 1):
            node = np.zeros(len(rows), np.int64) if k == 0 else nodes[rows, k - 1].astype(np.int64)
            seen = node >= 0
            seen[seen] = self.first[node[seen]] < self.first[node[seen] + 1]
            rows, node = rows[seen], node[seen]
            if not len(rows):
                return
            p[rows] *= self.weights[node][:, None]
            begin = self.first[node]
            count = self.first[node + 1] - begin
            entry = np.repeat(begin - np.cumsum(count) + count, count) + np.arange(count.sum())
            p[np.repeat(rows, count), self.characters[entry]] = self.probabilities[entry]
            length[rows], weight[rows] = k, self.weights[node]

    def _child(self, node: NDArray[np.int64], w: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the children of nodes (N,) for characters w (N,), -1 where one is missing."""
        code = node * self.vocabulary_size + w
        entry = np.searchsorted(self._codes, code)
        found = (node >= 0) & (w >= 0) & (self._codes[entry] == code)
        return np.where(found & (entry + 1 < len(self.weights)), entry + 1, -1)

    @cached_property
    def trie(self) -> Any:
        """The arrays as kernels get them, a Trie."""
        sizes = np.array([self.vocabulary_size, self.context, len(self.weights)])
        return Trie(self.first, self.characters, self.probabilities, self.weights, sizes)

    @cached_property
    def _kernel(self) -> Any:
        try:
            LOOK_UP.require_compiler()
        except Exception:  # Numba is missing or broken (see charloom.engines).
            return None
        nothing = np.empty(0, np.float32)
        texts, state = np.empty((0, 0), np.int32), np.empty((0, self.context), np.int32)
        try:
            return LOOK_UP.compiled(
                (self.trie, texts, state, 0, nothing, np.empty(0, np.int32), nothing)
            )
        except CharloomError:  # Numba is broken, though the cache has another kernel
            return None


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
