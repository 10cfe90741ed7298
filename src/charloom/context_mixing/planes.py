"""Constants of a packed mixer's planes, for `packing` and its kernel."""

from __future__ import annotations

PAIRS = 255  # that have a code of one byte; OTHER stands for any other one
OTHER = 255
SEEN_ONCE = 1 << 6  # a pair of counts from this one on was seen once or more often

# What is wrong with the planes of a table.
UNKNOWN_CODE, MOVED_NOWHERE, UNSEEN, OUTSIDE, OTHERS, CHARACTERS = range(1, 7)
FAULTS = {
    UNKNOWN_CODE: "the counts of its {} have unknown codes",
    MOVED_NOWHERE: "a list of its {} has moved nowhere",
    UNSEEN: "its {} have characters that were never seen",
    OUTSIDE: "its {} have characters outside the vocabulary",
    OTHERS: "its {} have a wrong number of others",
    CHARACTERS: "its {} have a wrong number of characters",
}
