"""The kernels of compression: texts by a context mixer, and lists of numbers.

Writing and reading are the same code, in which a decision is either known or read. Both therefore
predict alike, and learn alike.
"""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.compression.coder import code_number, code_turn
from charloom.compression.layout import GUESSES_OF_NUMBER, WRITES
from charloom.context_mixing.buffers import ModelBuffers, ScratchBuffers, WeightBuffers
from charloom.context_mixing.contexts import advance, find_contexts
from charloom.context_mixing.decisions import choose_rows, decide, fill_inputs, learn_decision
from charloom.context_mixing.evidence import clear, gather, gather_on_path
from charloom.context_mixing.layout import CONTEXT_COUNT, EARLY, EARLY_RATE, NEGLIGIBLE, RATE
from charloom.context_mixing.lists import learn_list
from charloom.kernels.arrays import as_buffers, as_flat
from charloom.kernels.compiling import Kernel, subroutine


@subroutine(types.int64)
def code_character(character, state, m, w, s, coder, data):
    """Write or read a character, decision by decision, update the weights at each one, and return it."""
    writes = coder[WRITES] != np.uint64(0)
    if writes:
        gather_on_path(m, s, character)
    else:
        gather(m, s)
    rate = np.float32(RATE + EARLY_RATE / (1 + w.steps[0] / EARLY))
    w.steps[0] += 1
    reach = np.float32(1)
    node, j = 0, 0
    found = 0
    while True:
        p = m.prior[node]
        known = reach >= np.float32(NEGLIGIBLE) and s.active[node] > 0
        if known:
            fill_inputs(node, m, w, s)
            choose_rows(node, state, m, s)
            p = decide(node, state, m, w, s, True)
        turn = 0
        if writes:
            turn = int(m.turns[character * m.sizes.deepest + j])
        turn = code_turn(p, turn, coder, data)
        if known:
            learn_decision(node, turn, m, w, s, rate)
        reach *= p if turn == 1 else np.float32(1) - p
        child = int(m.children[node * 2 + turn])
        if child < 0:
            found = -1 - child
            break
        node = child
        j += 1
    clear(m, s)
    return found


def code_text(ids, state, model, weights, scratch, coder, data, floats):
    """Write or read a text, (N,), while the mixer learns it.

    Args:
        ids: (N,), written where the coder reads.
        state: that before the text, changed, (STATE,).
        model: the addresses of ModelBuffers.
        weights: those of WeightBuffers.
        scratch: those of ScratchBuffers.
        coder: see `layout`, changed.
        data: the bytes, from the coder's place on.
        floats: any array of float32.
    """
    m, w, s = (
        as_buffers(ModelBuffers, model, floats),
        as_buffers(WeightBuffers, weights, floats),
        as_buffers(ScratchBuffers, scratch, floats),
    )
    flat, coding, stored = as_flat(state), as_flat(coder), as_flat(data)
    for i in range(len(ids)):
        find_contexts(flat, m, s)
        found = code_character(ids[i], flat, m, w, s, coding, stored)
        ids[i] = found
        for c in range(CONTEXT_COUNT):
            learn_list(s.contexts[c], found, m)
        advance(flat, m, found)


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


CODE_TEXT = Kernel(code_text, "compression")
CODE_NUMBERS = Kernel(code_numbers, "compressed numbers")
