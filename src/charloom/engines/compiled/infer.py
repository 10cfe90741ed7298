"""The inference kernel: scoring, stepping and generating, without a way back.

The threads share every time step: each computes its own hidden units of all rows, and they wait for
each other after each layer; then each decodes its own rows. An entry's bytes do not depend on the
number of rows or threads, see charloom.engines.compiled.products.

T: time steps; B: rows of the batch; V: characters in the vocabulary.
"""

from __future__ import annotations

from charloom.engines.compiled.drawing import choose_next, log_sum
from charloom.engines.compiled.forward import (
    decode,
    forward_tile,
    in_vocabulary,
    input_products,
    tile_vectors,
)
from charloom.engines.compiled.packing import pack_weights
from charloom.engines.compiled.plan import DECODED_AT_ONCE, LSTM, Plan, share
from charloom.kernels.compiling import subroutine
from charloom.kernels.threads import barrier
from charloom.kernels.vectors import (
    as_flat,
    as_numbers,
    load,
    load_first,
    store,
    store_first,
    width,
)

LOGITS, LOG_PROBABILITIES, GENERATE, PACK, FOLLOW = range(5)
HELD = 4  # where in the settings the number of held units stands


@subroutine()
def _hold(s, w, settings, layer, gates, h, c, rows, begin, end):
    """Gives held units of a layer, of those from `begin` to before `end`, their values: hidden
    states in h, cell states in c, which change the hidden ones: h = o tanh(c)."""
    for number in range(int(settings[HELD])):
        at = HELD + 1 + 5 * number
        unit = int(settings[at + 2])
        if int(settings[at + 1]) == layer and begin <= unit < end:
            value, tanh_value = settings[at + 3], settings[at + 4]
            for row in range(rows):
                if settings[at] == 1.0:
                    w[c + row * s.hst + unit] = value
                    o = w[gates + row * s.gst + 3 * s.size + unit]
                    w[h + row * s.hst + unit] = o * tanh_value
                else:
                    w[h + row * s.hst + unit] = value


def infer(
    plan, mode, steps, batch, chunk, ids_, state_, new_state_, flat_, packed_, work_,
    out_, settings_, uniforms_, p_, order_, sync_, threads, thread,
):  # fmt: skip
    """PACK: packs the weights. LOGITS, LOG_PROBABILITIES: ids (T, B) to out (T, B, V), `chunk` time
    steps at a time. GENERATE: ids (T + 1, B), of which only the first row is given, and uniforms
    (T, B); fills the other rows. FOLLOW: ids (T, B) to every state, out (T, S, L, B, H).
    state (S, L, B, H). p, order: a row of V for each thread. settings: temperature, top_k, top_p,
    min_p, how many units are held, and of each its array, layer, index, value and the value's tanh.
    """
    s = as_numbers(Plan, as_flat(plan))
    ids, state, new_state, flat, packed, work = (
        as_flat(ids_), as_flat(state_), as_flat(new_state_), as_flat(flat_), as_flat(packed_),
        as_flat(work_),
    )  # fmt: skip
    out, settings, uniforms, p, order, sync = (
        as_flat(out_), as_flat(settings_), as_flat(uniforms_), as_flat(p_), as_flat(order_),
        as_flat(sync_),
    )  # fmt: skip
    if mode == PACK:
        pack_weights(s, flat, packed, thread, threads, False, False)
        barrier(sync, threads)
        return
    if not in_vocabulary(s, ids, 0, batch if mode == GENERATE else steps * batch, sync):
        return  # as all threads do
    lanes, h = width(work), s.hidden
    row0, row1 = share(batch, thread, threads), share(batch, thread + 1, threads)
    panel0, panel1 = share(s.panels, thread, threads), share(s.panels, thread + 1, threads)
    begin, end = panel0 * s.across, min(panel1 * s.across, s.size)
    tile = tile_vectors(batch)
    between = batch * s.hst
    generating, following = mode == GENERATE, mode == FOLLOW
    p0 = thread * s.classes64
    o0 = p0
    for layer in range(s.layers):
        hidden = s.work_h + layer * s.work_layer
        c = s.work_c + layer * s.work_layer
        for row in range(row0, row1):
            for j in range(0, h, lanes):
                count = min(lanes, h - j)
                x = load_first(state, (layer * batch + row) * h + j, count)
                store(work, hidden + row * s.hst + j, x)
                if s.cell == LSTM:
                    x = load_first(state, ((s.layers + layer) * batch + row) * h + j, count)
                    store(work, c + row * s.hst + j, x)
    if not barrier(sync, threads):
        return
    here = 0
    for t in range(steps):
        after = 1 - here if generating or following else here + 1
        for layer in range(s.layers):
            place = layer * s.work_layer
            gates = s.work_gates + place
            if layer > 0:
                below = s.work_h + place - s.work_layer + after * between
                input_products(s, work, packed, layer, gates, below, batch, panel0, panel1)
            for unit in range(begin, end, tile * lanes):
                forward_tile(
                    s, work, packed, layer, ids, t * batch, gates,
                    s.work_h + place + here * between, s.work_h + place + after * between,
                    s.work_c + place + here * between, s.work_c + place + after * between,
                    s.work_extra + place, batch, unit, min(tile, (end - unit) // lanes),
                )  # fmt: skip
            if settings[HELD] > 0:
                _hold(
                    s, work, settings, layer, gates, s.work_h + place + after * between,
                    s.work_c + place + after * between, batch, begin, end,
                )  # fmt: skip
            if not barrier(sync, threads):
                return
        here = after
        y = s.work_h + (s.layers - 1) * s.work_layer
        logits = s.logits + thread * (DECODED_AT_ONCE * s.vst)
        if generating:
            for first in range(row0, row1, DECODED_AT_ONCE):
                count = min(DECODED_AT_ONCE, row1 - first)
                decode(s, work, packed, y + here * between + first * s.hst, count, logits)
                for row in range(count):
                    ids[(t + 1) * batch + first + row] = choose_next(
                        work, logits + row * s.vst, s.vocabulary, p, p0, order, o0,
                        settings, uniforms[t * batch + first + row],
                    )  # fmt: skip
            if not barrier(sync, threads):
                return
        elif following:
            arrays = 2 if s.cell == LSTM else 1
            for array in range(arrays):
                states = s.work_c if array == 1 else s.work_h
                for layer in range(s.layers):
                    source = states + layer * s.work_layer + here * between
                    to = ((t * arrays + array) * s.layers + layer) * batch
                    for row in range(row0, row1):
                        for j in range(0, h, lanes):
                            x = load(work, source + row * s.hst + j)
                            store_first(out, (to + row) * h + j, x, min(lanes, h - j))
            if not barrier(sync, threads):
                return
        elif here == chunk or t + 1 == steps:
            positions = here * batch
            last = share(positions, thread + 1, threads)
            for first in range(share(positions, thread, threads), last, DECODED_AT_ONCE):
                count = min(DECODED_AT_ONCE, last - first)
                decode(s, work, packed, y + between + first * s.hst, count, logits)
                for position in range(count):
                    at = logits + position * s.vst
                    if mode == LOG_PROBABILITIES:
                        most, total = log_sum(work, at, s.classes)
                    to = ((t + 1 - here) * batch + first + position) * s.vocabulary
                    for j in range(0, s.vocabulary, lanes):
                        x = load(work, at + j)
                        if mode == LOG_PROBABILITIES:
                            x = (x - most) - total
                        store_first(out, to + j, x, min(lanes, s.vocabulary - j))
            if t + 1 < steps:
                if not barrier(sync, threads):
                    return
                for layer in range(s.layers):
                    for row in range(row0, row1):
                        for j in range(0, s.size, lanes):
                            at = s.work_h + layer * s.work_layer + row * s.hst + j
                            store(work, at, load(work, at + here * between))
                            if s.cell == LSTM:
                                at = s.work_c + layer * s.work_layer + row * s.hst + j
                                store(work, at, load(work, at + here * between))
                here = 0
                if not barrier(sync, threads):
                    return
    for layer in range(s.layers):
        hidden = s.work_h + layer * s.work_layer + here * between
        c = s.work_c + layer * s.work_layer + here * between
        for row in range(row0, row1):
            for j in range(0, h, lanes):
                count = min(lanes, h - j)
                x = load(work, hidden + row * s.hst + j)
                store_first(new_state, (layer * batch + row) * h + j, x, count)
                if s.cell == LSTM:
                    x = load(work, c + row * s.hst + j)
                    to = ((s.layers + layer) * batch + row) * h + j
                    store_first(new_state, to, x, count)
    barrier(sync, threads)
