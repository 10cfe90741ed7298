"""A context mixer: it learns a text in one pass, and predicts the next characters of one.

T: characters in a row, B: rows, V: characters in the vocabulary, N: characters of a text.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.context_mixing.buffers import (
    Places,
    model_places,
    scratch_places,
    weight_places,
)
from charloom.context_mixing.kernel import FOLLOW, LEARN, PREDICT, READ
from charloom.context_mixing.layout import (
    BLOCK,
    FROZEN_EVERY,
    LARGEST_VOCABULARY,
    LIST_WAYS,
    LONG_WORDS,
    ORDERS,
    SHORT_WORDS,
    SINGLE_WAYS,
    STATE,
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
from charloom.errors import CharloomError
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
    codes = np.minimum(np.rint(-CODES_PER_BIT * np.log2(p)), 255)
    return np.asarray(codes, np.uint8)


DECODED = np.exp2(-np.arange(256) / CODES_PER_BIT).astype(np.float32)


def decode_probabilities(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the probabilities that bytes stand for."""
    return DECODED[codes]


class _Workspace:
    """Scratch memory of one call at a time, and its addresses."""

    def __init__(self, size: int) -> None:
        self.scratch: Scratch = make_scratch(size)
        self.places: Places = scratch_places(self.scratch)


@dataclass
class ContextMixer:
    """Contexts' lists of characters, and the weights that mix their predictions.

    It has two copies of the weights. Those of a model that counts the text it predicts trust recent
    counts more than those of a frozen one, whose latest text lies far back.

    Attributes:
        vocabulary_size: V.
        tree: the vocabulary as a tree of decisions.
        tables: the lists of characters seen after each context.
        frozen: the weights for predictions without counting.
        adaptive: the weights for predictions of a text that is counted at once.
        state: that after the text so far, (STATE,).
        blocks: the number of blocks so far.
        packed: the arrays of its file, if it has learned nothing since (see `packing`).
    """

    vocabulary_size: int
    tree: Tree
    tables: Tables
    frozen: Weights
    adaptive: Weights
    state: State
    blocks: int = 0
    packed: dict[str, NDArray[Any]] | None = field(default=None, repr=False)
    _workspaces: SimpleQueue[_Workspace] = field(default_factory=SimpleQueue, repr=False)

    context = ORDERS  # the largest `length` of a prediction

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
            most_bytes: of its lists.

        Raises:
            CharloomError: for a vocabulary of more than LARGEST_VOCABULARY characters.
        """
        if len(vocabulary) > LARGEST_VOCABULARY:
            raise CharloomError(
                f"a vocabulary of {len(vocabulary):,} characters is too large for context mixing: "
                f"use at most {LARGEST_VOCABULARY:,}, or Kneser-Ney counts"
            )
        each = (
            SINGLES_PER_CHARACTER * 8
            + SHORTS_PER_CHARACTER * SHORT_WORDS * 4
            + LONGS_PER_CHARACTER * LONG_WORDS * 4
        )
        characters = min(max(length, FEWEST), most_bytes / each)
        tables = make_tables(
            int(characters * SINGLES_PER_CHARACTER / SINGLE_WAYS),
            int(characters * SHORTS_PER_CHARACTER / LIST_WAYS),
            int(characters * LONGS_PER_CHARACTER / LIST_WAYS),
        )
        tree = make_tree(counts, vocabulary.characters, vocabulary.end_id)
        state = np.zeros(STATE, np.uint64)
        return cls(len(vocabulary), tree, tables, make_weights(), make_weights(), state)

    def learn(self, ids: Ids, record: NDArray[np.uint8] | None = None, threads: int = 1) -> None:
        """Learn a text, the continuation of the text so far.

        It is processed in blocks. Each block is predicted with the counts before it, which changes
        the frozen weights, and then counted.

        Args:
            ids: (N,).
            record: written: in row i the predictions after ids[i], as bytes (N, V), before any
                character of its block is counted.
            threads: that predict.
        """
        self.packed = None
        for block, begin in _blocks(ids):
            if record is not None:
                p = self._predict_block(block, threads)
                record[begin : begin + len(block)] = encode_probabilities(p)
            if self.blocks % FROZEN_EVERY == 0:
                self._learn_block(block, self.state.copy(), self.frozen, count=False)
            self._learn_block(block, self.state, self.adaptive, count=True)
            self.blocks += 1

    def _learn_block(self, block: Ids, state: State, weights: Weights, *, count: bool) -> None:
        p = np.empty(len(block), np.float32)
        places, flags = weight_places(weights), np.array([1, int(count)])
        workspace = self._take()
        arguments = block, state, self._places, places, workspace.places, p, flags
        LEARN(*arguments)
        self._workspaces.put(workspace)

    def _predict_block(self, block: Ids, threads: int) -> NDArray[np.float32]:
        """Return the probabilities after each character of a text, (N, V)."""
        parts = np.array_split(block, min(threads, max(1, len(block) // 64)))
        states = [self.state[None]]
        for part in parts[:-1]:
            states.append(self.read(part[:, None], states[-1]))

        def predict(part: Ids, state: State) -> NDArray[np.float32]:
            return self.predict(part[:, None], state)[0].probabilities

        if len(parts) == 1:
            return predict(block, states[0])
        with ThreadPoolExecutor(len(parts)) as pool:
            return np.concatenate(list(pool.map(predict, parts, states)))

    def follow(self, ids: Ids) -> Iterator[NGramPredictions]:
        """Predict each character of a text before it is counted.

        Args:
            ids: the continuation of the text so far, (N,).

        Yields:
            The predictions of the characters of a block, (n, V).
        """
        self.packed = None
        places = weight_places(self.adaptive)
        for block, _ in _blocks(ids):
            found = self._nothing(len(block))
            workspace = self._take()
            arguments = (
                block, self.state, self._places, places, workspace.places,
                found.probabilities.reshape(-1), found.length, found.weight,
            )  # fmt: skip
            FOLLOW(*arguments)
            self._workspaces.put(workspace)
            yield found

    def frozen_places(self, threads: int) -> tuple[Places, Places, Places, Any]:
        """Return what a kernel needs to predict without counting.

        Returns:
            The addresses of ModelBuffers, of WeightBuffers, and of ScratchBuffers for each thread,
            (threads, ·), and the arrays of the last ones, which the caller keeps.
        """
        workspaces = [_Workspace(self.vocabulary_size) for _ in range(threads)]
        scratch = np.stack([workspace.places for workspace in workspaces])
        return self._places, self._frozen_places, scratch, workspaces

    def zero_state(self, rows: int) -> State:
        """Return the state of rows that have read nothing, (B, STATE)."""
        return np.zeros((rows, STATE), np.uint64)

    def read(self, ids: Ids, state: State) -> State:
        """Return the state after rows have read ids (T, B)."""
        after = np.array(state, order="C")
        for row in range(ids.shape[1]):
            text = np.ascontiguousarray(ids[:, row], np.int64)
            arguments = text, after[row], self._places, DECODED
            READ(*arguments)
        return after

    def predict(self, ids: Ids, state: State) -> tuple[NGramPredictions, State]:
        """Return the predictions after each of the ids (T, B), (T · B, V), and the state then."""
        after, found = np.array(state, order="C"), self._nothing(ids.size)
        workspace = self._take()
        arguments = (
            np.ascontiguousarray(ids, np.int64), after, self._places, self._frozen_places,
            workspace.places, found.probabilities.reshape(-1), found.length, found.weight,
        )  # fmt: skip
        PREDICT(*arguments)
        self._workspaces.put(workspace)
        return found, after

    def copy(self) -> ContextMixer:
        """Return a mixer that learns without changing this one."""
        tables, frozen, adaptive, state = copy.deepcopy(
            (self.tables, self.frozen, self.adaptive, self.state)
        )
        return ContextMixer(
            self.vocabulary_size, self.tree, tables, frozen, adaptive, state, self.blocks
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arrays, because addresses and scratch memory belong to a process."""
        arrays = self.tree, self.tables, self.frozen, self.adaptive, self.state
        return ContextMixer, (self.vocabulary_size, *arrays, self.blocks, self.packed)

    @property
    def nbytes(self) -> int:
        """The memory of all arrays in bytes."""
        arrays = (*self.tree, *self.tables, *self.frozen, *self.adaptive)
        return sum(array.nbytes for array in arrays)

    @cached_property
    def _model(self) -> tuple[Places, Any]:
        return model_places(self.tree, self.tables, make_constants())

    @property
    def _places(self) -> Places:
        return self._model[0]

    @cached_property
    def _frozen_places(self) -> Places:
        return weight_places(self.frozen)

    def _nothing(self, rows: int) -> NGramPredictions:
        return NGramPredictions(
            np.empty((rows, self.vocabulary_size), np.float32),
            np.empty(rows, np.int32),
            np.empty(rows, np.float32),
        )

    def _take(self) -> _Workspace:
        """Return scratch memory that no other thread uses."""
        try:
            return self._workspaces.get_nowait()
        except Empty:
            return _Workspace(self.vocabulary_size)


def _blocks(ids: Ids) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yield the blocks of a text, and where each begins."""
    for begin in range(0, len(ids), BLOCK):
        yield np.ascontiguousarray(ids[begin : begin + BLOCK], np.int64), begin
