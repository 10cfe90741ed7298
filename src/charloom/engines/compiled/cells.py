"""Forward and backward arithmetic of the cells, a tile at a time.

A tile is some rows by some vectors of hidden units, at one time step. All tiles of a call lie in
the same flat array, the workspace. The derivations are in the reference engine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from charloom.kernels.compiling import subroutine
from charloom.kernels.vector_math import fma, sigmoid, tanh
from charloom.kernels.vectors import load, store, width


class Gates(NamedTuple):
    """A tile of gates: as `Tile`, and the gates of a unit are `size` numbers apart in a row."""

    array: Any
    offset: int
    stride: int
    size: int


class Extent(NamedTuple):
    """Size of a tile."""

    rows: int
    vectors: int


@subroutine(inline=True)
def rnn_forward(gates, h, extent):
    """Compute h = tanh(a)."""
    w, lanes = gates.array, width(gates.array)
    for row in range(extent.rows):
        for unit in range(0, extent.vectors * lanes, lanes):
            a = load(w, gates.offset + row * gates.stride + unit)
            store(w, h.offset + row * h.stride + unit, tanh(a))


@subroutine(inline=True)
def rnn_backward(gates, dh, h, db, extent):
    """Compute da = (1 − h²) ⊙ dh in place of a, and db += da."""
    w, lanes = gates.array, width(gates.array)
    for unit in range(0, extent.vectors * lanes, lanes):
        total = load(w, db + unit)
        for row in range(extent.rows):
            y = load(w, h.offset + row * h.stride + unit)
            da = fma(0.0 - y, y, 1.0) * load(w, dh.offset + row * dh.stride + unit)
            store(w, gates.offset + row * gates.stride + unit, da)
            total = total + da
        store(w, db + unit, total)


@subroutine(inline=True)
def lstm_forward(gates, c, c_next, tanh_c, h, extent):
    """Compute i, f, g, o in place of their sums, c' = f ⊙ c + i ⊙ g and h = o ⊙ tanh(c')."""
    w, lanes, size = gates.array, width(gates.array), gates.size
    for row in range(extent.rows):
        for unit in range(0, extent.vectors * lanes, lanes):
            at = gates.offset + row * gates.stride + unit
            i = sigmoid(load(w, at))
            f = sigmoid(load(w, at + size))
            g = tanh(load(w, at + 2 * size))
            o = sigmoid(load(w, at + 3 * size))
            store(w, at, i)
            store(w, at + size, f)
            store(w, at + 2 * size, g)
            store(w, at + 3 * size, o)
            at = row * h.stride + unit
            new = fma(i, g, f * load(w, c.offset + at))
            t = tanh(new)
            store(w, c_next.offset + at, new)
            store(w, tanh_c.offset + at, t)
            store(w, h.offset + at, o * t)


@subroutine(inline=True)
def lstm_backward(gates, dh, dc, c, tanh_c, db, extent):
    """Compute the gates' gradients in their place; dc becomes that of the cell state before.

    The biases' gradients are added up: db += da.
    """
    w, lanes, size = gates.array, width(gates.array), gates.size
    for unit in range(0, extent.vectors * lanes, lanes):
        total_i = load(w, db + unit)
        total_f = load(w, db + size + unit)
        total_g = load(w, db + 2 * size + unit)
        total_o = load(w, db + 3 * size + unit)
        for row in range(extent.rows):
            at = gates.offset + row * gates.stride + unit
            i = load(w, at)
            f = load(w, at + size)
            g = load(w, at + 2 * size)
            o = load(w, at + 3 * size)
            here = row * dh.stride + unit
            y = load(w, dh.offset + here)
            t = load(w, tanh_c.offset + here)
            d = fma(y * o, fma(0.0 - t, t, 1.0), load(w, dc.offset + here))
            da_o = y * t * o * (1.0 - o)
            da_i = d * g * i * (1.0 - i)
            da_f = d * load(w, c.offset + here) * f * (1.0 - f)
            da_g = d * i * fma(0.0 - g, g, 1.0)
            store(w, dc.offset + here, d * f)
            store(w, at, da_i)
            store(w, at + size, da_f)
            store(w, at + 2 * size, da_g)
            store(w, at + 3 * size, da_o)
            total_i = total_i + da_i
            total_f = total_f + da_f
            total_g = total_g + da_g
            total_o = total_o + da_o
        store(w, db + unit, total_i)
        store(w, db + size + unit, total_f)
        store(w, db + 2 * size + unit, total_g)
        store(w, db + 3 * size + unit, total_o)


@subroutine(inline=True)
def gru_forward(gates, q, h_before, h, extent):
    """Compute r, z, n in place of their sums, n's without q, and h = n + z ⊙ (h_before − n)."""
    w, lanes, size = gates.array, width(gates.array), gates.size
    for row in range(extent.rows):
        for unit in range(0, extent.vectors * lanes, lanes):
            at = gates.offset + row * gates.stride + unit
            here = row * h.stride + unit
            r = sigmoid(load(w, at))
            z = sigmoid(load(w, at + size))
            n = tanh(fma(r, load(w, q.offset + here), load(w, at + 2 * size)))
            store(w, at, r)
            store(w, at + size, z)
            store(w, at + 2 * size, n)
            store(w, h.offset + here, fma(z, load(w, h_before.offset + here) - n, n))


@subroutine(inline=True)
def gru_backward(gates, dh, q, h_before, dh_before, db, db_q, extent):
    """Compute the gates' gradients in their place and dq in q's, and dh_before += dh ⊙ z.

    The biases' gradients are added up: db += dx and db_q += dq.
    """
    w, lanes, size = gates.array, width(gates.array), gates.size
    for unit in range(0, extent.vectors * lanes, lanes):
        total_r = load(w, db + unit)
        total_z = load(w, db + size + unit)
        total_n = load(w, db + 2 * size + unit)
        total_q = load(w, db_q + unit)
        for row in range(extent.rows):
            at = gates.offset + row * gates.stride + unit
            here = row * dh.stride + unit
            r = load(w, at)
            z = load(w, at + size)
            n = load(w, at + 2 * size)
            y = load(w, dh.offset + here)
            dn = y * (1.0 - z) * fma(0.0 - n, n, 1.0)
            dz = y * (load(w, h_before.offset + here) - n) * z * (1.0 - z)
            dr = dn * load(w, q.offset + here) * r * (1.0 - r)
            dq = dn * r
            store(w, at, dr)
            store(w, at + size, dz)
            store(w, at + 2 * size, dn)
            store(w, q.offset + here, dq)
            before = dh_before.offset + here
            store(w, before, fma(y, z, load(w, before)))
            total_r = total_r + dr
            total_z = total_z + dz
            total_n = total_n + dn
            total_q = total_q + dq
        store(w, db + unit, total_r)
        store(w, db + size + unit, total_z)
        store(w, db + 2 * size + unit, total_n)
        store(w, db_q + unit, total_q)
