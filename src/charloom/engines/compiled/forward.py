"""Forward pass of a window: table look-ups, recurrent products, cells, decoder and softmax."""

from __future__ import annotations

from typing import NamedTuple

from numba import types

from charloom.engines.compiled.cells import Extent, Gates, gru_forward, lstm_forward, rnn_forward
from charloom.engines.compiled.masks import draw_mask
from charloom.engines.compiled.normalization import normalize_step
from charloom.engines.compiled.places import layer_of
from charloom.engines.compiled.plan import GRU, LSTM, NO_END
from charloom.kernels.arrays import Tile
from charloom.kernels.compiling import subroutine
from charloom.kernels.crew import FAULT
from charloom.kernels.products import MOST_ROWS, Panels, block_vectors, product
from charloom.kernels.vector_math import exp, where_less
from charloom.kernels.vectors import largest, load, load_first, store, total, width


@subroutine(types.boolean)
def in_vocabulary(plan, ids, count, sync):
    """Return whether the first `count` ids are in the vocabulary; a fault is noted in `sync`."""
    low, high = 0, 0
    for position in range(count):
        low = min(low, ids[position])
        high = max(high, ids[position])
    if low < 0 or high >= plan.vocabulary:
        sync[FAULT] = 1
        return False
    return True


@subroutine(types.intp, inline=True)
def tile_vectors(rows):
    """Return the width of a tile: whole panels, so that every tile starts with one."""
    return block_vectors(min(rows, MOST_ROWS))


class Step(NamedTuple):
    """One time step of a layer: where its rows' ids and arrays are, those of states with their own
    next ones."""

    ids: int
    gates: int
    h: int
    h_next: int
    c: int
    c_next: int
    extra: int
    ih: int  # products, if they are normalized
    hh: int
    factors: int
    rows: int


@subroutine(types.intp)
def states_before(buffers, ids, step, begin, end, around):
    """Return where the hidden states are that a time step starts from, of all its rows.

    They are in their own place, unless a row reads the end of a document. Then they are copied to
    `around`, where that row's are zero, because the outputs of the step before are needed as they
    are. Cell states are not, so that row's become zero in their place.

    Args:
        buffers: TrainingBuffers or InferenceBuffers.
        ids: the window's ids.
        step: Step.
        begin: index of the first unit whose cell states become zero.
        end: index of the first unit after them.
        around: where the copy goes in the workspace.
    """
    plan, w = buffers.plan, buffers.work
    if plan.end == NO_END:
        return step.h
    lanes, hst, size, h = width(w), plan.hst, plan.size, step.h
    for row in range(step.rows):
        if ids[step.ids + row] == plan.end:
            if h != around:
                h = around
                for other in range(0, step.rows * hst, hst):
                    for j in range(other, other + size, lanes):
                        store(w, h + j, load(w, step.h + j))
            for j in range(row * hst, row * hst + size, lanes):
                store(w, h + j, 0.0)
            if plan.cell == LSTM:
                for j in range(row * hst + begin, row * hst + end, lanes):
                    store(w, step.c + j, 0.0)
    return h


@subroutine(inline=True)
def product_tile(buffers, ids, layer, step, before, unit, vectors):
    """Compute the states' products of one time step for some units: `vectors` vectors from `unit`
    on.

    They are added to the gates, unless they are normalized. In the first layer the gates come from
    the table; in others, and with extra inputs, they hold the input's product. `before` is the
    result of `states_before`.
    """
    plan, w, packed = buffers.plan, buffers.work, buffers.packed
    lanes, across, hst, gst, rows = width(w), plan.across, plan.hst, plan.gst, step.rows
    q_bias = plan.bias_q + layer * plan.packed_layer + unit
    panel = across * plan.hidden
    h, extra = Tile(w, before, hst), Tile(w, step.extra + unit, hst)
    for gate in range(plan.gates):
        at = step.gates + gate * plan.size + unit
        if layer == 0 and plan.extra_inputs == 0 and plan.norm == 0:
            table = plan.table + gate * plan.size + unit
            for row in range(rows):
                source = table + ids[step.ids + row] * gst
                for j in range(0, vectors * lanes, lanes):
                    store(w, at + row * gst + j, load(packed, source + j))
        weights = Panels(
            packed,
            plan.hh + layer * plan.packed_layer + gate * plan.packed_gate + unit // across * panel,
            panel, across, plan.tail,
        )  # fmt: skip
        if plan.norm:
            to = Tile(w, step.hh + gate * plan.size + unit, gst)
            product(to, h, weights, rows, vectors, plan.hidden, 0)
        elif plan.cell == GRU and gate == 2:
            for row in range(rows):
                for j in range(0, vectors * lanes, lanes):
                    store(w, extra.offset + row * hst + j, load(packed, q_bias + j))
            product(extra, h, weights, rows, vectors, plan.hidden, 1)
        else:
            product(Tile(w, at, gst), h, weights, rows, vectors, plan.hidden, 1)


@subroutine(inline=True)
def cell_tile(buffers, step, before, unit, vectors):
    """Compute the states after one time step of a layer from its gates, for some units."""
    plan, w, hst, gst = buffers.plan, buffers.work, buffers.plan.hst, buffers.plan.gst
    extra = Tile(w, step.extra + unit, hst)
    gates, extent = Gates(w, step.gates + unit, gst, plan.size), Extent(step.rows, vectors)
    h, h_next = Tile(w, before + unit, hst), Tile(w, step.h_next + unit, hst)
    if plan.cell == LSTM:
        c, c_next = Tile(w, step.c + unit, hst), Tile(w, step.c_next + unit, hst)
        lstm_forward(gates, c, c_next, extra, h_next, extent)
    elif plan.cell == GRU:
        gru_forward(gates, extra, h, h_next, extent)
    else:
        rnn_forward(gates, h_next, extent)


@subroutine(inline=True)
def input_products(buffers, layer, gates, y, count, first, last):
    """Compute the input's products of a deeper layer, gates = W_ih y + b.

    Products that are normalized later have no bias yet.

    Args:
        buffers: TrainingBuffers or InferenceBuffers.
        layer: index of the layer, 1 or more.
        gates: where the gates start in the workspace.
        y: where the outputs of the layer below start there.
        count: number of positions.
        first: index of the first panel of units.
        last: index of the first panel after them.
    """
    plan, w, packed = buffers.plan, buffers.work, buffers.packed
    lanes, across = width(w), plan.across
    begin = first * across
    n = (min(last * across, plan.size) - begin) // lanes
    for gate in range(plan.gates):
        at = gates + gate * plan.size + begin
        bias = plan.bias + layer * plan.packed_layer + gate * plan.size + begin
        for position in range(count):
            for j in range(0, n * lanes, lanes):
                value = load(packed, bias + j)
                if plan.norm:
                    value = value * 0.0
                store(w, at + position * plan.gst + j, value)
        weights = Panels(
            packed,
            plan.ih + layer * plan.packed_layer + gate * plan.packed_gate + begin * plan.hidden,
            across * plan.hidden, across, plan.tail,
        )  # fmt: skip
        y_tile = Tile(w, y, plan.hst)
        product(Tile(w, at, plan.gst), y_tile, weights, count, n, plan.hidden, 1)


class Positions(NamedTuple):
    """Positions of a window, time step after time step, each with a number of rows."""

    ids: int  # index of the first one's id; the next time step's is a batch further
    count: int
    rows: int


@subroutine()
def extra_products(buffers, ids, positions, gates, extra, first, last):
    """Compute the input's products of the first layer with extra inputs, gates = table[id] + U' e.

    If there are none, it copies the table's rows.

    Args:
        buffers: TrainingBuffers or InferenceBuffers.
        ids: the window's ids.
        positions: Positions.
        gates: where the gates start in the workspace.
        extra: Tile of the extra inputs, e.
        first: index of the first panel of units.
        last: index of the first panel after them.
    """
    plan, w, packed, e = buffers.plan, buffers.work, buffers.packed, buffers.plan.extra_inputs
    lanes, across = width(w), plan.across
    begin = first * across
    n = (min(last * across, plan.size) - begin) // lanes
    for gate in range(plan.gates):
        at = gates + gate * plan.size + begin
        table = plan.table + gate * plan.size + begin
        for position in range(positions.count):
            t, row = divmod(position, positions.rows)
            source = table + ids[positions.ids + t * plan.batch + row] * plan.gst
            for j in range(0, n * lanes, lanes):
                store(w, at + position * plan.gst + j, load(packed, source + j))
        if e:
            weights = Panels(
                packed, plan.extra_ih + gate * plan.packed_extra_gate + begin * e,
                across * e, across, plan.tail,
            )  # fmt: skip
            product(Tile(w, at, plan.gst), extra, weights, positions.count, n, e, 1)


@subroutine()
def forward_pass(buffers, part, kept):
    """Run all layers over the window; fills what the backward pass needs, and the new state.

    kept: factor of the outputs that dropout keeps.
    """
    plan, w = buffers.plan, buffers.work
    lanes, steps, rows, hst = width(w), plan.steps, part.rows, plan.hst
    tile = tile_vectors(rows)
    for layer in range(plan.layers):
        at = layer_of(plan, part.work, layer, rows)
        _read_state(buffers, part, layer)
        products = at.ih if plan.norm else at.gates
        if layer > 0:
            below = layer_of(plan, part.work, layer - 1, rows).outputs
            input_products(buffers, layer, products, below, steps * rows, 0, plan.panels)
        elif plan.extra_inputs or plan.norm:
            if plan.extra_inputs:
                _read_extra(buffers, part)
            extra = Tile(w, part.work + plan.work_inputs, plan.est)
            positions = Positions(part.row, steps * rows, rows)
            extra_products(buffers, buffers.inputs, positions, products, extra, 0, plan.panels)
        for t in range(steps):
            before, after = t * rows * hst, (t + 1) * rows * hst
            gates = t * rows * plan.gst
            step = Step(
                t * plan.batch + part.row, at.gates + gates,
                at.hidden + before, at.hidden + after, at.cells + before, at.cells + after,
                at.extra + before,
                at.ih + gates, at.hh + gates, at.factors + t * rows * 2 * plan.gates, rows,
            )  # fmt: skip
            h = states_before(buffers, buffers.inputs, step, 0, plan.size, part.work + plan.around)
            for unit in range(0, plan.size, tile * lanes):
                vectors = min(tile, (plan.size - unit) // lanes)
                product_tile(buffers, buffers.inputs, layer, step, h, unit, vectors)
                if plan.norm == 0:
                    cell_tile(buffers, step, h, unit, vectors)
            if plan.norm:
                normalize_step(buffers, layer, step, 0, plan.size, True)
                cell_tile(buffers, step, h, 0, plan.size // lanes)
        _write_state(buffers, part, layer)
        if plan.dropout:
            dropping = buffers.keys[0] != 0
            if dropping:
                draw_mask(buffers, part, layer, kept)
            for j in range(0, steps * rows * hst, lanes):
                value = load(w, at.hidden + rows * hst + j)
                if dropping:
                    value = value * load(w, at.mask + j)
                store(w, at.outputs + j, value)


@subroutine()
def _read_extra(buffers, part):
    """Copy the extra inputs of a thread's rows together, to its workspace."""
    plan, w, e = buffers.plan, buffers.work, buffers.plan.extra_inputs
    for position in range(plan.steps * part.rows):
        t, row = divmod(position, part.rows)
        source = (t * plan.batch + part.row + row) * e
        to = part.work + plan.work_inputs + position * plan.est
        for j in range(e):
            w[to + j] = buffers.extra[source + j]


@subroutine()
def _read_state(buffers, part, layer):
    """Copy the state before the window to a layer's workspace."""
    plan, w, state = buffers.plan, buffers.work, buffers.state
    at, h = layer_of(plan, part.work, layer, part.rows), plan.hidden
    for row in range(part.rows):
        source = (layer * plan.batch + part.row + row) * h
        for j in range(h):
            w[at.hidden + row * plan.hst + j] = state[source + j]
            if plan.cell == LSTM:
                w[at.cells + row * plan.hst + j] = state[plan.layers * plan.batch * h + source + j]


@subroutine()
def _write_state(buffers, part, layer):
    """Copy a layer's state after the window from its workspace."""
    plan, w, state = buffers.plan, buffers.work, buffers.new_state
    at, h = layer_of(plan, part.work, layer, part.rows), plan.hidden
    for row in range(part.rows):
        to = (layer * plan.batch + part.row + row) * h
        last = (plan.steps * part.rows + row) * plan.hst
        for j in range(h):
            state[to + j] = w[at.hidden + last + j]
            if plan.cell == LSTM:
                state[plan.layers * plan.batch * h + to + j] = w[at.cells + last + j]


@subroutine(types.float64)
def largest_logit(w, at, size):
    """Return the largest logit of a row; NaN is skipped except in the first lanes."""
    lanes = width(w)
    top = load(w, at)
    for j in range(lanes, size, lanes):
        x = load(w, at + j)
        top = where_less(top, x, x, top)
    return float(largest(top))


@subroutine(types.UniTuple(types.float64, 2))
def softmax_row(w, at, size):
    """Replace logits by e^(l − max); returns the largest one and the sum."""
    lanes, most = width(w), largest_logit(w, at, size)
    sums = load_first(w, at, 0)
    for j in range(0, size, lanes):
        e = exp(load(w, at + j) - most)
        store(w, at + j, e)
        sums = sums + e
    return most, float(total(sums))


@subroutine(inline=True)
def decode(buffers, y, count, logits):
    """Compute the logits (N, V) of outputs (N, H), for N = count."""
    plan, w, packed = buffers.plan, buffers.work, buffers.packed
    lanes, across = width(w), plan.across
    for position in range(count):
        for j in range(0, plan.classes, lanes):
            store(w, logits + position * plan.vst + j, load(packed, plan.decoder_bias + j))
    weights = Panels(packed, plan.decoder, across * plan.hidden, across, across)
    product(
        Tile(w, logits, plan.vst), Tile(w, y, plan.hst), weights,
        count, plan.classes // lanes, plan.hidden, 1,
    )  # fmt: skip
