"""An excerpt of a collection that represents all of it, and a split into whole documents.

Of a book that is too long to be read, the end is taken. The documents of a collection are often
sorted, so that its end is unlike the rest.

N is the number of ids of the collection, n that of its documents.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]
Id = TypeVar("Id", bound="np.integer[Any]")

READ_AT_ONCE = 1 << 24  # ids of a memory-mapped file
PIECES = 50  # at least, that an excerpt consists of, unless the collection has fewer documents
GOLDEN = (5**0.5 - 1) / 2


def document_ends(ids: Integers, end_id: int) -> NDArray[np.int64]:
    """Return the index after each document, (n,), given the ids of a collection, (N,).

    A last document without END counts.
    """
    found = [
        begin + np.flatnonzero(ids[begin : begin + READ_AT_ONCE] == end_id)
        for begin in range(0, len(ids), READ_AT_ONCE)
    ]
    ends = np.concatenate([*found, np.zeros(0, np.int64)]) + 1
    return ends if not len(ids) or ids[-1] == end_id else np.append(ends, len(ids))


def excerpt(ids: NDArray[Id], limit: int, end_id: int) -> NDArray[Id]:
    """Return at most `limit` ids of a collection, in their order and from all parts of it.

    Most documents are taken whole or not at all. Of a document that exceeds a fiftieth of the
    limit, the end is taken, as much of it as of the whole collection.

    Args:
        ids: those of the collection, (N,).
        limit: the largest number to return.
        end_id: the id of END.
    """
    if len(ids) <= limit:
        return ids
    ends = document_ends(ids, end_id)
    lengths = np.diff(ends, prepend=0)  # (n,)
    large = lengths > limit // PIECES
    kept = np.where(large, lengths * limit // len(ids), 0)  # (n,) ids of each document
    small = np.flatnonzero(~large)
    chosen = small[_order(len(small))]
    kept[chosen] = lengths[chosen]
    kept[chosen[np.cumsum(lengths[chosen]) > limit - kept[large].sum()]] = 0
    first = ends - kept
    places = np.repeat(first - np.cumsum(kept) + kept, kept) + np.arange(kept.sum())
    return np.asarray(ids[places])


def hold_out_tenth(ids: NDArray[Id], end_id: int) -> tuple[NDArray[Id], NDArray[Id]] | None:
    """Return 90% and 10% of a collection's documents, each from all parts of it.

    Return None for a collection of fewer than ten documents.
    """
    ends = document_ends(ids, end_id)
    if len(ends) < 10:
        return None
    held_out = np.zeros(len(ends), np.bool_)
    held_out[_order(len(ends))[: len(ends) // 10]] = True
    chosen = np.repeat(held_out, np.diff(ends, prepend=0))
    return ids[~chosen], ids[chosen]


def _order(count: int) -> NDArray[np.intp]:
    """Return a permutation, (count,), of which each beginning is spread evenly over the whole."""
    return np.argsort(np.arange(count) * GOLDEN % 1, kind="stable")
