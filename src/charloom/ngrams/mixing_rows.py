"""The arithmetic of a mixture inside kernels (see charloom.ngrams.mixing, the definition).

V is the number of characters in the vocabulary, K that of the counts' characters of context.
"""

from __future__ import annotations

import math

from numba import types

from charloom.kernels.compiling import subroutine
from charloom.kernels.vector_math import exp, log, where_less
from charloom.kernels.vectors import largest, load, load_first, store, total, width
from charloom.ngrams.mixing import LEAST_WEIGHT


@subroutine(types.intp)
def _first_of(values, at, size, value):
    """Return the index of the first of the values that is `value`, else the last index."""
    for j in range(size - 1):
        if values[at + j] == value:
            return j
    return size - 1


@subroutine()
def mix_row(logs, at, p, place, size, length, weight, theta, context):
    """Replace the network's log-probabilities of a row by the mixture's.

    Args:
        logs: flat array with the network's log p, (V,), padded to whole vectors with values so low
            that e to their power is 0.
        at: where the row starts in it.
        p: flat array of the same dtype with the counts' probabilities, (V,).
        place: where they start in it.
        size: V.
        length: the characters of the longest context that the counts have seen.
        weight: 1 where it was hardly seen, and smaller the more often.
        theta: the parameters of the network's weight, (F,).
        context: K.
    """
    lanes = width(logs)
    nothing = load_first(logs, at, 0)
    h_network, h_counts = nothing, nothing
    most, best = load(logs, at), nothing
    for j in range(0, size, lanes):
        x, y = load(logs, at + j), load_first(p, place + j, min(lanes, size - j))
        h_network = h_network + exp(x) * x
        h_counts = h_counts + where_less(0.0, y, y * log(y), 0.0)
        most, best = where_less(most, x, x, most), where_less(best, y, y, best)
    h_n, h_c = -float(total(h_network)), -float(total(h_counts))
    likeliest, likely = largest(most), largest(best)
    guess = _first_of(logs, at, size, likeliest)
    other = _first_of(p, place, size, likely)
    s_n, s_c = -float(likeliest), -math.log(float(likely))
    logit = (
        theta[0]
        + theta[1] * h_n
        + theta[2] * h_c
        + theta[3] * s_n
        + theta[4] * s_c
        + theta[5] * (h_n * h_c / 3)
        + theta[6] * (h_n * h_n / 3)
        + theta[7] * (h_c * h_c / 3)
        + theta[8] * (s_n * s_c)
        - theta[9] * (math.log(float(p[place + guess])) / 3)
        - theta[10] * (float(logs[at + other]) / 3)
        + theta[11 + length]
        - theta[12 + context + length] * (math.log(float(weight)) / 3)
    )
    g = 0.5 * math.tanh(0.5 * logit) + 0.5
    g = min(max(g, LEAST_WEIGHT), 1 - LEAST_WEIGHT)
    rest = 1 - g
    for j in range(0, size, lanes):
        y = load_first(p, place + j, min(lanes, size - j))
        store(logs, at + j, log(exp(load(logs, at + j)) * g + y * rest))
