"""Subroutines of a small network that learns while a text is coded, the same on every machine.

Sums are added in a fixed order: products in that of k (see kernels/products.py), all others one
number after the other. Everything else is elementwise, in operations that IEEE 754 defines: sums,
products, fused or not, quotients and roots. No width of vectors changes a bit.

The layer is a gru (docs/math.md). Each row of the batch reads T characters, then all weights change
by Adam (Kingma & Ba 2015). Row 0 is the text that is coded, and the others read it again.

H: hidden units; V: characters, padded to VP; B: rows; T: steps of a window; P: parameters.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from charloom.kernels.arrays import Tile
from charloom.kernels.compiling import subroutine
from charloom.kernels.products import Panels, outer_product, pack, product
from charloom.kernels.vector_math import exp, fma
from charloom.kernels.vectors import load, store, width

ONE, TWO, MINUS = np.float32(1), np.float32(2), np.float32(-1)
DECAY_1, DECAY_2, EPSILON = 0.9, 0.99, 1e-6


@intrinsic
def exact_root(context, x):
    """Return the root of each number of a vector, as IEEE 754 rounds it."""

    def emit(context, builder, sig, args):
        kind = args[0].type
        bits = 32 if kind.element == ir.FloatType() else 64
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind]), f"llvm.sqrt.v{kind.count}f{bits}"
        )
        return builder.call(function, [args[0]])

    return x(x), emit


@subroutine()
def softmax(logits, begin, count):
    """Replace logits by probabilities."""
    most = logits[begin]
    for i in range(1, count):
        most = max(most, logits[begin + i])
    padded = (count + 15) // 16 * 16
    for i in range(0, padded, width(logits)):
        store(logits, begin + i, exp(load(logits, begin + i) - most))
    whole = np.float32(0)
    for i in range(count):
        whole += logits[begin + i]
    share = np.float32(1) / whole
    for i in range(0, padded, width(logits)):
        store(logits, begin + i, load(logits, begin + i) * share)


@subroutine()
def cell(n, table, gates, bias, before, after, kept):
    """Compute the states of a row, (H,), and keep r, z, n and q for the backward pass.

    Args:
        n: see NetworkBuffers.
        table: the place of the character's row in the parameters, (3 H,).
        gates: the place in `gates` of the products with the state before, (3 H,).
        bias: the place of the recurrent bias of n.
        before, after: the places of the states in `states`.
        kept: the place in `kept`, (4 H,).
    """
    p, g, states, keep, h = n.parameters, n.gates, n.states, n.kept, n.sizes.hidden
    for j in range(0, h, width(p)):
        r = ONE / (exp((load(p, table + j) + load(g, gates + j)) * MINUS) + ONE)
        z = load(p, table + h + j) + load(g, gates + h + j)
        z = ONE / (exp(z * MINUS) + ONE)
        q = load(g, gates + 2 * h + j) + load(p, bias + j)
        x = load(p, table + 2 * h + j) + r * q
        new = TWO / (exp(x * (MINUS * TWO)) + ONE) - ONE
        old = load(states, before + j)
        store(states, after + j, new + z * (old - new))
        store(keep, kept + j, r)
        store(keep, kept + h + j, z)
        store(keep, kept + 2 * h + j, new)
        store(keep, kept + 3 * h + j, q)


@subroutine()
def predict_by_network(n, character):
    """Read a character in the row that is coded, and write the probabilities of the next, (V,)."""
    h, across = n.sizes.hidden, 2 * width(n.parameters)
    p, live = n.parameters, n.sizes.live
    recurrent, bias = n.sizes.recurrent, n.sizes.bias
    states = n.states
    product(
        Tile(n.gates, 0, 3 * h), Tile(states, live, h),
        Panels(p, recurrent, across, 3 * h, 3 * h), 1, 3 * h // width(p), h, 0,
    )  # fmt: skip
    cell(n, character * 3 * h, 0, bias, live, live, 0)
    classes = n.sizes.classes
    out = n.probabilities
    product(
        Tile(out, 0, classes), Tile(states, live, h),
        Panels(p, n.sizes.decoder, across, classes, classes), 1, classes // width(p), h, 0,
    )  # fmt: skip
    for i in range(0, classes, width(p)):
        store(out, i, load(out, i) + load(p, n.sizes.decoder_bias + i))
    softmax(out, 0, n.sizes.characters)


@subroutine()
def train_on_windows(n, rate):
    """Train on the windows of all rows: B of T characters and the next one, (B, T + 1).

    Args:
        n: see NetworkBuffers. `ids` are the windows, and `states` begin with the state before
            each, (B, H). The last states of the rows are left at the place T.
        rate: the learning rate, with the correction of Adam's means.
    """
    p, g, states, out = n.parameters, n.gates, n.states, n.logits
    h, rows, steps, classes = n.sizes.hidden, n.sizes.rows, n.sizes.steps, n.sizes.classes
    lanes, recurrent, bias = width(p), n.sizes.recurrent, n.sizes.bias
    across = 2 * lanes
    for t in range(steps):
        product(
            Tile(g, 0, 3 * h), Tile(states, t * rows * h, h),
            Panels(p, recurrent, across, 3 * h, 3 * h), rows, 3 * h // lanes, h, 0,
        )  # fmt: skip
        for b in range(rows):
            place = t * rows + b
            table = int(n.ids[b * (steps + 1) + t]) * 3 * h
            cell(n, table, b * 3 * h, bias, place * h, (place + rows) * h, place * 4 * h)
    count = rows * steps
    product(
        Tile(out, 0, classes), Tile(states, rows * h, h),
        Panels(p, n.sizes.decoder, across, classes, classes), count, classes // lanes, h, 0,
    )  # fmt: skip
    share = np.float32(1) / np.float32(count)
    d = n.gradients
    for i in range(0, classes, lanes):
        store(d, n.sizes.decoder_bias + i, np.float32(0))
    for place in range(count):
        begin = place * classes
        for i in range(0, classes, lanes):
            store(out, begin + i, load(out, begin + i) + load(p, n.sizes.decoder_bias + i))
        softmax(out, begin, n.sizes.characters)
        for i in range(n.sizes.characters, classes):
            out[begin + i] = np.float32(0)
        target = int(n.ids[place % rows * (steps + 1) + place // rows + 1])
        out[begin + target] -= ONE
        for i in range(0, classes, lanes):
            x = load(out, begin + i) * share
            store(out, begin + i, x)
            at = n.sizes.decoder_bias + i
            store(d, at, load(d, at) + x)
    back = n.back
    pack(
        Panels(n.packed, 0, across * classes, across, across),
        Tile(p, n.sizes.decoder, classes), 0, classes, h, classes, 0, -(-h // across),
    )  # fmt: skip
    product(
        Tile(back, 0, h), Tile(out, 0, classes),
        Panels(n.packed, 0, across * classes, across, across), count, h // lanes, classes, 0,
    )  # fmt: skip
    outer_product(
        Tile(d, n.sizes.decoder, classes), Tile(states, rows * h, h), Tile(out, 0, classes),
        n.scratch, h, classes // lanes, count, 0,
    )  # fmt: skip
    pack(
        Panels(n.packed, 0, across * 3 * h, across, across),
        Tile(p, recurrent, 3 * h), 0, 3 * h, h, 3 * h, 0, -(-h // across),
    )  # fmt: skip
    clear_gradients(n)
    carried = n.carried
    for i in range(0, rows * h, lanes):
        store(carried, i, np.float32(0))
    for t in range(steps - 1, -1, -1):
        for b in range(rows):
            step_back(n, t * rows + b, b)
        product(
            Tile(carried, 0, h), Tile(g, t * rows * 3 * h, 3 * h),
            Panels(n.packed, 0, across * 3 * h, across, across), rows, h // lanes, 3 * h, 1,
        )  # fmt: skip
    outer_product(
        Tile(d, recurrent, 3 * h), Tile(states, 0, h), Tile(g, 0, 3 * h),
        n.scratch, h, 3 * h // lanes, count, 0,
    )  # fmt: skip
    change_weights(n, rate)


@subroutine()
def clear_gradients(n):
    """Clear the gradients of the rows of characters in the windows, and of the bias of n."""
    d, h = n.gradients, n.sizes.hidden
    for i in range(n.sizes.rows * (n.sizes.steps + 1)):
        character = int(n.ids[i])
        n.touched[character] = np.int32(0)
        for j in range(0, 3 * h, width(d)):
            store(d, character * 3 * h + j, np.float32(0))
    for j in range(0, h, width(d)):
        store(d, n.sizes.bias + j, np.float32(0))


@subroutine()
def step_back(n, place, b):
    """Compute the gradients at a step of a row: those of the gates, and of the state before."""
    h, rows, steps = n.sizes.hidden, n.sizes.rows, n.sizes.steps
    states, kept, back, carried, d, g = (
        n.states, n.kept, n.back, n.carried, n.gradients, n.gates,
    )  # fmt: skip
    t = place // rows
    character = int(n.ids[b * (steps + 1) + t])
    n.touched[character] = np.int32(1)
    table, keep, to = character * 3 * h, place * 4 * h, place * 3 * h
    for j in range(0, h, width(d)):
        r, z = load(kept, keep + j), load(kept, keep + h + j)
        new, q = load(kept, keep + 2 * h + j), load(kept, keep + 3 * h + j)
        old = load(states, place * h + j)
        dh = load(back, place * h + j) + load(carried, b * h + j)
        dn = dh * (ONE - z) * (ONE - new * new)
        dz = dh * (old - new) * z * (ONE - z)
        dr = dn * q * r * (ONE - r)
        store(carried, b * h + j, dh * z)
        store(d, table + j, load(d, table + j) + dr)
        store(d, table + h + j, load(d, table + h + j) + dz)
        store(d, table + 2 * h + j, load(d, table + 2 * h + j) + dn)
        store(g, to + j, dr)
        store(g, to + h + j, dz)
        dn = dn * r
        store(g, to + 2 * h + j, dn)
        at = n.sizes.bias + j
        store(d, at, load(d, at) + dn)


@subroutine()
def change_weights(n, rate):
    """Change all weights but the rows of other characters."""
    h = n.sizes.hidden
    for character in range(n.sizes.characters):
        if n.touched[character] != 0:
            change_some(n, character * 3 * h, (character + 1) * 3 * h, rate)
            n.touched[character] = np.int32(0)
    change_some(n, n.sizes.recurrent, n.sizes.total, rate)


@subroutine()
def change_some(n, begin, end, rate):
    p, d, first, second = n.parameters, n.gradients, n.first, n.second
    for i in range(begin, end, width(p)):
        x = load(d, i)
        mean = fma(load(first, i), np.float32(DECAY_1), x * np.float32(1 - DECAY_1))
        square = fma(load(second, i), np.float32(DECAY_2), x * x * np.float32(1 - DECAY_2))
        store(first, i, mean)
        store(second, i, square)
        step = mean * rate / (exact_root(square) + np.float32(EPSILON))
        store(p, i, load(p, i) - step)
