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
    find_places,
    hash_latest,
    look_up_inputs,
    mix_sets,
    prefetch_rows,
    refine_with,
)
from charloom.context_mixing.evidence import clear, gather, rows_below
from charloom.context_mixing.groups import GROUP
from charloom.context_mixing.layout import INPUTS, NEGLIGIBLE, ROW, SETS, SMALLEST
from charloom.kernels.arrays import flat_from
from charloom.kernels.compiling import subroutine
from charloom.kernels.lanes import COUNT, as_floats, as_integers, load16, store16, where16


@subroutine()
def distribute(state, m, w, s, probabilities):
    """Write the probabilities of all characters, (V,)."""
    gather(m, s, s.entries, 0, s.used, 0)
    distribute_gathered(state, m, w, s, True, probabilities)


@subroutine()
def distribute_gathered(state, m, w, s, stretches, probabilities):
    """Do the same with evidence that is gathered, which is then removed.

    With `stretches` False, the maps of the weights have logits, see `layout.with_logits`.
    """
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
        _decide(state, m, w, s, count, stretches)
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
def _decide(state, m, w, s, count, stretches):
    """Compute the probability of turn 1 at the nodes of the group."""
    for i in range(count):
        a, b = rows_below(s.group[i], m)
        s.evidence[i] = count_evidence(
            s.group[i], a, b, m, s,
            flat_from(s.group_inputs, i * INPUTS * ROW),
            flat_from(s.group_cells, i * 2 * ROW),
            flat_from(s.group_counts, i * 2 * ROW),
        )  # fmt: skip
    for i in range(count):
        inputs, cells = (
            flat_from(s.group_inputs, i * INPUTS * ROW),
            flat_from(s.group_cells, i * 2 * ROW),
        )
        find_places(
            s.evidence[i], m, w, inputs, cells, flat_from(s.group_counts, i * 2 * ROW), False
        )
        choose_rows(s.group[i], s.evidence[i], state, m, flat_from(s.group_rows, i * SETS))
    for i in range(count):
        if i + 1 < count:
            prefetch_rows(w, flat_from(s.group_rows, (i + 1) * SETS))
        inputs = flat_from(s.group_inputs, i * INPUTS * ROW)
        cells = flat_from(s.group_cells, i * 2 * ROW)
        rows = flat_from(s.group_rows, i * SETS)
        look_up_inputs(s.evidence[i], m, w, inputs, cells, stretches)
        s.logits[i] = mix_sets(s.group[i], w, inputs, rows, s.dots, False)
    _refine(m, w, s, count)


@subroutine(inline=True)
def _refine(m, w, s, count):
    """Compute the probabilities of the group by its logits, as `refined` does for one node.

    Places in tables are written from lanes, and their entries are read number by number.
    """
    places, values, logit = s.places, s.values, load16(s.logits, 0)
    bounded = where16(logit < np.float32(-7.99), np.float32(-7.99), logit)
    bounded = where16(bounded > np.float32(7.99), np.float32(7.99), bounded)
    place = (bounded + np.float32(8)) * np.float32(2)
    low = as_integers(place)
    part = place - as_floats(low)
    store16(places, 0, low)
    for i in range(count):
        node = s.group[i] * 2
        for k in range(2):
            at, table = i + 2 * k * COUNT, s.refined[node + k] + places[i]
            values[at], values[at + COUNT] = w.refined[table], w.refined[table + 1]
    for k in range(2):
        at = 2 * k * COUNT
        p = load16(values, at) * (np.float32(1) - part) + load16(values, at + COUNT) * part
        low = as_integers(p * np.float32(4096))
        store16(places, k * COUNT, where16(low > 4095, 4095, low))
    for i in range(count):
        values[i], values[COUNT + i] = m.stretch[places[i]], m.stretch[places[COUNT + i]]
    logit = logit * np.float32(2) + load16(values, 0) + load16(values, COUNT)
    place = (logit / np.float32(4) + np.float32(12)) * np.float32(4096 / 24)
    place = where16(place < np.float32(0), np.float32(0), place)
    place = where16(place > np.float32(4096), np.float32(4096), place)
    low = as_integers(place)
    store16(places, 0, low)
    for i in range(count):
        values[i], values[COUNT + i] = m.squash[places[i]], m.squash[places[i] + 1]
    p = load16(values, 0)
    p = p + (load16(values, COUNT) - p) * (place - as_floats(low))
    p = where16(p < np.float32(SMALLEST), np.float32(SMALLEST), p)
    p = where16(p > np.float32(1 - SMALLEST), np.float32(1 - SMALLEST), p)
    store16(values, 0, p)
    for i in range(count):
        s.chances[s.group[i]] = values[i]


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
