"""Optimizer updates inside the training kernel."""

from __future__ import annotations

from charloom.kernels.compiling import subroutine
from charloom.kernels.vector_math import divide, fma, inverse_root, root
from charloom.kernels.vectors import load, store, width

SGD_KIND, ADAGRAD, ADAGRAD_INSIDE, RMSPROP, ADAM = range(5)


@subroutine()
def _update_vectors(kind, o, scale, p, p0, g, g0, a, a0, b, b0, count):
    """charloom.optimizers' formulas on `count` numbers, in whole vectors; a, b: the slots.

    o: learning rate, then sgd's momentum; adagrad's ε; rmsprop's decay, ε; adam's β₁, β₂, ε, the
    corrections 1 − β₁ᵗ and √(1 − β₂ᵗ), and the factor of weight decay.
    """
    lanes = width(p)
    rate = o[0]
    if kind == SGD_KIND:
        for j in range(0, count, lanes):
            v = fma(load(a, a0 + j), o[1], load(g, g0 + j) * scale)
            store(a, a0 + j, v)
            store(p, p0 + j, load(p, p0 + j) - v * rate)
    elif kind == ADAGRAD_INSIDE:
        for j in range(0, count, lanes):
            x = load(g, g0 + j) * scale
            squares = fma(x, x, load(a, a0 + j))
            store(a, a0 + j, squares)
            step = x * (0.0 - rate)
            store(p, p0 + j, fma(step, inverse_root(squares + o[1]), load(p, p0 + j)))
    elif kind == ADAGRAD:
        for j in range(0, count, lanes):
            x = load(g, g0 + j) * scale
            squares = fma(x, x, load(a, a0 + j))
            store(a, a0 + j, squares)
            store(p, p0 + j, load(p, p0 + j) - divide(x * rate, root(squares) + o[1]))
    elif kind == RMSPROP:
        for j in range(0, count, lanes):
            x = load(g, g0 + j) * scale
            mean = fma(load(a, a0 + j), o[1], x * x * (1.0 - o[1]))
            store(a, a0 + j, mean)
            store(p, p0 + j, load(p, p0 + j) - divide(x * rate, root(mean) + o[2]))
    else:
        step, scaled = rate / o[4], 1.0 / o[5]
        for j in range(0, count, lanes):
            x = load(g, g0 + j) * scale
            first = fma(load(a, a0 + j), o[1], x * (1.0 - o[1]))
            second = fma(load(b, b0 + j), o[2], x * x * (1.0 - o[2]))
            store(a, a0 + j, first)
            store(b, b0 + j, second)
            store(
                p,
                p0 + j,
                load(p, p0 + j) * o[6] - divide(first * step, fma(root(second), scaled, o[3])),
            )


@subroutine()
def update_parameters(kind, o, scale, p, g, a, b, first, last, scratch, s0):
    """One step on the numbers from `first` to before `last`, those left over in `scratch`."""
    lanes = width(p)
    whole = (last - first) // lanes * lanes
    _update_vectors(kind, o, scale, p, first, g, first, a, first, b, first, whole)
    left = last - first - whole
    if left > 0:
        at = first + whole
        for j in range(lanes):
            inside = j < left
            scratch[s0 + j] = p[at + j] if inside else 0
            scratch[s0 + lanes + j] = g[at + j] if inside else 0
            scratch[s0 + 2 * lanes + j] = a[at + j] if inside else 1
            scratch[s0 + 3 * lanes + j] = b[at + j] if inside and kind == ADAM else 1
        _update_vectors(
            kind, o, scale, scratch, s0, scratch, s0 + lanes, scratch, s0 + 2 * lanes,
            scratch, s0 + 3 * lanes, lanes,
        )  # fmt: skip
        for j in range(left):
            p[at + j] = scratch[s0 + j]
            a[at + j] = scratch[s0 + 2 * lanes + j]
            if kind == ADAM:
                b[at + j] = scratch[s0 + 3 * lanes + j]
