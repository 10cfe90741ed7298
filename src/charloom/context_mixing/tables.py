"""The tables of a context mixer, where the lists of characters after each context are.

Lists of several characters have words of 32 bits, the first of them a check of the context. With a
small vocabulary, words of short lists have 24 bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.context_mixing.layout import (
    LIST_WAYS,
    LONG_WORDS,
    SHORT_WORDS,
    SINGLE_WAYS,
    Words,
)

Halves = NDArray[np.uint16]
Bytes = NDArray[np.uint8]

# An entry of a list: the character in 16 bits, its count in 10, its recent count in 6. In lists of
# up to SHORT, the characters of a small vocabulary have 8 bits.
MOVED = 0xFFFF  # instead of a character: the list has moved to a longer one
NARROW, WIDE = 3, 4  # bytes of a word
NARROW_MOVED = 0xFF  # instead of a character of 8 bits
CACHE_LINE = 64


class Tables(NamedTuple):
    """Lists of characters seen after each context, by how many they hold."""

    checks: Halves  # (8 n,) of `singles`
    singles: Words  # (8 n,)
    shorts: Bytes  # (4 n, SHORT_WORDS, NARROW or WIDE)
    longs: Words  # (4 n LONG_WORDS,)


def width_of(size: int) -> int:
    """Return the bytes of a word in short lists, for a vocabulary of that size."""
    return NARROW if size <= NARROW_MOVED else WIDE


def make_tables(singles: int, shorts: int, longs: int, width: int = WIDE) -> Tables:
    """Return empty tables of these numbers of buckets, at least one of each."""
    singles, shorts, longs = max(singles, 1), max(shorts, 1), max(longs, 1)
    return Tables(
        _zeros(singles * SINGLE_WAYS, np.uint16),
        _zeros(singles * SINGLE_WAYS, np.uint32),
        _zeros(shorts * LIST_WAYS * SHORT_WORDS * width, np.uint8).reshape(-1, SHORT_WORDS, width),
        _zeros(longs * LIST_WAYS * LONG_WORDS, np.uint32),
    )


def _zeros(count: int, kind: Any) -> NDArray[Any]:
    """Return zeros that begin with a cache line, so that a bucket takes as few lines as it can."""
    size = count * np.dtype(kind).itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    begin = -memory.ctypes.data % CACHE_LINE
    return memory[begin : begin + size].view(kind)


def words_of(shorts: Bytes) -> Words:
    """Return the words of short lists, (n, SHORT_WORDS)."""
    count, words, width = shorts.shape
    padded = np.zeros((count, words, WIDE), np.uint8)
    padded[..., :width] = shorts
    found = padded.view("<u4").reshape(count, words).astype(np.uint32, copy=False)
    if width == NARROW:
        found[found >= NARROW_MOVED << 16] = MOVED << 16
    return found


def put_words(shorts: Bytes, words: Words) -> None:
    """Write the words of short lists, (n, SHORT_WORDS)."""
    count, width = shorts.shape[0], shorts.shape[2]
    parts = np.ascontiguousarray(words, "<u4").view(np.uint8)
    shorts[:] = parts.reshape(count, SHORT_WORDS, WIDE)[..., :width]
