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
PIECES = 20  # at least, that an excerpt consists of, unless the collection has fewer documents
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

    Most documents are taken whole or not at all. Of a document that exceeds 5% of the limit,
    its end is taken: these 5%, or more if the document's share of the limit is larger.
    Each character of the collection has the same chance.

    Args:
        ids: those of the collection, (N,).
        limit: the largest number to return, at least 1.
        end_id: the id of END.
    """
    return ids if len(ids) <= limit else np.asarray(ids[excerpt_places(ids, limit, end_id)])


def excerpt_places(ids: Integers, limit: int, end_id: int) -> NDArray[np.int64]:
    """Return the index in `ids` of each id that `excerpt` returns."""
    if len(ids) <= limit:
        return np.arange(len(ids))
    ends = document_ends(ids, end_id)
    lengths = np.diff(ends, prepend=0)  # (n,)
    share = lengths * limit // len(ids)  # (n,)
    pieces = np.minimum(lengths, np.maximum(share, max(1, limit // PIECES)))  # (n,)
    # A piece whose spread number is below its chance is taken.
    chance = lengths * (limit / len(ids)) / pieces
    order = np.argsort(np.where(chance < 1, _spread(len(ends)) / chance, 0), kind="stable")
    pieces[order[np.cumsum(pieces[order]) > limit]] = 0
    first = ends - pieces
    return np.repeat(first - np.cumsum(pieces) + pieces, pieces) + np.arange(pieces.sum())


def hold_out_tenth(ids: NDArray[Id], end_id: int) -> tuple[NDArray[Id], NDArray[Id]] | None:
    """Return 90% and 10% of a collection's documents, each from all parts of it.

    Return None for a collection of fewer than ten documents.
    """
    ends = document_ends(ids, end_id)
    if len(ends) < 10:
        return None
    held_out = np.zeros(len(ends), np.bool_)
    held_out[np.argsort(_spread(len(ends)))[: len(ends) // 10]] = True
    chosen = np.repeat(held_out, np.diff(ends, prepend=0))
    return ids[~chosen], ids[chosen]


def _spread(count: int) -> NDArray[np.float64]:
    """Return numbers from 0 to 1, (count,).

    The places of those below any bound are spread evenly.
    """
    return np.asarray(np.arange(count) * GOLDEN % 1)
