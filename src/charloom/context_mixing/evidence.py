"""The evidence at the nodes of the tree: counts of the characters below either turn.

Every leaf and every node has a row with a number for each context. A list's entry is written to its
character's row, and the row of a node is the sum of those of its children.

The probability of one character needs only the nodes of its path. Then there is a row for all
characters whose path leaves it at a certain node.
"""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.context_mixing.layout import CONTEXT_COUNT, DEEPEST, NOWHERE, RECENT_SHIFT, ROW
from charloom.context_mixing.lists import CHARACTER_SHIFT
from charloom.kernels.compiling import subroutine
from charloom.kernels.lanes import (
    COUNT,
    bits_of,
    filled16,
    load16,
    numbers16,
    store16,
    total16,
    where16,
)
from charloom.kernels.vectors import trailing_zeros

SIXTY_THREE, ONE, NONE = 63, np.uint64(1), np.uint64(0)
FEW = 3  # entries of a list that are added up one by one


@subroutine(types.int64, inline=True)
def row_of(child, m):
    """Return the place of the first number of a child's row: a node's, or after those a leaf's."""
    return (child if child >= 0 else m.sizes.characters - 2 - child) * ROW


@subroutine(types.UniTuple(types.int64, 2), inline=True)
def rows_below(node, m):
    """Return the places of the rows of a node's children."""
    return row_of(m.children[node * 2], m), row_of(m.children[node * 2 + 1], m)


@subroutine()
def merge(a, b, to, s):
    """Write the sum of the rows at two places to a third one.

    `first` and `second` are the places of the latest two characters in a context's list.
    """
    seen, first, second = s.seen, s.first, s.second
    for i in range(0, ROW, COUNT):
        store16(seen, to + i, load16(seen, a + i) + load16(seen, b + i))
        first_a, first_b = load16(first, a + i), load16(first, b + i)
        nearer = first_a < first_b
        store16(first, to + i, where16(nearer, first_a, first_b))
        later = where16(nearer, first_b, first_a)
        after = where16(nearer, load16(second, a + i), load16(second, b + i))
        store16(second, to + i, where16(later < after, later, after))


@subroutine()
def gather(m, s, entries, begin, used, at):
    """Add up the evidence at the nodes of the paths of all characters seen after the contexts.

    These leaves and nodes are noted, and their numbers. The other arguments are those of
    `contexts.read_lists`.
    """
    seen, first, leaves, marks = s.seen, s.first, s.leaves, s.marks
    size, deepest = m.sizes.characters, m.sizes.deepest
    base, count = (size - 1) * ROW, 0
    for c in range(CONTEXT_COUNT):
        for i in range(used[at + c]):
            entry = entries[begin + i]
            other = int(entry >> CHARACTER_SHIFT)
            place = base + other * ROW + c
            recent = np.int32(entry & np.uint32(63)) << RECENT_SHIFT
            seen[place] = np.int32((entry >> np.uint32(6)) & np.uint32(1023)) | recent
            first[place] = np.uint8(i)
            leaves[count] = other
            count += 1 - int(marks[other])
            marks[other] = np.uint8(1)
        begin += used[at + c]
    # A node's number is larger than its parent's, and `touched` has a bit for each, the last first.
    touched = s.touched
    for i in range(count):
        other = int(leaves[i])
        marks[other] = np.uint8(0)
        for j in range(other * deepest + m.depth[other] - 1, other * deepest - 1, -1):
            bit = size - 2 - m.path[j]
            word, mask = bit >> 6, ONE << np.uint64(bit & SIXTY_THREE)
            if touched[word] & mask != np.uint64(0):
                break
            touched[word] |= mask
    nodes, known = s.nodes, 0
    for word in range((size + SIXTY_THREE) >> 6):
        rest = touched[word]
        touched[word] = np.uint64(0)
        while rest != np.uint64(0):
            node = size - 2 - (word * 64 + int(trailing_zeros(rest)))
            rest &= rest - ONE
            a, b = rows_below(node, m)
            merge(a, b, node * ROW, s)
            nodes[known] = node
            known += 1
    s.numbers[0], s.numbers[1] = count, known


@subroutine()
def clear(m, s):
    """Remove the evidence at all nodes and leaves that have any."""
    seen, first, second = s.seen, s.first, s.second
    begin = m.sizes.characters - 1
    for i in range(s.numbers[0]):
        row = (begin + s.leaves[i]) * ROW
        for k in range(row, row + ROW, COUNT):
            store16(seen, k, np.int32(0))
            store16(first, k, NOWHERE)
    for i in range(s.numbers[1]):
        row = s.nodes[i] * ROW
        for k in range(row, row + ROW, COUNT):
            store16(seen, k, np.int32(0))
            store16(first, k, NOWHERE)
            store16(second, k, NOWHERE)


@subroutine(types.int64, inline=True)
def row_beside(step, m):
    """Return the place of the row of all characters whose path leaves a path at a step of it.

    The path's own character has row DEEPEST.
    """
    return (2 * m.sizes.characters + step) * ROW


@subroutine(types.int64, inline=True)
def row_along(step, depth, m):
    """Return the place of the row of all characters that share the first steps of a path."""
    return row_beside(DEEPEST + step % depth, m)


@subroutine(inline=True)
def gather_few(s, entries, begin, count, at, base):
    """Add up the evidence of a short list beside a path, entry by entry.

    The arguments are those of `gather_list`.
    """
    seen, first, second, parted = s.seen, s.first, s.second, s.parted
    for i in range(count):
        entry = entries[begin + i]
        place = base + int(parted[at + i]) * ROW
        recent = np.int32(entry & np.uint32(63)) << RECENT_SHIFT
        seen[place] += np.int32((entry >> np.uint32(6)) & np.uint32(1023)) | recent
        # Without branches, which no processor could predict.
        latest, later = int(first[place]), int(second[place])
        first[place] = np.uint8(min(latest, i))
        second[place] = np.uint8(NOWHERE if latest == NOWHERE else min(later, i))


@subroutine(inline=True)
def gather_list(depth, s, entries, begin, count, at, base):
    """Add up the evidence of a list beside a path, step by step.

    Args:
        depth: the length of the path.
        s: the scratch memory.
        entries: the list, `count` entries from `begin` on.
        begin: see `entries`.
        count: see `entries`.
        at: where `s.parted` has the steps at which these characters leave the path.
        base: the place of the list's context in the row of the first step.
    """
    seen, first, second, parted = s.seen, s.first, s.second, s.parted
    for step in range(depth + 1):
        row = step if step < depth else DEEPEST
        total, found = filled16(np.int32(0)), np.uint64(0)
        for i in range(0, count, COUNT):
            here = (load16(parted, at + i) == row) & (numbers16(i) < count)
            words = load16(entries, begin + i)
            numbers = ((words >> 6) & 1023) | ((words & 63) << RECENT_SHIFT)
            total = total + where16(here, numbers, 0)
            found |= bits_of(here) << np.uint64(i)
        place, rest = base + row * ROW, found & (found - ONE)
        seen[place] = total16(total)
        first[place] = np.uint8(NOWHERE if found == NONE else int(trailing_zeros(found)))
        second[place] = np.uint8(NOWHERE if rest == NONE else int(trailing_zeros(rest)))


@subroutine()
def gather_along(character, m, s, entries, begin, used, at):
    """Add up the evidence at the nodes of a character's path.

    The other arguments are those of `contexts.read_lists`.
    """
    seen, first, second, parted = s.seen, s.first, s.second, s.parted
    depth, path, base = m.depth[character], m.codes[character], row_beside(0, m)
    for step in range(depth + 1):
        row = row_beside(step if step < depth else DEEPEST, m)
        for i in range(row, row + ROW, COUNT):
            store16(seen, i, np.int32(0))
            store16(first, i, NOWHERE)
            store16(second, i, NOWHERE)
    total = 0
    for c in range(CONTEXT_COUNT):
        total += used[at + c]
    # All lists before the first sum, because numbers just written singly are slow to read as lanes.
    for i in range(total):
        other = m.codes[int(entries[begin + i] >> CHARACTER_SHIFT)]
        parted[i] = np.uint8(trailing_zeros(path ^ other))
    done = 0
    for c in range(CONTEXT_COUNT):
        count = used[at + c]
        if count > FEW:
            gather_list(depth, s, entries, begin + done, count, done, base + c)
        else:
            gather_few(s, entries, begin + done, count, done, base + c)
        done += count
    for step in range(depth - 1, 0, -1):
        merge(row_along(step + 1, depth, m), row_beside(step, m), row_along(step, depth, m), s)
