"""The contexts of a place in a text: what a row has read, and the hashes of it."""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.context_mixing.layout import (
    ABOVE,
    ABOVE_LENGTH,
    BREAK,
    COLUMN,
    CONTEXT_COUNT,
    END,
    INDIRECT,
    LETTER,
    LINE,
    RECENT,
    SHORT_LINE,
    STATE,
    WORD,
    WORD_BEFORE,
    WORD_BEFORE_THAT,
    WORD_LENGTH,
)
from charloom.context_mixing.lists import (
    ONE,
    SPREAD,
    joined,
    mixed,
    prefetch_list,
    prefetch_long,
    prefetch_short,
    read_list,
)
from charloom.kernels.compiling import subroutine

FIRST_INDIRECT = CONTEXT_COUNT - INDIRECT
HALFWAY = (INDIRECT + FIRST_INDIRECT) // 2  # so that the fetched lists arrive


@subroutine()
def advance(state, m, character):
    """Read a character: change a row's state, (STATE,)."""
    kind = m.kind[character]
    if kind == END:
        for i in range(STATE):
            state[i] = np.uint64(0)
        return
    for i in range(RECENT - 1, 0, -1):
        state[i] = state[i - 1]
    before = state[1]
    state[0] = np.uint64(character + 1)
    if kind == LETTER:
        state[WORD] = mixed(state[WORD] * np.uint64(271) + np.uint64(m.folded[character] + 1))
        state[WORD_LENGTH] += ONE
    else:
        state[WORD_LENGTH] = np.uint64(0)
        if state[WORD] != np.uint64(0):
            state[WORD_BEFORE_THAT] = state[WORD_BEFORE]
            state[WORD_BEFORE] = state[WORD]
            state[WORD] = np.uint64(0)
    if kind == BREAK:
        column = int(state[COLUMN])
        if 0 < column < 25 and before != np.uint64(0) and m.kind[int(before) - 1] != LETTER:
            state[SHORT_LINE] = state[WORD_BEFORE]
        length = min(column, LINE)
        for i in range(length):
            state[ABOVE + i] = state[ABOVE + LINE + i]
        state[ABOVE_LENGTH] = np.uint64(length)
        state[COLUMN] = np.uint64(0)
    else:
        column = int(state[COLUMN])
        if column < LINE:
            state[ABOVE + LINE + column] = np.uint64(character + 1)
        state[COLUMN] += ONE


@subroutine(types.uint64, inline=True)
def above(state, column):
    """Return the character of the line above in a column, 0 if that line is too short."""
    if column < int(state[ABOVE_LENGTH]):
        return state[ABOVE + column]
    return np.uint64(0)


@subroutine()
def hash_contexts(state, m, hashes):
    """Hash the contexts of a row's state, but for the last ones, which depend on the tables."""
    c1, c2, c3 = state[0], state[1], state[2]
    word, before, before_that = state[WORD], state[WORD_BEFORE], state[WORD_BEFORE_THAT]
    column = int(state[COLUMN])
    place = np.uint64(min(column, 100))
    over, next_over = above(state, column), above(state, column + 1)
    value = np.uint64(0)
    n = 0
    for i in range(RECENT):
        value = mixed(value * SPREAD + state[i] + ONE)
        if i != 6:
            hashes[n] = joined(value, np.uint64(0), n)
            n += 1
    kind = np.uint64(0)
    if c2 != np.uint64(0):
        kind = np.uint64(m.kind[int(c2) - 1])
    both = joined(c1, c2, 100)
    hashes[7] = joined(word, np.uint64(0), 7)
    hashes[8] = joined(word, before, 8)
    hashes[9] = joined(joined(word, before, 9), before_that, 9)
    hashes[10] = joined(word, before_that, 10)
    hashes[11] = joined(c2, c3, 11)
    hashes[12] = joined(c1, over, 12)
    hashes[13] = joined(word, c1 * np.uint64(128) + place, 13)
    hashes[14] = joined(word, state[SHORT_LINE], 14)
    hashes[15] = joined(before, both, 15)
    hashes[16] = joined(c1, state[WORD_LENGTH] * np.uint64(8) + kind, 16)
    hashes[17] = joined(c1, place, 17)
    hashes[18] = joined(both, joined(over, next_over, 101), 18)


@subroutine(types.int64)
def read_lists(state, m, hashes, entries, begin, used, at):
    """Read the lists of all contexts, and hash the last ones.

    Lists of the last contexts are fetched while those of others are read.

    Args:
        state: that of the row.
        m: the model.
        hashes: those of the first contexts; those of the last ones are written, (C,).
        entries: written from `begin` on, up to LONG_WORDS words after the last list.
        begin: see `entries`.
        used: written from `at` on: the entries of each list, (C,).
        at: see `used`.

    Returns:
        The end of the lists.
    """
    end = read_some(m, hashes, 0, INDIRECT, entries, begin, used, at)
    hash_last(state, hashes, entries, begin, used, at)
    for c in range(FIRST_INDIRECT, CONTEXT_COUNT):
        prefetch_list(hashes[c], m)
    end = read_some(m, hashes, INDIRECT, HALFWAY, entries, end, used, at)
    prefetch_longer(m, hashes, FIRST_INDIRECT, CONTEXT_COUNT, 2)
    end = read_some(m, hashes, HALFWAY, FIRST_INDIRECT, entries, end, used, at)
    prefetch_longer(m, hashes, FIRST_INDIRECT, CONTEXT_COUNT, 3)
    return read_some(m, hashes, FIRST_INDIRECT, CONTEXT_COUNT, entries, end, used, at)


@subroutine(types.int64)
def read_some(m, hashes, first, after, entries, end, used, at):
    """Read the lists of the contexts from `first` to before `after`, like `read_lists`."""
    for c in range(first, after):
        length = read_list(hashes[c], m, entries, end)
        used[at + c] = length
        end += length
    return end


@subroutine()
def hash_last(state, hashes, entries, begin, used, at):
    """Hash the last contexts by the lists of the first INDIRECT ones, like `read_lists`."""
    c1, c2, first = state[0], state[1], begin
    for i in range(INDIRECT):
        latest, second = np.uint64(0), np.uint64(0)
        length = used[at + i]
        if length > 0:
            latest = np.uint64(entries[first] >> np.uint32(16)) + ONE
        if length > 1:
            second = np.uint64(entries[first + 1] >> np.uint32(16)) + ONE
        first += length
        known = joined(c1, c2 if i > 0 else np.uint64(0), 102)
        c = FIRST_INDIRECT + i
        hashes[c] = joined(known, joined(latest, second, 103), c)


@subroutine(types.int64)
def read_first_lists(state, m, hashes, entries, begin, used, at):
    """Read the lists of the contexts that are hashed, and hash the last ones, like `read_lists`."""
    end = read_some(m, hashes, 0, FIRST_INDIRECT, entries, begin, used, at)
    hash_last(state, hashes, entries, begin, used, at)
    return end


@subroutine()
def find_contexts(state, m, s):
    """Hash the contexts of a row's state, and read their lists."""
    hash_contexts(state, m, s.contexts)
    read_lists(state, m, s.contexts, s.entries, 0, s.used, 0)


@subroutine()
def prefetch_contexts(state, m, hashes):
    """Hash the contexts of a row's state, but for the last ones, and fetch their lists soon."""
    hash_contexts(state, m, hashes)
    for c in range(FIRST_INDIRECT):
        prefetch_list(hashes[c], m)


@subroutine()
def prefetch_longer(m, hashes, first, end, table):
    """Fetch the lists of some contexts that have moved to the second table, or the third one."""
    for c in range(first, end):
        if table == 2:
            prefetch_short(hashes[c], m)
        else:
            prefetch_long(hashes[c], m)
