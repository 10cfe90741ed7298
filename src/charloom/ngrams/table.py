"""An n-gram model as a table to be stored and asked: compact, of a stated size, compiled.

V: characters in the vocabulary; K: characters of context; E: entries of the table; I: nodes that
can have children; N: contexts asked about; h: a context, w: the character after it, h': h without
its first character.

The table is the trie of all grams hw of `charloom.ngram`, breadth first: the entries of one
character, then of two, up to K + 1; among those of one length in lexicographic order. The root is
node 0, entry e is node e + 1, and a node's children lie side by side. An entry holds p(w|h), a node
λ(h), and

    p(w|h) = the entry's, if there is one, else λ(h) p(w|h')

Contexts shorter than K have continuation counts' probabilities, also where no more than that is
visible. A table too large for its size gets fewer characters of context: of Kneser-Ney's longer
grams none can be left out without loss, for the shorter ones' counts are made to go with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.ngrams.kneser_ney import NO_CODE, NGramModel

LARGEST_CONTEXT = 32
BYTES_OF_P, BYTES_OF_A_NODE = 4, 8  # float32; where the children begin and λ
ASKED_AT_ONCE = 1 << 22  # probabilities; bounds the memory that an answer's making takes


class Answers(NamedTuple):
    """What a table says of N contexts."""

    probabilities: NDArray[np.float32]  # (N, V)
    length: NDArray[np.int32]  # (N,) characters of the longest context that was seen, 0 to K
    weight: NDArray[np.float32]  # (N,) λ of that context, the less the more often it was seen


@dataclass(frozen=True)
class NGramTable:
    """See the module. Raises ValueError for arrays that are no such table."""

    vocabulary_size: int
    context: int
    characters: NDArray[np.unsignedinteger]  # (E,) w
    probabilities: NDArray[np.float32]  # (E,) p(w|h)
    first: NDArray[np.int32]  # (I + 1,) the entry where a node's children begin
    weights: NDArray[np.float32]  # (I,) λ(h)

    @classmethod
    def of(cls, model: NGramModel, most_bytes: float = math.inf) -> NGramTable:
        """The table of an n-gram model, with as many of its characters of context as fit."""
        size = model.vocabulary_size
        kind = np.dtype(np.min_scalar_type(size))
        entries = [len(level.codes) - 1 for level in model.levels]  # by level
        context = model.context
        while context > 0:
            inner = 1 + sum(entries[:context])
            needed = sum(entries[: context + 1]) * (kind.itemsize + BYTES_OF_P)
            if needed + inner * BYTES_OF_A_NODE <= most_bytes:
                break
            context -= 1
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
        # Nothing was seen to follow what only ends the text.
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
            raise ValueError("its size or context is none")
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
            raise ValueError("a node stands behind its children")
        if len(characters) and int(characters.max()) >= self.vocabulary_size:
            raise ValueError("it has characters that the vocabulary lacks")
        if (np.diff(self._codes) <= 0).any():
            raise ValueError("its characters are out of order")
        for name, values in (("probabilities", self.probabilities), ("weights", self.weights)):
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise ValueError(f"its {name} are not above 0")

    @cached_property
    def _codes(self) -> NDArray[np.int64]:
        """(E + 1,) the parent's node times V plus w: ascending; NO_CODE at the end."""
        parent = np.repeat(np.arange(len(self.weights)), np.diff(self.first))
        return np.append(parent * self.vocabulary_size + self.characters, NO_CODE)

    @property
    def nbytes(self) -> int:
        arrays = (self.characters, self.probabilities, self.first, self.weights)
        return sum(array.nbytes for array in arrays)

    def ask(self, contexts: NDArray[np.int32]) -> Answers:
        """What follows contexts, (N, K) ids with the latest last, -1 where nothing precedes."""
        answers = Answers(
            np.empty((len(contexts), self.vocabulary_size), np.float32),
            np.zeros(len(contexts), np.int32),
            np.ones(len(contexts), np.float32),
        )
        if self._kernel is not None:
            self._kernel(
                self.first, self.characters, self.probabilities, self.weights,
                np.ascontiguousarray(contexts), *answers,
            )  # fmt: skip
            return answers
        at_once = max(1, ASKED_AT_ONCE // self.vocabulary_size)
        for begin in range(0, len(contexts), at_once):
            block = slice(begin, begin + at_once)
            p, length, weight = answers
            self._ask_plainly(contexts[block], Answers(p[block], length[block], weight[block]))
        return answers

    def _ask_plainly(self, contexts: NDArray[np.int32], answers: Answers) -> None:
        """The same in NumPy, for all contexts at once."""
        p, length, weight = answers
        p[:] = 1 / self.vocabulary_size
        asked = np.arange(len(contexts))  # those whose last k characters were seen
        for k in range(self.context + 1):
            node = np.zeros(len(asked), np.int64)
            for i in range(self.context - k, self.context):
                node = self._child(node, contexts[asked, i])
            inside = (node >= 0) & (node < len(self.weights))
            inside[inside] = self.first[node[inside]] < self.first[node[inside] + 1]
            asked, node = asked[inside], node[inside]
            if not len(asked):
                return
            p[asked] *= self.weights[node][:, None]
            begin = self.first[node]
            count = self.first[node + 1] - begin
            entry = np.repeat(begin - np.cumsum(count) + count, count) + np.arange(count.sum())
            p[np.repeat(asked, count), self.characters[entry]] = self.probabilities[entry]
            length[asked], weight[asked] = k, self.weights[node]

    def _child(self, node: NDArray[np.int64], w: NDArray[np.int32]) -> NDArray[np.int64]:
        """The nodes that follow nodes (N,) with characters w (N,); -1 where there is none."""
        code = node * self.vocabulary_size + w
        entry = np.searchsorted(self._codes, code)
        return np.where((node >= 0) & (w >= 0) & (self._codes[entry] == code), entry + 1, -1)

    @cached_property
    def _kernel(self) -> Any:
        try:
            from charloom.ngrams.lookup import ASK
        except Exception:  # without Numba, as charloom.engines says
            return None
        none = Answers(np.empty((0, 1), np.float32), np.empty(0, np.int32), np.empty(0, np.float32))
        contexts = np.empty((0, self.context), np.int32)
        return ASK.compiled(
            (self.first, self.characters, self.probabilities, self.weights, contexts, *none)
        )
