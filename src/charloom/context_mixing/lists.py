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
from charloom.kernels.compiling import subroutine
from charloom.kernels.lanes import (
    COUNT,
    bits_of,
    load16,
    moved_up,
    numbers16,
    prefetch,
    reaching,
    store16,
    where16,
    with_upper_bits,
)
from charloom.kernels.vectors import trailing_zeros

SPREAD = np.uint64(HASH_SPREAD)
MULTIPLIER_1, MULTIPLIER_2 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
SHIFT_31, SHIFT_27, SHIFT_33 = np.uint64(31), np.uint64(27), np.uint64(33)
SHIFT_32, SHIFT_48 = np.uint64(32), np.uint64(48)
LOWER = np.uint64(0xFFFFFFFF)
ONE = np.uint64(1)

# An entry of a list: the character in 16 bits, its count in 10, its recent count in 6.
MOVED = np.uint32(0xFFFF)  # instead of a character: the list has moved to a longer one
CHARACTER_SHIFT = np.uint32(16)
CHARACTER_SHIFTS, RECENT_BITS, OTHER_BITS = 16, 63, ~63  # in lanes
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
def find_single(singles, buckets, value):
    """Return the place of a context's entry in the first table, -1 if it is missing."""
    begin = bucket_of(value, buckets) * SINGLE_WAYS
    found = with_upper_bits(singles, begin, value >> SHIFT_48)
    return begin + int(trailing_zeros(found)) if found != np.uint64(0) else -1


@subroutine(inline=True)
def prefetch_list(value, m):
    """Fetch the bucket of a context's first table, because it will be read soon."""
    prefetch(m.singles, bucket_of(value, m.sizes.single_buckets) * SINGLE_WAYS)


@subroutine(inline=True)
def prefetch_short(value, m):
    """Fetch the bucket of a context's second table, if its list has moved there."""
    if has_moved(value, m):
        begin = bucket_of(mixed(value), m.sizes.short_buckets) * LIST_WAYS * SHORT_WORDS
        for i in range(0, LIST_WAYS * SHORT_WORDS, COUNT):
            prefetch(m.shorts, begin + i)


@subroutine(inline=True)
def prefetch_long(value, m):
    """Fetch the beginnings of the lists in a context's bucket of the third table, if it has one."""
    if not has_moved(value, m):
        return
    value = mixed(value)
    place = find_list(m.shorts, m.sizes.short_buckets, value, SHORT_WORDS)
    if place >= 0 and m.shorts[place] >> CHARACTER_SHIFT == MOVED:
        begin = bucket_of(mixed(value), m.sizes.long_buckets) * LIST_WAYS * LONG_WORDS
        for i in range(LIST_WAYS):
            prefetch(m.longs, begin + i * LONG_WORDS)


@subroutine(types.boolean, inline=True)
def has_moved(value, m):
    """Return whether the list of a context is in the second or third table."""
    place = find_single(m.singles, m.sizes.single_buckets, value)
    return place >= 0 and np.uint32(m.singles[place] & LOWER) >> CHARACTER_SHIFT == MOVED


@subroutine(types.int64)
def find_list(lists, buckets, value, words):
    """Return the place of a context's first entry in a table of lists, -1 if it is missing."""
    begin = bucket_of(value, buckets) * LIST_WAYS * words
    check = np.uint32((value >> SHIFT_48) | ONE)
    for i in range(LIST_WAYS):
        if lists[begin + i * words] == check:
            return begin + i * words + 1
    return -1


@subroutine(types.int64)
def read_list(value, m, entries, begin):
    """Copy the list of a context with this hash, and return how long it is.

    Up to LONG_WORDS words are written from `begin` on.
    """
    place = find_single(m.singles, m.sizes.single_buckets, value)
    if place < 0:
        return 0
    entry = np.uint32(m.singles[place] & LOWER)
    if entry >> CHARACTER_SHIFT != MOVED:
        entries[begin] = entry
        return 1
    value = mixed(value)
    place = find_list(m.shorts, m.sizes.short_buckets, value, SHORT_WORDS)
    if place < 0:
        return 0
    used = 0
    if m.shorts[place] >> CHARACTER_SHIFT != MOVED:
        for i in range(SHORT):
            entry = m.shorts[place + i]
            entries[begin + i] = entry
            used += 1 if entry != np.uint32(0) else 0
        return used
    place = find_list(m.longs, m.sizes.long_buckets, mixed(value), LONG_WORDS)
    if place < 0:
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


@subroutine()
def see(lists, begin, at, used, recent_after):
    """Count the entry `at` of a list, move it to the front and age the others' recent counts."""
    seen = lists[begin + at]
    for i in range(at, 0, -1):
        lists[begin + i] = lists[begin + i - 1]
    for i in range(1, used):
        other = lists[begin + i]
        recent = recent_after[int(other & np.uint32(63))]
        lists[begin + i] = np.uint32((other & np.uint32(0xFFFFFFC0)) | np.uint32(recent))
    count, recent = int((seen >> np.uint32(6)) & np.uint32(1023)) + 1, int(seen & np.uint32(63))
    if count > MOST:
        count = (count + 1) // 2
        for i in range(1, used):
            other = lists[begin + i]
            half = (int((other >> np.uint32(6)) & np.uint32(1023)) + 1) // 2
            lists[begin + i] = entry_of(
                int(other >> np.uint32(16)), half, int(other & np.uint32(63))
            )
    lists[begin] = entry_of(int(seen >> np.uint32(16)), count, min(recent + 1, MOST_RECENT))


@subroutine(types.int64)
def place_in(lists, begin, character, most):
    """Return the place of a character in a list, or what the list has in use, and BESIDE added."""
    if most == SHORT:
        used = 0
        for i in range(SHORT):
            entry = lists[begin + i]
            if entry == np.uint32(0):
                break
            if int(entry >> CHARACTER_SHIFT) == character:
                return i
            used += 1
        return BESIDE + used
    for i in range(0, LONG_WORDS, COUNT):
        words = load16(lists, begin - 1 + i)
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
    check, seen = longs[begin - 1], longs[begin + at]
    i = LONG_WORDS - COUNT
    while i >= 0:
        words = load16(longs, begin - 1 + i)
        if i <= at + 1:
            before = load16(longs, begin - 2 + i) if i > 0 else moved_up(words)
            words = where16(numbers16(i) < at + 2, before, words)
        recent = words & RECENT_BITS
        aged = where16(recent < 2, recent, 2) + aged_by(recent)
        store16(longs, begin - 1 + i, (words & OTHER_BITS) | aged)
        i -= COUNT
    recent = min(int(seen & np.uint32(RECENT_BITS)) + 1, MOST_RECENT)
    longs[begin] = np.uint32(((int(seen) >> 6) + 1) << 6 | recent)
    longs[begin - 1] = check


@subroutine(types.int64)
def new_list(lists, buckets, value, words):
    """Return the place of the first entry of an empty list for a context."""
    bucket = bucket_of(value, buckets) * LIST_WAYS * words
    check = np.uint32((value >> SHIFT_48) | ONE)
    best, least = 0, 1 << 40
    for i in range(LIST_WAYS):
        begin = bucket + i * words
        if lists[begin] == check:
            best = i
            break
        value_of = 0
        if lists[begin] != np.uint32(0):
            if lists[begin + 1] >> np.uint32(16) == MOVED:
                value_of = MOVED_PRIORITY
            else:
                for j in range(1, words):
                    value_of += int((lists[begin + j] >> np.uint32(6)) & np.uint32(1023))
        if value_of < least:
            best, least = i, value_of
    begin = bucket + best * words
    for j in range(1, words):
        lists[begin + j] = np.uint32(0)
    lists[begin] = check
    return begin + 1


@subroutine()
def learn_list(value, character, m):
    """Count a character after a context."""
    singles, shorts, longs = m.singles, m.shorts, m.longs
    recent_after = m.recent_after
    place = find_single(singles, m.sizes.single_buckets, value)
    fresh = entry_of(character, 1, 1)
    if place < 0:
        begin = bucket_of(value, m.sizes.single_buckets) * SINGLE_WAYS
        place, least = begin, 1 << 40
        for i in range(begin, begin + SINGLE_WAYS):
            entry = np.uint32(singles[i] & LOWER)
            count = int((entry >> np.uint32(6)) & np.uint32(1023))
            if singles[i] == np.uint64(0):
                count = -1
            elif entry >> np.uint32(16) == MOVED:
                count = MOVED_PRIORITY
            if count < least:
                place, least = i, count
        singles[place] = ((value >> SHIFT_48) << SHIFT_48) | np.uint64(fresh)
        return
    high = (value >> SHIFT_48) << SHIFT_48
    entry = np.uint32(singles[place] & LOWER)
    second = mixed(value)
    if entry >> np.uint32(16) != MOVED:
        count = int((entry >> np.uint32(6)) & np.uint32(1023))
        recent = int(entry & np.uint32(63))
        if int(entry >> np.uint32(16)) == character:
            entry = entry_of(character, min(count + 1, MOST), min(recent + 1, MOST_RECENT))
            singles[place] = high | np.uint64(entry)
            return
        begin = new_list(shorts, m.sizes.short_buckets, second, SHORT_WORDS)
        shorts[begin] = fresh
        shorts[begin + 1] = entry_of(int(entry >> np.uint32(16)), count, recent_after[recent])
        singles[place] = high | np.uint64(MOVED << np.uint32(16))
        return
    begin = find_list(shorts, m.sizes.short_buckets, second, SHORT_WORDS)
    lists, most = shorts, SHORT
    if begin >= 0 and shorts[begin] >> np.uint32(16) == MOVED:
        lists, most = longs, LONG
        begin = find_list(longs, m.sizes.long_buckets, mixed(second), LONG_WORDS)
    if begin < 0:  # The list has been replaced by another one's.
        singles[place] = high | np.uint64(fresh)
        return
    at = place_in(lists, begin, character, most)
    if at >= BESIDE:
        used = at - BESIDE
        if used == SHORT and most == SHORT:
            longer = new_list(longs, m.sizes.long_buckets, mixed(second), LONG_WORDS)
            for i in range(SHORT):
                longs[longer + i] = shorts[begin + i]
            shorts[begin] = MOVED << np.uint32(16)
            lists, begin, most = longs, longer, LONG
        at = used
        if used == most:
            at, least = 1, 1 << 40
            for i in range(1, most):
                count = int((lists[begin + i] >> np.uint32(6)) & np.uint32(1023))
                if count < least:
                    at, least = i, count
        lists[begin + at] = entry_of(character, 0, 0)
    if most == LONG and int((lists[begin + at] >> np.uint32(6)) & np.uint32(1023)) < MOST:
        see_long(lists, begin, at)
        return
    used = at + 1
    while used < most and lists[begin + used] != np.uint32(0):
        used += 1
    see(lists, begin, at, used, recent_after)
