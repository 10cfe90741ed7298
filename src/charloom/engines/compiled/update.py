"""Optimizer updates inside the training kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

from charloom.engines.compiled.buffers import ADAGRAD, ADAGRAD_INSIDE, ADAM, RMSPROP, SGD_KIND
from charloom.engines.compiled.places import share
from charloom.kernels.arrays import flat_from
from charloom.kernels.compiling import subroutine
from charloom.kernels.vector_math import divide, fma, inverse_root, root
from charloom.kernels.vectors import load, store, width


class _Operands(NamedTuple):
    """Flat arrays of equal length that an update reads and writes."""

    parameters: Any
    gradients: Any
    first: Any  # slot
    second: Any  # slot


@subroutine()
def _update_vectors(kind, settings, scale, operands, count):
    """Apply a formula of `charloom.network.optimizers` to `count` numbers, in whole vectors.

    Args:
        kind: one of the kinds above.
        settings: the learning rate, followed by the momentum of sgd, the ε of adagrad, or the
            decay and ε of rmsprop. Those of adam are β₁, β₂, ε, the corrections 1 − β₁ᵗ and
            √(1 − β₂ᵗ), and the factor of weight decay.
        scale: factor of the gradients, from clipping.
        operands: _Operands.
        count: how many numbers, a multiple of a vector's lanes.
    """
    p, g, a, b = operands.parameters, operands.gradients, operands.first, operands.second
    lanes, o = width(p), settings
    rate = o[0]
    if kind == SGD_KIND:
        for j in range(0, count, lanes):
            v = fma(load(a, j), o[1], load(g, j) * scale)
            store(a, j, v)
            store(p, j, load(p, j) - v * rate)
    elif kind == ADAGRAD_INSIDE:
        for j in range(0, count, lanes):
            x = load(g, j) * scale
            squares = fma(x, x, load(a, j))
            store(a, j, squares)
            step = x * (0.0 - rate)
            store(p, j, fma(step, inverse_root(squares + o[1]), load(p, j)))
    elif kind == ADAGRAD:
        for j in range(0, count, lanes):
            x = load(g, j) * scale
            squares = fma(x, x, load(a, j))
            store(a, j, squares)
            store(p, j, load(p, j) - divide(x * rate, root(squares) + o[1]))
    elif kind == RMSPROP:
        for j in range(0, count, lanes):
            x = load(g, j) * scale
            mean = fma(load(a, j), o[1], x * x * (1.0 - o[1]))
            store(a, j, mean)
            store(p, j, load(p, j) - divide(x * rate, root(mean) + o[2]))
    else:
        step, scaled = rate / o[4], 1.0 / o[5]
        for j in range(0, count, lanes):
            x = load(g, j) * scale
            first = fma(load(a, j), o[1], x * (1.0 - o[1]))
            second = fma(load(b, j), o[2], x * x * (1.0 - o[2]))
            store(a, j, first)
            store(b, j, second)
            quotient = divide(first * step, fma(root(second), scaled, o[3]))
            store(p, j, load(p, j) * o[6] - quotient)


@subroutine()
def update_parameters(buffers, part, kind, scale):
    """Take an optimizer's step on a thread's share of the parameters.

    Args:
        buffers: TrainingBuffers.
        part: Part of the thread.
        kind: one of the kinds above.
        scale: factor of the gradients, from clipping.
    """
    plan, numbers = buffers.plan, buffers.numbers
    first = share(plan.flat_length, part.thread, part.threads)
    last = share(plan.flat_length, part.thread + 1, part.threads)
    lanes = width(buffers.parameters)
    whole = (last - first) // lanes * lanes
    own = _Operands(
        flat_from(buffers.parameters, first),
        flat_from(buffers.gradients, first),
        flat_from(buffers.first_slot, first),
        flat_from(buffers.second_slot, first),
    )
    _update_vectors(kind, numbers, scale, own, whole)
    left = last - first - whole
    if left > 0:
        # The numbers left over are padded to a vector in the workspace.
        scratch = flat_from(buffers.work, part.work + plan.scratch)
        padded = _Operands(
            scratch,
            flat_from(scratch, lanes),
            flat_from(scratch, 2 * lanes),
            flat_from(scratch, 3 * lanes),
        )
        for j in range(lanes):
            inside, at = j < left, whole + j
            padded.parameters[j] = own.parameters[at] if inside else 0
            padded.gradients[j] = own.gradients[at] if inside else 0
            padded.first[j] = own.first[at] if inside else 1
            padded.second[j] = own.second[at] if inside and kind == ADAM else 1
        _update_vectors(kind, numbers, scale, padded, lanes)
        for j in range(left):
            own.parameters[whole + j] = padded.parameters[j]
            own.first[whole + j] = padded.first[j]
            if kind == ADAM:
                own.second[whole + j] = padded.second[j]
