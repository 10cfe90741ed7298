"""The kernels of a context mixer: reading a text, learning it, predicting after it.

Every character is predicted decision by decision along its path in the tree. At a node, a context's
evidence are the counts n of the characters below either turn that have followed it before. Their
recent counts r fall when another character appears. The inputs of a context are

    log (n₁ + δ) / (n₀ + δ)           the logit of its counts
    3 (p - ½), n > 2                  the same as a probability, where it is certain
    stretch(a), stretch(b)            the frequency of turn 1 so far, with such counts n, and with
                                      such r and turns of the two latest characters

Five sets of weights mix all inputs x. Each has a row for one feature: the number of orders with
evidence, the node, the last character and so on. A last set mixes these five. Two tables refine the
result: the frequency of turn 1 with such a probability, after the last character and after the last
two. Weights learn by gradient descent on -log p of every decision. `reference` is the definition.

Sources: Mahoney, "Adaptive weighing of context models for lossless data compression" (2005) and
"Data Compression Explained" (2013).
"""

from __future__ import annotations

import numpy as np

from charloom.context_mixing.buffers import (
    ListBuffers,
    ModelBuffers,
    ScratchBuffers,
    WeightBuffers,
)
from charloom.context_mixing.contexts import (
    FIRST_INDIRECT,
    advance,
    find_contexts,
    prefetch_contexts,
    prefetch_longer,
    read_first_lists,
    read_lists,
    read_some,
)
from charloom.context_mixing.decisions import code
from charloom.context_mixing.distributions import distribute_gathered
from charloom.context_mixing.evidence import gather
from charloom.context_mixing.groups import TOGETHER
from charloom.context_mixing.layout import (
    CONTEXT_COUNT,
    EARLIER,
    EARLIER_SLOTS,
    LONG_WORDS,
    ORDERS,
    SHORT_WORDS,
    STATE,
    most_entries,
)
from charloom.context_mixing.lists import (
    CHARACTER_SHIFT,
    MOVED,
    entry_at,
    find_list,
    find_long,
    find_single,
    learn_list,
    mixed,
    prefetch_list,
)
from charloom.kernels.arrays import as_buffers, as_flat, flat_from
from charloom.kernels.compiling import subroutine

MOST_ENTRIES = most_entries()


def read(ids, state, model, floats):
    """Read a text, (N,): only the state changes."""
    m = as_buffers(ModelBuffers, model, floats)
    flat = as_flat(state)
    for i in range(len(ids)):
        advance(flat, m, ids[i])


@subroutine()
def predict_next(state, m, w, s, place, found, lengths, shares):
    """Write the predictions after a row's state at a place of the outputs of `predict`."""
    find_contexts(state, m, s)
    predict_listed(state, 0, m, w, s, True, place, found, lengths, shares)


@subroutine()
def predict_listed(state, row, m, w, s, stretches, place, found, lengths, shares):
    """Do the same when the lists of the contexts are read, as those of a row of `s.entries`."""
    at, orders, n, begin = row * CONTEXT_COUNT, 0, 0, row * MOST_ENTRIES
    for c in range(ORDERS):
        end = begin + s.used[at + c]
        if begin < end:
            orders, n = c + 1, 0
            for i in range(begin, end):
                n += int((s.entries[i] >> np.uint32(6)) & np.uint32(1023))
        begin = end
    lengths[place] = np.int32(orders)
    shares[place] = np.float32(1) / np.float32(n + 1)
    gather(m, s, s.entries, row * MOST_ENTRIES, s.used, at)
    distribute_gathered(state, m, w, s, stretches, flat_from(found, place * m.sizes.characters))


@subroutine()
def predict_together(states, count, m, w, s, place, stride, found, lengths, shares):
    """Write the predictions after some states, (count, STATE), at places that are `stride` apart.

    There are at most TOGETHER of them. Lists lie anywhere in memory, so that all rows' are fetched
    before any is read. The maps of the weights have logits.
    """
    for i in range(count):
        prefetch_contexts(flat_from(states, i * STATE), m, flat_from(s.hashes, i * CONTEXT_COUNT))
    for table in range(2, 4):
        for i in range(count):
            prefetch_longer(m, flat_from(s.hashes, i * CONTEXT_COUNT), 0, FIRST_INDIRECT, table)
    for i in range(count):
        hashes = flat_from(s.hashes, i * CONTEXT_COUNT)
        s.ends[i] = read_first_lists(
            flat_from(states, i * STATE), m, hashes, s.entries, i * MOST_ENTRIES,
            s.used, i * CONTEXT_COUNT,
        )  # fmt: skip
        for c in range(FIRST_INDIRECT, CONTEXT_COUNT):
            prefetch_list(hashes[c], m)
    for table in range(2, 4):
        for i in range(count):
            hashes = flat_from(s.hashes, i * CONTEXT_COUNT)
            prefetch_longer(m, hashes, FIRST_INDIRECT, CONTEXT_COUNT, table)
    for i in range(count):
        hashes = flat_from(s.hashes, i * CONTEXT_COUNT)
        read_some(
            m, hashes, FIRST_INDIRECT, CONTEXT_COUNT, s.entries, s.ends[i],
            s.used, i * CONTEXT_COUNT,
        )  # fmt: skip
        predict_listed(
            flat_from(states, i * STATE), i, m, w, s, False,
            place + i * stride, found, lengths, shares,
        )  # fmt: skip


@subroutine()
def predict_rows(states, ids, first, end, m, w, s, found, lengths, shares):
    """Read an id in each of some rows, and write the predictions after it at the row's place."""
    for row in range(first, end, TOGETHER):
        count = min(TOGETHER, end - row)
        for i in range(row, row + count):
            advance(flat_from(states, i * STATE), m, ids[i])
        predict_together(
            flat_from(states, row * STATE), count, m, w, s, row, 1, found, lengths, shares
        )


@subroutine()
def predict_times(state, ids, begin, end, rows, row, m, w, s, found, lengths, shares):
    """Read the ids of a row, (T, B), from a time to before another one.

    The predictions after each are written at its place.
    """
    for t in range(begin, end, TOGETHER):
        count = min(TOGETHER, end - t)
        for i in range(count):
            advance(state, m, ids[(t + i) * rows + row])
            for j in range(STATE):
                s.states[i * STATE + j] = state[j]
        predict_together(s.states, count, m, w, s, t * rows + row, rows, found, lengths, shares)


def predict(ids, states, model, weights, scratch, out, longest, certainty):
    """Read texts (T, B) in rows of states, and write predictions after each character, (T, B, V).

    Args:
        ids: (T, B).
        states: changed, (B, STATE).
        model: the addresses of ModelBuffers.
        weights: those of WeightBuffers, whose maps have logits (see `layout.with_logits`).
        scratch: those of ScratchBuffers.
        out: written, (T B V,).
        longest: written: the longest order with evidence, from 1 to ORDERS, else 0, (T B,).
        certainty: written: 1 over how often it was seen, and 1, (T B,).
    """
    m, w, s = (
        as_buffers(ModelBuffers, model, out),
        as_buffers(WeightBuffers, weights, out),
        as_buffers(ScratchBuffers, scratch, out),
    )
    found, lengths, shares = as_flat(out), as_flat(longest), as_flat(certainty)
    steps, rows = ids.shape
    for row in range(rows):
        predict_times(
            flat_from(as_flat(states), row * STATE), as_flat(ids), 0, steps, rows, row,
            m, w, s, found, lengths, shares,
        )  # fmt: skip


def look_up(ids, state, model, scratch, lists, floats, counts):
    """Read a text, (N,), and note the lists of the contexts before each character.

    Args:
        ids: (N,).
        state: that before the text, changed, (STATE,).
        model: the addresses of ModelBuffers.
        scratch: those of ScratchBuffers.
        lists: those of ListBuffers, written.
        floats: any array of float32.
        counts: whether the characters are counted. If not, the lists after the text are noted too.
    """
    m, s, noted = (
        as_buffers(ModelBuffers, model, floats),
        as_buffers(ScratchBuffers, scratch, floats),
        as_buffers(ListBuffers, lists, floats),
    )
    now, ahead = as_flat(state), s.ahead
    # The contexts of the next characters are hashed early, so that their lists are fetched early.
    for i in range(STATE):
        ahead[i] = now[i]
    more = len(ids) if counts else len(ids) + 1
    end = 0
    for i in range(-EARLIER, more):
        early = i + EARLIER
        if early < more:
            hashes = flat_from(s.hashes, early % EARLIER_SLOTS * CONTEXT_COUNT)
            prefetch_contexts(ahead, m, hashes)
            if early < len(ids):
                advance(ahead, m, ids[early])
        # Where the list has moved is known when its first place has arrived.
        for table in range(2, 4):
            early -= 1
            if 0 <= early < more:
                hashes = flat_from(s.hashes, early % EARLIER_SLOTS * CONTEXT_COUNT)
                prefetch_longer(m, hashes, 0, FIRST_INDIRECT, table)
        if i < 0:
            continue
        hashes = flat_from(s.hashes, i % EARLIER_SLOTS * CONTEXT_COUNT)
        noted.begins[i] = end
        end = read_lists(now, m, hashes, noted.entries, end, noted.used, i * CONTEXT_COUNT)
        if counts:
            for c in range(CONTEXT_COUNT):
                learn_list(hashes[c], ids[i], m)
        if i < len(ids):
            advance(now, m, ids[i])


def learn(ids, state, model, weights, scratch, lists, probabilities, learns):
    """Teach weights a text, (N,), the lists of whose contexts are known.

    Args:
        ids: (N,).
        state: that before the text, changed, (STATE,).
        model: the addresses of ModelBuffers.
        weights: those of WeightBuffers.
        scratch: those of ScratchBuffers.
        lists: those of ListBuffers.
        probabilities: written: that of each character before the weights learn it, (N,).
        learns: whether the weights learn, 0 or 1.
    """
    m, w, s, noted = (
        as_buffers(ModelBuffers, model, probabilities),
        as_buffers(WeightBuffers, weights, probabilities),
        as_buffers(ScratchBuffers, scratch, probabilities),
        as_buffers(ListBuffers, lists, probabilities),
    )
    flat = as_flat(state)
    for i in range(len(ids)):
        probabilities[i] = code(
            ids[i], flat, m, w, s,
            noted.entries, noted.begins[i], noted.used, i * CONTEXT_COUNT, learns != 0,
        )  # fmt: skip
        advance(flat, m, ids[i])


def record(ids, begin, state, model, weights, scratch, lists, codes):
    """Predict the characters after each id of a text, (N,), the lists of whose contexts are known.

    Args:
        ids: (N,).
        begin: the number of the text's first id in its block.
        state: that before the text, changed, (STATE,).
        model: the addresses of ModelBuffers.
        weights: those of WeightBuffers, whose maps have logits (see `layout.with_logits`).
        scratch: those of ScratchBuffers.
        lists: those of ListBuffers.
        codes: written: the probabilities, (N, V).
    """
    m, w, s, noted = (
        as_buffers(ModelBuffers, model, codes),
        as_buffers(WeightBuffers, weights, codes),
        as_buffers(ScratchBuffers, scratch, codes),
        as_buffers(ListBuffers, lists, codes),
    )
    flat, written = as_flat(state), as_flat(codes)
    for i in range(len(ids)):
        advance(flat, m, ids[i])
        known = begin + i + 1
        gather(m, s, noted.entries, noted.begins[known], noted.used, known * CONTEXT_COUNT)
        distribute_gathered(flat, m, w, s, False, flat_from(written, i * m.sizes.characters))


def follow(ids, state, model, weights, scratch, out, longest, certainty):
    """Read a text, (N,): predict each character, (N V,), before it is counted.

    The other arguments are those of `predict`, for one row.
    """
    m, w, s = (
        as_buffers(ModelBuffers, model, out),
        as_buffers(WeightBuffers, weights, out),
        as_buffers(ScratchBuffers, scratch, out),
    )
    flat = as_flat(state)
    found, lengths, shares = as_flat(out), as_flat(longest), as_flat(certainty)
    for i in range(len(ids)):
        predict_next(flat, m, w, s, i, found, lengths, shares)
        code(ids[i], flat, m, w, s, s.entries, 0, s.used, 0, True)
        for c in range(CONTEXT_COUNT):
            learn_list(s.contexts[c], ids[i], m)
        advance(flat, m, ids[i])


def mark(ids, state, model, scratch, floats, singles, shorts, longs):
    """Read a text, (N,), and note the context of every list that its places reach.

    Args:
        ids: (N,).
        state: that before the text, changed, (STATE,).
        model: the addresses of ModelBuffers.
        scratch: those of ScratchBuffers.
        floats: any array of float32.
        singles, shorts, longs: written, 1 + the number of the context for each list of a table.
    """
    m = as_buffers(ModelBuffers, model, floats)
    s = as_buffers(ScratchBuffers, scratch, floats)
    flat = as_flat(state)
    of_singles, of_shorts, of_longs = as_flat(singles), as_flat(shorts), as_flat(longs)
    for i in range(len(ids)):
        advance(flat, m, ids[i])
        find_contexts(flat, m, s)
        for c in range(CONTEXT_COUNT):
            value = s.contexts[c]
            place = find_single(m, value)
            if place < 0:
                continue
            if m.singles[place] >> CHARACTER_SHIFT != MOVED:
                of_singles[place] = np.uint8(c + 1)
                continue
            value = mixed(value)
            width = m.sizes.short_width
            place = find_list(m.shorts, m.sizes.short_buckets, value, SHORT_WORDS, width)
            if place < 0:
                continue
            if entry_at(m.shorts, place, 0, width) >> CHARACTER_SHIFT != MOVED:
                of_shorts[place // (SHORT_WORDS * width)] = np.uint8(c + 1)
                continue
            place = find_long(m, mixed(value))
            if place >= 0:
                of_longs[place // LONG_WORDS] = np.uint8(c + 1)
