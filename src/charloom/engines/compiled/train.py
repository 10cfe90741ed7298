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
from numba.extending import register_jitable

from charloom.engines.compiled.cells import (
    gru_backward,
    gru_forward,
    lstm_backward,
    lstm_forward,
    rnn_backward,
    rnn_forward,
)
from charloom.engines.compiled.layout import (
    DECODED_AT_ONCE,
    GRU,
    LSTM,
    RNN,
    back_pack,
    bias_pack,
    bias_q_pack,
    c_work,
    db,
    db_decoder,
    db_q,
    dc_work,
    decoder_back_pack,
    decoder_bias_pack,
    decoder_pack,
    dtable,
    dw_decoder,
    dw_hh,
    dw_ih,
    dy_work,
    extra_work,
    gate_pack,
    gates_work,
    gradients_work,
    h_work,
    hh_back_pack,
    hh_pack,
    ih_back_pack,
    ih_pack,
    logits_work,
    mask_work,
    scratch_work,
    table_pack,
    work_length,
    y_work,
)
from charloom.engines.compiled.products import block_vectors, outer_product, pack, product
from charloom.engines.compiled.threads import barrier
from charloom.engines.compiled.vectors import (
    exp,
    fma,
    lane,
    load,
    sqrt,
    store,
    total,
    transpose,
    where_less,
    widened,
    width,
)

# Parameters on the flat vector, in the order of ModelConfig.shapes.


@register_jitable
def w_ih_at(s, layer):  # type: ignore[no-untyped-def]
    stacked = s.gates * s.hidden
    if layer == 0:
        return 0
    first = stacked * (s.vocabulary + s.hidden + 2)
    return first + (layer - 1) * stacked * (2 * s.hidden + 2)


@register_jitable
def w_hh_at(s, layer):  # type: ignore[no-untyped-def]
    return w_ih_at(s, layer) + s.gates * s.hidden * (s.vocabulary if layer == 0 else s.hidden)


@register_jitable
def b_ih_at(s, layer):  # type: ignore[no-untyped-def]
    return w_hh_at(s, layer) + s.gates * s.hidden * s.hidden


@register_jitable
def b_hh_at(s, layer):  # type: ignore[no-untyped-def]
    return b_ih_at(s, layer) + s.gates * s.hidden


@register_jitable
def decoder_at(s):  # type: ignore[no-untyped-def]
    return b_hh_at(s, s.layers - 1) + s.gates * s.hidden


@register_jitable
def decoder_bias_at(s):  # type: ignore[no-untyped-def]
    return decoder_at(s) + s.vocabulary * s.hidden


@register_jitable
def share(count, thread, threads):  # type: ignore[no-untyped-def]
    """Where a thread's part of `count` things begins; it ends where the next one's begins."""
    return count * thread // threads


@register_jitable
def pack_weights(s, flat, packed, thread, threads, backward):  # type: ignore[no-untyped-def]
    """A thread's part of packing the weights, with their transposes if `backward`."""
    h, across = s.hidden, s.across
    first, last = share(s.panels, thread, threads), share(s.panels, thread + 1, threads)
    for layer in range(s.layers):
        for is_input in range(0 if layer == 0 else 1, -1, -1):
            weights = w_ih_at(s, layer) if is_input else w_hh_at(s, layer)
            to = ih_pack(s, layer) if is_input else hh_pack(s, layer)
            back = ih_back_pack(s, layer) if is_input else hh_back_pack(s, layer)
            for gate in range(s.gates):
                start = weights + gate * h * h
                pack(
                    packed, to + gate * gate_pack(s), across * h, h,
                    flat, start, 1, h, h, h, first, last,
                )  # fmt: skip
                if backward:
                    pack(
                        packed, back + gate * s.size * across, across * s.gates * s.size, s.size,
                        flat, start, h, 1, h, h, first, last,
                    )  # fmt: skip
        if thread == 0:
            bias, bias_q = bias_pack(s, layer), bias_q_pack(s, layer)
            b_ih, b_hh = b_ih_at(s, layer), b_hh_at(s, layer)
            for gate in range(s.gates):
                for unit in range(h):
                    source = gate * h + unit
                    if s.cell == GRU and gate == 2:
                        packed[bias + gate * s.size + unit] = flat[b_ih + source]
                        packed[bias_q + unit] = flat[b_hh + source]
                    else:
                        packed[bias + gate * s.size + unit] = (
                            flat[b_ih + source] + flat[b_hh + source]
                        )
    _pack_table(s, flat, packed, thread, threads)
    v = s.vocabulary
    first = share(s.vocabulary_panels, thread, threads)
    last = share(s.vocabulary_panels, thread + 1, threads)
    pack(packed, decoder_pack(s), across * h, h, flat, decoder_at(s), 1, h, h, v, first, last)
    if backward:
        first, last = share(s.panels, thread, threads), share(s.panels, thread + 1, threads)
        pack(
            packed, decoder_back_pack(s), across * v, v,
            flat, decoder_at(s), h, 1, v, h, first, last,
        )  # fmt: skip
    if thread == 0:
        bias = decoder_bias_pack(s)
        for character in range(s.classes):
            # Padding never becomes a choice, nor infinite.
            packed[bias + character] = (
                flat[decoder_bias_at(s) + character] if character < v else -1e30
            )


@register_jitable
def _pack_table(s, flat, packed, thread, threads):  # type: ignore[no-untyped-def]
    """The first layer's input weights, (G·H, V), transposed to rows of gates, biases added."""
    lanes, h, v = width(flat), s.hidden, s.vocabulary
    first, last = share(s.panels, thread, threads), share(s.panels, thread + 1, threads)
    begin, end = first * s.across, min(last * s.across, h)
    table = table_pack(s)
    for gate in range(s.gates):
        unit = begin
        while unit < end:
            whole = unit + lanes <= end
            source = (gate * h + unit) * v
            to = table + gate * s.size + unit
            squares = v // lanes * lanes if whole else 0
            for character in range(0, squares, lanes):
                transpose(packed, to + character * s.gst, s.gst, flat, source + character, v)
            count = lanes if whole else end - unit
            for j in range(count):
                for character in range(squares, v):
                    packed[to + character * s.gst + j] = flat[source + j * v + character]
            b_ih, b_hh = b_ih_at(s, 0) + gate * h + unit, b_hh_at(s, 0) + gate * h + unit
            both = not (s.cell == GRU and gate == 2)
            if whole:
                bias = load(flat, b_ih)
                if both:
                    bias = bias + load(flat, b_hh)
                for character in range(v):
                    at = to + character * s.gst
                    store(packed, at, load(packed, at) + bias)
            else:
                for character in range(v):
                    for j in range(count):
                        number = flat[b_ih + j]
                        if both:
                            number += flat[b_hh + j]
                        packed[to + character * s.gst + j] += number
            unit += count


@register_jitable
def tile_vectors(rows):  # type: ignore[no-untyped-def]
    """How wide a tile is: whole panels, so that every tile begins with one."""
    return block_vectors(min(rows, 12))


@register_jitable
def forward_tile(s, w, packed, layer, ids, id0, gates, h, h_next, c, c_next, extra, rows, unit, n):  # type: ignore[no-untyped-def]
    """One time step of a layer for some units: n vectors of them from `unit` on.

    In the first layer the gates come from the table; in others they hold the input's product.
    """
    lanes, across = width(w), s.across
    q_bias = bias_q_pack(s, layer) + unit
    for gate in range(s.gates):
        at = gates + gate * s.size + unit
        if layer == 0:
            table = table_pack(s) + gate * s.size + unit
            for row in range(rows):
                source = table + ids[id0 + row] * s.gst
                for j in range(0, n * lanes, lanes):
                    store(w, at + row * s.gst + j, load(packed, source + j))
        weights = hh_pack(s, layer) + gate * gate_pack(s) + unit // across * across * s.hidden
        if s.cell == GRU and gate == 2:
            for row in range(rows):
                for j in range(0, n * lanes, lanes):
                    store(w, extra + row * s.hst + unit + j, load(packed, q_bias + j))
            product(
                w, extra + unit, s.hst, w, h, s.hst,
                packed, weights, across * s.hidden, across, rows, n, s.hidden, 1,
            )  # fmt: skip
        else:
            product(
                w, at, s.gst, w, h, s.hst,
                packed, weights, across * s.hidden, across, rows, n, s.hidden, 1,
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


@register_jitable
def input_products(s, w, packed, layer, gates, y, count, first, last):  # type: ignore[no-untyped-def]
    """The input's products of a deeper layer at `count` positions, for panels of units from `first`
    to before `last`: gates = W_ih y + b."""
    lanes, across = width(w), s.across
    begin = first * across
    n = (min(last * across, s.size) - begin) // lanes
    for gate in range(s.gates):
        at = gates + gate * s.size + begin
        bias = bias_pack(s, layer) + gate * s.size + begin
        for position in range(count):
            for j in range(0, n * lanes, lanes):
                store(w, at + position * s.gst + j, load(packed, bias + j))
        product(
            w, at, s.gst, w, y, s.hst,
            packed, ih_pack(s, layer) + gate * gate_pack(s) + begin * s.hidden,
            across * s.hidden, across, count, n, s.hidden, 1,
        )  # fmt: skip


@register_jitable
def _forward(s, w, w0, packed, ids, state, new_state, steps, batch, row0, rows, keys, kept):  # type: ignore[no-untyped-def]
    """All layers over the window; fills what the way back needs, and the new state."""
    lanes, h = width(w), s.hidden
    tile = tile_vectors(rows)
    for layer in range(s.layers):
        gates = w0 + gates_work(s, steps, rows, layer)
        hidden = w0 + h_work(s, steps, rows, layer)
        extra = w0 + extra_work(s, steps, rows, layer)
        c = w0 + c_work(s, steps, rows, layer)
        for row in range(rows):
            for j in range(h):
                w[hidden + row * s.hst + j] = state[(layer * batch + row0 + row) * h + j]
                if s.cell == LSTM:
                    w[c + row * s.hst + j] = state[
                        ((s.layers + layer) * batch + row0 + row) * h + j
                    ]
        if layer > 0:
            below = w0 + y_work(s, steps, rows, layer - 1)
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
            mask, y = w0 + mask_work(s, steps, rows, layer), w0 + y_work(s, steps, rows, layer)
            if keys[0] != 0:
                _draw_mask(s, w, mask, steps, row0, rows, keys, kept, layer)
            for at in range(0, steps * rows * s.hst, lanes):
                value = load(w, hidden + rows * s.hst + at)
                if keys[0] != 0:
                    value = value * load(w, mask + at)
                store(w, y + at, value)


@register_jitable
def _mix(z):  # type: ignore[no-untyped-def]
    """SplitMix64's finalizer, as in charloom.model."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@register_jitable
def _draw_mask(s, w, mask, steps, row0, rows, keys, kept, layer):  # type: ignore[no-untyped-def]
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


@register_jitable
def softmax_row(w, at, size):  # type: ignore[no-untyped-def]
    """Logits to e^(l − max), in place; returns the largest one and the sum."""
    lanes = width(w)
    top = load(w, at)
    for j in range(lanes, size, lanes):
        x = load(w, at + j)
        top = where_less(top, x, x, top)
    largest = lane(top, 0)
    for j in range(1, lanes):
        largest = max(largest, lane(top, j))
    sums = load(w, at) * 0.0
    for j in range(0, size, lanes):
        e = exp(load(w, at + j) - largest)
        store(w, at + j, e)
        sums = sums + e
    return largest, total(sums)


@register_jitable
def decode(s, w, packed, y, count, logits):  # type: ignore[no-untyped-def]
    """Outputs (N, H) to logits (N, V)."""
    bias, lanes = decoder_bias_pack(s), width(w)
    for position in range(count):
        for j in range(0, s.classes, lanes):
            store(w, logits + position * s.vst + j, load(packed, bias + j))
    product(
        w, logits, s.vst, w, y, s.hst, packed, decoder_pack(s), s.across * s.hidden, s.across,
        count, s.classes // lanes, s.hidden, 1,
    )  # fmt: skip


@register_jitable
def _decoder(s, w, w0, packed, targets, steps, batch, row0, rows, scale):  # type: ignore[no-untyped-def]
    """The loss, summed; the decoder's gradients; dy, the gradient of the last layer's outputs."""
    lanes = width(w)
    y = w0 + y_work(s, steps, rows, s.layers - 1)
    dy = w0 + dy_work(s, steps, rows, s.layers - 1) + rows * s.hst
    logits = w0 + logits_work(s, steps, rows)
    gradients = w0 + gradients_work(s, steps, rows)
    db_out = gradients + db_decoder(s)
    loss = 0.0
    n = steps * rows
    for first in range(0, n, DECODED_AT_ONCE):
        count = min(DECODED_AT_ONCE, n - first)
        decode(s, w, packed, y + first * s.hst, count, logits)
        for position in range(count):
            at = logits + position * s.vst
            t, row = divmod(first + position, rows)
            target = targets[t * batch + row0 + row]
            own = w[at + target]
            largest, sum_ = softmax_row(w, at, s.classes)
            # log p = l − max − log Σ e^(l − max)
            loss += math.log(sum_) - float(own - largest)
            factor = scale / sum_
            for j in range(0, s.classes, lanes):
                store(w, at + j, load(w, at + j) * factor)
            w[at + target] -= scale
            for j in range(0, s.classes, lanes):
                store(w, db_out + j, load(w, db_out + j) + load(w, at + j))
        outer_product(
            w, gradients + dw_decoder(s), s.hst, w, logits, s.vst, w, y + first * s.hst, s.hst,
            s.vocabulary, s.size // lanes, count,
        )  # fmt: skip
        product(
            w, dy + first * s.hst, s.hst, w, logits, s.vst,
            packed, decoder_back_pack(s), s.across * s.vocabulary, s.across,
            count, s.size // lanes, s.vocabulary, 0,
        )  # fmt: skip
    return loss


@register_jitable
def _backward(s, w, w0, packed, ids, steps, batch, row0, rows, dropping):  # type: ignore[no-untyped-def]
    """dy down through the layers; fills the thread's gradients."""
    lanes, across = width(w), s.across
    tile = tile_vectors(rows)
    gradients = w0 + gradients_work(s, steps, rows)
    n = steps * rows
    for layer in range(s.layers - 1, -1, -1):
        gates = w0 + gates_work(s, steps, rows, layer)
        hidden = w0 + h_work(s, steps, rows, layer)
        extra = w0 + extra_work(s, steps, rows, layer)
        c = w0 + c_work(s, steps, rows, layer)
        dy = w0 + dy_work(s, steps, rows, layer)
        dc = w0 + dc_work(s, steps, rows)
        bias, bias_q = gradients + db(s, layer), gradients + db_q(s, layer)
        back = hh_back_pack(s, layer)
        if dropping:
            mask = w0 + mask_work(s, steps, rows, layer)
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
                        packed, weights, panel, across, rows, vectors, length, 1,
                    )  # fmt: skip
                    if s.cell == GRU:
                        product(
                            w, dy + here + unit, s.hst, w, extra + here, s.hst,
                            packed, weights + length * across, panel, across,
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
        # dW_hh = Σ da_t h_{t−1}ᵀ;  dW_ih = Σ dx_t y_tᵀ, in the first layer a sum by character
        for gate in range(s.gates):
            of_q = s.cell == GRU and gate == 2
            outer_product(
                w, gradients + dw_hh(s, layer) + gate * s.hidden * s.hst, s.hst,
                w, extra if of_q else gates + gate * s.size, s.hst if of_q else s.gst,
                w, hidden, s.hst, s.hidden, s.size // lanes, n,
            )  # fmt: skip
        if layer == 0:
            table = gradients + dtable(s)
            for position in range(n):
                t, row = divmod(position, rows)
                to = table + ids[t * batch + row0 + row] * s.gst
                at = gates + position * s.gst
                for j in range(0, s.gates * s.size, lanes):
                    store(w, to + j, load(w, to + j) + load(w, at + j))
        else:
            below = w0 + y_work(s, steps, rows, layer - 1)
            for gate in range(s.gates):
                outer_product(
                    w, gradients + dw_ih(s, layer) + gate * s.hidden * s.hst, s.hst,
                    w, gates + gate * s.size, s.gst,
                    w, below, s.hst, s.hidden, s.size // lanes, n,
                )  # fmt: skip
            product(
                w, w0 + dy_work(s, steps, rows, layer - 1) + rows * s.hst, s.hst,
                w, gates, s.gst, packed, ih_back_pack(s, layer),
                across * s.gates * s.size, across, n, s.size // lanes, s.gates * s.size, 0,
            )  # fmt: skip


@register_jitable
def _gradients_of(s, steps, batch, threads, thread):  # type: ignore[no-untyped-def]
    """Where a thread's gradients begin in `work`."""
    most = (batch + threads - 1) // threads
    rows = share(batch, thread + 1, threads) - share(batch, thread, threads)
    return thread * work_length(s, steps, most) + gradients_work(s, steps, rows)


@register_jitable
def _collect(s, work, offset, stride, flat, to, rows, columns, where, thread, threads):  # type: ignore[no-untyped-def]
    """A thread's part of flat (rows, columns) = all threads' gradients, in the threads' order."""
    for row in range(share(rows, thread, threads), share(rows, thread + 1, threads)):
        at = to + row * columns
        source = where[0] + offset + row * stride
        for column in range(columns):
            flat[at + column] = work[source + column]
        for other in range(1, threads):
            source = where[other] + offset + row * stride
            for column in range(columns):
                flat[at + column] += work[source + column]


@register_jitable
def _reduce(s, work, flat, steps, batch, where, thread, threads, classic):  # type: ignore[no-untyped-def]
    """A thread's part of the gradients on the flat vector."""
    h, v = s.hidden, s.vocabulary
    for other in range(threads):
        where[other] = _gradients_of(s, steps, batch, threads, other)
    for layer in range(s.layers):
        stacked = s.gates * h
        _collect(
            s, work, dw_hh(s, layer), s.hst, flat, w_hh_at(s, layer), stacked, h,
            where, thread, threads,
        )  # fmt: skip
        if layer > 0:
            _collect(
                s, work, dw_ih(s, layer), s.hst, flat, w_ih_at(s, layer), stacked, h,
                where, thread, threads,
            )  # fmt: skip
        if thread == 0:
            for gate in range(s.gates):
                of_q = s.cell == GRU and gate == 2
                at = gate * h
                offset = db(s, layer) + gate * s.size
                _collect(s, work, offset, h, flat, b_ih_at(s, layer) + at, 1, h, where, 0, 1)
                offset = db_q(s, layer) if of_q else offset
                _collect(s, work, offset, h, flat, b_hh_at(s, layer) + at, 1, h, where, 0, 1)
                for other in range(1, threads):
                    for j in range(h):
                        flat[b_ih_at(s, layer) + at + j] += work[
                            where[other] + db(s, layer) + gate * s.size + j
                        ]
                        flat[b_hh_at(s, layer) + at + j] += work[where[other] + offset + j]
                if classic:
                    for j in range(h):
                        flat[b_hh_at(s, layer) + at + j] = 0
    _collect(
        s, work, dw_decoder(s), s.hst, flat, decoder_at(s), v, h, where, thread, threads
    )  # fmt: skip
    if thread == 0:
        for j in range(v):
            total_ = work[where[0] + db_decoder(s) + j]
            for other in range(1, threads):
                total_ += work[where[other] + db_decoder(s) + j]
            flat[decoder_bias_at(s) + j] = total_


@register_jitable
def _reduce_table(s, work, flat, where, thread, threads):  # type: ignore[no-untyped-def]
    """A thread's part of the first layer's input gradients, transposed to (G·H, V). It adds up the
    threads' tables in the first one's place, for its own units alone."""
    lanes, h, v = width(flat), s.hidden, s.vocabulary
    first, last = share(s.panels, thread, threads), share(s.panels, thread + 1, threads)
    begin, end = first * s.across, min(last * s.across, h)
    for gate in range(s.gates):
        for character in range(v):
            at = dtable(s) + character * s.gst + gate * s.size
            for other in range(1, threads):
                for unit in range(begin, end):
                    work[where[0] + at + unit] += work[where[other] + at + unit]
        unit = begin
        while unit < end:
            whole = unit + lanes <= end
            source = where[0] + dtable(s) + gate * s.size + unit
            to = (gate * h + unit) * v
            squares = v // lanes * lanes if whole else 0
            for character in range(0, squares, lanes):
                transpose(flat, to + character, v, work, source + character * s.gst, s.gst)
            count = lanes if whole else end - unit
            for j in range(count):
                for character in range(squares, v):
                    flat[to + j * v + character] = work[source + character * s.gst + j]
            unit += count


@register_jitable
def _sum_of_squares(flat, first, last):  # type: ignore[no-untyped-def]
    """In float64, by vectors, then what is left."""
    lanes = width(flat)
    whole = first + (last - first) // lanes * lanes
    if first == whole:
        result = 0.0
    else:
        low = widened(load(flat, first), False) * 0.0
        high = low
        for at in range(first, whole, lanes):
            x = load(flat, at)
            a, b = widened(x, False), widened(x, True)
            low = fma(a, a, low)
            high = fma(b, b, high)
        result = total(low + high)
    for at in range(whole, last):
        x = float(flat[at])
        result += x * x
    return result


SGD, ADAGRAD, ADAGRAD_INSIDE, RMSPROP, ADAM = range(5)


@register_jitable
def _update_vectors(kind, o, scale, p, p0, g, g0, a, a0, b, b0, count):  # type: ignore[no-untyped-def]
    """charloom.optimizers' formulas on `count` numbers, in whole vectors; a, b: the slots.

    o: learning rate, then sgd's momentum; adagrad's ε; rmsprop's decay, ε; adam's β₁, β₂, ε, the
    corrections 1 − β₁ᵗ and √(1 − β₂ᵗ), and the factor of weight decay.
    """
    lanes = width(p)
    rate = o[0]
    if kind == SGD:
        for j in range(0, count, lanes):
            v = fma(load(a, a0 + j), o[1], load(g, g0 + j) * scale)
            store(a, a0 + j, v)
            store(p, p0 + j, load(p, p0 + j) - v * rate)
    elif kind == ADAGRAD or kind == ADAGRAD_INSIDE:
        inside = o[1] if kind == ADAGRAD_INSIDE else 0.0
        outside = 0.0 if kind == ADAGRAD_INSIDE else o[1]
        for j in range(0, count, lanes):
            x = load(g, g0 + j) * scale
            squares = fma(x, x, load(a, a0 + j))
            store(a, a0 + j, squares)
            store(p, p0 + j, load(p, p0 + j) - x * rate / (sqrt(squares + inside) + outside))
    elif kind == RMSPROP:
        for j in range(0, count, lanes):
            x = load(g, g0 + j) * scale
            mean = fma(load(a, a0 + j), o[1], x * x * (1.0 - o[1]))
            store(a, a0 + j, mean)
            store(p, p0 + j, load(p, p0 + j) - x * rate / (sqrt(mean) + o[2]))
    else:
        step = rate / o[4]
        for j in range(0, count, lanes):
            x = load(g, g0 + j) * scale
            first = fma(load(a, a0 + j), o[1], x * (1.0 - o[1]))
            second = fma(load(b, b0 + j), o[2], x * x * (1.0 - o[2]))
            store(a, a0 + j, first)
            store(b, b0 + j, second)
            store(
                p, p0 + j, load(p, p0 + j) * o[6] - first * step / (sqrt(second) / o[5] + o[3])
            )


@register_jitable
def _update(kind, o, scale, p, g, a, b, first, last, scratch, s0):  # type: ignore[no-untyped-def]
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


GRADIENTS_ONLY = -1
LOSS, NORM, SUMS = 0, 1, 2  # in `results`; from SUMS on, each thread's loss and sum of squares


def train(  # type: ignore[no-untyped-def]
    s, steps, batch, ids, targets, state, new_state, flat, gradients, slot, slot2, packed, work,
    keys, kept, classic, kind, o, clip, results, where, sync, threads, thread,
):  # fmt: skip
    """A step of training, or with the optimizer's kind GRADIENTS_ONLY the loss and gradients.

    ids, targets (T, B); state (S, L, B, H); flat, gradients, slots (P). clip: the largest norm,
    0 for none. Parameters and slots stay as they were where loss or norm are not finite, or where
    the norm's square overflows, as float64 can: the norm is infinite then.
    """
    row0 = share(batch, thread, threads)
    rows = share(batch, thread + 1, threads) - row0
    own = where[thread * threads : (thread + 1) * threads]
    w0 = thread * work_length(s, steps, (batch + threads - 1) // threads)
    pack_weights(s, flat, packed, thread, threads, True)
    if not barrier(sync, threads):
        return
    lanes = width(work)
    begin = w0 + gradients_work(s, steps, rows)
    for at in range(begin, begin + db_decoder(s) + s.vst, lanes):
        store(work, at, 0.0)
    scale = 1.0 if classic else 1.0 / (steps * batch)
    loss = 0.0
    if rows > 0:
        _forward(
            s, work, w0, packed, ids, state, new_state, steps, batch, row0, rows, keys, kept
        )
        loss = _decoder(s, work, w0, packed, targets, steps, batch, row0, rows, scale)
        _backward(s, work, w0, packed, ids, steps, batch, row0, rows, keys[0] != 0)
    results[SUMS + 2 * thread] = loss
    if not barrier(sync, threads):
        return
    _reduce(s, work, gradients, steps, batch, own, thread, threads, classic)
    _reduce_table(s, work, gradients, own, thread, threads)
    if not barrier(sync, threads):
        return
    loss = 0.0
    for other in range(threads):
        loss += results[SUMS + 2 * other]
    if thread == 0:
        results[LOSS] = loss / (steps * batch)
    if kind == GRADIENTS_ONLY:
        barrier(sync, threads)
        return
    count = len(flat)
    first, last = share(count, thread, threads), share(count, thread + 1, threads)
    results[SUMS + 2 * thread + 1] = _sum_of_squares(gradients, first, last)
    if not barrier(sync, threads):
        return
    squares = 0.0
    for other in range(threads):
        squares += results[SUMS + 2 * other + 1]
    norm = math.sqrt(squares)
    if thread == 0:
        results[NORM] = norm
    if math.isfinite(loss) and math.isfinite(norm):
        factor = clip / norm if clip > 0 and norm > clip else 1.0
        _update(
            kind, o, factor, flat, gradients, slot, slot2, first, last,
            work, w0 + scratch_work(s, steps, rows),
        )  # fmt: skip
    barrier(sync, threads)
