"""What the cells compute from the products, forward and backward, a tile at a time.

A tile is some rows by some vectors of hidden units, at one time step. Its gates lie `size` numbers
apart in a row of `gates`; rows are gst (gates) or hst (states) numbers apart. Everything lies in
the flat array w; the other arguments are where. The derivations stand in the reference engine.
"""

from __future__ import annotations

from charloom.kernels.compiling import subroutine
from charloom.kernels.vector_math import fma, sigmoid, tanh
from charloom.kernels.vectors import load, store, width


@subroutine(inline=True)
def rnn_forward(w, gates, gst, h, hst, rows, vectors):
    """h = tanh(a)."""
    lanes = width(w)
    for row in range(rows):
        for unit in range(0, vectors * lanes, lanes):
            store(w, h + row * hst + unit, tanh(load(w, gates + row * gst + unit)))


@subroutine(inline=True)
def rnn_backward(w, dh, h, hst, gates, gst, db, rows, vectors):
    """da = (1 − h²) ⊙ dh, in place of a; db += da."""
    lanes = width(w)
    for unit in range(0, vectors * lanes, lanes):
        total = load(w, db + unit)
        for row in range(rows):
            y = load(w, h + row * hst + unit)
            da = fma(0.0 - y, y, 1.0) * load(w, dh + row * hst + unit)
            store(w, gates + row * gst + unit, da)
            total = total + da
        store(w, db + unit, total)


@subroutine(inline=True)
def lstm_forward(w, gates, gst, size, c, c_next, tanh_c, h, hst, rows, vectors):
    """i, f, g, o in place of their sums; c' = f ⊙ c + i ⊙ g;  h = o ⊙ tanh(c')."""
    lanes = width(w)
    for row in range(rows):
        for unit in range(0, vectors * lanes, lanes):
            at = gates + row * gst + unit
            i = sigmoid(load(w, at))
            f = sigmoid(load(w, at + size))
            g = tanh(load(w, at + 2 * size))
            o = sigmoid(load(w, at + 3 * size))
            store(w, at, i)
            store(w, at + size, f)
            store(w, at + 2 * size, g)
            store(w, at + 3 * size, o)
            at = row * hst + unit
            new = fma(i, g, f * load(w, c + at))
            t = tanh(new)
            store(w, c_next + at, new)
            store(w, tanh_c + at, t)
            store(w, h + at, o * t)


@subroutine(inline=True)
def lstm_backward(w, dh, dc, c, tanh_c, hst, gates, gst, size, db, rows, vectors):
    """The gates' gradients in their place; dc becomes that of the cell state before; db += da."""
    lanes = width(w)
    for unit in range(0, vectors * lanes, lanes):
        total_i = load(w, db + unit)
        total_f = load(w, db + size + unit)
        total_g = load(w, db + 2 * size + unit)
        total_o = load(w, db + 3 * size + unit)
        for row in range(rows):
            at = gates + row * gst + unit
            i = load(w, at)
            f = load(w, at + size)
            g = load(w, at + 2 * size)
            o = load(w, at + 3 * size)
            here = row * hst + unit
            y = load(w, dh + here)
            t = load(w, tanh_c + here)
            d = fma(y * o, fma(0.0 - t, t, 1.0), load(w, dc + here))
            da_o = y * t * o * (1.0 - o)
            da_i = d * g * i * (1.0 - i)
            da_f = d * load(w, c + here) * f * (1.0 - f)
            da_g = d * i * fma(0.0 - g, g, 1.0)
            store(w, dc + here, d * f)
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
def gru_forward(w, gates, gst, size, q, h_before, h, hst, rows, vectors):
    """r, z, n in place of their sums, that of n without q;  h = n + z ⊙ (h_before − n)."""
    lanes = width(w)
    for row in range(rows):
        for unit in range(0, vectors * lanes, lanes):
            at = gates + row * gst + unit
            here = row * hst + unit
            r = sigmoid(load(w, at))
            z = sigmoid(load(w, at + size))
            n = tanh(fma(r, load(w, q + here), load(w, at + 2 * size)))
            store(w, at, r)
            store(w, at + size, z)
            store(w, at + 2 * size, n)
            store(w, h + here, fma(z, load(w, h_before + here) - n, n))


@subroutine(inline=True)
def gru_backward(w, dh, q, h_before, dh_before, hst, gates, gst, size, db, db_q, rows, vectors):
    """The gates' gradients in their place, dq in q's; dh_before += dh ⊙ z; db += dx, db_q += dq."""
    lanes = width(w)
    for unit in range(0, vectors * lanes, lanes):
        total_r = load(w, db + unit)
        total_z = load(w, db + size + unit)
        total_n = load(w, db + 2 * size + unit)
        total_q = load(w, db_q + unit)
        for row in range(rows):
            at = gates + row * gst + unit
            here = row * hst + unit
            r = load(w, at)
            z = load(w, at + size)
            n = load(w, at + 2 * size)
            y = load(w, dh + here)
            dn = y * (1.0 - z) * fma(0.0 - n, n, 1.0)
            dz = y * (load(w, h_before + here) - n) * z * (1.0 - z)
            dr = dn * load(w, q + here) * r * (1.0 - r)
            dq = dn * r
            store(w, at, dr)
            store(w, at + size, dz)
            store(w, at + 2 * size, dn)
            store(w, q + here, dq)
            store(w, dh_before + here, fma(y, z, load(w, dh_before + here)))
            total_r = total_r + dr
            total_z = total_z + dz
            total_n = total_n + dn
            total_q = total_q + dq
        store(w, db + unit, total_r)
        store(w, db + size + unit, total_z)
        store(w, db + 2 * size + unit, total_n)
        store(w, db_q + unit, total_q)
