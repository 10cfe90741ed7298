"""The arrays of a small network that learns while a text is coded."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.kernels.buffers import addresses
from charloom.kernels.sizes import lanes, outer_scratch

Float32 = Annotated[NDArray[np.float32], "float32"]
UInt64 = Annotated[NDArray[np.uint64], "uint64"]
Int32 = Annotated[NDArray[np.int32], "int32"]
MULTIPLE = 32  # of numbers in a row: two of the widest vectors
GATES, KEPT = 3, 4
ROWS, STEPS = 8, 16
# Rows of the last mixture's weights.
BY_NODE, BY_CONTEXTS = 256, 66
TRUST = 0.9, 0.1  # of the mixer and of the network, before any text


class NetworkSizes(NamedTuple):
    """The numbers that the kernel needs beside the arrays, and where parameters begin."""

    hidden: int  # H, a multiple of MULTIPLE
    characters: int  # V
    classes: int  # VP
    rows: int  # B
    steps: int  # T
    recurrent: int  # (H, 3 H), behind the table (V, 3 H)
    bias: int  # (H,)
    decoder: int  # (H, VP)
    decoder_bias: int  # (VP,)
    total: int  # P
    slowing: int  # windows after which the learning rate is half
    live: int  # the state of the text that is coded, behind those of the windows


class NetworkBuffers(NamedTuple):
    """All arrays of the network, for kernels."""

    sizes: Annotated[NDArray[np.int64], NetworkSizes]
    parameters: Float32
    gradients: Float32
    first: Float32  # the means of Adam
    second: Float32
    states: Float32  # (T + 1, B, H), and (H,)
    gates: Float32  # (T, B, 3 H)
    kept: Float32  # (T, B, 4 H)
    logits: Float32  # (T, B, VP)
    back: Float32  # (T, B, H)
    carried: Float32  # (B, H)
    packed: Float32
    scratch: Float32
    probabilities: Float32  # (VP,)
    reach: Float32  # (V,) of the nodes of the tree
    mixing: Float32  # the last mixture's weights, (BY_NODE + BY_CONTEXTS, 2)
    mixed: Float32  # its inputs, rows and sums
    before: Float32  # (H,) the state of the text before its window
    settings: Float32  # (1,) the learning rate
    places: UInt64  # (B,) of the windows, the first one a random number
    ids: Int32  # (B, T + 1)
    touched: Int32  # (V,)


class NetworkPlan(NamedTuple):
    """The size of a network, and how it learns. With 0 units no network is used."""

    hidden: int = 0
    rows: int = ROWS
    steps: int = STEPS
    rate: int = 4  # thousandths
    slowing: int = 20_000


def make_network(characters: int, plan: NetworkPlan) -> NetworkBuffers:
    """Return a network whose weights are small numbers from a hash."""
    hidden, rows, steps = plan.hidden, plan.rows, plan.steps
    classes = -(-characters // MULTIPLE) * MULTIPLE
    recurrent = characters * GATES * hidden
    bias = recurrent + hidden * GATES * hidden
    decoder = bias + hidden
    decoder_bias = decoder + hidden * classes
    count = decoder_bias + classes
    positions = rows * steps
    sizes = NetworkSizes(
        hidden, characters, classes, rows, steps, recurrent, bias, decoder, decoder_bias, count,
        plan.slowing, (steps + 1) * rows * hidden,
    )  # fmt: skip
    parameters = np.zeros(count, np.float32)
    # From -1 to 1, in steps that float32 holds exactly.
    used = decoder_bias if hidden else 0
    numbers = np.arange(used, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    numbers ^= numbers >> np.uint64(29)
    numbers *= np.uint64(0xBF58476D1CE4E5B9)
    spread = ((numbers >> np.uint64(44)).astype(np.float32) - np.float32(1 << 19)) / np.float32(
        1 << 19
    )
    scale = np.float32(1) / np.float32(max(1, int(hidden**0.5)))
    parameters[:used] = spread * scale
    parameters[bias:decoder] = 0

    def zeros(*shape: int) -> NDArray[np.float32]:
        return np.zeros(int(np.prod(shape)), np.float32)

    wide = max(GATES * hidden, classes)
    return NetworkBuffers(
        np.array(sizes, np.int64),
        parameters,
        zeros(count),
        zeros(count),
        zeros(count),
        zeros((steps + 1) * rows + 1, hidden),
        zeros(positions, GATES * hidden),
        zeros(positions, KEPT * hidden),
        zeros(positions, classes),
        zeros(positions, hidden),
        zeros(rows, hidden),
        zeros(wide, hidden + MULTIPLE),
        zeros(outer_scratch(wide, lanes("float32"))),
        zeros(classes),
        zeros(characters + 1),
        np.tile(np.array(TRUST, np.float32), BY_NODE + BY_CONTEXTS),
        zeros(8),
        zeros(hidden),
        np.array([plan.rate / 1000], np.float32),
        np.zeros(rows, np.uint64),
        np.zeros(rows * (steps + 1), np.int32),
        np.zeros(characters, np.int32),
    )


def network_places(network: NetworkBuffers) -> Any:
    """Return the addresses of a network's arrays, which the caller keeps alive."""
    return addresses(network, np.dtype(np.float32))
