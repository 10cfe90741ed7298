"""The lists of characters seen after each context: found by a hash, read, and counted in.

A list of one character lies in `singles`, one of up to 7 in `shorts`, one of up to 63 in `longs`;
it moves when it is full. A context's bucket is a share of the hash's lower half, and the entry is
recognized by its upper 16 bits. Where a bucket is full, the context seen most rarely is forgotten.
"""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.context_mixing.layout import (
    HASH_SPREAD,
    LIST_WAYS,
    LONG,
    LONG_WORDS,
    MOST,
    MOST_RECENT,
    MULTIPLIERS,
    SHORT,
    SHORT_WORDS,
    SINGLE_WAYS,
)
from charloom.context_mixing.tables import MOVED as CODE_MOVED
from charloom.context_mixing.tables import (
    NARROW,
    NARROW_MOVED,
    WIDE,
)
from charloom.kernels.arrays import as_bytes
from charloom.kernels.compiling import subroutine
from charloom.kernels.lanes import (
    COUNT,
    bits_of,
    equal8,
    half_at,
    load16,
    load_words,
    moved_down,
    moved_up,
    numbers16,
    prefetch,
    put_unsigned,
    reaching,
    store16,
    store_words,
    where16,
    word_at,
)
from charloom.kernels.vectors import trailing_zeros

SPREAD = np.uint64(HASH_SPREAD)
MULTIPLIER_1, MULTIPLIER_2 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
SHIFT_31, SHIFT_27, SHIFT_33 = np.uint64(31), np.uint64(27), np.uint64(33)
SHIFT_32, SHIFT_48 = np.uint64(32), np.uint64(48)
LOWER = np.uint64(0xFFFFFFFF)
ONE = np.uint64(1)

MOVED = np.uint32(CODE_MOVED)
MOVED_ENTRY = np.uint32(CODE_MOVED << 16)
MOVED_WORD = np.uint32(NARROW_MOVED << 16)  # the same in a word of NARROW bytes
CHARACTER_SHIFT = np.uint32(16)
CHARACTER_SHIFTS, RECENT_BITS, OTHER_BITS = 16, 63, ~63  # in lanes
CACHE_LINE = 64  # bytes
BESIDE = 1 << 10  # added to the length of a list that lacks a character
MOVED_PRIORITY = 1 << 20  # such an entry is never the one to be replaced


@subroutine(types.uint64, inline=True)
def mixed(x):
    """Return a hash of 64 bits."""
    x ^= x >> SHIFT_31
    x *= MULTIPLIER_1
    x ^= x >> SHIFT_27
    x *= MULTIPLIER_2
    return x ^ (x >> SHIFT_33)


@subroutine(types.uint64, inline=True)
def joined(a, b, salt):
    """Return the hash of two values and the number of a context."""
    return mixed(mixed(a * SPREAD + np.uint64(salt + 1)) + b * MULTIPLIER_1)


@subroutine(types.int64, inline=True)
def bucket_of(value, buckets):
    """Return the bucket of a hash: its lower 32 bits as a share of all buckets."""
    return int(((value & LOWER) * np.uint64(buckets)) >> SHIFT_32)


@subroutine(types.int64, inline=True)
def find_single(m, value):
    """Return the place of a context's entry in the first table, -1 if it is missing."""
    begin = bucket_of(value, m.sizes.single_buckets) * SINGLE_WAYS
    found = equal8(m.checks, begin, value >> SHIFT_48)
    while found != np.uint64(0):
        place = begin + int(trailing_zeros(found))
        if m.singles[place] != np.uint32(0):  # else the check of nothing is 0 too
            return place
        found &= found - ONE
    return -1


@subroutine(inline=True)
def prefetch_list(value, m):
    """Fetch the bucket of a context's first table, because it will be read soon."""
    begin = bucket_of(value, m.sizes.single_buckets) * SINGLE_WAYS
    prefetch(m.checks, begin)
    prefetch(m.singles, begin)


@subroutine(types.uint32, inline=True)
def check_of(value):
    return np.uint32((value >> SHIFT_48) | ONE)


@subroutine(types.uint32, inline=True)
def entry_at(lists, begin, i, width):
    """Return the i-th entry of a list in bytes that begins with its check, of words of `width`.

    The word before it is read too, so that no byte after the list is.
    """
    word = word_at(lists, begin + (i + 2) * width - WIDE)
    word = np.uint32(word >> np.uint32(8 * (WIDE - width)))
    return MOVED_ENTRY if width == NARROW and word >= MOVED_WORD else word


@subroutine(inline=True)
def put_entry(lists, begin, i, width, entry):
    """Write the i-th entry of a list in bytes."""
    place, shift = begin + (i + 2) * width - WIDE, np.uint32(8 * (WIDE - width))
    before = word_at(lists, place) & np.uint32((1 << int(shift)) - 1)
    put_unsigned(lists, place, np.uint32((entry << shift) | before))


@subroutine(types.boolean, inline=True)
def has_moved(value, m):
    """Return whether the list of a context is in the second or third table."""
    place = find_single(m, value)
    return place >= 0 and m.singles[place] >> CHARACTER_SHIFT == MOVED


@subroutine(inline=True)
def prefetch_short(value, m):
    """Fetch the bucket of a context's second table, if its list has moved there."""
    if has_moved(value, m):
        size = LIST_WAYS * SHORT_WORDS * m.sizes.short_width
        begin = bucket_of(mixed(value), m.sizes.short_buckets) * size
        for i in range(0, size, CACHE_LINE):
            prefetch(m.shorts, begin + i)


@subroutine(inline=True)
def prefetch_long(value, m):
    """Fetch the beginnings of the lists in a context's bucket of the third table, if it has one."""
    if not has_moved(value, m):
        return
    value, width = mixed(value), m.sizes.short_width
    place = find_list(m.shorts, m.sizes.short_buckets, value, SHORT_WORDS, width)
    if place >= 0 and entry_at(m.shorts, place, 0, width) == MOVED_ENTRY:
        begin = bucket_of(mixed(value), m.sizes.long_buckets) * LIST_WAYS * LONG_WORDS
        for i in range(LIST_WAYS):
            prefetch(m.longs, begin + i * LONG_WORDS)


@subroutine(types.int64)
def find_list(lists, buckets, value, words, width):
    """Return the first byte of a context's list in a table in bytes, -1 if it is missing."""
    size = words * width
    begin, check = bucket_of(value, buckets) * LIST_WAYS * size, check_of(value)
    for i in range(LIST_WAYS):
        if half_at(lists, begin + i * size) == check:
            return begin + i * size
    return -1


@subroutine(types.int64)
def find_long(m, value):
    """Return the place of a context's check among the long lists, -1 if it is missing."""
    begin, check = bucket_of(value, m.sizes.long_buckets) * LIST_WAYS * LONG_WORDS, check_of(value)
    for i in range(LIST_WAYS):
        if m.longs[begin + i * LONG_WORDS] == check:
            return begin + i * LONG_WORDS
    return -1


@subroutine(types.int64)
def read_list(value, m, entries, begin):
    """Copy the list of a context with this hash, and return how long it is.

    Up to LONG_WORDS words are written from `begin` on.
    """
    place = find_single(m, value)
    if place < 0:
        return 0
    entry = m.singles[place]
    if entry >> CHARACTER_SHIFT != MOVED:
        entries[begin] = entry
        return 1
    value, width = mixed(value), m.sizes.short_width
    place = find_list(m.shorts, m.sizes.short_buckets, value, SHORT_WORDS, width)
    if place < 0:
        return 0
    if entry_at(m.shorts, place, 0, width) != MOVED_ENTRY:
        words = load_words(m.shorts, place, width)
        store16(entries, begin, moved_down(words))
        return used_in(words)
    place = find_long(m, mixed(value)) + 1
    if place == 0:
        return 0
    for i in range(0, LONG_WORDS, COUNT):  # from the check on, so that no other list is read
        words = load16(m.longs, place - 1 + i)
        if i == 0:
            for j in range(1, COUNT):
                entries[begin + j - 1] = m.longs[place - 1 + j]
        else:
            store16(entries, begin - 1 + i, words)
        found = bits_of(words == 0)
        if found != np.uint64(0):
            return i + int(trailing_zeros(found)) - 1
    return LONG


# What a recent count above 2 becomes after another character, less 2: see `make_constants`.
aged_by = reaching(4, 8, 16, 32)


@subroutine(types.uint32, inline=True)
def entry_of(character, count, recent):
    return np.uint32((character << 16) | (count << 6) | recent)


@subroutine(types.int64, inline=True)
def count_of(entry):
    return int((entry >> np.uint32(6)) & np.uint32(1023))


@subroutine()
def see(lists, begin, at, used, width, recent_after):
    """Count the entry `at` of a list, move it to the front and age the others' recent counts."""
    seen = entry_at(lists, begin, at, width)
    count, recent = count_of(seen) + 1, int(seen & np.uint32(63))
    halved = count > MOST
    for i in range(used - 1, 0, -1):
        other = entry_at(lists, begin, i - 1 if i <= at else i, width)
        kept, aged = count_of(other), recent_after[int(other & np.uint32(63))]
        if halved:
            kept = (kept + 1) // 2
        put_entry(lists, begin, i, width, entry_of(int(other >> CHARACTER_SHIFT), kept, aged))
    if halved:
        count = (count + 1) // 2
    first = entry_of(int(seen >> CHARACTER_SHIFT), count, min(recent + 1, MOST_RECENT))
    put_entry(lists, begin, 0, width, first)


@subroutine(types.int64, inline=True)
def used_in(words):
    """Return the number of entries in the words of a short list, which begin with its check."""
    return int(trailing_zeros(bits_of(words == 0) & ~ONE)) - 1


@subroutine(types.int64, inline=True)
def place_in(words, character):
    """Return the place of a character in a short list, or BESIDE + the number of entries."""
    ends = bits_of(words == 0) | ONE  # the check is not an entry
    found = bits_of((words >> CHARACTER_SHIFTS) == np.int32(character)) & ~ends
    if found != np.uint64(0):
        return int(trailing_zeros(found)) - 1
    return BESIDE + used_in(words)


@subroutine()
def see_short(shorts, begin, at, width, words):
    """Count the entry `at` of a short list as `see` does, where no count is halved."""
    seen = entry_at(shorts, begin, at, width)
    moved = where16(numbers16(0) < at + 2, moved_up(words), words)
    recent = moved & RECENT_BITS
    aged = where16(recent < 2, recent, 2) + aged_by(recent)
    moved = where16(numbers16(0) < 1, words, (moved & OTHER_BITS) | aged)
    store_words(shorts, begin, width, moved)
    recent = min(int(seen & np.uint32(RECENT_BITS)) + 1, MOST_RECENT)
    put_entry(shorts, begin, 0, width, np.uint32(((int(seen) >> 6) + 1) << 6 | recent))


@subroutine(types.int64)
def place_in_long(lists, begin, character):
    """Do the same in a long list, of which this is the place of the check."""
    for i in range(0, LONG_WORDS, COUNT):
        words = load16(lists, begin + i)
        ends = bits_of(words == 0)
        found = bits_of((words >> CHARACTER_SHIFTS) == np.int32(character))
        found &= ~(ends | (ONE if i == 0 else np.uint64(0)))  # the check is not an entry
        if found != np.uint64(0):
            return i + int(trailing_zeros(found)) - 1
        if ends != np.uint64(0):
            return BESIDE + i + int(trailing_zeros(ends)) - 1
    return BESIDE + LONG


@subroutine()
def see_long(longs, begin, at):
    """Count the entry `at` of a long list as `see` does, where no count is halved."""
    check, seen = longs[begin], longs[begin + 1 + at]
    i = LONG_WORDS - COUNT
    while i >= 0:
        words = load16(longs, begin + i)
        if i <= at + 1:
            before = load16(longs, begin - 1 + i) if i > 0 else moved_up(words)
            words = where16(numbers16(i) < at + 2, before, words)
        recent = words & RECENT_BITS
        aged = where16(recent < 2, recent, 2) + aged_by(recent)
        store16(longs, begin + i, (words & OTHER_BITS) | aged)
        i -= COUNT
    recent = min(int(seen & np.uint32(RECENT_BITS)) + 1, MOST_RECENT)
    longs[begin + 1] = np.uint32(((int(seen) >> 6) + 1) << 6 | recent)
    longs[begin] = check


@subroutine(types.int64)
def new_list(lists, buckets, value, words, width):
    """Return the first byte of an empty list for a context in a table in bytes."""
    size = words * width
    bucket, check = bucket_of(value, buckets) * LIST_WAYS * size, check_of(value)
    best, least = bucket, 1 << 40
    for i in range(LIST_WAYS):
        begin = bucket + i * size
        known = half_at(lists, begin)
        if known == check:
            best = begin
            break
        worth = 0
        if known != np.uint32(0):
            if entry_at(lists, begin, 0, width) == MOVED_ENTRY:
                worth = MOVED_PRIORITY
            else:
                for j in range(words - 1):
                    worth += count_of(entry_at(lists, begin, j, width))
        if worth < least:
            best, least = begin, worth
    for j in range(size):
        lists[best + j] = np.uint8(0)
    put_unsigned(lists, best, np.uint16(check))
    return best


@subroutine()
def learn_single(value, character, m):
    """Count a character after a context that is not in any table."""
    begin = bucket_of(value, m.sizes.single_buckets) * SINGLE_WAYS
    place, least = begin, 1 << 40
    for i in range(begin, begin + SINGLE_WAYS):
        entry = m.singles[i]
        count = count_of(entry)
        if entry == np.uint32(0):
            count = -1
        elif entry >> CHARACTER_SHIFT == MOVED:
            count = MOVED_PRIORITY
        if count < least:
            place, least = i, count
    m.singles[place] = entry_of(character, 1, 1)
    m.checks[place] = np.uint16(value >> SHIFT_48)


@subroutine()
def learn_long(longs, begin, character, recent_after):
    """Count a character in a long list, of which this is the place of the check."""
    at = place_in_long(longs, begin, character)
    if at >= BESIDE:
        at -= BESIDE
        if at == LONG:
            at, least = 1, 1 << 40
            for i in range(1, LONG):
                count = count_of(longs[begin + 1 + i])
                if count < least:
                    at, least = i, count
        longs[begin + 1 + at] = entry_of(character, 0, 0)
    if count_of(longs[begin + 1 + at]) < MOST:
        see_long(longs, begin, at)
        return
    used = at + 1
    while used < LONG and longs[begin + 1 + used] != np.uint32(0):
        used += 1
    see(as_bytes(longs), begin * WIDE, at, used, WIDE, recent_after)


@subroutine()
def learn_list(value, character, m):
    """Count a character after a context."""
    place = find_single(m, value)
    if place < 0:
        learn_single(value, character, m)
        return
    shorts, width = m.shorts, m.sizes.short_width
    entry, second = m.singles[place], mixed(value)
    if entry >> CHARACTER_SHIFT != MOVED:
        count, recent = count_of(entry), int(entry & np.uint32(63))
        if int(entry >> CHARACTER_SHIFT) == character:
            count, recent = min(count + 1, MOST), min(recent + 1, MOST_RECENT)
            m.singles[place] = entry_of(character, count, recent)
            return
        begin = new_list(shorts, m.sizes.short_buckets, second, SHORT_WORDS, width)
        put_entry(shorts, begin, 0, width, entry_of(character, 1, 1))
        aged = entry_of(int(entry >> CHARACTER_SHIFT), count, m.recent_after[recent])
        put_entry(shorts, begin, 1, width, aged)
        m.singles[place] = MOVED_ENTRY
        return
    begin = find_list(shorts, m.sizes.short_buckets, second, SHORT_WORDS, width)
    if begin >= 0 and entry_at(shorts, begin, 0, width) == MOVED_ENTRY:
        begin = find_long(m, mixed(second))
        if begin >= 0:
            learn_long(m.longs, begin, character, m.recent_after)
            return
    if begin < 0:  # The list has been replaced by another one's.
        m.singles[place] = entry_of(character, 1, 1)
        return
    words = load_words(shorts, begin, width)
    at = place_in(words, character)
    if at == BESIDE + SHORT:
        bytes_of_longs = as_bytes(m.longs)
        longer = (
            new_list(bytes_of_longs, m.sizes.long_buckets, mixed(second), LONG_WORDS, WIDE) // WIDE
        )
        for i in range(SHORT):
            m.longs[longer + 1 + i] = entry_at(shorts, begin, i, width)
        put_entry(shorts, begin, 0, width, MOVED_ENTRY)
        learn_long(m.longs, longer, character, m.recent_after)
        return
    if at >= BESIDE:
        at -= BESIDE
        put_entry(shorts, begin, at, width, entry_of(character, 0, 0))
    if count_of(entry_at(shorts, begin, at, width)) < MOST:
        see_short(shorts, begin, at, width, words)
    else:
        see(shorts, begin, at, used_in(words), width, m.recent_after)
