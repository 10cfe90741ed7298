"""Backward pass of a window: decoder, time loop and weight gradients."""

from __future__ import annotations

import math

from numba import types

from charloom.engines.compiled.cells import (
    Extent,
    Gates,
    gru_backward,
    lstm_backward,
    rnn_backward,
)
from charloom.engines.compiled.forward import Step, decode, softmax_row, tile_vectors
from charloom.engines.compiled.normalization import normalize_step_backward
from charloom.engines.compiled.places import layer_of
from charloom.engines.compiled.plan import DECODED_AT_ONCE, GRU, LSTM, NO_END
from charloom.kernels.arrays import Tile, flat_from
from charloom.kernels.compiling import subroutine
from charloom.kernels.products import Panels, outer_product, product
from charloom.kernels.vectors import load, store, width

ZEROS = -1  # a source of `_put_at_ends`


@subroutine(types.intp, inline=True)
def _dy_of(plan, part, layer):
    """Return where the gradient of a layer's outputs starts, with the state before the window."""
    return part.work + plan.dy + layer % 2 * plan.dy_odd


@subroutine(types.float64)
def decoder_pass(buffers, part, scale):
    """Return the summed loss; computes the decoder's gradients and dy of the last layer."""
    plan, w, rows = buffers.plan, buffers.work, part.rows
    lanes, hst, vst = width(w), plan.hst, plan.vst
    y = layer_of(plan, part.work, plan.layers - 1, rows).outputs
    dy = _dy_of(plan, part, plan.layers - 1) + rows * hst
    logits = part.work + plan.logits
    db_out = part.work + plan.db_decoder
    dw_out = Tile(w, part.work + plan.dw_decoder, hst)
    scratch = flat_from(w, part.work + plan.outer)
    panel = plan.across * plan.vocabulary
    weights = Panels(buffers.packed, plan.decoder_back, panel, plan.across, plan.tail)
    loss = 0.0
    n = plan.steps * rows
    for first in range(0, n, DECODED_AT_ONCE):
        count = min(DECODED_AT_ONCE, n - first)
        decode(buffers, y + first * hst, count, logits)
        for position in range(count):
            at = logits + position * vst
            t, row = divmod(first + position, rows)
            target = buffers.targets[t * plan.batch + part.row + row]
            own = float(w[at + target])
            most, sum_ = softmax_row(w, at, plan.classes)
            # log p = l − max − log Σ e^(l − max)
            loss += math.log(sum_) - (own - most)
            factor = scale / sum_
            for j in range(0, plan.classes, lanes):
                store(w, at + j, load(w, at + j) * factor)
            w[at + target] -= scale
            for j in range(0, plan.classes, lanes):
                store(w, db_out + j, load(w, db_out + j) + load(w, at + j))
        vectors, dlogits = plan.size // lanes, Tile(w, logits, vst)
        outer_product(
            dw_out, dlogits, Tile(w, y + first * hst, hst), scratch,
            plan.vocabulary, vectors, count, 1 if first > 0 else 0,
        )  # fmt: skip
        to = Tile(w, dy + first * hst, hst)
        product(to, dlogits, weights, count, vectors, plan.vocabulary, 0)
    return loss


@subroutine(types.boolean, inline=True)
def _is_end(buffers, part, t, row):
    """Return whether a row of a thread reads the end of a document at time step t."""
    return buffers.inputs[t * buffers.plan.batch + part.row + row] == buffers.plan.end


@subroutine()
def _put_at_ends(buffers, part, t, source, to, vectors):
    """Write the first vectors of the rows that read the end of a document at time step t.

    They are copied from `source`, or are zeros if it is ZEROS.
    """
    plan, w = buffers.plan, buffers.work
    lanes, hst = width(w), plan.hst
    if plan.end == NO_END:
        return
    for row in range(part.rows):
        if _is_end(buffers, part, t, row):
            for j in range(row * hst, row * hst + vectors * lanes, lanes):
                if source == ZEROS:
                    store(w, to + j, 0.0)
                else:
                    store(w, to + j, load(w, source + j))


@subroutine()
def backward_pass(buffers, part, layer):
    """Take dy of a layer back through time to the gradients of its gates and biases.

    No gradient crosses the end of a document. In a row that reads it at t, what h_{t−1} gets from
    step t is taken back: `around` keeps dy of t − 1 as it was before.
    """
    plan, w, rows = buffers.plan, buffers.work, part.rows
    lanes, across, steps, hst, gst = width(w), plan.across, plan.steps, plan.hst, plan.gst
    tile = tile_vectors(rows)
    at = layer_of(plan, part.work, layer, rows)
    dy = _dy_of(plan, part, layer)
    dc, around = part.work + plan.dc, part.work + plan.around
    place = part.work + layer * plan.gradients_layer
    db, db_q = place + plan.db, place + plan.db_q
    if plan.dropout and buffers.keys[0] != 0:
        for j in range(0, steps * rows * hst, lanes):
            here = dy + rows * hst + j
            store(w, here, load(w, here) * load(w, at.mask + j))
    for j in range(0, rows * hst, lanes):
        store(w, dc + j, 0.0)
        store(w, dy + j, 0.0)
    length = plan.hidden if plan.gates == 1 else plan.gates * plan.size
    if plan.cell == GRU and plan.norm == 0:
        length = 2 * plan.size
    panel = across * plan.gates * plan.size
    for t in range(steps - 1, -1, -1):
        gates_t, gates_after = at.gates + t * rows * gst, at.gates + (t + 1) * rows * gst
        before, here = t * rows * hst, (t + 1) * rows * hst
        kept, kept_after = around + t % 2 * rows * hst, around + (t + 1) % 2 * rows * hst
        _put_at_ends(buffers, part, t, dy + before, kept, plan.size // lanes)
        if plan.cell == GRU:  # h_{t−1} was decoded, and this layer's outputs are not needed again
            _put_at_ends(buffers, part, t, ZEROS, at.hidden + before, plan.size // lanes)
        for unit in range(0, plan.size, tile * lanes):
            vectors = min(tile, (plan.size - unit) // lanes)
            gates, extent = Gates(w, gates_t + unit, gst, plan.size), Extent(rows, vectors)
            dh, h_before = Tile(w, dy + here + unit, hst), Tile(w, at.hidden + before + unit, hst)
            extra = Tile(w, at.extra + before + unit, hst)
            if t + 1 < steps:
                # dh_t += Wᵀ da_{t+1}
                back = plan.hh_back + layer * plan.packed_layer + unit // across * panel
                weights = Panels(buffers.packed, back, panel, across, plan.tail)
                da = Tile(w, gates_after, gst)
                if plan.norm:
                    da = Tile(w, at.hh + (t + 1) * rows * gst, gst)
                product(dh, da, weights, rows, vectors, length, 1)
                if plan.cell == GRU and plan.norm == 0:
                    back += length * across
                    weights = Panels(buffers.packed, back, panel, across, plan.tail)
                    dq = Tile(w, at.extra + here, hst)
                    product(dh, dq, weights, rows, vectors, plan.size, 1)
                _put_at_ends(buffers, part, t + 1, kept_after + unit, dy + here + unit, vectors)
            if plan.cell == LSTM:
                dc_tile, c = Tile(w, dc + unit, hst), Tile(w, at.cells + before + unit, hst)
                lstm_backward(gates, dh, dc_tile, c, extra, db + unit, extent)
            elif plan.cell == GRU:
                dh_before = Tile(w, dy + before + unit, hst)
                gru_backward(gates, dh, extra, h_before, dh_before, db + unit, db_q + unit, extent)
            else:
                h = Tile(w, at.hidden + here + unit, hst)
                rnn_backward(gates, dh, h, db + unit, extent)
        if plan.norm:
            step = Step(
                0, gates_t, 0, 0, 0, 0, at.extra + before, at.ih + t * rows * gst,
                at.hh + t * rows * gst, at.factors + t * rows * 2 * plan.gates, rows,
            )  # fmt: skip
            normalize_step_backward(buffers, layer, step, place + plan.dg_ih, place + plan.dg_hh)
        if plan.cell == LSTM:
            _put_at_ends(buffers, part, t, ZEROS, dc, plan.size // lanes)


@subroutine()
def weight_gradients(buffers, part, layer):
    """Compute a layer's weight gradients from its gates', and dy of the layer below.

    dW_hh = Σ da_t h_{t−1}ᵀ;  dW_ih = Σ dx_t y_tᵀ, in the first layer a sum by character, and for
    extra inputs e its transpose, Σ e_t dx_tᵀ
    """
    plan, w, rows = buffers.plan, buffers.work, part.rows
    lanes, across, hst, gst, size = width(w), plan.across, plan.hst, plan.gst, plan.size
    n, h, vectors = plan.steps * rows, plan.hidden, plan.size // lanes
    at = layer_of(plan, part.work, layer, rows)
    below = layer_of(plan, part.work, layer - 1, rows).outputs
    scratch = flat_from(w, part.work + plan.outer)
    for t in range(plan.steps):  # in place, because nothing else reads these states afterwards
        _put_at_ends(buffers, part, t, ZEROS, at.hidden + t * rows * hst, vectors)
    for gate in range(plan.gates):
        to = part.work + gate * h * hst + layer * plan.gradients_layer
        dx = Tile(w, at.gates + gate * size, gst)
        da = dx
        if plan.norm:
            da = Tile(w, at.hh + gate * size, gst)
        elif plan.cell == GRU and gate == 2:
            da = Tile(w, at.extra, hst)
        dw_hh, dw_ih = Tile(w, to + plan.dw_hh, hst), Tile(w, to + plan.dw_ih, hst)
        outer_product(dw_hh, da, Tile(w, at.hidden, hst), scratch, h, vectors, n, 0)
        if layer > 0:
            outer_product(dw_ih, dx, Tile(w, below, hst), scratch, h, vectors, n, 0)
        elif plan.extra_inputs:
            rows_of_extra = plan.dtable + plan.vocabulary * gst + gate * size
            extra = Tile(w, part.work + plan.work_inputs, plan.est)
            dw = Tile(w, part.work + rows_of_extra, gst)
            outer_product(dw, extra, dx, scratch, plan.extra_inputs, vectors, n, 0)
    if layer > 0:
        dy = Tile(w, _dy_of(plan, part, layer - 1) + rows * hst, hst)
        back, panel = plan.ih_back + layer * plan.packed_layer, across * plan.gates * size
        weights = Panels(buffers.packed, back, panel, across, plan.tail)
        product(dy, Tile(w, at.gates, gst), weights, n, vectors, plan.gates * size, 0)
        return
    for position in range(n):
        t, row = divmod(position, rows)
        character = buffers.inputs[t * plan.batch + part.row + row]
        to = part.work + plan.dtable + character * gst
        source = at.gates + position * gst
        for j in range(0, plan.gates * size, lanes):
            store(w, to + j, load(w, to + j) + load(w, source + j))


@subroutine()
def clear_sums(buffers, part):
    """Write zeros where a thread's gradients are added up position by position."""
    plan, w = buffers.plan, buffers.work
    for layer in range(plan.layers):
        place = part.work + layer * plan.gradients_layer
        _clear(w, place + plan.db, plan.gst)
        _clear(w, place + plan.db_q, plan.hst)
        if plan.norm:
            _clear(w, place + plan.dg_ih, plan.gst)
            _clear(w, place + plan.dg_hh, plan.gst)
    _clear(w, part.work + plan.dtable, plan.vocabulary * plan.gst)
    _clear(w, part.work + plan.db_decoder, plan.vst)


@subroutine()
def _clear(w, start, length):
    """Write zeros to whole vectors from `start` on."""
    for at in range(start, start + length, width(w)):
        store(w, at, 0.0)
