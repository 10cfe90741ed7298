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

from charloom.context_mixing.buffers import ModelBuffers, ScratchBuffers, WeightBuffers
from charloom.context_mixing.contexts import advance, find_contexts
from charloom.context_mixing.decisions import code, distribute
from charloom.context_mixing.layout import CONTEXT_COUNT, LONG, ORDERS, STATE
from charloom.context_mixing.lists import learn_list
from charloom.kernels.arrays import as_buffers, as_flat, flat_from
from charloom.kernels.compiling import subroutine


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
    orders, n = 0, 0
    for c in range(ORDERS):
        if s.used[c] > 0:
            orders, n = c + 1, 0
            for i in range(s.used[c]):
                n += int((s.entries[c * LONG + i] >> np.uint32(6)) & np.uint32(1023))
    lengths[place] = np.int32(orders)
    shares[place] = np.float32(1) / np.float32(n + 1)
    distribute(state, m, w, s, flat_from(found, place * m.sizes.characters))


def predict(ids, states, model, weights, scratch, out, longest, certainty):
    """Read texts (T, B) in rows of states, and write predictions after each character, (T, B, V).

    Args:
        ids: (T, B).
        states: changed, (B, STATE).
        model: the addresses of ModelBuffers.
        weights: those of WeightBuffers.
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
        state = flat_from(as_flat(states), row * STATE)
        for t in range(steps):
            advance(state, m, ids[t, row])
            predict_next(state, m, w, s, t * rows + row, found, lengths, shares)


def learn(ids, state, model, weights, scratch, probabilities, flags):
    """Read a text, (N,), and learn it.

    Args:
        ids: (N,).
        state: that before the text, changed, (STATE,).
        model: the addresses of ModelBuffers.
        weights: those of WeightBuffers.
        scratch: those of ScratchBuffers.
        probabilities: written: the probability of every character before it is counted, (N,).
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
        code(ids[i], flat, m, w, s, True)
        for c in range(CONTEXT_COUNT):
            learn_list(s.contexts[c], ids[i], m)
        advance(flat, m, ids[i])
