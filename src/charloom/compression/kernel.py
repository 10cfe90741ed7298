"""The kernels of compression: texts by a context mixer and a network, and lists of numbers.

Writing and reading are the same code, in which a decision is either known or read. Both therefore
predict alike, and learn alike.

The network's probability of turn 1 at a node is the share of its characters below that turn. A
last mixture joins it to that of the mixer. Two sets of weights multiply both logits, and the mean
of their sums is the result. The node chooses the row of one set, the contexts that of the other.

N: characters of a text; B: rows of the network's batch; T: steps of its windows.
"""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.compression.coder import code_number, code_turn
from charloom.compression.layout import GUESSES_OF_NUMBER, WRITES
from charloom.compression.logits import logit_of, probability_of
from charloom.compression.network import (
    BY_CONTEXTS,
    BY_NODE,
    CODES,
    LOWEST_CODE,
    MixingBuffers,
    NetworkBuffers,
)
from charloom.compression.network_kernel import predict_by_network
from charloom.context_mixing.buffers import ModelBuffers, ScratchBuffers, WeightBuffers
from charloom.context_mixing.contexts import advance, find_contexts
from charloom.context_mixing.decisions import (
    code,
    decide,
    hash_latest,
    learn_decision,
    prepare,
    refine_with,
)
from charloom.context_mixing.distributions import distribute
from charloom.context_mixing.evidence import clear, gather, rows_below
from charloom.context_mixing.layout import (
    CONTEXT_COUNT,
    EARLY,
    EARLY_RATE,
    GIVEN,
    NEGLIGIBLE,
    RATE,
)
from charloom.context_mixing.lists import learn_list
from charloom.kernels.arrays import as_buffers, as_flat
from charloom.kernels.compiling import subroutine

LEAST = np.float32(1e-6)  # probability of the network
CODED_BITS = np.int32(19)  # lowest bits of float32, which a code omits
MIXING_RATE, EARLY_MIXING_RATE, EARLY_DECISIONS = 0.002, 0.02, 20_000.0


@subroutine()
def add_up_network(m, n, x):
    """Add up the network's probabilities of the characters below each node."""
    for node in range(m.sizes.characters - 2, -1, -1):
        whole = np.float32(0)
        for turn in range(2):
            child = int(m.children[node * 2 + turn])
            whole += n.logits[-1 - child] if child < 0 else x.reach[child]
        x.reach[node] = whole


@subroutine(types.float32)
def network_logit(node, m, n, mixing):
    """Return the network's logit of turn 1 at a node."""
    child = int(m.children[node * 2 + 1])
    part = n.logits[-1 - child] if child < 0 else mixing.reach[child]
    share = part / max(mixing.reach[node], LEAST * LEAST)
    return logit_of(min(max(share, LEAST), np.float32(1) - LEAST))


@subroutine(types.float32)
def mix_with_network(node, contexts, p, logit, mixing):
    """Return the mixed probability of turn 1 at a node, and note what `learn_mixing` needs."""
    x, weights = mixing.mixed, mixing.weights
    x[0] = logit_of(p)
    x[1] = logit
    x[2] = np.float32(min(node, BY_NODE - 1) * 2)
    x[3] = np.float32((BY_NODE + contexts) * 2)
    for k in range(2):
        row = int(x[2 + k])
        x[4 + k] = weights[row] * x[0] + weights[row + 1] * x[1]
    mixed = probability_of((x[4] + x[5]) * np.float32(0.5))
    return min(max(mixed, LEAST), np.float32(1) - LEAST)


@subroutine()
def learn_mixing(turn, mixing, rate):
    """Change the weights of the last mixture after a decision."""
    x, weights, bit = mixing.mixed, mixing.weights, np.float32(turn)
    for k in range(2):
        row = int(x[2 + k])
        wrong = (bit - probability_of(x[4 + k])) * rate
        weights[row] += wrong * x[0]
        weights[row + 1] += wrong * x[1]


@subroutine(types.int64)
def code_character(character, state, m, w, s, n, mixing, coder, data, learns):
    """Write or read a character, decision by decision, and return it.

    With `learns`, weights change after each decision.
    """
    writes = coder[WRITES] != np.uint64(0)
    gather(m, s, s.entries, 0, s.used, 0)
    hash_latest(state, s)
    refine_with(0, w, s)
    rate = np.float32(RATE + EARLY_RATE / (1 + w.steps[0] / EARLY))
    mixing_rate = np.float32(MIXING_RATE + EARLY_MIXING_RATE / (1 + w.steps[0] / EARLY_DECISIONS))
    if learns:
        w.steps[0] += 1
    reach = np.float32(1)
    node, j, found = 0, 0, 0
    while True:
        p = m.prior[node]
        known = False
        contexts = BY_CONTEXTS - 1
        logit = np.float32(0)
        if n.sizes.hidden > 0:
            logit = network_logit(node, m, n, mixing)
            s.inputs[GIVEN] = logit
        if reach >= np.float32(NEGLIGIBLE):
            a, b = rows_below(node, m)
            prepare(node, a, b, 0, state, m, w, s)
            p = decide(node, 0, m, w, s, learns)
            known = s.evidence[0] != np.uint64(0)
            if known:
                contexts = min(int(s.group_rows[0]), BY_CONTEXTS - 2)
        turn = 0
        if writes:
            turn = int(m.turns[character * m.sizes.deepest + j])
        if n.sizes.hidden > 0:
            mixed = mix_with_network(
                node, contexts, min(max(p, LEAST), np.float32(1) - LEAST), logit, mixing
            )
            turn = code_turn(mixed, turn, coder, data)
            learn_mixing(turn, mixing, mixing_rate)
        else:
            turn = code_turn(p, turn, coder, data)
        if known and learns:
            learn_decision(node, 0, turn, m, w, s, rate)
        reach *= p if turn == 1 else np.float32(1) - p
        child = int(m.children[node * 2 + turn])
        if child < 0:
            found = -1 - child
            break
        node = child
        refine_with(node, w, s)
        j += 1
    s.inputs[GIVEN] = np.float32(0)
    clear(m, s)
    return found


def code_text(
    ids, begin, end, state, model, weights, scratch, network, mixing, coder, data, floats, flags
):
    """Write or read a part of a text, (N,).

    Args:
        ids: (N,), written where the coder reads.
        begin, end: the part.
        state: that before the part, changed, (STATE,).
        model: the addresses of ModelBuffers.
        weights: those of WeightBuffers.
        scratch: those of ScratchBuffers.
        network: those of NetworkBuffers, of which only sizes are used.
        mixing: those of MixingBuffers, which are not used.
        coder: see `layout`, changed.
        data: the bytes, from the coder's place on.
        floats: any array of float32.
        flags: whether the weights learn, and whether characters are counted in the tables, (2,).
    """
    m, w, s, n, x = (
        as_buffers(ModelBuffers, model, floats),
        as_buffers(WeightBuffers, weights, floats),
        as_buffers(ScratchBuffers, scratch, floats),
        as_buffers(NetworkBuffers, network, floats),
        as_buffers(MixingBuffers, mixing, floats),
    )
    flat, coding, stored = as_flat(state), as_flat(coder), as_flat(data)
    for i in range(begin, end):
        find_contexts(flat, m, s)
        found = code_character(ids[i], flat, m, w, s, n, x, coding, stored, flags[0] != 0)
        ids[i] = found
        if flags[1] != 0:
            for c in range(CONTEXT_COUNT):
                learn_list(s.contexts[c], found, m)
        advance(flat, m, found)


@subroutine()
def encode_predictions(p, codes, begin, count):
    """Write probabilities as bytes: the exponent and four bits of the mantissa, 255 for 1."""
    for i in range(count):
        code = int(np.float32(p[i]).view(np.int32) >> CODED_BITS) - LOWEST_CODE
        codes[begin + i] = np.uint8(min(max(code, 0), CODES - 1))


def code_text_with_network(
    ids,
    begin,
    end,
    state,
    model,
    weights,
    scratch,
    network,
    mixing,
    coder,
    data,
    codes,
    final,
    floats,
):
    """Do the same as `code_text`, with a network that reads what the mixer predicts.

    Args:
        codes: these predictions, (remembered V,), written.
        final: the addresses of WeightBuffers that have the network's logit among their inputs.
        floats: any array of float32.
    """
    m, w, s, n, x = (
        as_buffers(ModelBuffers, model, floats),
        as_buffers(WeightBuffers, weights, floats),
        as_buffers(ScratchBuffers, scratch, floats),
        as_buffers(NetworkBuffers, network, floats),
        as_buffers(MixingBuffers, mixing, floats),
    )
    last = as_buffers(WeightBuffers, final, floats)
    flat, coding, stored, predicted = as_flat(state), as_flat(coder), as_flat(data), as_flat(codes)
    size = n.sizes.characters
    for i in range(begin, end):
        find_contexts(flat, m, s)
        distribute(flat, m, w, s, x.mixer)
        encode_predictions(x.mixer, predicted, i % n.sizes.remembered * size, size)
        predict_by_network(n, int(ids[i - 1]) if i > 0 else 0, i, predicted)
        add_up_network(m, n, x)
        found = code_character(ids[i], flat, m, last, s, n, x, coding, stored, True)
        code(found, flat, m, w, s, s.entries, 0, s.used, 0, True)
        ids[i] = found
        for c in range(CONTEXT_COUNT):
            learn_list(s.contexts[c], found, m)
        advance(flat, m, found)


@subroutine(types.int64)
def code_among(p, begin, size, character, coder, data):
    """Write or read one of V characters with probabilities (V,) that need not add up to 1."""
    low, high = begin, begin + size
    while high - low > 1:
        middle = (low + high) // 2
        first, second = 1e-12, 1e-12
        for i in range(low, middle):
            first += p[i]
        for i in range(middle, high):
            second += p[i]
        turn = 1 if begin + character >= middle else 0
        share = np.float32(second / (first + second))
        share = min(max(share, LEAST), np.float32(1) - LEAST)
        if code_turn(share, turn, coder, data) == 1:
            low = middle
        else:
            high = middle
    return low - begin


def code_predicted(ids, probabilities, coder, data):
    """Write or read characters, (N,), by the probabilities of each, float64 (N, V)."""
    p, coding, stored = as_flat(probabilities), as_flat(coder), as_flat(data)
    size = probabilities.shape[1]
    for i in range(len(ids)):
        ids[i] = code_among(p, i * size, size, ids[i], coding, stored)


def code_numbers(numbers, guesses, coder, data):
    """Write or read numbers from 1 on, (N, K), whose columns have guesses of their own.

    Args:
        numbers: (N, K), written where the coder reads.
        guesses: learned probabilities, (K GUESSES_OF_NUMBER,), changed.
        coder: see `layout`, changed.
        data: the bytes.
    """
    known, coding, stored = as_flat(guesses), as_flat(coder), as_flat(data)
    rows, columns = numbers.shape
    for i in range(rows):
        for k in range(columns):
            begin = k * GUESSES_OF_NUMBER
            numbers[i, k] = code_number(numbers[i, k], known, begin, coding, stored)
