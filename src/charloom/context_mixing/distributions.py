"""The probabilities of all characters: those of `decisions`, for many nodes at once.

The nodes are decided in groups, by falling frequency. In a group, each step is done for all of its
nodes before the next one. Between the groups, the probabilities of reaching their nodes are
computed, so that no node is decided that is hardly reached.
"""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.context_mixing.decisions import (
    choose_rows,
    count_evidence,
    hash_latest,
    look_up_inputs,
    mix_sets,
    refine_with,
    refined,
)
from charloom.context_mixing.evidence import clear, gather
from charloom.context_mixing.layout import GROUP, INPUTS, NEGLIGIBLE, ROW, SETS
from charloom.kernels.arrays import flat_from
from charloom.kernels.compiling import subroutine


@subroutine()
def distribute(state, m, w, s, probabilities):
    """Write the probabilities of all characters, (V,)."""
    gather(m, s, s.entries, 0, s.used, 0)
    distribute_gathered(state, m, w, s, probabilities)


@subroutine()
def distribute_gathered(state, m, w, s, probabilities):
    """Do the same with evidence that is gathered, which is then removed."""
    if m.sizes.characters == 1:
        probabilities[0] = np.float32(1)
        clear(m, s)
        return
    hash_latest(state, s)
    s.reach[0] = np.float32(1)
    node, left = 0, s.numbers[1]  # nodes with evidence that are not decided
    while node < m.sizes.characters - 1:
        count = 0
        after = left
        while after > 0 and count < GROUP:
            after -= 1
            count = _consider(s.nodes[after], m, s, count)
        for i in range(count):
            refine_with(s.group[i], w, s)
        _decide(state, m, w, s, count)
        end = s.nodes[after - 1] if after > 0 else m.sizes.characters - 1
        left = _follow(node, end, left, m, s, probabilities)
        node = end
    clear(m, s)


@subroutine(types.int64, inline=True)
def _consider(node, m, s, count):
    """Add a node to the group if it can be reached often enough; return the group's size.

    Until it is known, the probability of reaching a child is that of reaching its parent.
    """
    reach = s.reach
    here = reach[node]
    for turn in range(2):
        child = m.children[node * 2 + turn]
        if child >= 0:
            reach[child] = here
    s.group[count] = node
    return count + (1 if here >= np.float32(NEGLIGIBLE) else 0)


@subroutine(inline=True)
def _decide(state, m, w, s, count):
    """Compute the probability of turn 1 at the nodes of the group."""
    for i in range(count):
        s.evidence[i] = count_evidence(
            s.group[i], m, s,
            flat_from(s.group_inputs, i * INPUTS * ROW),
            flat_from(s.group_cells, i * 2 * ROW),
            flat_from(s.group_counts, i * 2 * ROW),
        )  # fmt: skip
    for i in range(count):
        look_up_inputs(
            s.evidence[i], m, w,
            flat_from(s.group_inputs, i * INPUTS * ROW),
            flat_from(s.group_cells, i * 2 * ROW),
            flat_from(s.group_counts, i * 2 * ROW),
        )  # fmt: skip
    for i in range(count):
        choose_rows(s.group[i], s.evidence[i], state, m, flat_from(s.group_rows, i * SETS))
    for i in range(count):
        node = s.group[i]
        inputs, rows = (
            flat_from(s.group_inputs, i * INPUTS * ROW),
            flat_from(s.group_rows, i * SETS),
        )
        logit = mix_sets(node, w, inputs, rows, s.dots, False)
        s.chances[node] = refined(node, logit, m, w, s)


@subroutine(types.int64, inline=True)
def _follow(node, end, left, m, s, probabilities):
    """Compute the probabilities of reaching the children of nodes, from `node` to before `end`.

    Returns:
        How many nodes with evidence are left.
    """
    reach = s.reach
    for here in range(node, end):
        known = left > 0 and s.nodes[left - 1] == here
        left -= 1 if known else 0
        before = reach[here]
        p = m.prior[here]
        if known and before >= np.float32(NEGLIGIBLE):
            p = s.chances[here]
        for turn in range(2):
            share = before * (p if turn == 1 else np.float32(1) - p)
            child = m.children[here * 2 + turn]
            if child < 0:
                probabilities[-1 - child] = share
            else:
                reach[child] = share
    return left
