"""Normalized products inside the kernels: division by the root mean square, gate by gate.

The derivation is in `charloom.engines.reference_normalization`. A product's numbers must all be
there before one of them can be normalized, so a time step first computes the products of all units.
"""

from __future__ import annotations

import math

from numba import types

from charloom.engines.compiled.plan import GRU
from charloom.engines.reference_normalization import EPSILON
from charloom.kernels.compiling import subroutine
from charloom.kernels.vector_math import fma
from charloom.kernels.vectors import load, load_first, store, total, width


@subroutine(types.float64)
def _factor(w, at, count):
    """Return 1 / √(mean(x²) + ε) of `count` numbers, added up in an order that never changes."""
    lanes = width(w)
    squares = load_first(w, at, 0)
    for j in range(0, count, lanes):
        x = load_first(w, at + j, min(lanes, count - j))
        squares = fma(x, x, squares)
    return 1.0 / math.sqrt(float(total(squares)) / count + EPSILON)


@subroutine()
def normalize_step(buffers, layer, step, begin, end, keep):
    """Compute the gates of a time step from its products: g ⊙ y of both, and the biases.

    For gru's n, the states' product stays apart in q.

    Args:
        buffers: TrainingBuffers or InferenceBuffers.
        layer: index of the layer.
        step: Step, whose products are computed.
        begin: index of the first unit whose gates are computed.
        end: index of the first unit after them.
        keep: whether to keep y and the factors for the backward pass. Then no other thread may
            read the products.
    """
    plan, w, packed = buffers.plan, buffers.work, buffers.packed
    lanes, size, gates = width(w), plan.size, plan.gates
    place = layer * plan.packed_layer
    for row in range(step.rows):
        factors = step.factors + row * 2 * gates
        for gate in range(gates):
            shift = row * plan.gst + gate * size
            ih, hh, to = step.ih + shift, step.hh + shift, step.gates + shift
            of_ih, of_hh = _factor(w, ih, plan.hidden), _factor(w, hh, plan.hidden)
            if keep:
                w[factors + gate] = of_ih
                w[factors + gates + gate] = of_hh
            apart = plan.cell == GRU and gate == 2
            here = place + gate * size
            for j in range(begin, end, lanes):
                units = min(lanes, plan.hidden - j)  # the padding has zeros
                y_ih = load_first(w, ih + j, units) * of_ih
                y_hh = load_first(w, hh + j, units) * of_hh
                if keep:
                    store(w, ih + j, y_ih)
                    store(w, hh + j, y_hh)
                bias = load(packed, plan.bias + here + j)
                a = fma(y_ih, load(packed, plan.gain_ih + here + j), bias)
                gain = load(packed, plan.gain_hh + here + j)
                if apart:
                    bias = load(packed, plan.bias_q + place + j)
                    store(w, step.extra + row * plan.hst + j, fma(y_hh, gain, bias))
                else:
                    a = fma(y_hh, gain, a)
                store(w, to + j, a)


@subroutine()
def normalize_step_backward(buffers, layer, step, dg_ih, dg_hh):
    """Take the gradients of a time step's gates back to its products.

    Those of the inputs' product replace the gates' own, those of the states' product its y.
    The gradients of the gains are added up: dg += da ⊙ y.

    Args:
        buffers: TrainingBuffers.
        layer: index of the layer.
        step: Step, whose gates, and for gru's n also q, have their gradients.
        dg_ih, dg_hh: where the gains' gradients are in the workspace.
    """
    plan, w, packed = buffers.plan, buffers.work, buffers.packed
    lanes, size, gates = width(w), plan.size, plan.gates
    for row in range(step.rows):
        for gate in range(gates):
            shift = row * plan.gst + gate * size
            ih, hh, dx = step.ih + shift, step.hh + shift, step.gates + shift
            da = dx
            if plan.cell == GRU and gate == 2:
                da = step.extra + row * plan.hst
            here = layer * plan.packed_layer + gate * size
            gain_ih, gain_hh = plan.gain_ih + here, plan.gain_hh + here
            sums_ih = load_first(w, ih, 0)
            sums_hh = sums_ih
            for j in range(0, size, lanes):
                units = min(lanes, plan.hidden - j)
                y_ih, y_hh = load(w, ih + j), load(w, hh + j)
                of_ih = load_first(w, dx + j, units) * y_ih
                of_hh = load_first(w, da + j, units) * y_hh
                at = gate * size + j
                store(w, dg_ih + at, load(w, dg_ih + at) + of_ih)
                store(w, dg_hh + at, load(w, dg_hh + at) + of_hh)
                sums_ih = fma(of_ih, load(packed, gain_ih + j), sums_ih)
                sums_hh = fma(of_hh, load(packed, gain_hh + j), sums_hh)
            factors = step.factors + row * 2 * gates + gate
            f_ih, f_hh = float(w[factors]), float(w[factors + gates])
            mean_ih = float(total(sums_ih)) / plan.hidden
            mean_hh = float(total(sums_hh)) / plan.hidden
            for j in range(0, size, lanes):
                units = min(lanes, plan.hidden - j)
                d = load_first(w, da + j, units) * load(packed, gain_hh + j)
                e = load_first(w, dx + j, units) * load(packed, gain_ih + j)
                store(w, hh + j, (d - load(w, hh + j) * mean_hh) * f_hh)
                store(w, dx + j, (e - load(w, ih + j) * mean_ih) * f_ih)
