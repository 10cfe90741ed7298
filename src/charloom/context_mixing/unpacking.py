"""The kernel that fills a table of lists from its planes, see `charloom.context_mixing.packing`."""

from __future__ import annotations

import numpy as np

from charloom.context_mixing.layout import LONG
from charloom.context_mixing.lists import CHARACTER_SHIFT, MOVED
from charloom.context_mixing.planes import (
    CHARACTERS,
    MOVED_NOWHERE,
    OTHER,
    OTHERS,
    OUTSIDE,
    SEEN_ONCE,
    UNKNOWN_CODE,
    UNSEEN,
)
from charloom.kernels.arrays import as_flat


def fill(used, checks, lengths, codes, pairs, others, characters, of_lists, words, numbers):
    """Write the lists of a table, whose first three planes have fitting lengths.

    Args:
        used: the number of lists in each bucket, which are its first ones.
        checks: of each list, uint16.
        lengths: of each list.
        codes: of the pairs of counts of each entry.
        pairs: those with a code of their own.
        others: those of entries with the code OTHER, in their order.
        characters: those of entries that have not moved, in their order.
        of_lists: written: the check of every place of a list, uint16.
        words: written: a row of words for every place, of which the last ones are entries.
        numbers: the lists of a bucket, the entries of a list, the words of a row and the size of
            the vocabulary. The last one is written: a key of FAULTS, 0 for valid planes.
    """
    ways, entries, row, size = numbers[0], numbers[1], numbers[2], numbers[3]
    buckets, seen, other, written = as_flat(used), as_flat(codes), as_flat(others), as_flat(words)
    known, sizes, frequent = as_flat(characters), as_flat(lengths), as_flat(pairs)
    checked, to = as_flat(checks), as_flat(of_lists)
    in_list, entry, next_other, next_known = 0, 0, 0, 0
    for bucket in range(len(used)):
        for place in range(bucket * ways, bucket * ways + buckets[bucket]):
            to[place] = checked[in_list]
            length, at = int(sizes[in_list]), (place + 1) * row - entries
            in_list += 1
            for i in range(length):
                code = int(seen[entry])
                entry += 1
                if code == OTHER:
                    if next_other == len(others):
                        numbers[4] = OTHERS
                        return
                    pair = np.uint32(other[next_other])
                    next_other += 1
                elif code < len(pairs):
                    pair = np.uint32(frequent[code])
                else:
                    numbers[4] = UNKNOWN_CODE
                    return
                if pair == 0:
                    if length > 1 or entries == LONG:
                        numbers[4] = MOVED_NOWHERE
                        return
                    written[at] = MOVED << CHARACTER_SHIFT
                    continue
                if pair < SEEN_ONCE:
                    numbers[4] = UNSEEN
                    return
                if next_known == len(characters):
                    numbers[4] = CHARACTERS
                    return
                character = np.uint32(known[next_known])
                next_known += 1
                if character >= size:
                    numbers[4] = OUTSIDE
                    return
                written[at + i] = character << CHARACTER_SHIFT | pair
    if next_other < len(others):
        numbers[4] = OTHERS
    elif next_known < len(characters):
        numbers[4] = CHARACTERS
