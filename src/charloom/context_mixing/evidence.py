"""The evidence at the nodes of the tree: counts of the characters below either turn."""

from __future__ import annotations

import numpy as np

from charloom.context_mixing.layout import BOTH_UNKNOWN, CONTEXT_COUNT, LONG, SIDES, UNKNOWN
from charloom.context_mixing.lists import CHARACTER_SHIFT, both_counts
from charloom.kernels.compiling import subroutine
from charloom.kernels.vectors import trailing_zeros


@subroutine()
def gather(m, s):
    """Add up the evidence at the nodes of the paths of all characters seen after the contexts.

    The nodes are noted in `nodes`, their number in its last entry.
    """
    evidence, sides, nodes, active, known = s.evidence, s.sides, s.nodes, s.active, s.known
    deepest = m.sizes.deepest
    count = 0
    for c in range(CONTEXT_COUNT):
        for i in range(s.used[c]):
            entry = s.entries[c * LONG + i]
            other = int(entry >> CHARACTER_SHIFT) * deepest
            seen = both_counts(entry)
            for j in range(other, other + m.depth[int(entry >> CHARACTER_SHIFT)]):
                node, turn = m.path[j], m.turns[j]
                place = node * CONTEXT_COUNT + c
                if sides[place] == BOTH_UNKNOWN:
                    if active[node] == 0:
                        nodes[count] = node
                        count += 1
                    known[node * CONTEXT_COUNT + active[node]] = c
                    active[node] += np.int32(1)
                evidence[place * 2 + turn] += seen
                sides[place] = m.sides_after[sides[place] * 2 + turn]
    nodes[m.sizes.characters] = np.int32(count)


@subroutine()
def gather_on_path(m, s, character):
    """Add up the evidence at the nodes of one character's path alone, in the same places.

    A character that leaves the path at depth d counts on the path's side of every node before, and
    on the other side of that node.
    """
    evidence, sides, parted = s.evidence, s.sides, s.parted
    deepest = m.sizes.deepest
    begin, depth = character * deepest, m.depth[character]
    for j in range(depth):
        s.nodes[j] = m.path[begin + j]
    s.nodes[m.sizes.characters] = np.int32(depth)
    for c in range(CONTEXT_COUNT):
        used = s.used[c]
        if used == 0:
            continue
        for j in range(depth + 1):
            parted[j] = 0
        settled = 0  # nodes from the root on whose latest two characters are known
        for i in range(used):
            entry = s.entries[c * LONG + i]
            other = int(entry >> CHARACTER_SHIFT)
            shared = min(
                np.int64(trailing_zeros(m.code[character] ^ m.code[other])), np.int64(depth)
            )
            parted[shared] += both_counts(entry)
            for j in range(settled, min(shared + 1, depth)):
                place = m.path[begin + j] * CONTEXT_COUNT + c
                turn = m.turns[begin + j] if j < shared else 1 - m.turns[begin + j]
                side = m.sides_after[sides[place] * 2 + turn]
                sides[place] = side
                if j == settled and side % SIDES != UNKNOWN:
                    settled += 1
        within = parted[depth]
        for j in range(depth - 1, -1, -1):
            node, turn = m.path[begin + j], m.turns[begin + j]
            place = node * CONTEXT_COUNT + c
            if sides[place] != BOTH_UNKNOWN:
                evidence[place * 2 + turn] = within
                evidence[place * 2 + 1 - turn] = parted[j]
                s.known[node * CONTEXT_COUNT + s.active[node]] = c
                s.active[node] += np.int32(1)
            within += parted[j]


@subroutine()
def clear(m, s):
    """Remove the evidence at all nodes that have any."""
    for i in range(s.nodes[m.sizes.characters]):
        node = s.nodes[i]
        begin = node * CONTEXT_COUNT
        for j in range(begin, begin + s.active[node]):
            place = begin + s.known[j]
            s.evidence[place * 2] = 0
            s.evidence[place * 2 + 1] = 0
            s.sides[place] = BOTH_UNKNOWN
        s.active[node] = np.int32(0)
