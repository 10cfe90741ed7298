"""Add the threads' gradients in a fixed order."""

from __future__ import annotations

from numba import types

from charloom.engines.compiled.plan import GRU, share, w_ih_at
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
def reduce_gradients(s, work, flat, packed, thread, threads, classic, dropped):
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
