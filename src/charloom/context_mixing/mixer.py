"""A context mixer: it learns a text in one pass, and predicts what follows one.

T: characters in a row, B: rows, V: characters in the vocabulary, N: characters of a text.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.context_mixing.layout import (
    BLOCK,
    LIST_WAYS,
    LONG_WORDS,
    SHORT_WORDS,
    SINGLE_WAYS,
    STATE,
    Constants,
    Scratch,
    Tables,
    Tree,
    Weights,
    make_constants,
    make_scratch,
    make_tables,
    make_tree,
    make_weights,
)
from charloom.ngrams.table import NGramPredictions
from charloom.text.vocabulary import Vocabulary

Ids = NDArray[np.integer[Any]]
State = NDArray[np.uint64]

MOST_BYTES = 64_000_000
# Lists that a text needs, for each of its characters, and at least.
SINGLES_PER_CHARACTER, SHORTS_PER_CHARACTER, LONGS_PER_CHARACTER = 3.4, 0.8, 0.04
FEWEST = 1024
CODES_PER_BIT = 16


def encode_probabilities(p: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return probabilities as bytes: -log₂ p in sixteenths, at most 255."""
    with np.errstate(divide="ignore"):
        return np.minimum(np.rint(-CODES_PER_BIT * np.log2(p)), 255).astype(np.uint8)


DECODED = np.exp2(-np.arange(256) / CODES_PER_BIT).astype(np.float32)


def decode_probabilities(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the probabilities that bytes stand for."""
    return DECODED[codes]


@dataclass
class ContextMixer:
    """Contexts' lists of characters, and the weights that mix their predictions.

    Two sets of weights are learned. Those of a model that goes on learning believe recent counts
    more than those of a frozen one, whose latest text lies far back.

    Attributes:
        vocabulary_size: V.
        frozen: the weights while nothing is learned.
        adaptive: the weights while every character is learned.
        state: that after the text which was learned, (STATE,).
    """

    vocabulary_size: int
    tree: Tree
    tables: Tables
    frozen: Weights
    adaptive: Weights
    state: State

    @classmethod
    def empty(
        cls,
        vocabulary: Vocabulary,
        counts: NDArray[np.integer[Any]],
        length: int,
        most_bytes: float = MOST_BYTES,
    ) -> ContextMixer:
        """Return a mixer that has learned nothing.

        Args:
            vocabulary: the characters.
            counts: how often each occurs in the text, (V,).
            length: characters that it will learn, about.
            most_bytes: of its tables.
        """
        each = (
            SINGLES_PER_CHARACTER * 8,
            SHORTS_PER_CHARACTER * SHORT_WORDS * 4,
            LONGS_PER_CHARACTER * LONG_WORDS * 4,
        )
        share = min(1.0, most_bytes / (sum(each) * max(length, FEWEST)))
        characters = max(length, FEWEST) * share
        tree = make_tree(counts, vocabulary.characters, vocabulary.end_id)
        tables = make_tables(
            int(characters * SINGLES_PER_CHARACTER) // SINGLE_WAYS,
            int(characters * SHORTS_PER_CHARACTER) // LIST_WAYS,
            max(1, int(characters * LONGS_PER_CHARACTER) // LIST_WAYS),
        )
        state = np.zeros(STATE, np.uint64)
        return cls(len(vocabulary), tree, tables, make_weights(), make_weights(), state)

    def learn(self, ids: Ids, record: NDArray[np.uint8] | None = None, threads: int = 1) -> None:
        """Learn a text that follows what was learned before.

        The text is learned in blocks. Each block is predicted from what was known before it, which
        teaches the frozen weights, and then learned.

        Args:
            ids: (N,).
            record: written: in row i the probabilities of what follows ids[i], as bytes (N, V), as
                they were before any character of its block was learned.
            threads: that predict.
        """
        for begin in range(0, len(ids), BLOCK):
            block = np.ascontiguousarray(ids[begin : begin + BLOCK], np.int64)
            if record is not None:
                record[begin : begin + BLOCK] = self._predict_block(block, threads)
            state = self.state.copy()
            self._learn(block, state, self.frozen, weights=True, counts=False)
            self._learn(block, self.state, self.adaptive, weights=True, counts=True)

    def follow(self, ids: Ids) -> Iterator[NDArray[np.float32]]:
        """Yield the probabilities of the next character, (V,), and then learn that character.

        Args:
            ids: the characters, (N,), after what was learned before.
        """
        out = np.empty((1, 1, self.vocabulary_size), np.float32)
        raise NotImplementedError

    def zero_state(self, rows: int) -> State:
        """Return the state of rows that have read nothing, (B, STATE)."""
        return np.zeros((rows, STATE), np.uint64)

    def read(self, ids: Ids, state: State) -> State:
        """Return the state after rows have read ids (T, B)."""
        after = state.copy()
        for row in range(ids.shape[1]):
            self._read(np.ascontiguousarray(ids[:, row], np.int64), after[row], self.tree)
        return after

    def predict(self, ids: Ids, state: State) -> tuple[NGramPredictions, State]:
        """Return the predictions after each of the ids (T, B), in rows (T · B, V), and the state."""
        steps, rows = ids.shape
        after = state.copy()
        p = np.empty((steps, rows, self.vocabulary_size), np.float32)
        length = np.empty((steps, rows), np.int32)
        weight = np.empty((steps, rows), np.float32)
        self._predict(
            np.ascontiguousarray(ids, np.int64), after, self.tree, self.tables, self.frozen,
            self._constants, self._scratch, p, length, weight,
        )  # fmt: skip
        flat = p.reshape(-1, self.vocabulary_size), length.ravel(), weight.ravel()
        return NGramPredictions(*flat), after

    def copy(self) -> ContextMixer:
        """Return a mixer that learns without changing this one."""
        return ContextMixer(
            self.vocabulary_size, self.tree, *copy.deepcopy((self.tables, self.frozen)),
            *copy.deepcopy((self.adaptive, self.state)),
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """The memory of all arrays in bytes."""
        arrays = (*self.tree, *self.tables, *self.frozen, *self.adaptive)
        return sum(array.nbytes for array in arrays)
