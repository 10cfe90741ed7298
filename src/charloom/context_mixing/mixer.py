"""A context mixer: it learns a text in one pass, and predicts the next characters of one.

T: characters in a row, B: rows, V: characters in the vocabulary, N: characters of a text.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charloom.context_mixing.buffers import (
    Places,
    list_places,
    model_places,
    scratch_places,
    weight_places,
)
from charloom.context_mixing.functions import powers_of_half
from charloom.context_mixing.layout import (
    BLOCK,
    LARGEST_VOCABULARY,
    LIST_WAYS,
    LONG_WORDS,
    ORDERS,
    SHORT_WORDS,
    SINGLE_WAYS,
    STATE,
    VERSION,
    NotedLists,
    Scratch,
    Tree,
    Weights,
    make_constants,
    make_noted,
    make_scratch,
    make_weights,
    with_logits,
)
from charloom.context_mixing.tables import (
    NARROW,
    WIDE,
    Tables,
    make_tables,
    width_of,
)
from charloom.context_mixing.trees import make_tree
from charloom.errors import CharloomError
from charloom.kernels.kernel import Kernel
from charloom.ngrams.table import NGramPredictions
from charloom.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from charloom.context_mixing.tasks import Task

READ = Kernel("charloom.context_mixing.kernel:read", "reading contexts")
PREDICT = Kernel("charloom.context_mixing.kernel:predict", "context mixing")
LOOK_UP = Kernel("charloom.context_mixing.kernel:look_up", "counting contexts")
LEARN = Kernel("charloom.context_mixing.kernel:learn", "learning contexts")
RECORD = Kernel("charloom.context_mixing.kernel:record", "recording contexts")
FOLLOW = Kernel("charloom.context_mixing.kernel:follow", "adaptive context mixing")

Ids = NDArray[np.integer[Any]]
State = NDArray[np.uint64]
Codes = NDArray[np.uint8]

# Lists that a text needs, for each of its characters, and at least.
SINGLES_PER_CHARACTER, SHORTS_PER_CHARACTER, LONGS_PER_CHARACTER = 3.4, 0.8, 0.04
FEWEST = 1024
# The largest size of all lists, counted with 64 bits for a single and 32 for each word of another
# list, as files of earlier versions were. They take 50 and 51 MB, and weights 12 MB.
MOST_BYTES = {NARROW: 64_000_000, WIDE: 57_000_000}
PIECES, PIECES_NOTED = 4, 4  # of a block; of which the lists are noted
CODES_PER_BIT = 16
_POWERS = powers_of_half(2 * 256, 2 * CODES_PER_BIT)
DECODED = _POWERS[::2].astype(np.float32)
# The probabilities between neighboring codes, as bits of float32, which are in the same order.
_BETWEEN = _POWERS[1:-1:2].astype(np.float32)[::-1].view(np.uint32)
_FIRST_BITS = np.arange(1 << 15, dtype=np.uint32) << np.uint32(16)
# For each number's first 16 bits: the code, and from which number on it is the one before.
_CODES = (len(_BETWEEN) - np.searchsorted(_BETWEEN, _FIRST_BITS, "right")).astype(np.uint8)
_LIMITS = np.append(_BETWEEN, np.uint32(0xFFFFFFFF))[len(_BETWEEN) - _CODES.astype(np.intp)]


def encode_probabilities(p: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return probabilities as bytes: -log₂ p in sixteenths, at most 255."""
    bits = np.ascontiguousarray(p, np.float32).view(np.uint32)
    first = bits >> np.uint32(16)
    return np.asarray(_CODES[first] - (bits >= _LIMITS[first]))


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
        version: 1 for a mixer of earlier versions of charloom, see `layout.VERSION`.
        packed: the arrays of its file, if a run saves it again and again (see `packing`).
    """

    vocabulary_size: int
    tree: Tree
    tables: Tables
    frozen: Weights
    adaptive: Weights
    state: State
    blocks: int = 0
    version: int = VERSION
    packed: dict[str, NDArray[Any]] | None = field(default=None, repr=False)
    _workspaces: SimpleQueue[_Workspace] = field(default_factory=SimpleQueue, repr=False)

    context = ORDERS  # the largest `length` of a prediction

    @classmethod
    def empty(
        cls,
        vocabulary: Vocabulary,
        counts: NDArray[np.integer[Any]],
        length: int,
        most_bytes: float | None = None,
        text: Ids | None = None,
        version: int = VERSION,
        weights: Weights | None = None,
    ) -> ContextMixer:
        """Return a mixer that has learned nothing.

        Args:
            vocabulary: the characters.
            counts: how often each occurs in the text, (V,).
            length: characters that it will learn, about.
            most_bytes: of its lists, counted as for MOST_BYTES, which is the default.
            text: the ids of the text, (N,), which decides about the tree: see `make_tree`. It is
                of no use to version 1.
            version: see `layout.VERSION`.
            weights: both copies of the weights, if only one of them is used.

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
        width = width_of(len(vocabulary))
        most = MOST_BYTES[width] if most_bytes is None else most_bytes
        characters = min(max(length, FEWEST), most / each)
        tables = make_tables(
            int(characters * SINGLES_PER_CHARACTER / SINGLE_WAYS),
            int(characters * SHORTS_PER_CHARACTER / LIST_WAYS),
            int(characters * LONGS_PER_CHARACTER / LIST_WAYS),
            width,
        )
        decides = text if version > 1 else None
        tree = make_tree(counts, vocabulary.characters, vocabulary.end_id, decides)
        frozen, adaptive = (weights or make_weights() for _ in range(2))
        state = np.zeros(STATE, np.uint64)
        return cls(len(vocabulary), tree, tables, frozen, adaptive, state, version=version)

    def learn(self, ids: Ids, record: NDArray[np.uint8] | None = None, threads: int = 1) -> None:
        """Learn a text, the continuation of the text so far.

        It is processed in blocks. Each block is predicted with the counts before it, which changes
        the frozen weights, and then counted. The result does not depend on the number of threads.

        Args:
            ids: (N,).
            record: written: in row i the predictions after ids[i], as bytes (N, V), before any
                character of its block is counted.
            threads: that learn.
        """
        from charloom.context_mixing.tasks import run_tasks

        self.packed = None
        self.__dict__.pop("_frozen", None)
        run_tasks(list(Learning(self, threads).tasks(ids, record)), threads)

    def follow(self, ids: Ids) -> Iterator[NGramPredictions]:
        """Predict each character of a text before it is counted.

        Args:
            ids: the continuation of the text so far, (N,).

        Yields:
            The predictions of the characters of a block, (n, V).
        """
        self.packed = None
        places = weight_places(self.adaptive)
        for block, _ in _blocks(ids, BLOCK):
            found = self._nothing(len(block))
            with self.workspace() as workspace:
                arguments = (
                    block, self.state, self.places, places, workspace.places,
                    found.probabilities.reshape(-1), found.length, found.weight,
                )  # fmt: skip
                FOLLOW(*arguments)
            yield found

    def frozen_places(self, threads: int) -> tuple[Places, Places, Places, Any]:
        """Return what a kernel needs to predict without counting.

        Returns:
            The addresses of ModelBuffers, of WeightBuffers, and of ScratchBuffers for each thread,
            (threads, ·), and the arrays of the last ones, which the caller keeps.
        """
        workspaces = [_Workspace(self.vocabulary_size) for _ in range(threads)]
        scratch = np.stack([workspace.places for workspace in workspaces])
        places, weights = self._frozen
        return self.places, places, scratch, (workspaces, weights)

    def zero_state(self, rows: int) -> State:
        """Return the state of rows that have read nothing, (B, STATE)."""
        return np.zeros((rows, STATE), np.uint64)

    def read(self, ids: Ids, state: State) -> State:
        """Return the state after rows have read ids (T, B)."""
        after = np.array(state, order="C")
        for row in range(ids.shape[1]):
            text = np.ascontiguousarray(ids[:, row], np.int64)
            arguments = text, after[row], self.places, DECODED
            READ(*arguments)
        return after

    def predict(self, ids: Ids, state: State) -> tuple[NGramPredictions, State]:
        """Return the predictions after each of the ids (T, B), (T · B, V), and the state then."""
        after, found = np.array(state, order="C"), self._nothing(ids.size)
        with self.workspace() as workspace:
            arguments = (
                np.ascontiguousarray(ids, np.int64), after, self.places, self._frozen[0],
                workspace.places, found.probabilities.reshape(-1), found.length, found.weight,
            )  # fmt: skip
            PREDICT(*arguments)
        return found, after

    def copy(self) -> ContextMixer:
        """Return a mixer that learns without changing this one."""
        tables, frozen, adaptive, state = copy.deepcopy(
            (self.tables, self.frozen, self.adaptive, self.state)
        )
        return ContextMixer(
            self.vocabulary_size, self.tree, tables, frozen, adaptive, state, self.blocks,
            self.version,
        )  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arrays, because addresses and scratch memory belong to a process."""
        arrays = self.tree, self.tables, self.frozen, self.adaptive, self.state
        return ContextMixer, (self.vocabulary_size, *arrays, self.blocks, self.version, self.packed)

    @property
    def nbytes(self) -> int:
        """The memory of all arrays in bytes."""
        arrays = (*self.tree, *self.tables, *self.frozen, *self.adaptive)
        return sum(array.nbytes for array in arrays)

    @cached_property
    def _model(self) -> tuple[Places, Any]:
        return model_places(self.tree, self.tables, make_constants(), self.version)

    @property
    def places(self) -> Places:
        """The addresses of ModelBuffers."""
        return self._model[0]

    @cached_property
    def _frozen(self) -> tuple[Places, Weights]:
        """The frozen weights as they are needed to predict, which learning makes obsolete."""
        weights = with_logits(self.frozen)
        return weight_places(weights), weights

    def _nothing(self, rows: int) -> NGramPredictions:
        return NGramPredictions(
            np.empty((rows, self.vocabulary_size), np.float32),
            np.empty(rows, np.int32),
            np.empty(rows, np.float32),
        )

    @contextmanager
    def workspace(self) -> Iterator[_Workspace]:
        """Lend scratch memory that no other thread uses."""
        try:
            workspace = self._workspaces.get_nowait()
        except Empty:
            workspace = _Workspace(self.vocabulary_size)
        yield workspace
        self._workspaces.put(workspace)


def _blocks(ids: Ids, size: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yield the blocks of a text, and where each begins."""
    for begin in range(0, len(ids), size):
        yield np.ascontiguousarray(ids[begin : begin + size], np.int64), begin


class Learning:
    """The tasks of a mixer that learns a text.

    All lists of contexts are looked up by one task after another, and noted. Weights need
    the notes alone, not the tables. Both sets can therefore learn at the same time, while the
    tables are changed already. Looking up goes first, so that no set waits for notes.
    """

    def __init__(self, mixer: ContextMixer, threads: int) -> None:
        self._mixer = mixer
        self._threads = threads
        size = mixer.vocabulary_size
        self._piece = -(-BLOCK // PIECES)
        self._of_blocks = [make_noted(BLOCK, size) for _ in range(2)]
        self._of_pieces = [make_noted(self._piece, size) for _ in range(PIECES_NOTED)]
        self._frozen = weight_places(mixer.frozen)
        self._adaptive = weight_places(mixer.adaptive)

    def tasks(self, ids: Ids, record: NDArray[np.uint8] | None) -> Iterator[Task]:
        """Yield the tasks for a text, (N,), in an order in which one thread can run them."""
        from charloom.context_mixing.tasks import Task

        nothing = Task(lambda: None)
        yield nothing
        looked_up = nothing
        frozen, adaptive = [nothing] * 2, [nothing] * PIECES_NOTED
        for number, (block, begin) in enumerate(_blocks(ids, BLOCK)):
            noted, state = self._of_blocks[number % 2], np.zeros(STATE, np.uint64)
            look_up = partial(self._look_up, block, noted, state, counts=False)
            looked_up = Task(look_up, (looked_up, frozen[-2]), urgent=True)
            yield looked_up
            recorded = []
            if record is not None:
                rows = -(-len(block) // self._threads)
                for part, at in _blocks(block, rows):
                    codes = record[begin + at : begin + at + len(part)]
                    task = partial(self._record, block, part, at, state, noted, codes)
                    recorded.append(Task(task, (looked_up, frozen[-1])))
                    yield recorded[-1]
            teach = partial(self._teach, self._frozen, block, state, noted)
            frozen.append(Task(teach, (looked_up, frozen[-1], *recorded)))
            yield frozen[-1]
            for piece, _ in _blocks(block, self._piece):
                noted = self._of_pieces[len(adaptive) % PIECES_NOTED]
                state = np.zeros(STATE, np.uint64)
                look_up = partial(self._look_up, piece, noted, state, counts=True)
                looked_up = Task(look_up, (looked_up, adaptive[-PIECES_NOTED]), urgent=True)
                yield looked_up
                teach = partial(self._teach, self._adaptive, piece, state, noted)
                adaptive.append(Task(teach, (looked_up, adaptive[-1])))
                yield adaptive[-1]
            self._mixer.blocks += 1

    def _look_up(self, ids: Ids, noted: NotedLists, before: State, *, counts: bool) -> None:
        """Note the lists of a text's contexts, and the state before it; count it if `counts`."""
        mixer = self._mixer
        before[:] = mixer.state
        state = mixer.state if counts else before.copy()
        with mixer.workspace() as workspace:
            LOOK_UP(
                ids, state, mixer.places, workspace.places, list_places(noted), DECODED, int(counts)
            )

    def _teach(self, weights: Places, ids: Ids, state: State, noted: NotedLists) -> None:
        mixer, p = self._mixer, np.empty(len(ids), np.float32)
        with mixer.workspace() as workspace:
            LEARN(
                ids, state.copy(), mixer.places, weights, workspace.places, list_places(noted), p, 1
            )

    def _record(
        self, block: Ids, part: Ids, at: int, before: State, noted: NotedLists, codes: Codes
    ) -> None:
        mixer, state = self._mixer, before.copy()
        p, weights = np.empty(codes.shape, np.float32), with_logits(mixer.frozen)
        with mixer.workspace() as workspace:
            READ(block[:at], state, mixer.places, DECODED)
            RECORD(
                part, at, state, mixer.places, weight_places(weights), workspace.places,
                list_places(noted), p,
            )  # fmt: skip
        codes[:] = encode_probabilities(p)
