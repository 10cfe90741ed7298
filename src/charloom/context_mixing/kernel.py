"""The kernels of a context mixer: read a text, learn from it, predict after it.

Every character is predicted decision by decision along its path in the m. The evidence at a
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

from typing import Annotated, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from charloom.context_mixing.layout import (
    ABOVE,
    ABOVE_LENGTH,
    BOTH_UNKNOWN,
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
    UNKNOWN,
    WORD,
    WORD_BEFORE,
    WORD_BEFORE_THAT,
    WORD_LENGTH,
    WORD_LENGTHS,
    Constants,
    Scratch,
    Tables,
    Tree,
    Weights,
)
from charloom.kernels.arrays import addresses, as_buffers, as_flat, flat_from
from charloom.kernels.compiling import Kernel, subroutine
from charloom.kernels.vectors import load, store, total, trailing_zeros, width

MULTIPLIER_1, MULTIPLIER_2 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
SPREAD = np.uint64(HASH_SPREAD)
SHIFT_31, SHIFT_27, SHIFT_33 = np.uint64(31), np.uint64(27), np.uint64(33)
SHIFT_32, SHIFT_48 = np.uint64(32), np.uint64(48)
LOWER = np.uint64(0xFFFFFFFF)
ONE = np.uint64(1)

# An entry of a list: the character in 16 bits, its count in 10, its recent count in 6.
MOVED = np.uint32(0xFFFF)  # instead of a character: the list has moved to a longer one
CHARACTER_SHIFT = np.uint32(16)
HALF, LOWER_HALF = np.int64(32), np.int64(0xFFFFFFFF)
MOVED_PRIORITY = 1 << 20  # such an entry is never the one to be replaced


Float32 = Annotated[NDArray[np.float32], types.float32]
Int32 = Annotated[NDArray[np.int32], types.int32]
Int64 = Annotated[NDArray[np.int64], types.int64]
UInt8 = Annotated[NDArray[np.uint8], types.uint8]
UInt32 = Annotated[NDArray[np.uint32], types.uint32]
UInt64 = Annotated[NDArray[np.uint64], types.uint64]


class Sizes(NamedTuple):
    """The numbers that a kernel needs besides the arrays."""

    characters: int  # V
    deepest: int  # D
    single_buckets: int
    short_buckets: int
    long_buckets: int


class ModelBuffers(NamedTuple):
    """The tree, the tables of lists and the tables of functions, for kernels."""

    sizes: Annotated[NDArray[np.int64], Sizes]
    path: Int32
    turns: Int32
    depth: Int32
    children: Int32
    prior: Float32
    kind: Int32
    folded: Int32
    rank: Int32
    code: UInt64
    singles: UInt64
    shorts: UInt32
    longs: UInt32
    stretch: Float32
    squash: Float32
    logs: Float32
    reciprocals: Float32
    levels: Int32
    recent_after: Int32
    sides_after: Int32


class WeightBuffers(NamedTuple):
    """Weights, for kernels."""

    counts: Float32
    counts_seen: Int32
    recent: Float32
    recent_seen: Int32
    sets: Float32
    final: Float32
    refined: Float32
    steps: Int64


class ScratchBuffers(NamedTuple):
    """Scratch memory, for kernels."""

    contexts: UInt64
    entries: UInt32
    used: Int32
    evidence: Int64
    parted: Int64
    sides: Int32
    active: Int32
    known: Int32
    nodes: Int32
    inputs: Float32
    cells: Int32
    sums: Float32
    rows: Int64
    dots: Float32
    refined: Int64
    stack: Int32
    reach: Float32


FLOATS = np.dtype(np.float32)
Places = NDArray[np.int64]


def model_places(tree: Tree, tables: Tables, constants: Constants) -> tuple[Places, ModelBuffers]:
    """Return the addresses of a mixer's arrays, and the arrays, which the caller keeps alive."""
    sizes = Sizes(
        len(tree.depth),
        tree.path.shape[1],
        len(tables.singles) // SINGLE_WAYS,
        len(tables.shorts) // (LIST_WAYS * SHORT_WORDS),
        len(tables.longs) // (LIST_WAYS * LONG_WORDS),
    )
    buffers = ModelBuffers(np.array(sizes, np.int64), *tree, *tables, *constants)
    return addresses(buffers, FLOATS), buffers


def weight_places(weights: Weights) -> Places:
    """Return the addresses of weights."""
    return addresses(WeightBuffers(*weights), FLOATS)


def scratch_places(scratch: Scratch) -> Places:
    """Return the addresses of scratch memory."""
    return addresses(ScratchBuffers(*scratch), FLOATS)


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
def advance(state, m, character):
    """Read a character: change a row's state, (STATE,)."""
    kind = m.kind[character]
    if kind == END:
        for i in range(STATE):
            state[i] = np.uint64(0)
        return
    for i in range(RECENT - 1, 0, -1):
        state[i] = state[i - 1]
    before = state[1]
    state[0] = np.uint64(character + 1)
    if kind == LETTER:
        state[WORD] = mixed(state[WORD] * np.uint64(271) + np.uint64(m.folded[character] + 1))
        state[WORD_LENGTH] += ONE
    else:
        state[WORD_LENGTH] = np.uint64(0)
        if state[WORD] != np.uint64(0):
            state[WORD_BEFORE_THAT] = state[WORD_BEFORE]
            state[WORD_BEFORE] = state[WORD]
            state[WORD] = np.uint64(0)
    if kind == BREAK:
        column = int(state[COLUMN])
        if 0 < column < 25 and before != np.uint64(0) and m.kind[int(before) - 1] != LETTER:
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
def find_contexts(state, m, s):
    """Hash the contexts of a row's state, and read their lists."""
    hashes = s.contexts
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
        kind = np.uint64(m.kind[int(c2) - 1])
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
        read_list(c, m, s)
    for i in range(INDIRECT):
        latest, second = np.uint64(0), np.uint64(0)
        if s.used[i] > 0:
            latest = np.uint64(s.entries[i * LONG] >> np.uint32(16)) + ONE
        if s.used[i] > 1:
            second = np.uint64(s.entries[i * LONG + 1] >> np.uint32(16)) + ONE
        c = CONTEXT_COUNT - INDIRECT + i
        known = joined(c1, c2 if i > 0 else np.uint64(0), 102)
        hashes[c] = joined(known, joined(latest, second, 103), c)
        read_list(c, m, s)


@subroutine(types.int64, inline=True)
def bucket_of(value, buckets):
    """Return the bucket of a hash: its lower 32 bits as a share of all buckets."""
    return int(((value & LOWER) * np.uint64(buckets)) >> SHIFT_32)


@subroutine(types.int64)
def find_single(singles, buckets, value):
    """Return the place of a context's entry in the first table, -1 where there is none."""
    begin = bucket_of(value, buckets) * SINGLE_WAYS
    check = value >> SHIFT_48
    for i in range(begin, begin + SINGLE_WAYS):
        if singles[i] >> SHIFT_48 == check and singles[i] != np.uint64(0):
            return i
    return -1


@subroutine(types.int64)
def find_list(lists, buckets, value, words):
    """Return the place of a context's first entry in a table of lists, -1 where there is none."""
    begin = bucket_of(value, buckets) * LIST_WAYS * words
    check = np.uint32((value >> SHIFT_48) | ONE)
    for i in range(LIST_WAYS):
        if lists[begin + i * words] == check:
            return begin + i * words + 1
    return -1


@subroutine()
def read_list(c, m, s):
    """Copy the list of context c to the scratch memory."""
    used, entries, begin = 0, s.entries, c * LONG
    value = s.contexts[c]
    place = find_single(m.singles, m.sizes.single_buckets, value)
    if place >= 0:
        entry = np.uint32(m.singles[place] & LOWER)
        if entry >> np.uint32(16) != MOVED:
            entries[begin] = entry
            used = 1
        else:
            value = mixed(value)
            place = find_list(m.shorts, m.sizes.short_buckets, value, SHORT_WORDS)
            if place >= 0:
                lists, most = m.shorts, SHORT
                if lists[place] >> np.uint32(16) == MOVED:
                    lists, most = m.longs, LONG
                    place = find_list(lists, m.sizes.long_buckets, mixed(value), LONG_WORDS)
                if place >= 0:
                    while used < most and lists[place + used] != np.uint32(0):
                        entries[begin + used] = lists[place + used]
                        used += 1
    s.used[c] = used


@subroutine(types.int64, inline=True)
def both_counts(entry):
    """Return an entry's count, and in the upper half its recent count."""
    recent = np.int64(entry & np.uint32(63))
    return (recent << HALF) | np.int64((entry >> np.uint32(6)) & np.uint32(1023))


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
    used, at = 0, -1
    while used < most and lists[begin + used] != np.uint32(0):
        if int(lists[begin + used] >> np.uint32(16)) == character:
            at = used
        used += 1
    if at < 0:
        if used == SHORT and most == SHORT:
            longer = new_list(longs, m.sizes.long_buckets, mixed(second), LONG_WORDS)
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
    """Return the mixture of what the sets of weights say, and note what each says if `learns`.

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

    It notes what each set of weights says, and the places in the two refining tables.
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
    """Learn from the turn that was taken at a node."""
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
    """Return the probability of a character, and learn weights from it if `learns`."""
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


def read(ids, state, model, floats):
    """Read a text, (N,): only the state changes."""
    m = as_buffers(ModelBuffers, model, floats)
    flat = as_flat(state)
    for i in range(len(ids)):
        advance(flat, m, ids[i])


def predict(ids, states, model, weights, scratch, out, longest, certainty):
    """Read texts (T, B) in rows of states, and write what follows each character, (T, B, V).

    Args:
        ids: (T, B).
        states: changed, (B, STATE).
        model: the addresses of ModelBuffers.
        weights: those of WeightBuffers.
        scratch: those of ScratchBuffers.
        out: written, (T B V,).
        longest: written: the number of characters of the longest order with evidence, (T B,).
        certainty: written: 1 over how often it was seen, and 1, (T B,).
    """
    m, w, s = (
        as_buffers(ModelBuffers, model, out),
        as_buffers(WeightBuffers, weights, out),
        as_buffers(ScratchBuffers, scratch, out),
    )
    size, flat = m.sizes.characters, as_flat(out)
    steps, rows = ids.shape
    for row in range(rows):
        state = flat_from(as_flat(states), row * STATE)
        for t in range(steps):
            advance(state, m, ids[t, row])
            find_contexts(state, m, s)
            orders, n = 0, 0
            for c in range(ORDERS):
                if s.used[c] > 0:
                    orders, n = c + 1, 0
                    for i in range(s.used[c]):
                        n += int((s.entries[c * LONG + i] >> np.uint32(6)) & np.uint32(1023))
            place = t * rows + row
            longest[place] = orders
            certainty[place] = np.float32(1) / np.float32(n + 1)
            distribute(state, m, w, s, flat_from(flat, place * size))


def learn(ids, state, model, weights, scratch, probabilities, flags):
    """Read a text, (N,), and learn from it.

    Args:
        ids: (N,).
        state: that before the text, changed, (STATE,).
        model: the addresses of ModelBuffers.
        weights: those of WeightBuffers.
        scratch: those of ScratchBuffers.
        probabilities: written: the probability of every character before it was learned, (N,).
        flags: whether the weights learn, and whether characters are counted in the tables, (2,).
    """
    m, w, s = (
        as_buffers(ModelBuffers, model, probabilities),
        as_buffers(WeightBuffers, weights, probabilities),
        as_buffers(ScratchBuffers, scratch, probabilities),
    )
    flat = as_flat(state)
    for i in range(len(ids)):
        find_contexts(flat, m, s)
        probabilities[i] = code(ids[i], flat, m, w, s, flags[0] != 0)
        if flags[1] != 0:
            for c in range(CONTEXT_COUNT):
                learn_list(s.contexts[c], ids[i], m)
        advance(flat, m, ids[i])


def follow(ids, state, model, weights, scratch, out, longest, certainty):
    """Read a text, (N,): predict each character, (N V,), before it is learned.

    The other arguments are those of `predict`, for one row.
    """
    m, w, s = (
        as_buffers(ModelBuffers, model, out),
        as_buffers(WeightBuffers, weights, out),
        as_buffers(ScratchBuffers, scratch, out),
    )
    size, flat, place = m.sizes.characters, as_flat(state), as_flat(out)
    for i in range(len(ids)):
        find_contexts(flat, m, s)
        orders, n = 0, 0
        for c in range(ORDERS):
            if s.used[c] > 0:
                orders, n = c + 1, 0
                for j in range(s.used[c]):
                    n += int((s.entries[c * LONG + j] >> np.uint32(6)) & np.uint32(1023))
        longest[i] = orders
        certainty[i] = np.float32(1) / np.float32(n + 1)
        distribute(flat, m, w, s, flat_from(place, i * size))
        code(ids[i], flat, m, w, s, True)
        for c in range(CONTEXT_COUNT):
            learn_list(s.contexts[c], ids[i], m)
        advance(flat, m, ids[i])


READ = Kernel(read, "reading contexts")
PREDICT = Kernel(predict, "context mixing")
LEARN = Kernel(learn, "learning contexts")
FOLLOW = Kernel(follow, "adaptive context mixing")
