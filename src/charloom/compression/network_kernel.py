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

from charloom.compression.network import WORKERS, NetworkBuffers
from charloom.kernels.arrays import Tile, as_buffers, as_flat
from charloom.kernels.compiling import subroutine
from charloom.kernels.products import Panels, outer_product, pack, product
from charloom.kernels.vector_math import exp, fma
from charloom.kernels.vectors import load, store, width

ONE, TWO, MINUS = np.float32(1), np.float32(2), np.float32(-1)
DECAY_1, DECAY_2, EPSILON = 0.9, 0.99, 1e-8
PER_CODE = np.float32(1 / 255)
FIRST_FACTOR, SECOND_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
HALF_WORD, TOP_BITS = np.uint64(32), np.uint64(54)
OF_OUTPUTS = np.uint64(0x94D049BB133111EB)


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
def cell(n, table, place, after):
    """Compute the states of a row, (H,), and keep r, z, n and q for the backward pass.

    Args:
        n: see NetworkBuffers.
        table: the place of the character's row in the parameters, (3 H,).
        place: the number of the row of states before; products with it are in `gates`.
        after: the number of the row of states that is written.
    """
    p, g, x, states, keep, h = n.parameters, n.gates, n.inputs, n.states, n.kept, n.sizes.hidden
    bias, gates, kept = n.sizes.bias, place * 3 * h, place * 4 * h
    for j in range(0, h, width(p)):
        r = load(p, table + j) + load(x, gates + j) + load(g, gates + j)
        r = ONE / (exp(r * MINUS) + ONE)
        z = load(p, table + h + j) + load(x, gates + h + j) + load(g, gates + h + j)
        z = ONE / (exp(z * MINUS) + ONE)
        q = load(g, gates + 2 * h + j) + load(p, bias + j)
        new = load(p, table + 2 * h + j) + load(x, gates + 2 * h + j) + r * q
        new = TWO / (exp(new * (MINUS * TWO)) + ONE) - ONE
        old = load(states, place * h + j)
        store(states, after * h + j, new + z * (old - new))
        store(keep, kept + j, r)
        store(keep, kept + h + j, z)
        store(keep, kept + 2 * h + j, new)
        store(keep, kept + 3 * h + j, q)


@subroutine()
def read_codes(n, codes, position, place):
    """Decode what the mixer has predicted at a position of the text, for a row of a window."""
    half = n.sizes.extra // 2
    begin = position % n.sizes.remembered * n.sizes.characters
    to, read = place * n.sizes.extra, n.read
    for k in range(half):
        code = int(codes[begin + n.order[k]])
        read[to + k] = n.shares[code]
        read[to + half + k] = np.float32(code) * PER_CODE


@subroutine()
def predict_by_network(n, character, position, codes):
    """Read a character and what the mixer predicts after it, and write probabilities, (V,)."""
    h, across, classes = n.sizes.hidden, 2 * width(n.parameters), n.sizes.classes
    p, states, lanes = n.parameters, n.states, width(n.parameters)
    read_codes(n, codes, position, 0)
    product(
        Tile(n.inputs, 0, 3 * h), Tile(n.read, 0, n.sizes.extra),
        Panels(p, n.sizes.inputs, across, 3 * h, 3 * h), 1, 3 * h // lanes, n.sizes.extra, 0,
    )  # fmt: skip
    product(
        Tile(n.gates, 0, 3 * h), Tile(states, 0, h),
        Panels(p, n.sizes.recurrent, across, 3 * h, 3 * h), 1, 3 * h // lanes, h, 0,
    )  # fmt: skip
    cell(n, character * 3 * h, 0, 0)
    out = n.logits
    product(
        Tile(out, 0, classes), Tile(states, 0, h),
        Panels(p, n.sizes.decoder, across, classes, classes), 1, classes // lanes, h, 0,
    )  # fmt: skip
    for i in range(0, classes, lanes):
        store(out, i, load(out, i) + load(p, n.sizes.decoder_bias + i))
    softmax(out, 0, n.sizes.characters)


@subroutine()
def write_masks(to, count, key, dropped):
    """Write random factors: 0 for `dropped` of 1,024 numbers, else one that keeps the mean."""
    kept = np.float32(1024) / np.float32(1024 - dropped)
    for i in range(count):
        x = (key + np.uint64(i)) * FIRST_FACTOR
        x = (x ^ (x >> HALF_WORD)) * SECOND_FACTOR
        to[i] = kept if np.int64(x >> TOP_BITS) >= dropped else np.float32(0)


@subroutine()
def choose_weights(n):
    """Write the recurrent weights of this step, of which some are dropped."""
    p, to, begin, lanes = n.parameters, n.recurrent, n.sizes.recurrent, width(n.parameters)
    count = 3 * n.sizes.hidden * n.sizes.hidden
    if n.sizes.dropped_weights == 0:
        for i in range(0, count, lanes):
            store(to, i, load(p, begin + i))
        return
    write_masks(to, count, n.key[0], n.sizes.dropped_weights)
    for i in range(0, count, lanes):
        store(to, i, load(to, i) * load(p, begin + i))


def find_gradients(ids, codes, network, floats):
    """Write the gradients of a worker's share of a batch: B windows of T characters.

    The last states of the rows are kept for the next windows.

    Args:
        ids: the text, (N,).
        codes: what the mixer has predicted, (remembered V,).
        network: the addresses of NetworkBuffers, with the windows.
        floats: any array of float32.
    """
    n = as_buffers(NetworkBuffers, network, floats)
    text, predicted = as_flat(ids), as_flat(codes)
    p, g, states, out, h = n.parameters, n.gates, n.states, n.logits, n.sizes.hidden
    rows, steps, classes = n.sizes.rows, n.sizes.steps, n.sizes.classes
    lanes, extra = width(p), n.sizes.extra
    across, count = 2 * lanes, rows * steps
    for b in range(rows):
        last = (steps * rows + b) * h
        anew = n.windows[rows + b] != 0
        for j in range(h):
            states[b * h + j] = np.float32(0) if anew else states[last + j]
        for t in range(steps):
            read_codes(n, predicted, n.windows[b] + t + 1, t * rows + b)
    choose_weights(n)
    product(
        Tile(n.inputs, 0, 3 * h), Tile(n.read, 0, extra),
        Panels(p, n.sizes.inputs, across, 3 * h, 3 * h), count, 3 * h // lanes, extra, 0,
    )  # fmt: skip
    for t in range(steps):
        product(
            Tile(g, t * rows * 3 * h, 3 * h), Tile(states, t * rows * h, h),
            Panels(n.recurrent, 0, across, 3 * h, 3 * h), rows, 3 * h // lanes, h, 0,
        )  # fmt: skip
        for b in range(rows):
            place = t * rows + b
            cell(n, int(text[n.windows[b] + t]) * 3 * h, place, place + rows)
    write_masks(n.masks, count * h, n.key[0] ^ OF_OUTPUTS, n.sizes.dropped)
    for i in range(0, count * h, lanes):
        store(n.outputs, i, load(states, rows * h + i) * load(n.masks, i))
    product(
        Tile(out, 0, classes), Tile(n.outputs, 0, h),
        Panels(p, n.sizes.decoder, across, classes, classes), count, classes // lanes, h, 0,
    )  # fmt: skip
    d = n.gradients
    for i in range(0, n.sizes.recurrent, lanes):
        store(d, i, np.float32(0))
    for j in range(0, h, lanes):
        store(d, n.sizes.bias + j, np.float32(0))
    for i in range(0, classes, lanes):
        store(d, n.sizes.decoder_bias + i, np.float32(0))
    share = np.float32(1) / np.float32(count * WORKERS)
    for place in range(count):
        begin = place * classes
        for i in range(0, classes, lanes):
            store(out, begin + i, load(out, begin + i) + load(p, n.sizes.decoder_bias + i))
        softmax(out, begin, n.sizes.characters)
        for i in range(n.sizes.characters, classes):
            out[begin + i] = np.float32(0)
        target = int(text[n.windows[place % rows] + place // rows + 1])
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
    for i in range(0, count * h, lanes):
        store(back, i, load(back, i) * load(n.masks, i))
    outer_product(
        Tile(d, n.sizes.decoder, classes), Tile(n.outputs, 0, h), Tile(out, 0, classes),
        n.scratch, h, classes // lanes, count, 0,
    )  # fmt: skip
    pack(
        Panels(n.packed, 0, across * 3 * h, across, across),
        Tile(n.recurrent, 0, 3 * h), 0, 3 * h, h, 3 * h, 0, -(-h // across),
    )  # fmt: skip
    carried = n.carried
    for i in range(0, rows * h, lanes):
        store(carried, i, np.float32(0))
    for t in range(steps - 1, -1, -1):
        for b in range(rows):
            step_back(n, int(text[n.windows[b] + t]) * 3 * h, t * rows + b, b)
        product(
            Tile(carried, 0, h), Tile(g, t * rows * 3 * h, 3 * h),
            Panels(n.packed, 0, across * 3 * h, across, across), rows, h // lanes, 3 * h, 1,
        )  # fmt: skip
    outer_product(
        Tile(d, n.sizes.recurrent, 3 * h), Tile(states, 0, h), Tile(g, 0, 3 * h),
        n.scratch, h, 3 * h // lanes, count, 0,
    )  # fmt: skip
    outer_product(
        Tile(d, n.sizes.inputs, 3 * h), Tile(n.read, 0, extra), Tile(n.inputs, 0, 3 * h),
        n.scratch, extra, 3 * h // lanes, count, 0,
    )  # fmt: skip
    if n.sizes.dropped_weights != 0:
        write_masks(n.recurrent, 3 * h * h, n.key[0], n.sizes.dropped_weights)
        begin = n.sizes.recurrent
        for i in range(0, 3 * h * h, lanes):
            store(d, begin + i, load(d, begin + i) * load(n.recurrent, i))


@subroutine()
def step_back(n, table, place, b):
    """Compute the gradients at a step of a row: those of the gates, and of the state before."""
    h, states, kept, back, carried = n.sizes.hidden, n.states, n.kept, n.back, n.carried
    d, g, x = n.gradients, n.gates, n.inputs
    keep, to = place * 4 * h, place * 3 * h
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
        store(x, to + j, dr)
        store(x, to + h + j, dz)
        store(x, to + 2 * h + j, dn)
        store(g, to + j, dr)
        store(g, to + h + j, dz)
        dn = dn * r
        store(g, to + 2 * h + j, dn)
        at = n.sizes.bias + j
        store(d, at, load(d, at) + dn)


def change_weights(parameters, first, second, average, one, other, settings, begin, end):
    """Change weights by Adam (Kingma & Ba 2015), from `begin` to `end`.

    Args:
        parameters: the weights, (P,), changed.
        first: Adam's means of gradients, (P,), changed.
        second: those of their squares, (P,), changed.
        average: the mean of the latest weights, (P,), changed.
        one: the gradients of a worker, (P,).
        other: those of the other one, which are added.
        settings: the learning rate, with the correction of the means, and the new weights' share of
            their mean, (2,).
        begin: the first weight, a multiple of MULTIPLE.
        end: the end, another multiple.
    """
    p, m, v, a, b, latest = (
        as_flat(parameters), as_flat(first), as_flat(second), as_flat(one), as_flat(other),
        as_flat(average),
    )  # fmt: skip
    rate, share = settings[0], settings[1]
    for i in range(begin, end, width(p)):
        x = load(a, i) + load(b, i)
        mean = fma(load(m, i), np.float32(DECAY_1), x * np.float32(1 - DECAY_1))
        square = fma(load(v, i), np.float32(DECAY_2), x * x * np.float32(1 - DECAY_2))
        store(m, i, mean)
        store(v, i, square)
        step = mean * rate / (exact_root(square) + np.float32(EPSILON))
        new = load(p, i) - step
        store(p, i, new)
        store(latest, i, fma(new - load(latest, i), share, load(latest, i)))
