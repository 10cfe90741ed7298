"""Forward pass of a window: table look-ups, recurrent products, cells, decoder and softmax."""

from __future__ import annotations

from numba import types

from charloom.engines.compiled.cells import gru_forward, lstm_forward, rnn_forward
from charloom.engines.compiled.masks import draw_mask
from charloom.engines.compiled.plan import GRU, LSTM, outputs_at
from charloom.kernels.compiling import subroutine
from charloom.kernels.products import MOST_ROWS, block_vectors, product
from charloom.kernels.threads import FAULT
from charloom.kernels.vector_math import exp, where_less
from charloom.kernels.vectors import largest, load, load_first, store, total, width


@subroutine(types.boolean)
def in_vocabulary(s, ids, first, last, sync):
    """Whether all ids from `first` to before `last` are; else it is noted in `sync`."""
    low, high = 0, 0
    for position in range(first, last):
        low = min(low, ids[position])
        high = max(high, ids[position])
    if low < 0 or high >= s.vocabulary:
        sync[FAULT] = 1
        return False
    return True


@subroutine(types.intp, inline=True)
def tile_vectors(rows):
    """How wide a tile is: whole panels, so that every tile begins with one."""
    return block_vectors(min(rows, MOST_ROWS))


@subroutine(inline=True)
def forward_tile(s, w, packed, layer, ids, id0, gates, h, h_next, c, c_next, extra, rows, unit, n):
    """One time step of a layer for some units: n vectors of them from `unit` on.

    In the first layer the gates come from the table; in others they hold the input's product.
    """
    lanes, across = width(w), s.across
    q_bias = s.bias_q + layer * s.packed_layer + unit
    for gate in range(s.gates):
        at = gates + gate * s.size + unit
        if layer == 0:
            table = s.table + gate * s.size + unit
            for row in range(rows):
                source = table + ids[id0 + row] * s.gst
                for j in range(0, n * lanes, lanes):
                    store(w, at + row * s.gst + j, load(packed, source + j))
        weights = (
            s.hh
            + layer * s.packed_layer
            + gate * s.packed_gate
            + unit // across * across * s.hidden
        )
        if s.cell == GRU and gate == 2:
            for row in range(rows):
                for j in range(0, n * lanes, lanes):
                    store(w, extra + row * s.hst + unit + j, load(packed, q_bias + j))
            product(
                w, extra + unit, s.hst, w, h, s.hst,
                packed, weights, across * s.hidden, across, s.tail, rows, n, s.hidden, 1,
            )  # fmt: skip
        else:
            product(
                w, at, s.gst, w, h, s.hst,
                packed, weights, across * s.hidden, across, s.tail, rows, n, s.hidden, 1,
            )  # fmt: skip
    if s.cell == LSTM:
        lstm_forward(
            w, gates + unit, s.gst, s.size, c + unit, c_next + unit, extra + unit,
            h_next + unit, s.hst, rows, n,
        )  # fmt: skip
    elif s.cell == GRU:
        gru_forward(
            w, gates + unit, s.gst, s.size, extra + unit, h + unit, h_next + unit, s.hst, rows, n
        )
    else:
        rnn_forward(w, gates + unit, s.gst, h_next + unit, s.hst, rows, n)


@subroutine(inline=True)
def input_products(s, w, packed, layer, gates, y, count, first, last):
    """The input's products of a deeper layer at `count` positions, for panels of units from `first`
    to before `last`: gates = W_ih y + b."""
    lanes, across = width(w), s.across
    begin = first * across
    n = (min(last * across, s.size) - begin) // lanes
    for gate in range(s.gates):
        at = gates + gate * s.size + begin
        bias = s.bias + layer * s.packed_layer + gate * s.size + begin
        for position in range(count):
            for j in range(0, n * lanes, lanes):
                store(w, at + position * s.gst + j, load(packed, bias + j))
        product(
            w, at, s.gst, w, y, s.hst,
            packed, s.ih + layer * s.packed_layer + gate * s.packed_gate + begin * s.hidden,
            across * s.hidden, across, s.tail, count, n, s.hidden, 1,
        )  # fmt: skip


@subroutine()
def forward_pass(s, w, w0, packed, ids, state, new_state, row0, rows, keys, kept):
    """All layers over the window; fills what the way back needs, and the new state."""
    lanes, h, steps, batch = width(w), s.hidden, s.steps, s.batch
    tile = tile_vectors(rows)
    for layer in range(s.layers):
        gates = w0 + s.work_gates + layer * s.work_layer
        hidden = w0 + s.work_h + layer * s.work_layer
        extra = w0 + s.work_extra + layer * s.work_layer
        c = w0 + s.work_c + layer * s.work_layer
        for row in range(rows):
            for j in range(h):
                w[hidden + row * s.hst + j] = state[(layer * batch + row0 + row) * h + j]
                if s.cell == LSTM:
                    w[c + row * s.hst + j] = state[
                        ((s.layers + layer) * batch + row0 + row) * h + j
                    ]
        if layer > 0:
            below = w0 + outputs_at(s, rows) + (layer - 1) * s.work_layer
            input_products(s, w, packed, layer, gates, below, steps * rows, 0, s.panels)
        for t in range(steps):
            for unit in range(0, s.size, tile * lanes):
                forward_tile(
                    s, w, packed, layer, ids, t * batch + row0,
                    gates + t * rows * s.gst,
                    hidden + t * rows * s.hst, hidden + (t + 1) * rows * s.hst,
                    c + t * rows * s.hst, c + (t + 1) * rows * s.hst,
                    extra + t * rows * s.hst, rows, unit, min(tile, (s.size - unit) // lanes),
                )  # fmt: skip
        for row in range(rows):
            last = (steps * rows + row) * s.hst
            for j in range(h):
                new_state[(layer * batch + row0 + row) * h + j] = w[hidden + last + j]
                if s.cell == LSTM:
                    new_state[((s.layers + layer) * batch + row0 + row) * h + j] = w[c + last + j]
        if s.dropout:
            mask, y = (
                w0 + s.work_mask + layer * s.work_layer,
                w0 + outputs_at(s, rows) + layer * s.work_layer,
            )
            if keys[0] != 0:
                draw_mask(s, w, mask, steps, row0, rows, keys, kept, layer)
            for at in range(0, steps * rows * s.hst, lanes):
                value = load(w, hidden + rows * s.hst + at)
                if keys[0] != 0:
                    value = value * load(w, mask + at)
                store(w, y + at, value)


@subroutine(types.float64)
def largest_logit(w, at, size):
    """Of a row; NaN is passed over, but for the first lanes'."""
    lanes = width(w)
    top = load(w, at)
    for j in range(lanes, size, lanes):
        x = load(w, at + j)
        top = where_less(top, x, x, top)
    return float(largest(top))


@subroutine(types.UniTuple(types.float64, 2))
def softmax_row(w, at, size):
    """Logits to e^(l − max), in place; returns the largest one and the sum."""
    lanes, most = width(w), largest_logit(w, at, size)
    sums = load_first(w, at, 0)
    for j in range(0, size, lanes):
        e = exp(load(w, at + j) - most)
        store(w, at + j, e)
        sums = sums + e
    return most, float(total(sums))


@subroutine(inline=True)
def decode(s, w, packed, y, count, logits):
    """Outputs (N, H) to logits (N, V)."""
    bias, lanes = s.decoder_bias, width(w)
    for position in range(count):
        for j in range(0, s.classes, lanes):
            store(w, logits + position * s.vst + j, load(packed, bias + j))
    product(
        w, logits, s.vst, w, y, s.hst, packed, s.decoder, s.across * s.hidden, s.across, s.across,
        count, s.classes // lanes, s.hidden, 1,
    )  # fmt: skip
