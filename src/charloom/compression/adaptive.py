"""Compression without a model: a mixer learns the text from nothing, and so does its reader."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from charloom.compression.characters import COLUMNS, Alphabet, Codes
from charloom.compression.kernel import CODE_NUMBERS, CODE_TEXT
from charloom.compression.layout import (
    EVEN,
    GUESSES_OF_NUMBER,
    PLACE,
    Coder,
    last_bytes,
    new_reader,
    new_writer,
)
from charloom.context_mixing.buffers import (
    FLOATS,
    model_places,
    scratch_places,
    weight_places,
)
from charloom.context_mixing.layout import make_constants, make_scratch
from charloom.context_mixing.mixer import ContextMixer
from charloom.progress import OnProgress

BLOCK = 4096  # characters that are coded in one call
BYTES_OF_DECISION = 3  # at most: 22 bits
Bytes = NDArray[np.uint8]


def write_text(
    alphabet: Alphabet, ids: Codes, megabytes: int, on_progress: OnProgress | None = None
) -> bytes:
    """Return the coder's bytes of a list and a text.

    Args:
        alphabet: the list.
        ids: the places of the text's characters in it, (N,).
        megabytes: of the mixer's lists, at most.
        on_progress: called with the stage, the number of characters coded, and their total.
    """
    coder, written = new_writer(), bytearray()
    rows = alphabet.rows()
    buffer = np.empty(16 * rows.size, np.uint8)
    CODE_NUMBERS(rows, _guesses(), coder, buffer)
    _take_over(coder, buffer, written)
    text = _Text(alphabet, len(ids), megabytes)
    buffer = np.empty(BLOCK * (BYTES_OF_DECISION * text.deepest + 1), np.uint8)
    for block in _blocks(len(ids), "compressing", on_progress):
        text.code(ids[block].copy(), coder, buffer)
        _take_over(coder, buffer, written)
    return bytes(written) + last_bytes(coder)


def read_text(
    content: bytes,
    size: int,
    length: int,
    megabytes: int,
    as_bytes: bool,
    on_progress: OnProgress | None = None,
) -> tuple[Alphabet, Codes]:
    """Return the list and the text, (N,), that `write_text` wrote.

    Args:
        content: the bytes.
        size: the characters of the list, V.
        length: those of the text, N.
        megabytes, as_bytes: as they were written.
        on_progress: as in `write_text`.

    Raises:
        Damage: if the list is not one.
    """
    data = np.frombuffer(content, np.uint8).copy()
    coder = new_reader(data)
    if len(data) == 0:
        data = np.zeros(1, np.uint8)
    rows = np.zeros((size, COLUMNS), np.int64)
    CODE_NUMBERS(rows, _guesses(), coder, data)
    alphabet = Alphabet.from_rows(rows, as_bytes)
    text = _Text(alphabet, length, megabytes)
    ids = np.zeros(length, np.int64)
    for block in _blocks(length, "decompressing", on_progress):
        text.code(ids[block], coder, data)
    return alphabet, ids


class _Text:
    """A mixer that codes a text."""

    def __init__(self, alphabet: Alphabet, length: int, megabytes: int) -> None:
        mixer: ContextMixer = alphabet.mixer(length, megabytes * 1_000_000)
        self._mixer, self._alone = mixer, len(alphabet.codes) == 1
        self._scratch = make_scratch(mixer.vocabulary_size)
        self._model, self._kept = model_places(mixer.tree, mixer.tables, make_constants())
        self._places = weight_places(mixer.adaptive), scratch_places(self._scratch)
        self._floats = np.zeros(1, FLOATS)
        self.deepest = mixer.tree.path.shape[1]

    def code(self, ids: Codes, coder: Coder, data: Bytes) -> None:
        """Write or read a block."""
        if self._alone:
            ids[:] = 0
            return
        CODE_TEXT(ids, self._mixer.state, self._model, *self._places, coder, data, self._floats)


def _guesses() -> NDArray[np.int64]:
    return np.full(COLUMNS * GUESSES_OF_NUMBER, EVEN, np.int64)


def _take_over(coder: Coder, buffer: Bytes, written: bytearray) -> None:
    """Append the bytes in a buffer, and let the coder begin there again."""
    written += buffer[: int(coder[PLACE])].tobytes()
    coder[PLACE] = 0


def _blocks(length: int, stage: str, on_progress: OnProgress | None) -> Iterator[slice]:
    for begin in range(0, length, BLOCK):
        yield slice(begin, begin + BLOCK)
        if on_progress is not None:
            on_progress(stage, min(begin + BLOCK, length), length)
