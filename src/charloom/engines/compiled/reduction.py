"""Add the threads' gradients in a fixed order."""

from __future__ import annotations

from numba import types

from charloom.engines.compiled.places import share, w_ih_at
from charloom.engines.compiled.plan import GRU
from charloom.kernels.arrays import Tile, flat_from
from charloom.kernels.compiling import subroutine
from charloom.kernels.vector_math import fma
from charloom.kernels.vectors import (
    load,
    load_first,
    store,
    store_first,
    total,
    transpose,
    widened,
    width,
)

NO_MASK = -1


@subroutine(types.float64)
def _collect(buffers, threads, source, to, first, last, mask):
    """Add up the gradients of all threads, in the order of the threads.

    Args:
        buffers: TrainingBuffers.
        threads: number of threads.
        source: Tile of the first thread's gradients, in the workspace.
        to: Tile of the sums, in the flat gradients; its rows are `to.stride` columns wide.
        first: index of the first row.
        last: index of the first row after them.
        mask: where a mask of the sums starts in the packed weights, or NO_MASK.

    Returns:
        The sum of the squares.
    """
    plan, work, flat = buffers.plan, source.array, to.array
    factors = flat_from(buffers.packed, max(mask, 0))
    lanes, columns = width(flat), to.stride
    zeros = load_first(flat, to.offset, 0)
    low = widened(zeros, False)
    high = low
    whole = columns // lanes * lanes
    for row in range(first, last):
        squares = zeros
        here, target = source.offset + row * source.stride, to.offset + row * columns
        for column in range(0, whole, lanes):
            x = load(work, here + column)
            for other in range(1, threads):
                x = x + load(work, other * plan.work_length + here + column)
            if mask >= 0:
                x = x * load(factors, row * columns + column)
            store(flat, target + column, x)
            squares = fma(x, x, squares)
        if whole < columns:
            x = load_first(work, here + whole, columns - whole)
            for other in range(1, threads):
                at = other * plan.work_length + here + whole
                x = x + load_first(work, at, columns - whole)
            if mask >= 0:
                x = x * load_first(factors, row * columns + whole, columns - whole)
            store_first(flat, target + whole, x, columns - whole)
            squares = fma(x, x, squares)
        low = low + widened(squares, False)
        high = high + widened(squares, True)
    return total(low + high)


@subroutine(types.float64)
def reduce_gradients(buffers, part, classic, dropped):
    """Write a thread's share of the gradients to the flat vector.

    Args:
        buffers: TrainingBuffers.
        part: Part of the thread.
        classic: whether the recurrent biases are frozen, as in the notebook.
        dropped: whether recurrent weights were dropped.

    Returns:
        The sum of the squares of its share.
    """
    plan, work, flat = buffers.plan, buffers.work, buffers.gradients
    thread, threads = part.thread, part.threads
    h, v, stacked = plan.hidden, plan.vocabulary, plan.gates * plan.hidden
    first, last = share(stacked, thread, threads), share(stacked, thread + 1, threads)
    squares = _reduce_table(buffers, thread, threads)
    for layer in range(plan.layers):
        place = layer * plan.gradients_layer
        for is_input in range(0 if layer == 0 else 1, -1, -1):
            source = plan.dw_ih if is_input else plan.dw_hh
            to = w_ih_at(plan, layer) if is_input else plan.flat_hh + layer * plan.flat_layer
            mask = NO_MASK
            if dropped and not is_input:
                mask = plan.hh_mask + layer * stacked * h
            sums = Tile(flat, to, h)
            squares += _collect(
                buffers, threads, Tile(work, source + place, plan.hst), sums, first, last, mask
            )
        if thread == 0:
            for gate in range(plan.gates):
                to = layer * plan.flat_layer + gate * h
                db = Tile(work, plan.db + place + gate * plan.size, h)
                sums = Tile(flat, plan.flat_b_ih + to, h)
                squares += _collect(buffers, threads, db, sums, 0, 1, NO_MASK)
                if plan.cell == GRU and gate == 2:
                    db = Tile(work, plan.db_q + place, h)
                if classic:
                    for unit in range(h):
                        flat[plan.flat_b_hh + to + unit] = 0
                else:
                    sums = Tile(flat, plan.flat_b_hh + to, h)
                    squares += _collect(buffers, threads, db, sums, 0, 1, NO_MASK)
                if plan.norm:
                    for of_states in range(2):
                        source = plan.dg_hh if of_states else plan.dg_ih
                        dg = Tile(work, source + place + gate * plan.size, h)
                        sums = Tile(
                            flat, (plan.flat_gain_hh if of_states else plan.flat_gain_ih) + to, h
                        )
                        squares += _collect(buffers, threads, dg, sums, 0, 1, NO_MASK)
    first, last = share(v, thread, threads), share(v, thread + 1, threads)
    dw, sums = Tile(work, plan.dw_decoder, plan.hst), Tile(flat, plan.flat_decoder, h)
    squares += _collect(buffers, threads, dw, sums, first, last, NO_MASK)
    if thread == 0:
        db, sums = Tile(work, plan.db_decoder, v), Tile(flat, plan.flat_decoder_bias, v)
        squares += _collect(buffers, threads, db, sums, 0, 1, NO_MASK)
    return squares


@subroutine(types.float64)
def _reduce_table(buffers, thread, threads):
    """Add up the first layer's input gradients, which are transposed to (G·H, V + E).

    Each thread adds up its own units, in the first thread's workspace; returns the sum of squares.
    """
    plan, work, flat = buffers.plan, buffers.work, buffers.gradients
    lanes, h, gst = width(flat), plan.hidden, plan.gst
    inputs = plan.vocabulary + plan.extra_inputs
    first, last = share(plan.panels, thread, threads), share(plan.panels, thread + 1, threads)
    zeros = load_first(flat, 0, 0)
    low = widened(zeros, False)
    high = low
    for gate in range(plan.gates):
        for unit in range(first * plan.across, min(last * plan.across, h), lanes):
            units = min(lanes, h - unit)
            source = plan.dtable + gate * plan.size + unit
            squares = zeros
            for number in range(inputs):
                at = source + number * gst
                x = load_first(work, at, units)
                for other in range(1, threads):
                    x = x + load_first(work, other * plan.work_length + at, units)
                if threads > 1:
                    store(work, at, x)
                squares = fma(x, x, squares)
            low = low + widened(squares, False)
            high = high + widened(squares, True)
            for number in range(0, inputs, lanes):
                count = min(lanes, inputs - number)
                transpose(
                    Tile(flat, (gate * h + unit) * inputs + number, inputs),
                    Tile(work, source + number * gst, gst),
                    count, units, count, zeros,
                )  # fmt: skip
    return total(low + high)
