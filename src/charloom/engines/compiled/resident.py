"""Several steps of the notebook's network, whose weights stay in the layout of its products.

A single step packs the parameters, adds up the gradients and updates the parameters, and reads all
of them each time. In a call of several windows, the weights and AdaGrad's squares are packed once.
Every step updates them there while it adds up the gradients, and the call ends with the flat
vectors. Weights of characters that a window does not contain have no gradient, which leaves them
unchanged. All sums have the order of single steps, so that every byte is the same.

A gradient's norm is known only after the update. Before it, the gradients of the gates decide
whether the norm can overflow. Such a step is left to the caller.

R: rows of a matrix of parameters, (R, H); V: characters in the vocabulary; H: hidden units.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from numba import types

from charloom.engines.compiled.buffers import (
    ADAGRAD_INSIDE,
    CLASSIC,
    CLIP,
    KIND,
    LOSS,
    NORM,
    WINDOWS,
)
from charloom.engines.compiled.packing import pack_weights
from charloom.engines.compiled.places import layer_of
from charloom.kernels.arrays import Tile, flat_from
from charloom.kernels.compiling import subroutine
from charloom.kernels.products import Panels, pack
from charloom.kernels.vector_math import fma, inverse_root
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

LEAST_WINDOWS = 6  # for fewer, the packing of the squares takes longer than it saves
# The gates' gradients and the states have smaller sums of squares, else a norm might overflow.
MOST_SQUARES = 1e24


class Matrix(NamedTuple):
    """A matrix (R, H) of parameters: where it is, in rows and in panels."""

    rows: int  # R
    flat: int  # on the flat vector
    back: int  # panels of its rows, in the packed weights
    squares: int  # panels of AdaGrad's squares, in the workspace
    panel: int  # the distance between the panels of both
    gradient: int  # (R, hst), in the workspace
    forward: int  # panels of its transpose, in the packed weights
    tail: int  # of these panels


_MATRIX = types.NamedUniTuple(types.intp, len(Matrix._fields), Matrix)


@subroutine(_MATRIX)
def _recurrent_weights(plan):
    return Matrix(
        plan.hidden, plan.flat_hh, plan.hh_back, plan.hh_squares, plan.across * plan.size,
        plan.dw_hh, plan.hh, plan.tail,
    )  # fmt: skip


@subroutine(_MATRIX)
def _decoder_weights(plan):
    return Matrix(
        plan.vocabulary, plan.flat_decoder, plan.decoder_back, plan.decoder_squares,
        plan.across * plan.vocabulary, plan.dw_decoder, plan.decoder, plan.across,
    )  # fmt: skip


@subroutine(types.boolean)
def can_stay(buffers):
    """Return whether the steps of a call are the notebook's, and enough of them."""
    numbers = buffers.numbers
    return (
        buffers.plan.resident != 0
        and numbers[WINDOWS] >= LEAST_WINDOWS
        and numbers[KIND] == ADAGRAD_INSIDE
        and numbers[CLASSIC] != 0
        and numbers[CLIP] == 0
        and numbers[1] > 0  # ε
    )


@subroutine(types.intp, inline=True)
def _between(array, plan, column):
    """Return the distance between the rows of the panel that has a column of H."""
    lanes = width(array)
    across = 2 * lanes  # not plan.across, because a division by a constant is a shift
    return plan.tail if plan.hidden - column // across * across <= lanes else across


@subroutine(types.intp, inline=True)
def _in_panels(array, plan, panel, row, column):
    """Return the place of a number in panels of rows."""
    across = 2 * width(array)
    return column // across * panel + row * _between(array, plan, column) + column % across


@subroutine()
def _transpose_table(plan, rows, columns, is_back):
    """Transpose a Tile (H, V) to a Tile (V, H), or with `is_back` the latter to the former."""
    lanes, h, v = width(rows.array), plan.hidden, plan.vocabulary
    nothing = load_first(rows.array, 0, 0) * -1.0  # because x + (-0) is x, also for -0
    for unit in range(0, h, lanes):
        units = min(lanes, h - unit)
        for character in range(0, v, lanes):
            count = min(lanes, v - character)
            in_rows = Tile(rows.array, rows.offset + unit * v + character, v)
            at = columns.offset + character * columns.stride + unit
            in_columns = Tile(columns.array, at, columns.stride)
            if is_back:
                transpose(in_rows, in_columns, count, units, count, nothing)
            else:
                transpose(in_columns, in_rows, units, count, lanes, nothing)


@subroutine()
def _unpack(plan, panels, panel, rows, count):
    """Copy n rows of H numbers from panels, given as array and offset, to a Tile."""
    lanes, h = width(rows.array), plan.hidden
    for row in range(count):
        to = rows.offset + row * h
        for column in range(0, h, lanes):
            kept = min(lanes, h - column)
            at = panels.offset + _in_panels(rows.array, plan, panel, row, column)
            store_first(rows.array, to + column, load_first(panels.array, at, kept), kept)


@subroutine()
def take_in(buffers):
    """Pack the parameters and AdaGrad's squares."""
    plan, w, h = buffers.plan, buffers.work, buffers.plan.hidden
    pack_weights(buffers, 0, 1, True, False)
    _transpose_table(plan, Tile(buffers.parameters, 0, 0), Tile(w, plan.own_table, plan.gst), False)
    squares = Tile(w, plan.table_squares, plan.gst)
    _transpose_table(plan, Tile(buffers.first_slot, 0, 0), squares, False)
    for which in range(2):
        matrix = _decoder_weights(plan) if which else _recurrent_weights(plan)
        panels = Panels(w, matrix.squares, matrix.panel, plan.across, plan.tail)
        source = Tile(buffers.first_slot, matrix.flat, h)
        pack(panels, source, 1, matrix.rows, h, matrix.rows, 0, plan.panels)


@subroutine()
def give_back(buffers):
    """Write the parameters and AdaGrad's squares to the flat vectors."""
    plan, w, h = buffers.plan, buffers.work, buffers.plan.hidden
    _transpose_table(plan, Tile(buffers.parameters, 0, 0), Tile(w, plan.own_table, plan.gst), True)
    squares = Tile(w, plan.table_squares, plan.gst)
    _transpose_table(plan, Tile(buffers.first_slot, 0, 0), squares, True)
    for which in range(2):
        matrix = _decoder_weights(plan) if which else _recurrent_weights(plan)
        weights = Tile(buffers.packed, matrix.back, 0)
        rows = Tile(buffers.parameters, matrix.flat, h)
        _unpack(plan, weights, matrix.panel, rows, matrix.rows)
        rows = Tile(buffers.first_slot, matrix.flat, h)
        _unpack(plan, Tile(w, matrix.squares, 0), matrix.panel, rows, matrix.rows)


@subroutine(types.intp)
def _find_characters(buffers, count):
    """List the distinct characters of the first n inputs in order; returns their number."""
    inputs, v = buffers.inputs, buffers.plan.vocabulary
    contained, found = buffers.characters, flat_from(buffers.characters, v)
    for position in range(count):
        contained[inputs[position]] = 1
    n = 0
    for character in range(v):
        found[n] = character
        n += contained[character]
    for position in range(count):
        contained[inputs[position]] = 0
    return n


@subroutine()
def _prepare(buffers, characters):
    """Write the table's rows of n characters with the biases, and zeros for their gradients."""
    plan, w, packed, flat = buffers.plan, buffers.work, buffers.packed, buffers.parameters
    lanes, h, v = width(w), plan.hidden, plan.vocabulary
    found = flat_from(buffers.characters, v)
    for unit in range(0, h, lanes):
        units = min(lanes, h - unit)
        bias = load_first(flat, plan.flat_b_ih + unit, units)
        bias = bias + load_first(flat, plan.flat_b_hh + unit, units)
        store(w, plan.db + unit, 0.0)
        for index in range(characters):
            at = found[index] * plan.gst + unit
            store(packed, plan.table + at, load(w, plan.own_table + at) + bias)
            store(w, plan.dtable + at, 0.0)
    for character in range(0, v, lanes):
        count = min(lanes, v - character)
        bias = load_first(flat, plan.flat_decoder_bias + character, count)
        store_first(packed, plan.decoder_bias + character, bias, count)
        store(w, plan.db_decoder + character, 0.0)


@subroutine(types.boolean)
def _is_bounded(buffers, part):
    """Return whether no gradient can overflow, nor the sum of their squares."""
    plan, w, h = buffers.plan, buffers.work, buffers.plan.hidden
    lanes, n = width(w), buffers.plan.steps * part.rows
    at = layer_of(plan, part.work, 0, part.rows)
    squares = load_first(w, 0, 0)
    for unit in range(0, h, lanes):
        units = min(lanes, h - unit)
        for row in range(part.rows):
            x = load_first(w, at.hidden + row * plan.hst + unit, units)
            squares = fma(x, x, squares)
        for position in range(n):
            x = load_first(w, at.gates + position * plan.gst + unit, units)
            squares = fma(x, x, squares)
    return float(total(squares)) < MOST_SQUARES


class Rule(NamedTuple):
    """The numbers of AdaGrad's step."""

    rate: float  # the learning rate, negative
    epsilon: float


@subroutine(inline=True)
def _update(rule, x, p, p_at, a, a_at):
    """Update a vector of parameters and their squares by their gradient x, as `update` does."""
    squares = fma(x, x, load(a, a_at))
    store(a, a_at, squares)
    step = x * rule.rate
    store(p, p_at, fma(step, inverse_root(squares + rule.epsilon), load(p, p_at)))


@subroutine(inline=True)
def _update_first(rule, x, p, p_at, a, a_at, count):
    """Update the first n parameters of a vector."""
    squares = fma(x, x, load_first(a, a_at, count))
    store_first(a, a_at, squares, count)
    step = x * rule.rate
    new = fma(step, inverse_root(squares + rule.epsilon), load_first(p, p_at, count))
    store_first(p, p_at, new, count)


@subroutine(types.float64)
def _update_table(buffers, characters, rule):
    """Update the first layer's input weights of n characters; returns the sum of squares."""
    plan, w, lanes = buffers.plan, buffers.work, width(buffers.work)
    found = flat_from(buffers.characters, plan.vocabulary)
    zeros = load_first(w, 0, 0)
    low = widened(zeros, False)
    high = low
    for unit in range(0, plan.hidden, lanes):
        units = min(lanes, plan.hidden - unit)
        squares = zeros
        for index in range(characters):
            at = found[index] * plan.gst + unit
            x = load_first(w, plan.dtable + at, units)
            squares = fma(x, x, squares)
            _update(rule, x, w, plan.own_table + at, w, plan.table_squares + at)
        low = low + widened(squares, False)
        high = high + widened(squares, True)
    return total(low + high)


@subroutine(types.float64)
def _update_matrix(buffers, matrix, rule):
    """Update a matrix and its transpose; returns the sum of the gradient's squares."""
    plan, w, packed, h = buffers.plan, buffers.work, buffers.packed, buffers.plan.hidden
    lanes = width(w)
    across = 2 * lanes
    zeros = load_first(w, 0, 0)
    low = widened(zeros, False)
    high = low
    whole = h // lanes * lanes
    for first in range(0, matrix.rows, lanes):
        last = min(first + lanes, matrix.rows)
        for row in range(first, last):
            squares, gradient = zeros, matrix.gradient + row * plan.hst
            for column in range(0, whole, lanes):
                x = load(w, gradient + column)
                squares = fma(x, x, squares)
                at = column // across * matrix.panel + row * across + column % across
                _update(rule, x, packed, matrix.back + at, w, matrix.squares + at)
            if whole < h:
                x = load_first(w, gradient + whole, h - whole)
                squares = fma(x, x, squares)
                at = _in_panels(w, plan, matrix.panel, row, whole)
                _update_first(rule, x, packed, matrix.back + at, w, matrix.squares + at, h - whole)
            low = low + widened(squares, False)
            high = high + widened(squares, True)
        # These rows are columns of the transpose.
        start = first // across * across
        between = matrix.tail if matrix.rows - start <= lanes else across
        to = matrix.forward + start * h + first % across
        for column in range(0, h, lanes):
            at = matrix.back + _in_panels(w, plan, matrix.panel, first, column)
            transpose(
                Tile(packed, to + column * between, between),
                Tile(packed, at, _between(w, plan, column)),
                last - first, min(lanes, h - column), min(lanes, between), zeros,
            )  # fmt: skip
    return total(low + high)


@subroutine(types.float64)
def _update_bias(buffers, gradient, flat, count, rule):
    """Update n biases on the flat vector; returns the sum of their gradients' squares."""
    w, lanes = buffers.work, width(buffers.work)
    squares = load_first(w, 0, 0)
    for j in range(0, count, lanes):
        kept = min(lanes, count - j)
        x = load_first(w, gradient + j, kept)
        squares = fma(x, x, squares)
        _update_first(rule, x, buffers.parameters, flat + j, buffers.first_slot, flat + j, kept)
    return total(widened(squares, False) + widened(squares, True))


@subroutine(types.intp)
def prepare_step(buffers, part):
    """Prepare the forward pass on packed weights; returns the number of distinct characters."""
    characters = _find_characters(buffers, buffers.plan.steps * part.rows)
    _prepare(buffers, characters)
    return characters


@subroutine(types.boolean)
def update_resident(buffers, part, loss, characters):
    """Update the packed weights; returns False, without a step, if a norm could overflow."""
    plan, numbers, results = buffers.plan, buffers.numbers, buffers.results
    if not math.isfinite(loss) or not _is_bounded(buffers, part):
        return False
    rule = Rule(0.0 - numbers[0], numbers[1])
    squares = _update_table(buffers, characters, rule)
    squares += _update_matrix(buffers, _recurrent_weights(plan), rule)
    squares += _update_bias(buffers, plan.db, plan.flat_b_ih, plan.hidden, rule)
    squares += _update_matrix(buffers, _decoder_weights(plan), rule)
    v = plan.vocabulary
    squares += _update_bias(buffers, plan.db_decoder, plan.flat_decoder_bias, v, rule)
    results[LOSS], results[NORM] = loss / (plan.steps * part.rows), math.sqrt(squares)
    return True
