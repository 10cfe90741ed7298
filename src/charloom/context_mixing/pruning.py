"""A context mixer with fewer contexts, for a file that must be small.

What a list of characters is worth depends on how often its context was seen, and on the kind of
context. A table does not know the kinds of its lists. They are found by reading a text.

N: characters of a text.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.context_mixing.layout import (
    CONTEXT_COUNT,
    LONG_WORDS,
    STATE,
)
from charloom.context_mixing.mixer import ContextMixer
from charloom.context_mixing.tables import (
    MOVED,
    words_of,
)
from charloom.kernels.kernel import Kernel

MARK = Kernel("charloom.context_mixing.kernel:mark", "finding contexts")

# What a byte is worth in a list of each context, beside 1 for 5 characters. Measured on Tiny
# Shakespeare, by omitting all lists of a context: short contexts and words are worth most.
WORTH = {
    4.0: (0, 1, 2, 3, 7, 16, 17),
    2.0: (4, 11, 12, 19, 20, 21),
    1.0: (5, 6),
    0.2: (8, 9, 10, 13, 15),
    0.1: (14, 18),
}
UNKNOWN_WORTH = 0.1  # of a list that the text does not reach
SINGLE_WORTH = 2.0  # of a list with one character, which takes fewer bytes
LEAST, STEP = 0.1, 1.025  # the worth that is omitted at level 0, and its factor for each level
MOST_LEVEL = 620  # at which everything is omitted

Worths = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


class Kinds(NamedTuple):
    """The context of each list, counted from 1; 0 where it is unknown."""

    singles: NDArray[np.uint8]
    shorts: NDArray[np.uint8]
    longs: NDArray[np.uint8]


def find_kinds(mixer: ContextMixer, ids: NDArray[np.integer[Any]]) -> Kinds:
    """Return the context of each list of a mixer that a text, (N,), reaches."""
    kinds = Kinds(
        np.zeros(len(mixer.tables.singles), np.uint8),
        np.zeros(len(mixer.tables.shorts), np.uint8),
        np.zeros(len(mixer.tables.longs) // LONG_WORDS, np.uint8),
    )
    nothing = np.empty(0, np.float32)
    with mixer.workspace() as workspace:
        text, state = np.ascontiguousarray(ids, np.int64), np.zeros(STATE, np.uint64)
        MARK(text, state, mixer.places, workspace.places, nothing, *kinds)
    return kinds


def worths(mixer: ContextMixer, kinds: Kinds) -> Worths:
    """Return what each list is worth, 0 for an entry that leads to another table."""
    of_kind = np.full(CONTEXT_COUNT + 1, UNKNOWN_WORTH)
    for worth, contexts in WORTH.items():
        of_kind[[c + 1 for c in contexts]] = worth
    tables = mixer.tables
    shorts, longs = words_of(tables.shorts), tables.longs.reshape(-1, LONG_WORDS)
    return (
        SINGLE_WORTH * _worth(tables.singles[:, None], tables.checks, of_kind[kinds.singles]),
        _worth(shorts[:, 1:], shorts[:, 0], of_kind[kinds.shorts]),
        _worth(longs[:, 1:], longs[:, 0], of_kind[kinds.longs]),
    )


def _worth(
    entries: NDArray[np.uint32], checks: NDArray[Any], of_kind: NDArray[np.float64]
) -> NDArray[np.float64]:
    seen = ((entries >> 6) & 1023).sum(axis=1)
    # Lists that were seen equally often differ by chance, so that levels omit few lists each.
    worth = (seen + checks / 65536) * of_kind
    return np.where((entries[:, 0] == 0) | (entries[:, 0] >> 16 == MOVED), 0, worth)


def pruned(mixer: ContextMixer, worth: Worths, level: int) -> ContextMixer:
    """Return a mixer without the lists that are worth least, the more the higher the level.

    Entries that lead to another table remain, also where the list is omitted.
    """
    least = LEAST * STEP**level
    tables = mixer.tables
    kept = tables._replace(
        singles=tables.singles.copy(), shorts=tables.shorts.copy(), longs=tables.longs.copy()
    )
    omitted = [(values > 0) & (values < least) for values in worth]
    kept.singles[omitted[0]] = 0
    kept.shorts[omitted[1]] = 0
    kept.longs.reshape(-1, LONG_WORDS)[omitted[2]] = 0
    return ContextMixer(
        mixer.vocabulary_size, mixer.tree, kept, mixer.frozen, mixer.adaptive, mixer.state,
        mixer.blocks, mixer.version,
    )  # fmt: skip


def context_count(mixer: ContextMixer) -> int:
    """Return the number of contexts that a mixer knows."""
    tables = mixer.tables
    firsts = tables.singles, words_of(tables.shorts)[:, 1], tables.longs[1::LONG_WORDS]
    return sum(int(((first != 0) & (first >> 16 != MOVED)).sum()) for first in firsts)
