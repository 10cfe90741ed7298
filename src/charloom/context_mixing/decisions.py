"""The probability of every decision from evidence and weights, and the steps of the weights."""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.context_mixing.evidence import clear, gather, gather_on_path
from charloom.context_mixing.layout import (
    CLASSES,
    COLUMN,
    COLUMNS,
    CONTEXT_COUNT,
    COUNT_LEVELS,
    EARLY,
    EARLY_RATE,
    FINAL_RATE,
    INPUT_COUNT,
    INPUTS,
    LEAST,
    LOGIT_LEVELS,
    MOST,
    MOST_SEEN,
    NEGLIGIBLE,
    ORDERS,
    PRIOR_COUNT,
    RATE,
    RECENT_LEVELS,
    REFINED_LEVELS,
    REFINED_RATE,
    REFINED_ROWS,
    SET_BEGINS,
    SETS,
    SIDES,
    SMALLEST,
    WORD_LENGTH,
    WORD_LENGTHS,
)
from charloom.context_mixing.lists import HALF, joined
from charloom.kernels.compiling import subroutine
from charloom.kernels.vectors import load, store, total, width

LOWER_HALF = np.int64(0xFFFFFFFF)


@subroutine(types.float32, inline=True)
def squashed(x, squash):
    """Return 1 / (1 + e^-x) by a table, between its entries linear."""
    place = (x + np.float32(12)) * np.float32(4096 / 24)
    if place < np.float32(0):
        return squash[0]
    if place >= np.float32(4096):
        return squash[4096]
    i = int(place)
    part = place - np.float32(i)
    return squash[i] + (squash[i + 1] - squash[i]) * part


@subroutine(types.float32, inline=True)
def stretched(p, stretch):
    return stretch[min(int(p * np.float32(4096)), 4095)]


@subroutine()
def fill_inputs(node, m, w, s):
    """Compute the inputs at a node, and note the cells of both maps for each context in `known`."""
    x, cells, evidence, sides = s.inputs, s.cells, s.evidence, s.sides
    logs, stretch, flat = m.logs, m.stretch, s.inputs
    for i in range(0, INPUT_COUNT, width(flat)):
        store(flat, i, np.float32(0))
    first = node * CONTEXT_COUNT
    for i in range(s.active[node]):
        c = s.known[first + i]
        place = first + c
        seen0, seen1 = evidence[place * 2], evidence[place * 2 + 1]
        n0, n1 = seen0 & LOWER_HALF, seen1 & LOWER_HALF
        n = n0 + n1
        logit = logs[n1] - logs[n0]
        x[c * INPUTS] = logit
        certainty = np.float32(0)
        if n > 2:
            p = (np.float32(n1) + np.float32(PRIOR_COUNT)) * m.reciprocals[n]
            certainty = (p - np.float32(0.5)) * np.float32(3)
        x[c * INPUTS + 1] = certainty
        step = min(max(int(logit * np.float32(2) + np.float32(16.5)), 0), LOGIT_LEVELS - 1)
        cell = (c * COUNT_LEVELS + m.levels[min(n, MOST)]) * LOGIT_LEVELS + step
        cells[2 * i] = cell
        x[c * INPUTS + 2] = stretched(w.counts[cell], stretch)
        r0, r1 = seen0 >> HALF, seen1 >> HALF
        while r0 >= RECENT_LEVELS or r1 >= RECENT_LEVELS:
            r0, r1 = (r0 + 1) // 2 if r0 > 1 else r0, (r1 + 1) // 2 if r1 > 1 else r1
        cell = (c * RECENT_LEVELS + r0) * RECENT_LEVELS + r1
        cell = cell * SIDES * SIDES + sides[place]
        cells[2 * i + 1] = cell
        x[c * INPUTS + 3] = stretched(w.recent[cell], stretch)
    x[CONTEXT_COUNT * INPUTS] = np.float32(0.3)


@subroutine()
def choose_rows(node, state, m, s):
    """Choose the row of each set of weights, (SETS,)."""
    orders, certain = 0, 0
    for i in range(s.active[node]):
        c = s.known[node * CONTEXT_COUNT + i]
        if c < ORDERS:
            orders += 1
            place = (node * CONTEXT_COUNT + c) * 2
            if s.evidence[place] == 0 or s.evidence[place + 1] == 0:
                certain += 1
    last = CLASSES - 1
    if state[0] != np.uint64(0):
        last = m.rank[int(state[0]) - 1]
    kind = min(node, CLASSES - 1)
    length = min(int(state[WORD_LENGTH]), WORD_LENGTHS - 1)
    column = min(int(state[COLUMN]), COLUMNS - 1)
    rows = s.rows
    rows[0] = SET_BEGINS[0] + orders * 8 + certain
    rows[1] = SET_BEGINS[1] + kind
    rows[2] = SET_BEGINS[2] + last
    rows[3] = SET_BEGINS[3] + kind * WORD_LENGTHS + length
    rows[4] = SET_BEGINS[4] + column * 8 + orders


@subroutine(types.float32)
def mix_sets(kind, w, s, learns):
    """Return the mixture of all sets of weights, and note the logit of each if `learns`.

    Sums have the same order on every machine: 16 numbers side by side, then these in a row.
    """
    sets, inputs, partial = w.sets, s.inputs, s.sums
    lanes = width(sets)
    lower, upper = load(inputs, 0) * np.float32(0), load(inputs, 0) * np.float32(0)
    for k in range(SETS):
        begin, share = s.rows[k] * INPUT_COUNT, w.final[kind + k]
        added = load(sets, begin) * load(inputs, 0)
        for i in range(16, INPUT_COUNT, 16):
            added = added + load(sets, begin + i) * load(inputs, i)
        lower = lower + added * share
        if learns:
            s.dots[k] = total(added)
        if lanes < 16:
            added = load(sets, begin + 8) * load(inputs, 8)
            for i in range(16, INPUT_COUNT, 16):
                added = added + load(sets, begin + i + 8) * load(inputs, i + 8)
            upper = upper + added * share
            if learns:
                store(partial, 0, added)
                for i in range(8):
                    s.dots[k] += partial[i]
    result = total(lower)
    if lanes < 16:
        store(partial, 0, upper)
        for i in range(8):
            result += partial[i]
    return result


@subroutine()
def add_to_row(flat, row, inputs, factor):
    """Add a multiple of the inputs to a row of w."""
    begin = row * INPUT_COUNT
    for i in range(0, INPUT_COUNT, width(flat)):
        store(flat, begin + i, load(flat, begin + i) + load(inputs, i) * factor)


@subroutine(types.float32, inline=True)
def between(low, high, part):
    return low * (np.float32(1) - part) + high * part


@subroutine(types.float32)
def decide(node, state, m, w, s, learns):
    """Return the probability of turn 1 at a node with evidence, whose inputs and rows are known.

    It notes the logit of each set of weights, and the places in the two refining tables.
    """
    dots, refined = s.dots, s.refined
    logit = mix_sets(min(node, CLASSES - 1) * SETS, w, s, learns)
    dots[SETS] = logit
    bounded = min(max(logit, np.float32(-7.99)), np.float32(7.99))
    place = (bounded + np.float32(8)) * np.float32(2)
    low = int(place)
    part = place - np.float32(low)
    dots[SETS + 1] = part
    one = joined(state[0], np.uint64(node), 200) % np.uint64(REFINED_ROWS)
    two = joined(joined(state[0], state[1], 201), np.uint64(node), 201) % np.uint64(REFINED_ROWS)
    refined[0] = int(one) * REFINED_LEVELS + low
    refined[1] = (int(two) + REFINED_ROWS) * REFINED_LEVELS + low
    table, stretch = w.refined, m.stretch
    a = between(table[refined[0]], table[refined[0] + 1], part)
    b = between(table[refined[1]], table[refined[1] + 1], part)
    logit = (logit * np.float32(2) + stretched(a, stretch) + stretched(b, stretch)) / np.float32(4)
    p = squashed(logit, m.squash)
    return min(max(p, np.float32(SMALLEST)), np.float32(1 - SMALLEST))


@subroutine(inline=True)
def move_towards(values, seen, place, bit):
    """Move a learned probability towards a decision, less the more it has seen."""
    if seen[place] < MOST_SEEN:
        seen[place] += np.int32(1)
    p = values[place] + (bit - values[place]) / np.float32(seen[place] + 8)
    values[place] = min(max(p, np.float32(LEAST)), np.float32(1 - LEAST))


@subroutine()
def learn_decision(node, turn, m, w, s, rate):
    """Change weights after the turn that was taken at a node."""
    bit = np.float32(turn)
    rows, dots, refined = s.rows, s.dots, s.refined
    kind = min(node, CLASSES - 1) * SETS
    error = (bit - squashed(dots[SETS], m.squash)) * np.float32(FINAL_RATE)
    for k in range(SETS):
        wrong = (bit - squashed(dots[k], m.squash)) * rate
        add_to_row(w.sets, rows[k], s.inputs, wrong)
        w.final[kind + k] += error * dots[k]
    nearer = 0 if dots[SETS + 1] < np.float32(0.5) else 1
    for i in range(2):
        place = refined[i] + nearer
        p = w.refined[place]
        p += (bit - p) * np.float32(REFINED_RATE)
        w.refined[place] = min(max(p, np.float32(LEAST)), np.float32(1 - LEAST))
    for i in range(s.active[node]):
        move_towards(w.counts, w.counts_seen, s.cells[2 * i], bit)
        move_towards(w.recent, w.recent_seen, s.cells[2 * i + 1], bit)


@subroutine(types.float32)
def code(character, state, m, w, s, learns):
    """Return the probability of a character, and change weights after it if `learns`."""
    gather_on_path(m, s, character)
    deepest = m.sizes.deepest
    rate = np.float32(RATE + EARLY_RATE / (1 + w.steps[0] / EARLY))
    if learns:
        w.steps[0] += 1
    reach = np.float32(1)
    for j in range(m.depth[character]):
        node, turn = m.path[character * deepest + j], m.turns[character * deepest + j]
        p = m.prior[node]
        if reach >= np.float32(NEGLIGIBLE) and s.active[node] > 0:
            fill_inputs(node, m, w, s)
            choose_rows(node, state, m, s)
            p = decide(node, state, m, w, s, learns)
            if learns:
                learn_decision(node, turn, m, w, s, rate)
        reach *= p if turn == 1 else np.float32(1) - p
    clear(m, s)
    return reach


@subroutine()
def distribute(state, m, w, s, probabilities):
    """Write the probabilities of all characters, (V,)."""
    if m.sizes.characters == 1:
        probabilities[0] = np.float32(1)
        return
    gather(m, s)
    waiting, reach = 1, s.reach
    s.stack[0], reach[0] = 0, np.float32(1)
    while waiting > 0:
        waiting -= 1
        node, here = s.stack[waiting], reach[waiting]
        p = m.prior[node]
        if here >= np.float32(NEGLIGIBLE) and s.active[node] > 0:
            fill_inputs(node, m, w, s)
            choose_rows(node, state, m, s)
            p = decide(node, state, m, w, s, False)
        for turn in range(2):
            share = here * (p if turn == 1 else np.float32(1) - p)
            child = m.children[node * 2 + turn]
            if child < 0:
                probabilities[-1 - child] = share
            else:
                s.stack[waiting], reach[waiting] = child, share
                waiting += 1
    clear(m, s)
