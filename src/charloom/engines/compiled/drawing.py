"""Sort, narrow and sample a distribution inside the inference kernel."""

from __future__ import annotations

import math

from numba import types

from charloom.engines.compiled.forward import largest_logit
from charloom.kernels.compiling import subroutine
from charloom.kernels.vector_math import exp
from charloom.kernels.vectors import load, load_first, store, total, widened, width


@subroutine(types.UniTuple(types.float64, 2))
def log_sum(w, at, size):
    """The largest logit, and log Σ e^(l − max)."""
    lanes, most = width(w), largest_logit(w, at, size)
    sums = load_first(w, at, 0)
    for j in range(0, size, lanes):
        sums = sums + exp(load(w, at + j) - most)
    return most, math.log(float(total(sums)))


@subroutine(types.boolean)
def _comes_before(w, at, a, b):
    """Whether character a has a larger logit than b; among equals the smaller id comes first."""
    return w[at + a] > w[at + b] or (w[at + a] == w[at + b] and a < b)


@subroutine()
def _sort(w, at, order, o0, count):
    """The ids in the order of falling logits: a heapsort, with the last one on top."""
    for i in range(count):
        order[o0 + i] = i
    for stage in range(2 * count):
        if stage < count:  # make a heap, from the last parent up
            root, end = count - 1 - stage, count
        else:  # take the top away
            root, end = 0, 2 * count - 1 - stage
            top = order[o0]
            order[o0] = order[o0 + end]
            order[o0 + end] = top
        while True:
            child = 2 * root + 1
            if child >= end:
                break
            if child + 1 < end and _comes_before(w, at, order[o0 + child], order[o0 + child + 1]):
                child += 1
            if not _comes_before(w, at, order[o0 + root], order[o0 + child]):
                break
            swap = order[o0 + root]
            order[o0 + root] = order[o0 + child]
            order[o0 + child] = swap
            root = child


@subroutine(types.intp)
def choose_next(w, at, count, p, p0, order, o0, settings, uniform):
    """charloom.decoding.choose for one row. settings: temperature, then top_k, top_p and min_p,
    each 0 where it is not given."""
    temperature, top_k, top_p, min_p = settings[0], settings[1], settings[2], settings[3]
    if temperature == 0:
        best = 0
        for j in range(1, count):
            if w[at + j] > w[at + best]:
                best = j
        return best
    lanes, half, most = width(w), width(p), largest_logit(w, at, count)
    colder = 1.0 / max(temperature, 1e-300)
    sums = load_first(p, p0, 0)
    for j in range(0, count, lanes):  # the padding's logits are so low that it adds nothing
        x = load(w, at + j) - most
        for part in range(lanes // half):
            e = exp(widened(x, part == 1) * colder)
            store(p, p0 + j + part * half, e)
            sums = sums + e
    whole = total(sums)
    if 0 < top_k < count or top_p > 0 or min_p > 0:
        whole = _narrow(w, at, p, p0, order, o0, count, top_k, top_p, min_p)
    running, last = 0.0, 0
    for j in range(count):
        if p[p0 + j] > 0:
            running += p[p0 + j]
            last = j
            if running > uniform * whole:
                return j
    return last


@subroutine(types.float64)
def _narrow(w, at, p, p0, order, o0, count, top_k, top_p, min_p):
    """Takes from the choice what top_k, top_p and min_p exclude, in turn, and returns the sum of
    what is left. The likeliest one's p is 1."""
    cut = count
    if 0 < top_k < count or top_p > 0:
        _sort(w, at, order, o0, count)
        if 0 < top_k < count:
            cut = int(top_k)
        if top_p > 0:
            whole = 0.0
            for i in range(cut):
                whole += p[p0 + order[o0 + i]]
            running = 0.0
            for i in range(cut):
                running += p[p0 + order[o0 + i]]
                # The character that crosses top_p still belongs to the choice.
                if running / whole >= top_p:
                    cut = i + 1
                    break
        for i in range(cut, count):
            p[p0 + order[o0 + i]] = 0.0
    whole = 0.0
    for j in range(count):
        if p[p0 + j] < min_p:
            p[p0 + j] = 0.0
        whole += p[p0 + j]
    return whole
