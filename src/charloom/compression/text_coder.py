"""Texts as a mixer predicts them, block by block, written or read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.compression.layout import (
    END,
    EVEN,
    GUESSES_OF_NUMBER,
    PLACE,
    WIDTH,
    Coder,
    Damage,
    last_bytes,
    new_reader,
    new_writer,
)
from charloom.compression.network import NetworkPlan
from charloom.compression.replay import LEARNED_BLOCK, Replay
from charloom.compression.weights import OF_NETWORK, first_weights
from charloom.context_mixing.buffers import FLOATS, model_places, scratch_places, weight_places
from charloom.context_mixing.layout import Weights, make_constants, make_scratch
from charloom.context_mixing.mixer import ContextMixer
from charloom.engines.protocol import available_cores
from charloom.kernels.kernel import Kernel
from charloom.progress import OnProgress

CODE_TEXT = Kernel("charloom.compression.kernel:code_text", "compression")
CODE_TEXT_WITH_NETWORK = Kernel(
    "charloom.compression.kernel:code_text_with_network", "compression with a network"
)
CODE_PREDICTED = Kernel("charloom.compression.kernel:code_predicted", "compressed choices")
CODE_NUMBERS = Kernel("charloom.compression.kernel:code_numbers", "compressed numbers")

BLOCK = 4096  # characters that are coded in one call
BYTES_OF_DECISION = 3  # at most: 22 bits
BYTES_OF_NUMBER = 12
Ids = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class Writer:
    """The bytes that a coder writes."""

    def __init__(self) -> None:
        self.coder: Coder = new_writer()
        self._written = bytearray()

    def buffer(self, most: int) -> Bytes:
        """Return room for the next bytes, at most `most`."""
        return np.empty(most + 1, np.uint8)

    def take_over(self, buffer: Bytes) -> None:
        """Keep the bytes in a buffer. The coder begins there again."""
        self._written += buffer[: int(self.coder[PLACE])].tobytes()
        self.coder[PLACE] = 0

    def all_bytes(self) -> bytes:
        """Return the bytes, at the end."""
        return bytes(self._written) + last_bytes(self.coder)


class Reader:
    """The bytes that a coder reads."""

    def __init__(self, content: bytes) -> None:
        data = np.frombuffer(content, np.uint8)
        self.coder: Coder = new_reader(data)
        self._data = np.append(data, np.uint8(0))  # because a kernel needs an array with entries

    def buffer(self, most: int) -> Bytes:
        """Return the bytes."""
        del most
        return self._data

    def take_over(self, buffer: Bytes) -> None:
        """Check the coder's place, which is in all the bytes.

        Raises:
            Damage: if more was read than a writer leaves out, so that the rest is made up.
        """
        del buffer
        if int(self.coder[PLACE]) > int(self.coder[END]) + WIDTH:
            raise Damage


def code_rows(
    rows: NDArray[np.int64], stream: Writer | Reader, first: Sequence[Sequence[int]] = ()
) -> None:
    """Write or read numbers from 1 on, (N, K), whose columns have guesses of their own.

    Args:
        rows: the numbers.
        stream: the bytes.
        first: the first guesses of each column in 65,536ths: whether a number is above 1, above 3,
            above 7 and so on.
    """
    guesses = np.full(rows.shape[1] * GUESSES_OF_NUMBER, EVEN, np.int64)
    for column, of_column in enumerate(first):
        begin = column * GUESSES_OF_NUMBER
        guesses[begin : begin + len(of_column)] = of_column
    buffer = stream.buffer(BYTES_OF_NUMBER * rows.size)
    CODE_NUMBERS(rows, guesses, stream.coder, buffer)
    stream.take_over(buffer)


class TextCoder:
    """A mixer that predicts a text, and learns it with `learns`.

    Args:
        mixer: its tables and the state before the text.
        weights: those of the mixer that are used.
        plan: a network that is trained at the same time, if it has units.
        length: characters of the text, which a network needs.
        learns: whether the weights change, and the characters are counted.
    """

    def __init__(
        self,
        mixer: ContextMixer,
        weights: Weights,
        plan: NetworkPlan | None = None,
        *,
        length: int = 0,
        learns: bool = True,
    ) -> None:
        plan = plan or NetworkPlan()
        size = mixer.vocabulary_size
        self.state = mixer.state.copy()
        self._alone = size == 1
        self._deepest = mixer.tree.path.shape[1]
        scratch = make_scratch(size)
        model, buffers = model_places(mixer.tree, mixer.tables, make_constants(), mixer.version)
        final = first_weights(OF_NETWORK) if plan.hidden else weights
        self._kept: Any = scratch, buffers, weights, final
        order = np.argsort(mixer.tree.rank, kind="stable").astype(np.int64)
        self._final = weight_places(final)
        self._replay = Replay(order, max(length, 1), plan, available_cores())
        self._places = (
            model, weight_places(weights), scratch_places(scratch), *self._replay.places,
        )  # fmt: skip
        self._floats, self._flags = np.zeros(1, FLOATS), np.array([learns, learns], np.int64)

    def code(
        self,
        ids: Ids,
        stream: Writer | Reader,
        stage: str = "",
        on_progress: OnProgress | None = None,
    ) -> None:
        """Write a text's ids, (N,), or read them into the array.

        Args:
            ids: the ids.
            stream: the bytes.
            stage: the stage for `on_progress`.
            on_progress: called with the stage, the number of characters coded, and their total.
        """
        size = LEARNED_BLOCK if self._replay.uses_network else BLOCK
        try:
            for begin, end in _blocks(len(ids), size, stage, on_progress):
                if self._alone:
                    ids[begin:end] = 0
                else:
                    self._code_block(ids, begin, end, stream)
        finally:
            self._replay.close()

    def _code_block(self, ids: Ids, begin: int, end: int, stream: Writer | Reader) -> None:
        buffer = stream.buffer((end - begin) * BYTES_OF_DECISION * self._deepest)
        arguments = ids, begin, end, self.state, *self._places, stream.coder, buffer
        if self._replay.uses_network:
            self._replay.begin_steps(ids, begin)
            CODE_TEXT_WITH_NETWORK(*arguments, self._replay.codes, self._final, self._floats)
            self._replay.end_steps(ids, begin, end)
        else:
            CODE_TEXT(*arguments, self._floats, self._flags)
        stream.take_over(buffer)


def _blocks(
    length: int, size: int, stage: str, on_progress: OnProgress | None
) -> Iterator[tuple[int, int]]:
    for begin in range(0, length, size):
        end = min(begin + size, length)
        yield begin, end
        if on_progress is not None:
            on_progress(stage, end, length)
