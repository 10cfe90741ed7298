"""Backward pass of a window: decoder, time loop and weight gradients."""

from __future__ import annotations

import math

from numba import types

from charloom.engines.compiled.cells import gru_backward, lstm_backward, rnn_backward
from charloom.engines.compiled.forward import decode, softmax_row, tile_vectors
from charloom.engines.compiled.plan import DECODED_AT_ONCE, GRU, LSTM, outputs_at
from charloom.kernels.compiling import subroutine
from charloom.kernels.products import outer_product, product
from charloom.kernels.vectors import load, store, width


@subroutine(types.float64)
def decoder_pass(s, w, w0, packed, targets, row0, rows, scale):
    """The loss, summed; the decoder's gradients; dy, the gradient of the last layer's outputs."""
    lanes = width(w)
    y = w0 + outputs_at(s, rows) + (s.layers - 1) * s.work_layer
    dy = w0 + s.dy + (s.layers - 1) % 2 * s.dy_odd + rows * s.hst
    logits = w0 + s.logits
    db_out = w0 + s.db_decoder
    loss = 0.0
    n = s.steps * rows
    for first in range(0, n, DECODED_AT_ONCE):
        count = min(DECODED_AT_ONCE, n - first)
        decode(s, w, packed, y + first * s.hst, count, logits)
        for position in range(count):
            at = logits + position * s.vst
            t, row = divmod(first + position, rows)
            target = targets[t * s.batch + row0 + row]
            own = float(w[at + target])
            most, sum_ = softmax_row(w, at, s.classes)
            # log p = l − max − log Σ e^(l − max)
            loss += math.log(sum_) - (own - most)
            factor = scale / sum_
            for j in range(0, s.classes, lanes):
                store(w, at + j, load(w, at + j) * factor)
            w[at + target] -= scale
            for j in range(0, s.classes, lanes):
                store(w, db_out + j, load(w, db_out + j) + load(w, at + j))
        outer_product(
            w, w0 + s.dw_decoder, s.hst, w, logits, s.vst, w, y + first * s.hst, s.hst,
            s.vocabulary, s.size // lanes, count, 1 if first > 0 else 0,
            w, w0 + s.outer,
        )  # fmt: skip
        product(
            w, dy + first * s.hst, s.hst, w, logits, s.vst,
            packed, s.decoder_back, s.across * s.vocabulary, s.across, s.tail,
            count, s.size // lanes, s.vocabulary, 0,
        )  # fmt: skip
    return loss


@subroutine()
def backward_pass(s, w, w0, layer, packed, rows, dropping):
    """dy of a layer back through time: its gates' gradients, and its biases'."""
    lanes, across, steps = width(w), s.across, s.steps
    tile = tile_vectors(rows)
    n = steps * rows
    gates = w0 + s.work_gates + layer * s.work_layer
    hidden = w0 + s.work_h + layer * s.work_layer
    extra = w0 + s.work_extra + layer * s.work_layer
    c = w0 + s.work_c + layer * s.work_layer
    dy = w0 + s.dy + layer % 2 * s.dy_odd
    dc = w0 + s.dc
    bias, bias_q = (
        w0 + s.db + layer * s.gradients_layer,
        w0 + s.db_q + layer * s.gradients_layer,
    )
    back = s.hh_back + layer * s.packed_layer
    if dropping:
        mask = w0 + s.work_mask + layer * s.work_layer
        for at in range(0, n * s.hst, lanes):
            here = dy + rows * s.hst + at
            store(w, here, load(w, here) * load(w, mask + at))
    for at in range(0, rows * s.hst, lanes):
        store(w, dc + at, 0.0)
        store(w, dy + at, 0.0)
    length = s.hidden if s.gates == 1 else s.gates * s.size
    if s.cell == GRU:
        length = 2 * s.size
    for t in range(steps - 1, -1, -1):
        gates_t, gates_after = gates + t * rows * s.gst, gates + (t + 1) * rows * s.gst
        before, here = t * rows * s.hst, (t + 1) * rows * s.hst
        for unit in range(0, s.size, tile * lanes):
            vectors = min(tile, (s.size - unit) // lanes)
            if t + 1 < steps:
                # dh_t += Wᵀ da_{t+1}
                panel = across * s.gates * s.size
                weights = back + unit // across * panel
                product(
                    w, dy + here + unit, s.hst, w, gates_after, s.gst,
                    packed, weights, panel, across, s.tail, rows, vectors, length, 1,
                )  # fmt: skip
                if s.cell == GRU:
                    product(
                        w, dy + here + unit, s.hst, w, extra + here, s.hst,
                        packed, weights + length * across, panel, across, s.tail,
                        rows, vectors, s.size, 1,
                    )  # fmt: skip
            if s.cell == LSTM:
                lstm_backward(
                    w, dy + here + unit, dc + unit, c + before + unit, extra + before + unit,
                    s.hst, gates_t + unit, s.gst, s.size, bias + unit, rows, vectors,
                )  # fmt: skip
            elif s.cell == GRU:
                gru_backward(
                    w, dy + here + unit, extra + before + unit, hidden + before + unit,
                    dy + before + unit, s.hst, gates_t + unit, s.gst, s.size,
                    bias + unit, bias_q + unit, rows, vectors,
                )  # fmt: skip
            else:
                rnn_backward(
                    w, dy + here + unit, hidden + here + unit, s.hst,
                    gates_t + unit, s.gst, bias + unit, rows, vectors,
                )  # fmt: skip


@subroutine()
def weight_gradients(s, w, w0, layer, packed, ids, row0, rows):
    """A layer's weights' gradients from its gates', and dy of the layer below.

    dW_hh = Σ da_t h_{t−1}ᵀ;  dW_ih = Σ dx_t y_tᵀ, in the first layer a sum by character
    """
    lanes, across, n = width(w), s.across, s.steps * rows
    gates = w0 + s.work_gates + layer * s.work_layer
    hidden = w0 + s.work_h + layer * s.work_layer
    extra = w0 + s.work_extra + layer * s.work_layer
    below = w0 + outputs_at(s, rows) + (layer - 1) * s.work_layer
    for gate in range(s.gates):
        of_q = s.cell == GRU and gate == 2
        to = w0 + gate * s.hidden * s.hst + layer * s.gradients_layer
        outer_product(
            w, s.dw_hh + to, s.hst,
            w, extra if of_q else gates + gate * s.size, s.hst if of_q else s.gst,
            w, hidden, s.hst, s.hidden, s.size // lanes, n, 0, w, w0 + s.outer,
        )  # fmt: skip
        if layer > 0:
            outer_product(
                w, s.dw_ih + to, s.hst, w, gates + gate * s.size, s.gst,
                w, below, s.hst, s.hidden, s.size // lanes, n, 0, w, w0 + s.outer,
            )  # fmt: skip
    if layer > 0:
        product(
            w, w0 + s.dy + (layer - 1) % 2 * s.dy_odd + rows * s.hst, s.hst,
            w, gates, s.gst, packed, s.ih_back + layer * s.packed_layer,
            across * s.gates * s.size, across, s.tail, n, s.size // lanes, s.gates * s.size, 0,
        )  # fmt: skip
        return
    for position in range(n):
        t, row = divmod(position, rows)
        to = w0 + s.dtable + ids[t * s.batch + row0 + row] * s.gst
        at = gates + position * s.gst
        for j in range(0, s.gates * s.size, lanes):
            store(w, to + j, load(w, to + j) + load(w, at + j))


@subroutine()
def clear_sums(s, w, w0):
    """Zeros where a thread's gradients are added up position by position."""
    lanes = width(w)
    for layer in range(s.layers):
        first = w0 + layer * s.gradients_layer
        for at in range(first + s.db, first + s.db + s.gst, lanes):
            store(w, at, 0.0)
        for at in range(first + s.db_q, first + s.db_q + s.hst, lanes):
            store(w, at, 0.0)
    for at in range(w0 + s.dtable, w0 + s.dtable + s.vocabulary * s.gst, lanes):
        store(w, at, 0.0)
    for at in range(w0 + s.db_decoder, w0 + s.db_decoder + s.vst, lanes):
        store(w, at, 0.0)
