"""Restrictions of the next character of a call of `generate`, a row of numbers for each text.

The array has HEADER entries, and FIELDS for each row of the batch. A row's text follows an
automaton, whose arrays it refers to by their addresses; the caller keeps them alive. The kernel
changes the state, the characters left, and the entries ENDED and STEPS.

A row can also have an index of a training text, from which it copies no more than a number of
characters in a row (see `charloom.text.overlap`). The kernel appends the row's ids to those before,
and changes the entries SEEN and NEXT.

V: characters in the vocabulary; Q: states; C: classes of characters; N: ids of a training text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEADER = 1  # entries before the rows: 1 if the rows are restricted, else 0
(
    CLASSES,  # the class of each character, int32 (V,); 0 without an automaton
    TABLE,  # the next state after each state and class, int32 (Q, C)
    DISTANCES,  # the characters from there to an end, int32 (Q, C)
    FLAGS,  # CAN_END and MUST_END of each state, int32 (Q,)
    ENDS,  # whether a character ends a text that can end, int32 (V,); 0 without any
    BIAS,  # additions to the logits, float64 (V,); 0 without any
    COLUMNS,  # C
    STATE,
    LEFT,  # characters left
    SAMPLES_END,  # whether it samples the end of a document where nothing can follow
    ENDED,  # RUNNING, ENDED_BEFORE if the last symbol is not part of the text, STUCK, or 1
    STEPS,  # symbols that were sampled, the last one included
    INDEXED,  # bytes of the ids of a training text, big-endian; 0 without any
    STARTS,  # of its suffixes in these bytes, sorted by the suffixes, int32 (N,)
    SUFFIXES,  # N
    ID_BYTES,  # of an id
    MOST,  # ids in a row that can be copied
    FREE,  # the id of the end of a document, which copies nothing; -1 without one
    RECENT,  # the row's ids so far, int32, with room for those of the call and one more
    SEEN,  # how many there are
    NEXT,  # how many there are at least before the next one can copy too much
    FIELDS,
) = range(22)
CAN_END, MUST_END = 1, 2
RUNNING, ENDED_BEFORE, STUCK = 0, 2, 3  # stuck: every next character would copy too much
# An allowed character keeps at least this logit, so that one that the model finds impossible can
# still be chosen where nothing else can come.
LOWEST = -1e30

Restrictions = NDArray[np.int64]
NO_RESTRICTIONS: Restrictions = np.zeros(HEADER, np.int64)


def empty_restrictions(rows: int) -> tuple[Restrictions, NDArray[np.int64]]:
    """Return restrictions that exclude nothing, and their view by rows, (B, FIELDS)."""
    found = np.zeros(HEADER + rows * FIELDS, np.int64)
    found[0] = 1
    return found, found[HEADER:].reshape(rows, FIELDS)
