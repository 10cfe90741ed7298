"""The inference kernel: scoring, stepping and generating, without a backward pass.

The threads share every time step. Each computes its own hidden units of all rows, and they wait for
each other after each layer. Then each decodes its own rows. An entry's bytes do not depend on the
number of rows or threads, see `charloom.kernels.products`.

T: time steps; B: rows of the batch; V: characters in the vocabulary; E: extra inputs.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import types

from charloom.engines.compiled.buffers import (
    GENERATE,
    HELD,
    LOG_PROBABILITIES,
    LOGITS,
    PACK,
    InferenceBuffers,
)
from charloom.engines.compiled.drawing import choose_next, normalize
from charloom.engines.compiled.forward import (
    Positions,
    Step,
    cell_tile,
    decode,
    extra_products,
    in_vocabulary,
    input_products,
    product_tile,
    states_before,
    tile_vectors,
)
from charloom.engines.compiled.normalization import normalize_step
from charloom.engines.compiled.packing import pack_weights
from charloom.engines.compiled.places import layer_of, share
from charloom.engines.compiled.plan import DECODED_AT_ONCE, LSTM
from charloom.engines.compiled.restricting import restrict_logits, take
from charloom.kernels.arrays import (
    Tile,
    as_buffers,
    as_flat,
    as_flats,
    flat_from,
)
from charloom.kernels.compiling import subroutine
from charloom.kernels.threads import barrier
from charloom.kernels.vectors import load, load_first, store, store_first, width


class Part(NamedTuple):
    """A thread's part of a time step: its rows of the batch and its panels of units.

    It is computed once, because the compiler cannot move reads of the plan out of the time loop.
    """

    thread: int
    threads: int
    row: int  # its first one
    end_row: int
    panel: int  # its first one
    end_panel: int
    unit: int  # the first one of its panels
    end_unit: int
    tile: int  # units of a tile
    distance: int  # from the states of an index to those of the next one


@subroutine(types.NamedUniTuple(types.intp, len(Part._fields), Part))
def part_of_rows(plan, thread, threads, lanes):
    """Return the part of a thread; `lanes` are the numbers of a vector."""
    panel, end_panel = share(plan.panels, thread, threads), share(plan.panels, thread + 1, threads)
    return Part(
        thread, threads,
        share(plan.batch, thread, threads), share(plan.batch, thread + 1, threads),
        panel, end_panel, panel * plan.across, min(end_panel * plan.across, plan.size),
        tile_vectors(plan.batch) * lanes, plan.batch * plan.hst,
    )  # fmt: skip


@subroutine()
def _hold(buffers, settings, layer, at, begin, end):
    """Write the values of a layer's held units, of those from `begin` to before `end`.

    A held cell state changes the hidden one: h = o tanh(c).

    Args:
        buffers: InferenceBuffers.
        settings: as in `Call`.
        layer: index of the layer.
        at: Step that was computed.
        begin: index of the first unit.
        end: index of the first unit after them.
    """
    plan, w = buffers.plan, buffers.work
    for number in range(int(settings[HELD])):
        entry = HELD + 1 + 5 * number
        unit = int(settings[entry + 2])
        if int(settings[entry + 1]) == layer and begin <= unit < end:
            value, tanh_value = settings[entry + 3], settings[entry + 4]
            for row in range(plan.batch):
                if settings[entry] == 1.0:
                    w[at.c_next + row * plan.hst + unit] = value
                    o = w[at.gates + row * plan.gst + 3 * plan.size + unit]
                    w[at.h_next + row * plan.hst + unit] = o * tanh_value
                else:
                    w[at.h_next + row * plan.hst + unit] = value


@subroutine(types.boolean, inline=True)
def advance(buffers, call, part, sync, t, before, after):
    """Read the characters of one time step, in all layers.

    Args:
        buffers: InferenceBuffers.
        call: Call, in flat arrays.
        part: Part of the thread.
        sync: the crew's array, see `charloom.kernels.threads`.
        t: index of the time step.
        before: index of the states in the workspace that the step starts from.
        after: index of the states that it writes.

    Returns:
        False if another thread failed: the kernel must return then.
    """
    plan, batch, between = buffers.plan, buffers.plan.batch, part.distance
    lanes, begin, end = width(buffers.work), part.unit, part.end_unit
    for layer in range(plan.layers):
        at = layer_of(plan, 0, layer, batch)
        products = at.ih if plan.norm else at.gates
        if layer > 0:
            below = layer_of(plan, 0, layer - 1, batch).hidden + after * between
            input_products(buffers, layer, products, below, batch, part.panel, part.end_panel)
        elif plan.extra_inputs or plan.norm:
            e = plan.extra_inputs
            extra, here = Tile(call.extra, t * batch * e, e), Positions(t * batch, batch, batch)
            extra_products(buffers, call.ids, here, products, extra, part.panel, part.end_panel)
        step = Step(
            t * batch, at.gates, at.hidden + before * between, at.hidden + after * between,
            at.cells + before * between, at.cells + after * between, at.extra,
            at.ih, at.hh, at.factors, batch,
        )  # fmt: skip
        h = states_before(buffers, call.ids, step, begin, end, plan.around + part.thread * between)
        for unit in range(begin, end, part.tile):
            vectors = min(part.tile, end - unit) // lanes
            product_tile(buffers, call.ids, layer, step, h, unit, vectors)
            if plan.norm == 0:
                cell_tile(buffers, step, h, unit, vectors)
        if plan.norm:
            if not barrier(sync, part.threads):  # because the roots need the products of all units
                return False
            normalize_step(buffers, layer, step, begin, end, False)
            cell_tile(buffers, step, h, begin, (end - begin) // lanes)
        if call.settings[HELD] > 0:
            _hold(buffers, call.settings, layer, step, begin, end)
        if not barrier(sync, part.threads):
            return False
    return True


@subroutine(types.intp, inline=True)
def outputs_at(plan, index):
    """Return where the last layer's states of an index start in the workspace."""
    return layer_of(plan, 0, plan.layers - 1, plan.batch).hidden + index * plan.batch * plan.hst


@subroutine(types.intp, inline=True)
def logits_at(plan, thread):
    """Return where a thread's logits start in the workspace."""
    return plan.logits + thread * (DECODED_AT_ONCE * plan.vst)


@subroutine()
def read_state(buffers, part, state):
    """Copy the states before the first character to the workspace, for a thread's rows."""
    plan, w, h = buffers.plan, buffers.work, buffers.plan.hidden
    lanes = width(w)
    for layer in range(plan.layers):
        at = layer_of(plan, 0, layer, plan.batch)
        for row in range(part.row, part.end_row):
            source, to = (layer * plan.batch + row) * h, row * plan.hst
            for j in range(0, h, lanes):
                count = min(lanes, h - j)
                store(w, at.hidden + to + j, load_first(state, source + j, count))
                if plan.cell == LSTM:
                    x = load_first(state, plan.layers * plan.batch * h + source + j, count)
                    store(w, at.cells + to + j, x)


@subroutine(inline=True)
def write_state(buffers, part, index, states, t):
    """Copy the states of an index from the workspace, for a thread's rows.

    Args:
        buffers: InferenceBuffers.
        part: Part of the thread.
        index: index of the states in the workspace.
        states: flat array, (·, S, L, B, H).
        t: index in it.
    """
    plan, w, h, batch = buffers.plan, buffers.work, buffers.plan.hidden, buffers.plan.batch
    lanes, arrays = width(w), 2 if plan.cell == LSTM else 1
    for array in range(arrays):
        start = (plan.work_c if array == 1 else plan.work_h) + index * batch * plan.hst
        for layer in range(plan.layers):
            source = start + layer * plan.work_layer
            to = ((t * arrays + array) * plan.layers + layer) * batch
            for row in range(part.row, part.end_row):
                for j in range(0, h, lanes):
                    x = load(w, source + row * plan.hst + j)
                    store_first(states, (to + row) * h + j, x, min(lanes, h - j))


@subroutine(types.intp)
def choose_restricted(buffers, call, at, probabilities, order, place, row):
    """Return the next character of a row, under its restrictions if the call has any.

    Args:
        buffers: InferenceBuffers.
        call: Call, in flat arrays.
        at: where the row's logits start in the workspace, which the restrictions change.
        probabilities, order: as in `choose_next`.
        place: where the ids and the random numbers of the time step start.
        row: the row's number.
    """
    plan = buffers.plan
    restricted = call.rules[0] != 0
    if restricted and not restrict_logits(buffers.work, at, plan.vocabulary, call.rules, row):
        return call.ids[place + row]  # which is not used
    id_ = choose_next(
        flat_from(buffers.work, at), probabilities, order, plan.vocabulary, call.settings,
        call.uniforms[place + row],
    )  # fmt: skip
    if restricted:
        take(call.rules, row, id_)
    return id_


@subroutine(inline=True)
def _sample(buffers, call, part, t, index):
    """Sample the next character of a thread's rows, and write it to call.ids.

    Args:
        buffers: InferenceBuffers.
        call: Call, in flat arrays.
        part: Part of the thread.
        t: index of the time step.
        index: index of the states after it in the workspace.
    """
    plan, batch = buffers.plan, buffers.plan.batch
    y, logits = outputs_at(plan, index), logits_at(plan, part.thread)
    probabilities = flat_from(buffers.probabilities, part.thread * plan.classes64)
    order = flat_from(buffers.order, part.thread * plan.classes64)
    for first in range(part.row, part.end_row, DECODED_AT_ONCE):
        count = min(DECODED_AT_ONCE, part.end_row - first)
        decode(buffers, y + first * plan.hst, count, logits)
        for row in range(count):
            call.ids[(t + 1) * batch + first + row] = choose_restricted(
                buffers, call, logits + row * plan.vst, probabilities, order, t * batch, first + row
            )


@subroutine()
def _decode_outputs(buffers, call, part, steps, t0, normalized):
    """Decode a thread's share of the positions of the workspace.

    Args:
        buffers: InferenceBuffers.
        call: Call, in flat arrays.
        part: Part of the thread.
        steps: number of time steps in the workspace.
        t0: index of the first of them in call.out.
        normalized: whether to write log-probabilities instead of logits.
    """
    plan, w, out = buffers.plan, buffers.work, call.out
    lanes, v, positions = width(w), plan.vocabulary, steps * plan.batch
    y, logits = outputs_at(plan, 1), logits_at(plan, part.thread)
    last = share(positions, part.thread + 1, part.threads)
    for first in range(share(positions, part.thread, part.threads), last, DECODED_AT_ONCE):
        count = min(DECODED_AT_ONCE, last - first)
        decode(buffers, y + first * plan.hst, count, logits)
        for position in range(count):
            at = logits + position * plan.vst
            if normalized:
                normalize(w, at, plan.classes)
            to = (t0 * plan.batch + first + position) * v
            for j in range(0, v, lanes):
                store_first(out, to + j, load(w, at + j), min(lanes, v - j))


@subroutine()
def restart(buffers, part, index):
    """Copy the states of an index to the start of the workspace, for a thread's rows."""
    plan, w = buffers.plan, buffers.work
    lanes, distance = width(w), index * plan.batch * plan.hst
    for layer in range(plan.layers):
        at = layer_of(plan, 0, layer, plan.batch)
        for row in range(part.row, part.end_row):
            for j in range(row * plan.hst, row * plan.hst + plan.size, lanes):
                store(w, at.hidden + j, load(w, at.hidden + distance + j))
                if plan.cell == LSTM:
                    store(w, at.cells + j, load(w, at.cells + distance + j))


def infer(places, call_, mode, steps, sync_, threads, thread):
    """Run a mode of inference.

    Args:
        places: the addresses of InferenceBuffers.
        call_: Call.
        mode: PACK packs the weights. LOGITS and LOG_PROBABILITIES score, GENERATE samples, FOLLOW
            returns the states.
        steps: T.
        sync_: the crew's array, see `charloom.kernels.threads`.
        threads: number of threads.
        thread: number of this thread.
    """
    buffers = as_buffers(InferenceBuffers, places, call_.state)
    call, sync, plan = as_flats(call_), as_flat(sync_), buffers.plan
    if mode == PACK:
        pack_weights(buffers, thread, threads, False, False)
        barrier(sync, threads)
        return
    count = plan.batch if mode == GENERATE else steps * plan.batch
    if not in_vocabulary(plan, call.ids, count, sync):
        return  # in all threads
    part = part_of_rows(plan, thread, threads, width(buffers.work))
    read_state(buffers, part, call.state)
    if not barrier(sync, threads):
        return
    scoring = mode in (LOGITS, LOG_PROBABILITIES)
    here = 0  # index in the workspace of the states before the time step
    for t in range(steps):
        after = here + 1 if scoring else 1 - here
        if not advance(buffers, call, part, sync, t, here, after):
            return
        here = after
        if scoring:
            last = t + 1 == steps
            if here < plan.steps and not last:
                continue
            _decode_outputs(buffers, call, part, here, t + 1 - here, mode == LOG_PROBABILITIES)
            if last:
                break
            if not barrier(sync, threads):
                return
            restart(buffers, part, here)
            here = 0
        elif mode == GENERATE:
            _sample(buffers, call, part, t, here)
        else:
            write_state(buffers, part, here, call.out, t)
        if not barrier(sync, threads):
            return
    write_state(buffers, part, here, call.new_state, 0)
    barrier(sync, threads)
