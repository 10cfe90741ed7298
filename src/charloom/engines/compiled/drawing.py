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
    """Return the largest logit, and log Σ e^(l − max)."""
    lanes, most = width(w), largest_logit(w, at, size)
    sums = load_first(w, at, 0)
    for j in range(0, size, lanes):
        sums = sums + exp(load(w, at + j) - most)
    return most, math.log(float(total(sums)))


@subroutine()
def normalize(w, at, size):
    """Replace a row's logits by log-probabilities."""
    lanes = width(w)
    most, total_ = log_sum(w, at, size)
    for j in range(0, size, lanes):
        store(w, at + j, (load(w, at + j) - most) - total_)


@subroutine(types.boolean)
def _comes_before(logits, a, b):
    """Return whether character a comes before b: by falling logits, equal ones by their ids."""
    return logits[a] > logits[b] or (logits[a] == logits[b] and a < b)


@subroutine()
def _sort(logits, order, count):
    """Fill `order` with the ids by falling logits: a heapsort with the last one on top."""
    for i in range(count):
        order[i] = i
    for stage in range(2 * count):
        if stage < count:  # make a heap, from the last parent up
            root, end = count - 1 - stage, count
        else:  # take the top away
            root, end = 0, 2 * count - 1 - stage
            top = order[0]
            order[0] = order[end]
            order[end] = top
        while True:
            child = 2 * root + 1
            if child >= end:
                break
            if child + 1 < end and _comes_before(logits, order[child], order[child + 1]):
                child += 1
            if not _comes_before(logits, order[root], order[child]):
                break
            swap = order[root]
            order[root] = order[child]
            order[child] = swap
            root = child


@subroutine(types.intp)
def choose_next(logits, p, order, count, settings, uniform):
    """Return the next character of a row, as `charloom.engines.decoding.choose` does.

    Args:
        logits: flat array of the row's logits, padded to whole vectors.
        p: flat float64 array for the probabilities, as long.
        order: flat int64 array for sorted ids, as long.
        count: number of characters.
        settings: temperature, top_k, top_p and min_p; each of the last three is 0 if it is unset.
        uniform: a random number in [0, 1).
    """
    temperature = settings[0]
    if temperature == 0:
        best = 0
        for j in range(1, count):
            if logits[j] > logits[best]:
                best = j
        return best
    lanes, half, most = width(logits), width(p), largest_logit(logits, 0, count)
    colder = 1.0 / max(temperature, 1e-300)
    sums = load_first(p, 0, 0)
    for j in range(0, count, lanes):  # the padding's logits are so low that it adds nothing
        x = load(logits, j) - most
        for part in range(lanes // half):
            e = exp(widened(x, part == 1) * colder)
            store(p, j + part * half, e)
            sums = sums + e
    whole = total(sums)
    if 0 < settings[1] < count or settings[2] > 0 or settings[3] > 0:
        whole = _narrow(logits, p, order, count, settings)
    running, last = 0.0, 0
    for j in range(count):
        if p[j] > 0:
            running += p[j]
            last = j
            if running > uniform * whole:
                return j
    return last


@subroutine(types.float64)
def _narrow(logits, p, order, count, settings):
    """Set p to 0 where top_k, top_p and min_p exclude a character, in turn.

    Takes the arguments of `choose_next`; returns the sum of p after that. The likeliest character's
    p is 1.
    """
    top_k, top_p, min_p = settings[1], settings[2], settings[3]
    cut = count
    if 0 < top_k < count or top_p > 0:
        _sort(logits, order, count)
        if 0 < top_k < count:
            cut = int(top_k)
        if top_p > 0:
            whole = 0.0
            for i in range(cut):
                whole += p[order[i]]
            running = 0.0
            for i in range(cut):
                running += p[order[i]]
                # The character that crosses top_p still belongs to the choice.
                if running / whole >= top_p:
                    cut = i + 1
                    break
        for i in range(cut, count):
            p[order[i]] = 0.0
    whole = 0.0
    for j in range(count):
        if p[j] < min_p:
            p[j] = 0.0
        whole += p[j]
    return whole
