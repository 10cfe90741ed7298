"""The probability of every decision from evidence and weights, and the steps of the weights."""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.context_mixing.evidence import gather_along, row_along, row_beside
from charloom.context_mixing.layout import (
    CHAIN_PRIOR,
    CLASSES,
    COLUMN,
    COLUMNS,
    CONTEXT_COUNT,
    COUNT_LEVELS,
    EARLY,
    EARLY_RATE,
    FINAL_RATE,
    FREE_INPUT,
    GIVEN,
    INPUT_COUNT,
    INPUTS,
    LEAST,
    LEVEL_BEGINS,
    LOGIT_LEVELS,
    MOST_SEEN,
    NEGLIGIBLE,
    NOWHERE,
    OF_ORDERS,
    OF_WORDS,
    ORDERS,
    PRIOR_COUNT,
    RATE,
    RECENT_LEVELS,
    RECENT_SHIFT,
    REFINED_LEVELS,
    REFINED_RATE,
    REFINED_ROWS,
    ROW,
    SET_BEGINS,
    SETS,
    SIDES,
    SMALLEST,
    UNKNOWN,
    WORD_LENGTH,
    WORD_LENGTHS,
    WORDS,
)
from charloom.context_mixing.lists import MULTIPLIER_1, SPREAD, joined, mixed
from charloom.kernels.arrays import flat_from
from charloom.kernels.compiling import subroutine
from charloom.kernels.lanes import (
    COUNT,
    INTEGERS,
    as_floats,
    bits_of,
    exponents,
    filled16,
    load16,
    numbers16,
    ones,
    prefetch,
    reaching,
    store16,
    store_fours,
    total16,
    where16,
)
from charloom.kernels.vectors import trailing_zeros

LOWER_HALF = 0xFFFF
FIRST_ORDERS = np.uint64((1 << ORDERS) - 1)
FIRST_SALT, SECOND_SALT = 200, 201

# The first classes of counts, below LEVEL_POWERS. From there on, they begin at powers of 2.
LEVEL_POWERS = 32
first_level_of = reaching(*(limit for limit in LEVEL_BEGINS if limit < LEVEL_POWERS))
MOST_LEVELS = len([limit for limit in LEVEL_BEGINS if limit >= LEVEL_POWERS])
ABOVE_FIRST = LEVEL_POWERS.bit_length() - 2  # exponent of the largest number before them
# A little more than 1 / (RECENT_LEVELS - 1), so that multiples of the latter have whole quotients.
PER_LEVEL = (1 + 2**-20) / (RECENT_LEVELS - 1)


@subroutine(INTEGERS, inline=True)
def level_of(n, floats):
    """Return the class of counts from 0 on, which are passed as floats too."""
    more = exponents(floats) - ABOVE_FIRST
    more = where16(more < 0, 0, where16(more > MOST_LEVELS, MOST_LEVELS, more))
    return first_level_of(n) + more


@subroutine(INTEGERS, inline=True)
def halvings_of(r):
    """Return how often recent counts are halved, so that they are below RECENT_LEVELS.

    That is the smallest i with (r - 1) / (RECENT_LEVELS - 1) < 2^i.
    """
    found = exponents(as_floats(where16(r > 0, r - 1, 0)) * np.float32(PER_LEVEL)) + 1
    return where16(found < 0, 0, found)


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


@subroutine(types.uint64, inline=True)
def count_evidence(node, a, b, m, s, inputs, cells, counts):
    """Compute what the inputs at a node need of the evidence, all contexts at once.

    Args:
        node: the node.
        a, b: the places of the rows of evidence for either turn.
        m: the model.
        s: the scratch memory.
        inputs: written, (4 ROW,): the certainty of each context, and 0 for its other inputs.
        cells: written, (2 ROW,): the places in both maps, the first without the logit's part.
        counts: written, (2 ROW,): the counts of either turn.

    Returns:
        Bits: the contexts with evidence, and from bit 32 on those with evidence for one turn only.
    """
    seen, first, second = s.seen, s.first, s.second
    found = np.uint64(0)
    for i in range(0, ROW, COUNT):
        both0, both1 = load16(seen, a + i), load16(seen, b + i)
        n0, n1 = both0 & LOWER_HALF, both1 & LOWER_HALF
        n = n0 + n1
        known = where16(n > 0, 1, 0)
        store16(counts, i, n0)
        store16(counts, ROW + i, n1)
        found |= bits_of(n > 0) << np.uint64(i)
        found |= bits_of(where16(n0 < n1, n0, n1) < known) << np.uint64(32 + i)
        c, floats = numbers16(i), as_floats(n)
        store16(cells, i, (c * COUNT_LEVELS + level_of(n, floats)) * LOGIT_LEVELS)

        p = as_floats(n1) + np.float32(PRIOR_COUNT)
        p = p / (floats + np.float32(2 * PRIOR_COUNT))
        certainty = where16(n > 2, (p - np.float32(0.5)) * np.float32(3), np.float32(0))
        nothing = filled16(np.float32(0))
        store_fours(inputs, i * INPUTS, nothing, certainty, nothing, nothing)

        r0, r1 = both0 >> RECENT_SHIFT, both1 >> RECENT_SHIFT
        halvings = halvings_of(where16(r0 < r1, r1, r0))
        rest = (filled16(1) << halvings) - 1
        r0, r1 = (r0 + rest) >> halvings, (r1 + rest) >> halvings
        first0, first1 = load16(first, a + i), load16(first, b + i)
        nearer = first0 < first1
        latest = where16(nearer, 0, where16(first1 < NOWHERE, 1, UNKNOWN))
        one = where16(nearer, load16(second, a + i), first0)
        other = where16(nearer, first1, load16(second, b + i))
        after = where16(one < other, 0, where16(other < NOWHERE, 1, UNKNOWN))
        cell = (c * RECENT_LEVELS + r0) * RECENT_LEVELS + r1
        store16(cells, ROW + i, (cell * SIDES + latest) * SIDES + after)

    inputs[CONTEXT_COUNT * INPUTS] = np.float32(0.3)
    inputs[FREE_INPUT] = s.inputs[GIVEN]
    if m.sizes.chains != 0:
        chain_contexts(m.prior[node], m, s, inputs, counts)
    return found


@subroutine(inline=True)
def chain_contexts(p, m, s, inputs, counts):
    """Compute the inputs of both chains at a node, of whose turn 1 the whole text has p.

    Each context takes a mean of its frequency and of p, which is then the next one's p. All
    contexts of the chains are among the first 16.
    """
    shares, prior = s.shares, np.float32(CHAIN_PRIOR)
    n0, n1 = load16(counts, 0), load16(counts, ROW)
    kinds = where16(n0 > 0, 1, 0) + where16(n1 > 0, 1, 0)
    weight = as_floats(kinds + 1) * prior
    all_of_it = as_floats(n0 + n1) + weight
    store16(shares, 0, as_floats(n1) / all_of_it)
    store16(shares, COUNT, weight / all_of_it)
    first = shares[0] + shares[COUNT] * p
    p = first
    for c in range(1, ORDERS):
        p = shares[c] + shares[COUNT + c] * p
    inputs[OF_ORDERS] = stretched(p, m.stretch)
    p = first
    for c in range(ORDERS, ORDERS + WORDS):
        p = shares[c] + shares[COUNT + c] * p
    inputs[OF_WORDS] = stretched(p, m.stretch)


@subroutine(inline=True)
def find_places(found, m, w, inputs, cells, counts, learns):
    """Compute the logits of the contexts with evidence, and their places in both maps.

    These places are fetched, and with `learns` also how often each was seen.
    """
    rest_of_them = found & np.uint64(0xFFFFFFFF)
    while rest_of_them != np.uint64(0):
        at = int(trailing_zeros(rest_of_them))
        rest_of_them &= rest_of_them - np.uint64(1)
        recent = cells[ROW + at]
        prefetch(w.recent, recent)
        logit = m.logs[counts[ROW + at]] - m.logs[counts[at]]
        inputs[at * INPUTS] = logit
        step = min(max(int(logit * np.float32(2) + np.float32(16.5)), 0), LOGIT_LEVELS - 1)
        place = cells[at] + step
        cells[at] = place
        prefetch(w.counts, place)
        if learns:
            prefetch(w.recent_seen, recent)
            prefetch(w.counts_seen, place)


@subroutine(inline=True)
def look_up_inputs(found, m, w, inputs, cells, stretches):
    """Complete the inputs of the contexts with evidence by their places in the maps.

    Tables are read number by number, because that is faster than into lanes. With `stretches`
    False, the maps have the logits of their probabilities already.
    """
    stretch = m.stretch
    rest_of_them = found & np.uint64(0xFFFFFFFF)
    while rest_of_them != np.uint64(0):
        at = int(trailing_zeros(rest_of_them))
        rest_of_them &= rest_of_them - np.uint64(1)
        of_counts, of_recent = w.counts[cells[at]], w.recent[cells[ROW + at]]
        if stretches:
            of_counts, of_recent = stretched(of_counts, stretch), stretched(of_recent, stretch)
        inputs[at * INPUTS + 2], inputs[at * INPUTS + 3] = of_counts, of_recent


@subroutine(inline=True)
def choose_rows(node, found, state, m, rows):
    """Choose the row of each set of weights, (SETS,), by the contexts with evidence."""
    orders, certain = ones(found & FIRST_ORDERS), ones((found >> np.uint64(32)) & FIRST_ORDERS)
    last = CLASSES - 1
    if state[0] != np.uint64(0):
        last = m.rank[int(state[0]) - 1]
    kind = min(node, CLASSES - 1)
    length = min(int(state[WORD_LENGTH]), WORD_LENGTHS - 1)
    column = min(int(state[COLUMN]), COLUMNS - 1)
    rows[0] = SET_BEGINS[0] + orders * 8 + certain
    rows[1] = SET_BEGINS[1] + kind
    rows[2] = SET_BEGINS[2] + last
    rows[3] = SET_BEGINS[3] + kind * WORD_LENGTHS + length
    rows[4] = SET_BEGINS[4] + column * 8 + orders


@subroutine(inline=True)
def prefetch_rows(w, rows):
    """Fetch the chosen row of each set of weights, because they will be read soon."""
    for k in range(SETS):
        begin = rows[k] * INPUT_COUNT
        for i in range(0, INPUT_COUNT, COUNT):
            prefetch(w.sets, begin + i)


@subroutine(types.float32, inline=True)
def mix_sets(node, w, inputs, rows, dots, learns):
    """Return the mixture of all sets of weights, and note the logit of each if `learns`."""
    sets, kind = w.sets, min(node, CLASSES - 1) * SETS
    mixture = filled16(np.float32(0))
    for k in range(SETS):
        begin, share = rows[k] * INPUT_COUNT, w.final[kind + k]
        added = load16(sets, begin) * load16(inputs, 0)
        for i in range(COUNT, INPUT_COUNT, COUNT):
            added = added + load16(sets, begin + i) * load16(inputs, i)
        mixture = mixture + added * share
        if learns:
            dots[k] = total16(added)
    return total16(mixture)


@subroutine()
def add_to_row(flat, row, inputs, factor):
    """Add a multiple of the inputs to a row of w."""
    begin = row * INPUT_COUNT
    for i in range(0, INPUT_COUNT, COUNT):
        store16(flat, begin + i, load16(flat, begin + i) + load16(inputs, i) * factor)


@subroutine(types.float32, inline=True)
def between(low, high, part):
    return low * (np.float32(1) - part) + high * part


@subroutine()
def hash_latest(state, s):
    """Hash the latest characters, for `refine_with`."""
    s.keys[0] = mixed(state[0] * SPREAD + np.uint64(FIRST_SALT + 1))
    both = joined(state[0], state[1], SECOND_SALT)
    s.keys[1] = mixed(both * SPREAD + np.uint64(SECOND_SALT + 1))


@subroutine()
def refine_with(node, w, s):
    """Choose the rows of both refining tables at a node, and fetch them."""
    value = np.uint64(node) * MULTIPLIER_1
    for i in range(2):
        row = int(mixed(s.keys[i] + value) % np.uint64(REFINED_ROWS))
        begin = (row + i * REFINED_ROWS) * REFINED_LEVELS
        s.refined[2 * node + i] = begin
        prefetch(w.refined, begin + REFINED_LEVELS // 4)
        prefetch(w.refined, begin + 3 * REFINED_LEVELS // 4)


@subroutine()
def prepare(node, a, b, slot, state, m, w, s):
    """Gather what a decision needs of the evidence in a slot of groups, and fetch its weights.

    The rows of evidence for either turn are at a and b.
    """
    inputs = flat_from(s.group_inputs, slot * INPUTS * ROW)
    cells = flat_from(s.group_cells, slot * 2 * ROW)
    counts = flat_from(s.group_counts, slot * 2 * ROW)
    rows = flat_from(s.group_rows, slot * SETS)
    found = count_evidence(node, a, b, m, s, inputs, cells, counts)
    s.evidence[slot] = found
    if found != np.uint64(0):
        choose_rows(node, found, state, m, rows)
        prefetch_rows(w, rows)
        find_places(found, m, w, inputs, cells, counts, True)


@subroutine(types.float32)
def decide(node, slot, m, w, s, learns):
    """Return the probability of turn 1 at a node that is prepared in a slot.

    Its refining rows are chosen. It notes the logit of each set of weights, and the places in the
    two refining tables.
    """
    found = s.evidence[slot]
    if found == np.uint64(0):
        return m.prior[node]
    inputs = flat_from(s.group_inputs, slot * INPUTS * ROW)
    look_up_inputs(found, m, w, inputs, flat_from(s.group_cells, slot * 2 * ROW), True)
    rows = flat_from(s.group_rows, slot * SETS)
    return refined(node, mix_sets(node, w, inputs, rows, s.dots, learns), m, w, s)


@subroutine(types.float32, inline=True)
def refined(node, logit, m, w, s):
    """Return the probability of turn 1 by a logit, and note the places in the refining tables."""
    dots, refined = s.dots, s.refined
    dots[SETS] = logit
    bounded = min(max(logit, np.float32(-7.99)), np.float32(7.99))
    place = (bounded + np.float32(8)) * np.float32(2)
    low = int(place)
    part = place - np.float32(low)
    dots[SETS + 1] = part
    one, two = refined[2 * node] + low, refined[2 * node + 1] + low
    refined[2 * node], refined[2 * node + 1] = one, two
    table, stretch = w.refined, m.stretch
    a = between(table[one], table[one + 1], part)
    b = between(table[two], table[two + 1], part)
    logit = (logit * np.float32(2) + stretched(a, stretch) + stretched(b, stretch)) / np.float32(4)
    p = squashed(logit, m.squash)
    return min(max(p, np.float32(SMALLEST)), np.float32(1 - SMALLEST))


@subroutine(inline=True)
def move_towards(values, seen, place, bit):
    """Move a learned probability towards a decision, less the more it has seen."""
    n = min(seen[place] + 1, MOST_SEEN)
    seen[place] = n
    p = values[place]
    p += (bit - p) / np.float32(n + 8)
    values[place] = min(max(p, np.float32(LEAST)), np.float32(1 - LEAST))


@subroutine()
def learn_decision(node, slot, turn, m, w, s, rate):
    """Change weights after the turn that was taken at a node that is prepared in a slot."""
    bit = np.float32(turn)
    rows, dots = flat_from(s.group_rows, slot * SETS), s.dots
    inputs = flat_from(s.group_inputs, slot * INPUTS * ROW)
    cells = flat_from(s.group_cells, slot * 2 * ROW)
    kind = min(node, CLASSES - 1) * SETS
    error = (bit - squashed(dots[SETS], m.squash)) * np.float32(FINAL_RATE)
    for k in range(SETS):
        wrong = (bit - squashed(dots[k], m.squash)) * rate
        add_to_row(w.sets, rows[k], inputs, wrong)
        w.final[kind + k] += error * dots[k]
    nearer = 0 if dots[SETS + 1] < np.float32(0.5) else 1
    for i in range(2):
        place = s.refined[2 * node + i] + nearer
        p = w.refined[place]
        p += (bit - p) * np.float32(REFINED_RATE)
        w.refined[place] = min(max(p, np.float32(LEAST)), np.float32(1 - LEAST))
    rest = s.evidence[slot] & np.uint64(0xFFFFFFFF)
    while rest != np.uint64(0):
        c = int(trailing_zeros(rest))
        rest &= rest - np.uint64(1)
        move_towards(w.counts, w.counts_seen, cells[c], bit)
        move_towards(w.recent, w.recent_seen, cells[ROW + c], bit)


@subroutine(inline=True)
def prepare_step(character, step, state, m, w, s):
    """Prepare a decision on a character's path, in the slot of odd or even steps."""
    at, depth = character * m.sizes.deepest + step, m.depth[character]
    along, beside = row_along(step + 1, depth, m), row_beside(step, m)
    if m.turns[at] == 1:
        prepare(m.path[at], beside, along, step & 1, state, m, w, s)
    else:
        prepare(m.path[at], along, beside, step & 1, state, m, w, s)


@subroutine(types.float32)
def code(character, state, m, w, s, entries, first, used, at, learns):
    """Return the probability of a character, and change weights after it if `learns`.

    The arguments from `entries` to `at` are those of `contexts.read_lists`.
    """
    gather_along(character, m, s, entries, first, used, at)
    begin, depth = character * m.sizes.deepest, m.depth[character]
    hash_latest(state, s)
    for j in range(begin, begin + depth):
        refine_with(m.path[j], w, s)
    rate = np.float32(RATE + EARLY_RATE / (1 + w.steps[0] / EARLY))
    if learns:
        w.steps[0] += 1
    reach = np.float32(1)
    if depth > 0:
        prepare_step(character, 0, state, m, w, s)
    for j in range(depth):
        node, turn, slot = m.path[begin + j], m.turns[begin + j], j & 1
        p = m.prior[node]
        if reach >= np.float32(NEGLIGIBLE):
            if j + 1 < depth:  # so that its weights arrive during this decision
                prepare_step(character, j + 1, state, m, w, s)
            p = decide(node, slot, m, w, s, learns)
            if learns and s.evidence[slot] != np.uint64(0):
                learn_decision(node, slot, turn, m, w, s, rate)
        reach *= p if turn == 1 else np.float32(1) - p
    return reach
