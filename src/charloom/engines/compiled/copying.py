"""Exclude characters that would copy too much of a training text, inside the inference kernel.

See `charloom.engines.restrictions` for the entries of a row, and `charloom.text.overlap` for the
suffix array. A stretch is some of the row's ids: `count` of them from `begin` on.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types

from charloom.engines.restrictions import (
    FREE,
    ID_BYTES,
    INDEXED,
    MOST,
    NEXT,
    RECENT,
    SEEN,
    STARTS,
    SUFFIXES,
)
from charloom.kernels.arrays import bytes_at, integers_at
from charloom.kernels.compiling import subroutine


class Index(NamedTuple):
    """A suffix array of a training text, and the ids of a row."""

    text: Any
    starts: Any
    count: int
    width: int
    recent: Any


@subroutine(types.intp, inline=True)
def _id_at(index, place):
    """Return the id at a place of the text, -1 at its end."""
    if place >= index.count * index.width:
        return -1
    id_ = int(index.text[place])
    for i in range(1, index.width):
        id_ = id_ * 256 + int(index.text[place + i])
    return id_


@subroutine(types.intp)
def _compare(index, suffix, begin, count):
    """Return 0 for a suffix that begins with a stretch, -1 for one before those, 1 after them."""
    place = int(index.starts[suffix])
    for i in range(begin, begin + count):
        id_, wanted = _id_at(index, place), int(index.recent[i])
        if id_ != wanted:
            return -1 if id_ < wanted else 1
        place += index.width
    return 0


@subroutine(types.intp)
def _first(index, low, begin, count, beyond):
    """Return the first suffix, from `low` on, for which `_compare` returns `beyond` or more."""
    high = index.count
    while low < high:
        middle = (low + high) // 2
        if _compare(index, middle, begin, count) < beyond:
            low = middle + 1
        else:
            high = middle
    return low


@subroutine(types.boolean)
def _occurs(index, begin, count):
    suffix = _first(index, 0, begin, count, 0)
    return suffix < index.count and _compare(index, suffix, begin, count) == 0


@subroutine(types.boolean)
def exclude_copies(w, at, count, here):
    """Replace the logits of characters that would copy too much by −∞, as an `OverlapGuard` does.

    Args:
        w: flat array with the row's logits.
        at: where they start.
        count: V.
        here: the entries of the row.

    Returns:
        False if no character is left.
    """
    seen, most = here[SEEN], here[MOST]
    if seen < here[NEXT]:
        return True
    index = Index(
        bytes_at(here[INDEXED]), integers_at(here[STARTS]), here[SUFFIXES], here[ID_BYTES],
        integers_at(here[RECENT]),
    )  # fmt: skip
    start, last = seen - most, seen  # of the longest stretch of the latest ids that was copied
    while start < last:
        middle = (start + last) // 2
        if _occurs(index, middle, seen - middle):
            last = middle
        else:
            start = middle + 1
    if seen - start < most:  # A stretch grows by one character at a time.
        here[NEXT] = start + most
        return True
    here[NEXT] = seen + 1
    suffix = _first(index, 0, start, most, 0)
    while suffix < index.count and _compare(index, suffix, start, most) == 0:
        id_ = _id_at(index, int(index.starts[suffix]) + most * index.width)
        if id_ < 0:  # The text ends here.
            suffix += 1
            continue
        if id_ < count and id_ != here[FREE]:
            w[at + id_] = -math.inf
        index.recent[seen] = np.int32(id_)  # Suffixes with the same follower are adjacent.
        suffix = _first(index, suffix, start, most + 1, 1)
    left = False
    for j in range(count):
        left |= w[at + j] > -math.inf
    return left


@subroutine()
def append(here, id_):
    """Add an id to those of the row."""
    integers_at(here[RECENT])[here[SEEN]] = np.int32(id_)
    here[SEEN] = here[SEEN] + 1
