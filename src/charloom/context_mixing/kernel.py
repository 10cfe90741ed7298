"""The kernels of a context mixer: read a text, learn from it, predict after it.

Every character is predicted decision by decision along its path in the tree. The evidence at a
node, for each context, are the counts n of the characters below either turn that have followed the
context before, and their recent counts r, which fall when another character appears. The inputs of
a context are

    log (n₁ + δ) / (n₀ + δ)           what its counts say
    3 (p - ½), n > 2                  the same, where it is certain
    stretch(a), stretch(b)            what such counts n, and such recent counts r with the turns
                                      of the two latest characters, have meant so far

and all inputs x are mixed by five sets of weights, each with a row for what is known here (how many
orders have evidence, the node, the last character and so on), then these five by a last one, and
the result is refined by two tables of what such a probability has meant after the last character
and after the last two. Weights learn by gradient descent on -log p of every decision.

Sources: Mahoney, "Adaptive weighing of context models for lossless data compression" (2005) and
"Data Compression Explained" (2013).
"""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.context_mixing.layout import (
    ABOVE,
    ABOVE_LENGTH,
    BREAK,
    CLASSES,
    COLUMN,
    COLUMNS,
    CONTEXT_COUNT,
    COUNT_LEVELS,
    EARLY,
    EARLY_RATE,
    END,
    FINAL_RATE,
    HASH_SPREAD,
    INDIRECT,
    INPUT_COUNT,
    INPUTS,
    LEAST,
    LETTER,
    LINE,
    LIST_WAYS,
    LOGIT_LEVELS,
    LONG,
    LONG_WORDS,
    MOST,
    MOST_RECENT,
    MOST_SEEN,
    MULTIPLIERS,
    NEGLIGIBLE,
    ORDERS,
    PRIOR_COUNT,
    RATE,
    RECENT,
    RECENT_LEVELS,
    REFINED_LEVELS,
    REFINED_RATE,
    REFINED_ROWS,
    SET_BEGINS,
    SETS,
    SHORT,
    SHORT_LINE,
    SHORT_WORDS,
    SIDES,
    SINGLE_WAYS,
    SMALLEST,
    STATE,
    WORD,
    WORD_BEFORE,
    WORD_BEFORE_THAT,
    WORD_LENGTH,
    WORD_LENGTHS,
)
from charloom.kernels.arrays import as_flat
from charloom.kernels.compiling import Kernel, subroutine
from charloom.kernels.vectors import load, store, width

MULTIPLIER_1, MULTIPLIER_2 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
SPREAD = np.uint64(HASH_SPREAD)
SHIFT_31, SHIFT_27, SHIFT_33 = np.uint64(31), np.uint64(27), np.uint64(33)
SHIFT_48 = np.uint64(48)
LOWER = np.uint64(0xFFFFFFFF)
ONE = np.uint64(1)

# An entry of a list: the character in 16 bits, its count in 10, its recent count in 6.
MOVED = np.uint32(0xFFFF)  # instead of a character: the list has moved to a longer one
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


@subroutine()
def advance(state, tree, character):
    """Read a character: change a row's state, (STATE,)."""
    kind = tree.kind[character]
    if kind == END:
        for i in range(STATE):
            state[i] = np.uint64(0)
        return
    for i in range(RECENT - 1, 0, -1):
        state[i] = state[i - 1]
    before = state[1]
    state[0] = np.uint64(character + 1)
    if kind == LETTER:
        state[WORD] = mixed(state[WORD] * np.uint64(271) + np.uint64(tree.folded[character] + 1))
        state[WORD_LENGTH] += ONE
    else:
        state[WORD_LENGTH] = np.uint64(0)
        if state[WORD] != np.uint64(0):
            state[WORD_BEFORE_THAT] = state[WORD_BEFORE]
            state[WORD_BEFORE] = state[WORD]
            state[WORD] = np.uint64(0)
    if kind == BREAK:
        column = int(state[COLUMN])
        if 0 < column < 25 and before != np.uint64(0) and tree.kind[int(before) - 1] != LETTER:
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
    """Return the character of the line above in a column, 0 where there is none."""
    if column < int(state[ABOVE_LENGTH]):
        return state[ABOVE + column]
    return np.uint64(0)


@subroutine()
def find_contexts(state, tree, tables, scratch):
    """Hash the contexts of a row's state, and read their lists."""
    hashes = scratch.contexts
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
        kind = np.uint64(tree.kind[int(c2) - 1])
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
    for c in range(CONTEXT_COUNT - INDIRECT):
        read_list(c, tables, scratch)
    for i in range(INDIRECT):
        latest, second = np.uint64(0), np.uint64(0)
        if scratch.used[i] > 0:
            latest = np.uint64(scratch.entries[i * LONG] >> np.uint32(16)) + ONE
        if scratch.used[i] > 1:
            second = np.uint64(scratch.entries[i * LONG + 1] >> np.uint32(16)) + ONE
        c = CONTEXT_COUNT - INDIRECT + i
        known = joined(c1, c2 if i > 0 else np.uint64(0), 102)
        hashes[c] = joined(known, joined(latest, second, 103), c)
        read_list(c, tables, scratch)


@subroutine(types.int64)
def find_single(singles, value):
    """Return the place of a context's entry in the first table, -1 where there is none."""
    buckets = np.uint64(len(singles) // SINGLE_WAYS)
    begin = int(value % buckets) * SINGLE_WAYS
    check = value >> SHIFT_48
    for i in range(begin, begin + SINGLE_WAYS):
        if singles[i] >> SHIFT_48 == check and singles[i] != np.uint64(0):
            return i
    return -1


@subroutine(types.int64)
def find_list(lists, value, words):
    """Return the place of a context's first entry in a table of lists, -1 where there is none."""
    buckets = np.uint64(len(lists) // (LIST_WAYS * words))
    begin = int(value % buckets) * LIST_WAYS * words
    check = np.uint32((value >> SHIFT_48) | ONE)
    for i in range(LIST_WAYS):
        if lists[begin + i * words] == check:
            return begin + i * words + 1
    return -1


@subroutine()
def read_list(c, tables, scratch):
    """Copy the list of context c to the scratch memory."""
    used, entries, begin = 0, scratch.entries, c * LONG
    value = scratch.contexts[c]
    place = find_single(tables.singles, value)
    if place >= 0:
        entry = np.uint32(tables.singles[place] & LOWER)
        if entry >> np.uint32(16) != MOVED:
            entries[begin] = entry
            used = 1
        else:
            value = mixed(value)
            place = find_list(tables.shorts, value, SHORT_WORDS)
            if place >= 0:
                lists, most = tables.shorts, SHORT
                if lists[place] >> np.uint32(16) == MOVED:
                    lists, most = tables.longs, LONG
                    place = find_list(lists, mixed(value), LONG_WORDS)
                if place >= 0:
                    while used < most and lists[place + used] != np.uint32(0):
                        entries[begin + used] = lists[place + used]
                        used += 1
    scratch.used[c] = used


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
def new_list(lists, value, words):
    """Return the place of the first entry of an empty list for a context."""
    buckets = np.uint64(len(lists) // (LIST_WAYS * words))
    bucket = int(value % buckets) * LIST_WAYS * words
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
def learn_list(value, character, tables, recent_after):
    """Count a character after a context."""
    singles, shorts, longs = tables.singles, tables.shorts, tables.longs
    place = find_single(singles, value)
    fresh = entry_of(character, 1, 1)
    if place < 0:
        begin = int(value % np.uint64(len(singles) // SINGLE_WAYS)) * SINGLE_WAYS
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
        begin = new_list(shorts, second, SHORT_WORDS)
        shorts[begin] = fresh
        shorts[begin + 1] = entry_of(int(entry >> np.uint32(16)), count, recent_after[recent])
        singles[place] = high | np.uint64(MOVED << np.uint32(16))
        return
    begin = find_list(shorts, second, SHORT_WORDS)
    lists, most = shorts, SHORT
    if begin >= 0 and shorts[begin] >> np.uint32(16) == MOVED:
        lists, most = longs, LONG
        begin = find_list(longs, mixed(second), LONG_WORDS)
    if begin < 0:  # The list has been replaced by another one's.
        singles[place] = high | np.uint64(fresh)
        return
    used, at = 0, -1
    while used < most and lists[begin + used] != np.uint32(0):
        if int(lists[begin + used] >> np.uint32(16)) == character:
            at = used
        used += 1
    if at < 0:
        if used == SHORT and most == SHORT:
            longer = new_list(longs, mixed(second), LONG_WORDS)
            for i in range(SHORT):
                longs[longer + i] = shorts[begin + i]
            shorts[begin] = MOVED << np.uint32(16)
            lists, begin, most = longs, longer, LONG
        if used < most:
            at = used
            used += 1
        else:
            at, least = 1, 1 << 40
            for i in range(1, most):
                count = int((lists[begin + i] >> np.uint32(6)) & np.uint32(1023))
                if count < least:
                    at, least = i, count
        lists[begin + at] = entry_of(character, 0, 0)
    see(lists, begin, at, used, recent_after)


@subroutine()
def gather(tree, scratch, character):
    """Add up the evidence at the nodes of a character's path, or of all paths for -1.

    Evidence: (V, C, 4) counts of turn 0 and 1, recent counts of turn 0 and 1. Returns nothing; the
    nodes are noted in `nodes`, their number in its last entry.
    """
    evidence, sides, nodes, touched = (
        scratch.evidence, scratch.sides, scratch.nodes, scratch.touched,
    )  # fmt: skip
    count = 0
    if character >= 0:
        for j in range(tree.depth[character]):
            node = tree.path[character, j]
            nodes[count] = node
            touched[node] = 1
            count += 1
    for c in range(CONTEXT_COUNT):
        for i in range(scratch.used[c]):
            entry = scratch.entries[c * LONG + i]
            other = int(entry >> np.uint32(16))
            n = np.int32((entry >> np.uint32(6)) & np.uint32(1023))
            recent = np.int32(entry & np.uint32(63))
            depth = tree.depth[other]
            if character >= 0:
                depth = min(depth, tree.depth[character])
            for j in range(depth):
                node, turn = tree.path[other, j], tree.turns[other, j]
                if character < 0 and touched[node] == 0:
                    touched[node] = 1
                    nodes[count] = node
                    count += 1
                place = (node * CONTEXT_COUNT + c) * 4 + turn
                evidence[place] += n
                evidence[place + 2] += recent
                side = (node * CONTEXT_COUNT + c) * 2
                if sides[side] == 2:
                    sides[side] = turn
                elif sides[side + 1] == 2:
                    sides[side + 1] = turn
                if character >= 0 and turn != tree.turns[character, j]:
                    break
    nodes[len(nodes) - 1] = count


@subroutine()
def clear(scratch):
    """Remove the evidence at all nodes that have any."""
    for i in range(scratch.nodes[len(scratch.nodes) - 1]):
        node = scratch.nodes[i]
        scratch.touched[node] = 0
        begin = node * CONTEXT_COUNT
        for j in range(begin * 4, (begin + CONTEXT_COUNT) * 4):
            scratch.evidence[j] = 0
        for j in range(begin * 2, (begin + CONTEXT_COUNT) * 2):
            scratch.sides[j] = 2


@subroutine(types.int64, inline=True)
def level(count):
    """Return the class of a count, below COUNT_LEVELS."""
    if count < 8:
        return count
    if count < 12:
        return 8
    result, limit = 9, 20
    while count >= limit and result < COUNT_LEVELS - 1:
        result += 1
        limit = 32 if limit == 20 else limit * 2
    return result


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


@subroutine(types.boolean)
def fill_inputs(node, weights, constants, scratch):
    """Compute the inputs at a node. Returns False where no context has any evidence."""
    x, cells, evidence, sides = scratch.inputs, scratch.cells, scratch.evidence, scratch.sides
    any_evidence = False
    logs, stretch = constants.logs, constants.stretch
    for c in range(CONTEXT_COUNT):
        place = (node * CONTEXT_COUNT + c) * 4
        n0, n1 = evidence[place], evidence[place + 1]
        n = n0 + n1
        if n == 0:
            for i in range(INPUTS):
                x[c * INPUTS + i] = np.float32(0)
            cells[c] = -1
            continue
        any_evidence = True
        logit = logs[n1] - logs[n0]
        x[c * INPUTS] = logit
        certainty = np.float32(0)
        if n > 2:
            p = (np.float32(n1) + np.float32(PRIOR_COUNT)) / (
                np.float32(n) + np.float32(2 * PRIOR_COUNT)
            )
            certainty = (p - np.float32(0.5)) * np.float32(3)
        x[c * INPUTS + 1] = certainty
        step = min(max(int(logit * np.float32(2) + np.float32(16.5)), 0), LOGIT_LEVELS - 1)
        cell = (c * COUNT_LEVELS + level(n)) * LOGIT_LEVELS + step
        cells[c] = cell
        x[c * INPUTS + 2] = stretched(weights.counts[cell], stretch)
        r0, r1 = evidence[place + 2], evidence[place + 3]
        while r0 >= RECENT_LEVELS or r1 >= RECENT_LEVELS:
            r0, r1 = (r0 + 1) // 2 if r0 > 1 else r0, (r1 + 1) // 2 if r1 > 1 else r1
        side = (node * CONTEXT_COUNT + c) * 2
        cell = (c * RECENT_LEVELS + r0) * RECENT_LEVELS + r1
        cell = (cell * SIDES + sides[side]) * SIDES + sides[side + 1]
        cells[CONTEXT_COUNT + c] = cell
        x[c * INPUTS + 3] = stretched(weights.recent[cell], stretch)
    x[CONTEXT_COUNT * INPUTS] = np.float32(0.3)
    return any_evidence


@subroutine()
def choose_rows(node, state, tree, scratch, rows):
    """Choose the row of each set of weights, (SETS,)."""
    orders, certain = 0, 0
    for c in range(ORDERS):
        if scratch.cells[c] >= 0:
            orders += 1
            place = (node * CONTEXT_COUNT + c) * 4
            if scratch.evidence[place] == 0 or scratch.evidence[place + 1] == 0:
                certain += 1
    last = CLASSES - 1
    if state[0] != np.uint64(0):
        last = tree.rank[int(state[0]) - 1]
    kind = min(node, CLASSES - 1)
    length = min(int(state[WORD_LENGTH]), WORD_LENGTHS - 1)
    column = min(int(state[COLUMN]), COLUMNS - 1)
    rows[0] = SET_BEGINS[0] + orders * 8 + certain
    rows[1] = SET_BEGINS[1] + kind
    rows[2] = SET_BEGINS[2] + last
    rows[3] = SET_BEGINS[3] + kind * WORD_LENGTHS + length
    rows[4] = SET_BEGINS[4] + column * 8 + orders


@subroutine(types.float32)
def dot(sets, row, x, sums):
    """Return the product of a row of weights and the inputs, in the same order on every machine."""
    flat, inputs, partial = as_flat(sets), as_flat(x), as_flat(sums)
    begin = row * INPUT_COUNT
    lanes = width(flat)
    if lanes == 16:
        added = load(flat, begin) * load(inputs, 0)
        for i in range(16, INPUT_COUNT, 16):
            added = added + load(flat, begin + i) * load(inputs, i)
        store(partial, 0, added)
    else:
        for half in range(0, 16, lanes):
            added = load(flat, begin + half) * load(inputs, half)
            for i in range(16 + half, INPUT_COUNT, 16):
                added = added + load(flat, begin + i) * load(inputs, i)
            store(partial, half, added)
    for step in (8, 4, 2, 1):
        for i in range(step):
            sums[i] += sums[i + step]
    return min(max(sums[0], np.float32(-18)), np.float32(18))


@subroutine()
def add_to_row(sets, row, x, factor):
    """Add a multiple of the inputs to a row of weights."""
    flat, inputs = as_flat(sets), as_flat(x)
    begin = row * INPUT_COUNT
    for i in range(0, INPUT_COUNT, width(flat)):
        store(flat, begin + i, load(flat, begin + i) + load(inputs, i) * factor)


@subroutine(types.float32, inline=True)
def between(low, high, part):
    return low * (np.float32(1) - part) + high * part


@subroutine(types.float32)
def decide(node, state, tree, weights, constants, scratch, rows, dots, refined):
    """Return the probability of turn 1 at a node with evidence, whose inputs are known.

    Args:
        rows: the row of each set of weights, (SETS,).
        dots: written: what each set says, and the last mixture of them, (SETS + 1,).
        refined: written: the places in the two refining tables, (2,), and in `part` (dots[SETS + 1])
            how far between that one and the next.
    """
    total = np.float32(0)
    kind = min(node, CLASSES - 1) * SETS
    for k in range(SETS):
        dots[k] = dot(weights.sets, rows[k], scratch.inputs, scratch.sums)
        total += weights.final[kind + k] * dots[k]
    dots[SETS] = total
    bounded = min(max(total, np.float32(-7.99)), np.float32(7.99))
    place = (bounded + np.float32(8)) * np.float32(2)
    low = int(place)
    part = place - np.float32(low)
    dots[SETS + 1] = part
    one = joined(state[0], np.uint64(node), 200) % np.uint64(REFINED_ROWS)
    two = joined(joined(state[0], state[1], 201), np.uint64(node), 201) % np.uint64(REFINED_ROWS)
    refined[0] = int(one) * REFINED_LEVELS + low
    refined[1] = (int(two) + REFINED_ROWS) * REFINED_LEVELS + low
    table, stretch = weights.refined, constants.stretch
    a = between(table[refined[0]], table[refined[0] + 1], part)
    b = between(table[refined[1]], table[refined[1] + 1], part)
    logit = (total * np.float32(2) + stretched(a, stretch) + stretched(b, stretch)) / np.float32(4)
    p = squashed(logit, constants.squash)
    return min(max(p, np.float32(SMALLEST)), np.float32(1 - SMALLEST))


@subroutine(inline=True)
def move_towards(values, seen, place, bit):
    """Move a learned probability towards a decision, less the more it has seen."""
    if seen[place] < MOST_SEEN:
        seen[place] += np.int32(1)
    p = values[place] + (bit - values[place]) / np.float32(seen[place] + 8)
    values[place] = min(max(p, np.float32(LEAST)), np.float32(1 - LEAST))


@subroutine()
def learn_decision(node, turn, weights, constants, scratch, rows, dots, refined, rate):
    """Learn from the turn that was taken at a node."""
    bit = np.float32(turn)
    kind = min(node, CLASSES - 1) * SETS
    error = (bit - squashed(dots[SETS], constants.squash)) * np.float32(FINAL_RATE)
    for k in range(SETS):
        wrong = (bit - squashed(dots[k], constants.squash)) * rate
        add_to_row(weights.sets, rows[k], scratch.inputs, wrong)
        weights.final[kind + k] += error * dots[k]
    nearer = 0 if dots[SETS + 1] < np.float32(0.5) else 1
    for i in range(2):
        place = refined[i] + nearer
        p = weights.refined[place]
        p += (bit - p) * np.float32(REFINED_RATE)
        weights.refined[place] = min(max(p, np.float32(LEAST)), np.float32(1 - LEAST))
    for c in range(CONTEXT_COUNT):
        if scratch.cells[c] >= 0:
            move_towards(weights.counts, weights.counts_seen, scratch.cells[c], bit)
            place = scratch.cells[CONTEXT_COUNT + c]
            move_towards(weights.recent, weights.recent_seen, place, bit)


@subroutine(types.float32)
def code(character, state, tree, weights, constants, scratch, learns):
    """Return the probability of a character, and learn weights from it if `learns`."""
    gather(tree, scratch, character)
    rows, dots, refined = scratch.rows, scratch.dots, scratch.refined
    rate = np.float32(RATE + EARLY_RATE / (1 + weights.steps[0] / EARLY))
    if learns:
        weights.steps[0] += 1
    reach = np.float32(1)
    for j in range(tree.depth[character]):
        node, turn = tree.path[character, j], tree.turns[character, j]
        p = tree.prior[node]
        if reach >= np.float32(NEGLIGIBLE) and fill_inputs(node, weights, constants, scratch):
            choose_rows(node, state, tree, scratch, rows)
            p = decide(node, state, tree, weights, constants, scratch, rows, dots, refined)
            if learns:
                learn_decision(
                    node, turn, weights, constants, scratch, rows, dots, refined, rate
                )
        reach *= p if turn == 1 else np.float32(1) - p
    clear(scratch)
    return reach


@subroutine()
def distribute(state, tree, weights, constants, scratch, probabilities):
    """Write the probabilities of all characters, (V,)."""
    gather(tree, scratch, -1)
    rows, dots, refined = scratch.rows, scratch.dots, scratch.refined
    waiting, reach = 1, scratch.reach
    scratch.stack[0], reach[0] = 0, np.float32(1)
    while waiting > 0:
        waiting -= 1
        node, here = scratch.stack[waiting], reach[waiting]
        p = tree.prior[node]
        if (
            here >= np.float32(NEGLIGIBLE)
            and scratch.touched[node] == 1
            and fill_inputs(node, weights, constants, scratch)
        ):
            choose_rows(node, state, tree, scratch, rows)
            p = decide(node, state, tree, weights, constants, scratch, rows, dots, refined)
        for turn in range(2):
            share = here * (p if turn == 1 else np.float32(1) - p)
            child = tree.children[node, turn]
            if child < 0:
                probabilities[-1 - child] = share
            else:
                scratch.stack[waiting], reach[waiting] = child, share
                waiting += 1
    clear(scratch)


def read(ids, state, tree):
    """Read a text, (N,): only the state changes."""
    for i in range(len(ids)):
        advance(state, tree, ids[i])


def predict(ids, states, tree, tables, weights, constants, scratch, out, longest, certainty):
    """Read texts (T, B) in rows of states, and write what follows each character, (T, B, V)."""
    for row in range(ids.shape[1]):
        state = states[row]
        for t in range(ids.shape[0]):
            advance(state, tree, ids[t, row])
            find_contexts(state, tree, tables, scratch)
            orders, n = 0, 0
            for c in range(ORDERS):
                if scratch.used[c] > 0:
                    orders = c + 1
                    n = 0
                    for i in range(scratch.used[c]):
                        entry = scratch.entries[c * LONG + i]
                        n += int((entry >> np.uint32(6)) & np.uint32(1023))
            longest[t, row] = orders
            certainty[t, row] = np.float32(1) / np.float32(n + 1)
            distribute(state, tree, weights, constants, scratch, out[t, row])


def learn(
    ids, first, state, tree, tables, weights, constants, scratch, surprisals, learns, counts
):
    """Read a text, (N,), and learn from its characters from `first` on.

    Args:
        surprisals: written: the probability of every character before it was learned, (N,).
        learns: whether the weights learn.
        counts: whether characters are counted in the tables.
    """
    for i in range(len(ids)):
        if i >= first:
            find_contexts(state, tree, tables, scratch)
            surprisals[i] = code(ids[i], state, tree, weights, constants, scratch, learns)
            if counts:
                for c in range(CONTEXT_COUNT):
                    learn_list(scratch.contexts[c], ids[i], tables, constants.recent_after)
        advance(state, tree, ids[i])


READ = Kernel(read, "reading contexts")
PREDICT = Kernel(predict, "context mixing")
LEARN = Kernel(learn, "learning contexts")
