"""The training kernel: a whole step, from ids to updated parameters, in every thread at once.

Each thread takes its own rows of the batch through the whole window, forward and backward, into
gradients of its own; then the threads' gradients are added up in the order of the threads, and each
thread updates its own part of the parameters. Between these parts the threads wait for each other.

The time loops go over tiles, as wide as a block of a product: the recurrent product of a tile, then
at once what the cell makes of it, while it is in the nearest cache.

T: time steps; B: rows of the batch; R: rows of a thread; N: T·R, its positions.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types

from charloom.engines.compiled.cells import (
    gru_backward,
    gru_forward,
    lstm_backward,
    lstm_forward,
    rnn_backward,
    rnn_forward,
)
from charloom.engines.compiled.compiling import subroutine
from charloom.engines.compiled.layout import DECODED_AT_ONCE, GRU, LSTM, Plan
from charloom.engines.compiled.products import (
    MOST_ROWS,
    block_vectors,
    outer_product,
    pack,
    product,
)
from charloom.engines.compiled.threads import (
    FAULT,
    at_work,
    barrier,
    call_up,
    is_called_again,
    leave,
)
from charloom.engines.compiled.vectors import (
    as_flat,
    as_numbers,
    divide,
    exp,
    flat_at,
    fma,
    inverse_root,
    largest,
    load,
    load_first,
    root,
    store,
    store_first,
    total,
    transpose,
    where_less,
    widened,
    width,
)


@subroutine(types.intp)
def w_ih_at(s, layer):
    """Where a layer's weight_ih begins on the flat vector."""
    if layer == 0:
        return 0
    return s.flat_hh + layer * s.flat_layer - s.gates * s.hidden * s.hidden


@subroutine(types.intp, inline=True)
def outputs_at(s, rows):
    """Where the first layer's outputs begin in the workspace of a thread with so many rows."""
    if s.dropout:
        return s.work_y
    return s.work_h + rows * s.hst


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
def share(count, thread, threads):
    """Where a thread's part of `count` things begins; it ends where the next one's begins."""
    return count * thread // threads


@subroutine()
def drop_weights(s, flat, packed, key_of_step, least, kept, thread, threads):
    """A thread's part of the recurrent weights' masks, charloom.model.weight_mask, and of what they
    leave. key_of_step, least, kept: as for _draw_mask."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    h, stacked = s.hidden, s.gates * s.hidden
    for layer in range(s.layers):
        key = _mix(key_of_step + np.uint64(layer) * golden)
        for row in range(share(stacked, thread, threads), share(stacked, thread + 1, threads)):
            row_key = _mix(key + np.uint64(row) * golden)
            at = (layer * stacked + row) * h
            source = s.flat_hh + layer * s.flat_layer + row * h
            for j in range(h):
                bits = _mix(row_key + np.uint64(j + 1) * golden) >> np.uint64(11)
                mask = kept if bits >= least else 0.0
                packed[s.hh_mask + at + j] = mask
                packed[s.hh_left + at + j] = flat[source + j] * mask


@subroutine()
def pack_weights(s, flat, packed, thread, threads, backward, dropped):
    """A thread's part of packing the weights, with their transposes if `backward`; of the recurrent
    ones what drop_weights left, if `dropped`."""
    lanes, h, across = width(flat), s.hidden, s.across
    first, last = share(s.panels, thread, threads), share(s.panels, thread + 1, threads)
    for layer in range(s.layers):
        for is_input in range(0 if layer == 0 else 1, -1, -1):
            weights = w_ih_at(s, layer) if is_input else s.flat_hh + layer * s.flat_layer
            to = (s.ih if is_input else s.hh) + layer * s.packed_layer
            back = (s.ih_back if is_input else s.hh_back) + layer * s.packed_layer
            from_left = dropped and not is_input
            if from_left:
                weights = s.hh_left + layer * s.gates * h * h
            for gate in range(s.gates):
                start = weights + gate * h * h
                _pack_gate(
                    s, packed, to + gate * s.packed_gate, back + gate * s.size * across,
                    packed if from_left else flat, start, first, last, backward,
                )  # fmt: skip
        if thread == 0:
            place, flat_place = layer * s.packed_layer, layer * s.flat_layer
            for gate in range(s.gates):
                for unit in range(0, h, lanes):
                    units = min(lanes, h - unit)
                    source = flat_place + gate * h + unit
                    b_ih = load_first(flat, s.flat_b_ih + source, units)
                    b_hh = load_first(flat, s.flat_b_hh + source, units)
                    to = s.bias + place + gate * s.size + unit
                    if s.cell == GRU and gate == 2:
                        store(packed, to, b_ih)
                        store(packed, s.bias_q + place + unit, b_hh)
                    else:
                        store(packed, to, b_ih + b_hh)
    _pack_table(s, flat, packed, thread, threads)
    v = s.vocabulary
    first = share(s.vocabulary_panels, thread, threads)
    last = share(s.vocabulary_panels, thread + 1, threads)
    pack(packed, s.decoder, across * h, across, h, flat, s.flat_decoder, 1, h, h, v, first, last)
    if backward:
        first, last = share(s.panels, thread, threads), share(s.panels, thread + 1, threads)
        pack(
            packed, s.decoder_back, across * v, s.tail, v,
            flat, s.flat_decoder, h, 1, v, h, first, last,
        )  # fmt: skip
    if thread == 0:
        bias = s.decoder_bias
        for character in range(s.classes):
            # Padding never becomes a choice, nor infinite.
            packed[bias + character] = (
                flat[s.flat_decoder_bias + character] if character < v else -1e30
            )


@subroutine()
def _pack_gate(s, packed, to, back, source, start, first, last, backward):
    """Panels `first` to before `last` of an (H, H) matrix that begins at `start`."""
    h, across = s.hidden, s.across
    pack(packed, to, across * h, s.tail, h, source, start, 1, h, h, h, first, last)
    if backward:
        pack(
            packed, back, across * s.gates * s.size, s.tail, s.size,
            source, start, h, 1, h, h, first, last,
        )  # fmt: skip


@subroutine()
def _pack_table(s, flat, packed, thread, threads):
    """The first layer's input weights, (G·H, V), transposed to rows of gates, biases added."""
    lanes, h, v = width(flat), s.hidden, s.vocabulary
    first, last = share(s.panels, thread, threads), share(s.panels, thread + 1, threads)
    for gate in range(s.gates):
        for unit in range(first * s.across, min(last * s.across, h), lanes):
            units = min(lanes, h - unit)
            source = gate * h + unit
            to = s.table + gate * s.size + unit
            bias = load_first(flat, s.flat_b_ih + source, units)
            if s.cell != GRU or gate != 2:
                bias = bias + load_first(flat, s.flat_b_hh + source, units)
            for character in range(0, v, lanes):
                transpose(
                    packed, to + character * s.gst, s.gst, flat, source * v + character, v,
                    units, min(lanes, v - character), lanes, bias,
                )  # fmt: skip


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
def _forward(s, w, w0, packed, ids, state, new_state, row0, rows, keys, kept):
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
                _draw_mask(s, w, mask, steps, row0, rows, keys, kept, layer)
            for at in range(0, steps * rows * s.hst, lanes):
                value = load(w, hidden + rows * s.hst + at)
                if keys[0] != 0:
                    value = value * load(w, mask + at)
                store(w, y + at, value)


@subroutine(types.uint64)
def _mix(z):
    """SplitMix64's finalizer, as in charloom.model."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@subroutine()
def _draw_mask(s, w, mask, steps, row0, rows, keys, kept, layer):
    """charloom.model.dropout_mask for a thread's rows. keys: whether to drop, the key of seed and
    step, the least 53-bit number that is kept; kept: 1 / (1 − rate)."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    least = keys[2]
    key = _mix(keys[1] + np.uint64(layer) * golden)
    for row in range(rows):
        row_key = _mix(key + np.uint64(row0 + row) * golden)
        for t in range(steps):
            at = mask + (t * rows + row) * s.hst
            counter = np.uint64(t * s.hidden + 1)
            for j in range(s.hidden):
                bits = _mix(row_key + (counter + np.uint64(j)) * golden) >> np.uint64(11)
                w[at + j] = kept if bits >= least else 0.0


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


@subroutine(types.float64)
def _decoder(s, w, w0, packed, targets, row0, rows, scale):
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
def _backward(s, w, w0, layer, packed, rows, dropping):
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
def _weight_gradients(s, w, w0, layer, packed, ids, row0, rows):
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


@subroutine(types.float64)
def _collect(s, work, offset, stride, flat, to, rows, columns, first, last, threads, mask, m0):
    """flat (rows, columns) = the sum of all threads' gradients, in the order of the threads, for
    the rows from `first` to before `last`; returns the sum of their squares. Multiplied by the
    mask (rows, columns) that begins at m0, unless that is negative."""
    lanes = width(flat)
    zeros = load_first(flat, to, 0)
    low = widened(zeros, False)
    high = low
    for row in range(first, last):
        squares = zeros
        whole = columns // lanes * lanes
        source, target = offset + row * stride, to + row * columns
        for column in range(0, whole, lanes):
            x = load(work, source + column)
            for other in range(1, threads):
                x = x + load(work, other * s.work_length + source + column)
            if m0 >= 0:
                x = x * load(mask, m0 + row * columns + column)
            store(flat, target + column, x)
            squares = fma(x, x, squares)
        if whole < columns:
            x = load_first(work, source + whole, columns - whole)
            for other in range(1, threads):
                at = other * s.work_length + source + whole
                x = x + load_first(work, at, columns - whole)
            if m0 >= 0:
                x = x * load_first(mask, m0 + row * columns + whole, columns - whole)
            store_first(flat, target + whole, x, columns - whole)
            squares = fma(x, x, squares)
        low = low + widened(squares, False)
        high = high + widened(squares, True)
    return total(low + high)


@subroutine(types.float64)
def _reduce(s, work, flat, packed, thread, threads, classic, dropped):
    """A thread's part of the gradients to the flat vector; returns the sum of their squares.
    dropped: whether recurrent weights were."""
    h, v, stacked = s.hidden, s.vocabulary, s.gates * s.hidden
    first, last = share(stacked, thread, threads), share(stacked, thread + 1, threads)
    squares = _reduce_table(s, work, flat, thread, threads)
    for layer in range(s.layers):
        place = layer * s.gradients_layer
        for is_input in range(0 if layer == 0 else 1, -1, -1):
            source = s.dw_ih if is_input else s.dw_hh
            to = w_ih_at(s, layer) if is_input else s.flat_hh + layer * s.flat_layer
            m0 = s.hh_mask + layer * stacked * h if dropped and not is_input else -1
            squares += _collect(
                s, work, source + place, s.hst, flat, to, stacked, h, first, last, threads,
                packed, m0,
            )  # fmt: skip
        if thread == 0:
            for gate in range(s.gates):
                to = layer * s.flat_layer + gate * h
                source = s.db + place + gate * s.size
                squares += _collect(
                    s, work, source, h, flat, s.flat_b_ih + to, 1, h, 0, 1, threads, packed, -1
                )
                if s.cell == GRU and gate == 2:
                    source = s.db_q + place
                if classic:
                    for unit in range(h):
                        flat[s.flat_b_hh + to + unit] = 0
                else:
                    squares += _collect(
                        s, work, source, h, flat, s.flat_b_hh + to, 1, h, 0, 1, threads, packed, -1
                    )
    first, last = share(v, thread, threads), share(v, thread + 1, threads)
    squares += _collect(
        s, work, s.dw_decoder, s.hst, flat, s.flat_decoder, v, h, first, last, threads, packed, -1
    )
    if thread == 0:
        squares += _collect(
            s, work, s.db_decoder, v, flat, s.flat_decoder_bias, 1, v, 0, 1, threads, packed, -1
        )
    return squares


@subroutine(types.float64)
def _reduce_table(s, work, flat, thread, threads):
    """The same for the first layer's input gradients, which are transposed to (G·H, V). The sum is
    taken in the first thread's place, by each thread for its own units."""
    lanes, h, v = width(flat), s.hidden, s.vocabulary
    first, last = share(s.panels, thread, threads), share(s.panels, thread + 1, threads)
    zeros = load_first(flat, 0, 0)
    low = widened(zeros, False)
    high = low
    for gate in range(s.gates):
        for unit in range(first * s.across, min(last * s.across, h), lanes):
            units = min(lanes, h - unit)
            source = s.dtable + gate * s.size + unit
            squares = zeros
            for character in range(v):
                at = source + character * s.gst
                x = load_first(work, at, units)
                for other in range(1, threads):
                    x = x + load_first(work, other * s.work_length + at, units)
                if threads > 1:
                    store(work, at, x)
                squares = fma(x, x, squares)
            low = low + widened(squares, False)
            high = high + widened(squares, True)
            for character in range(0, v, lanes):
                count = min(lanes, v - character)
                transpose(
                    flat, (gate * h + unit) * v + character, v,
                    work, source + character * s.gst, s.gst, count, units, count, zeros,
                )  # fmt: skip
    return total(low + high)


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
def _update(kind, o, scale, p, g, a, b, first, last, scratch, s0):
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


@subroutine()
def _clear_sums(s, w, w0):
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


# The entries of `numbers` behind the optimizer's: its kind; the largest norm, 0 for none; what an
# entry that dropout keeps is multiplied by, and what a weight is; whether the gradient is the
# notebook's, of the sum.
KIND, CLIP, KEPT, KEPT_WEIGHT, CLASSIC, NUMBERS = range(8, 14)
OF_WEIGHTS = 3  # in the keys, where those of weight dropping begin
GRADIENTS_ONLY = -1  # a kind
LOSS, NORM, SUMS = 0, 1, 2  # in `results`; from SUMS on, each thread's loss and sum of squares


@subroutine(types.boolean)
def _step(
    s, ids, targets, state, new_state, flat, gradients, slot, slot2, packed, work, keys, numbers,
    results, sync, threads, thread,
):  # fmt: skip
    """A thread's part of a step; False if the step cannot be done."""
    row0 = share(s.batch, thread, threads)
    rows = share(s.batch, thread + 1, threads) - row0
    w0 = thread * s.work_length
    n = s.steps * s.batch
    if not in_vocabulary(s, ids, 0, n, sync) or not in_vocabulary(s, targets, 0, n, sync):
        return False  # as all threads do
    classic = numbers[CLASSIC] != 0
    _clear_sums(s, work, w0)
    dropped = s.weight_drop != 0 and keys[OF_WEIGHTS] != 0
    if dropped:
        drop_weights(
            s, flat, packed, keys[OF_WEIGHTS + 1], keys[OF_WEIGHTS + 2], numbers[KEPT_WEIGHT],
            thread, threads,
        )  # fmt: skip
        if not barrier(sync, threads):
            return False
    pack_weights(s, flat, packed, thread, threads, True, dropped)
    if not barrier(sync, threads):
        return False
    _forward(s, work, w0, packed, ids, state, new_state, row0, rows, keys, numbers[KEPT])
    scale = 1.0 if classic else 1.0 / n
    results[SUMS + 2 * thread] = _decoder(s, work, w0, packed, targets, row0, rows, scale)
    for layer in range(s.layers - 1, -1, -1):
        _backward(s, work, w0, layer, packed, rows, keys[0] != 0)
        _weight_gradients(s, work, w0, layer, packed, ids, row0, rows)
    if not barrier(sync, threads):
        return False
    squares = _reduce(s, work, gradients, packed, thread, threads, classic, dropped)
    results[SUMS + 2 * thread + 1] = squares
    if not barrier(sync, threads):
        return False
    loss, squares = 0.0, 0.0
    for other in range(threads):
        loss += results[SUMS + 2 * other]
        squares += results[SUMS + 2 * other + 1]
    norm = math.sqrt(squares)
    kind = int(numbers[KIND])
    if kind != GRADIENTS_ONLY and math.isfinite(loss) and math.isfinite(norm):
        clip = numbers[CLIP]
        _update(
            kind, numbers, clip / norm if 0 < clip < norm else 1.0, flat, gradients, slot, slot2,
            share(s.flat_length, thread, threads), share(s.flat_length, thread + 1, threads),
            work, w0 + s.scratch,
        )  # fmt: skip
    if thread == 0:
        results[LOSS], results[NORM] = loss / n, norm
    return barrier(sync, threads)


def train(places_, like, whole, numbers_, sync_, threads, thread):
    """A step of training, or with the kind GRADIENTS_ONLY the loss and gradients.

    places_: the addresses of the plan; of ids and targets (T, B), both int64; of the state
    (S, L, B, H) and the new one; of parameters, gradients and two slots (P); of the packed weights
    and the workspace, all these of like's type; of dropout's and weight dropping's keys, (6,), of
    whole's type (uint64); of
    `numbers` and `results`, of numbers_' type (float64). One array is handed over sooner than so
    many.

    Parameters and slots stay as they were where loss or norm are not finite, or where the norm's
    square overflows, as float64 can: the norm is infinite then. All threads but the first stay for
    further steps.
    """
    at, sync = as_flat(places_), as_flat(sync_)
    s = as_numbers(Plan, flat_at(at[0], places_))
    if thread == 0 and not call_up(sync, threads):
        return
    while True:
        if thread > 0:
            at_work(sync, thread)
        done = _step(
            s, flat_at(at[1], places_), flat_at(at[2], places_), flat_at(at[3], like),
            flat_at(at[4], like), flat_at(at[5], like), flat_at(at[6], like),
            flat_at(at[7], like), flat_at(at[8], like), flat_at(at[9], like),
            flat_at(at[10], like), flat_at(at[11], whole), flat_at(at[12], numbers_),
            flat_at(at[13], numbers_), sync, threads, thread,
        )  # fmt: skip
        if thread == 0:
            return
        if not done:
            leave(sync, thread)
            return
        if not is_called_again(sync, thread):
            return
