"""The arrays of a network that learns a text while it is coded, and reads what a mixer predicts.

H: hidden units; V: characters, padded to VP; E: numbers that are read beside a character; B: rows
of a worker's batch; T: steps of a window; P: parameters.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.kernels.buffers import addresses
from charloom.kernels.sizes import lanes, outer_scratch

Float32 = Annotated[NDArray[np.float32], "float32"]
UInt64 = Annotated[NDArray[np.uint64], "uint64"]
Int64 = Annotated[NDArray[np.int64], "int64"]
MULTIPLE = 32  # of numbers in a row: two of the widest vectors
GATES, KEPT = 3, 4
LARGE = 320  # units from which on the learning rate is lower
WORKERS = 2  # parts of a batch, whatever the number of threads
MOST_READ = 96  # characters whose predictions are read, the most frequent ones
CODES = 256
LOWEST_CODE = 1777  # of float32's first 13 bits: those of 1 are 255 more
# Rows of the last mixture's weights.
BY_NODE, BY_CONTEXTS = 256, 66
TRUST = 0.7, 0.3  # of the mixer and of the network, before any text


MOST_WEIGHTS = 1 << 24  # so that a file cannot request more memory


class NetworkSizes(NamedTuple):
    """The numbers that the kernel needs beside the arrays, and where parameters begin."""

    hidden: int  # H, a multiple of MULTIPLE
    characters: int  # V
    classes: int  # VP
    extra: int  # E
    rows: int  # B
    steps: int  # T
    recurrent: int  # (H, 3 H), behind the table (V, 3 H)
    bias: int  # (H,)
    inputs: int  # (E, 3 H)
    decoder: int  # (H, VP)
    decoder_bias: int  # (VP,)
    total: int  # P
    remembered: int  # characters of the text whose predictions are kept
    dropped: int  # outputs that are dropped, in 1,024ths
    dropped_weights: int  # recurrent weights that are dropped


class NetworkBuffers(NamedTuple):
    """The parameters and the memory of one worker, or of the text that is coded, for kernels."""

    sizes: Annotated[NDArray[np.int64], NetworkSizes]
    parameters: Float32
    gradients: Float32
    recurrent: Float32  # (H, 3 H) as it is used, some of it dropped
    states: Float32  # (T + 1, B, H)
    gates: Float32  # (T, B, 3 H)
    inputs: Float32  # (T, B, 3 H)
    read: Float32  # (T, B, E)
    kept: Float32  # (T, B, 4 H)
    outputs: Float32  # (T, B, H) states of which some numbers are dropped
    masks: Float32  # (T, B, H)
    logits: Float32  # (T, B, VP)
    back: Float32  # (T, B, H)
    carried: Float32  # (B, H)
    packed: Float32
    scratch: Float32
    windows: Int64  # (2, B): where each window begins, and whether its state is empty
    key: UInt64  # (1,) of the random numbers
    order: Int64  # (E / 2,) the characters that are read
    shares: Float32  # (CODES,) the probabilities that codes stand for


class MixingBuffers(NamedTuple):
    """The last mixture of mixer and network, for kernels."""

    mixer: Float32  # (V,) the mixer's probabilities
    reach: Float32  # (V,) the network's, of the nodes of the tree
    weights: Float32  # (BY_NODE + BY_CONTEXTS, 2)
    mixed: Float32  # inputs, rows and sums


class NetworkPlan(NamedTuple):
    """The size of a network, and how it learns. With 0 units no network is used."""

    hidden: int = 0
    passes: int = 40  # over all the text, in tenths
    rows: int = 8  # of each worker
    steps: int = 64
    last_rate: int = 20  # percent of it at the end of the text
    dropped: int = 200  # 1,024ths
    dropped_weights: int = 120

    @property
    def rate(self) -> int:
        """The learning rate in ten-thousandths. A file has the number of units, but no rate."""
        return 40 if self.hidden >= LARGE else 60


def sizes_of(
    characters: int, plan: NetworkPlan, rows: int, steps: int, remembered: int
) -> NetworkSizes:
    """Return the sizes of a worker, or with one row and step of the text that is coded."""
    hidden = plan.hidden
    classes = -(-characters // MULTIPLE) * MULTIPLE
    extra = 2 * min(characters, MOST_READ)
    recurrent = characters * GATES * hidden
    bias = recurrent + hidden * GATES * hidden
    inputs = bias + hidden
    decoder = inputs + extra * GATES * hidden
    decoder_bias = decoder + hidden * classes
    return NetworkSizes(
        hidden, characters, classes, extra, rows, steps, recurrent, bias, inputs, decoder,
        decoder_bias, decoder_bias + classes, remembered, plan.dropped, plan.dropped_weights,
    )  # fmt: skip


def is_too_large(characters: int, plan: NetworkPlan) -> bool:
    """Return whether a network has too many weights."""
    return sizes_of(characters, plan, 1, 1, 1).total > MOST_WEIGHTS


def make_parameters(sizes: NetworkSizes) -> NDArray[np.float32]:
    """Return weights before any text: small numbers from a hash."""
    parameters = np.zeros(sizes.total, np.float32)
    # From -1 to 1, in steps that float32 holds exactly.
    used = sizes.decoder_bias
    numbers = np.arange(used, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    numbers ^= numbers >> np.uint64(29)
    numbers *= np.uint64(0xBF58476D1CE4E5B9)
    half = np.float32(1 << 19)
    spread = ((numbers >> np.uint64(44)).astype(np.float32) - half) / half
    parameters[:used] = spread / np.float32(max(1, int(sizes.hidden**0.5)))
    parameters[sizes.bias : sizes.inputs] = 0
    return parameters


def make_network(
    sizes: NetworkSizes, parameters: NDArray[np.float32], order: NDArray[np.int64]
) -> NetworkBuffers:
    """Return the memory of a network with these parameters, (P,).

    Args:
        sizes: its sizes.
        parameters: shared by all workers.
        order: the characters by falling frequency, (V,).
    """
    hidden, rows, steps, classes = sizes.hidden, sizes.rows, sizes.steps, sizes.classes

    def zeros(*shape: int) -> NDArray[np.float32]:
        return np.zeros(int(np.prod(shape)), np.float32)

    positions, wide = rows * steps, max(GATES * hidden, classes)
    codes = np.arange(CODES, dtype=np.int32)
    shares = ((codes + LOWEST_CODE << 19) + (1 << 18)).view(np.float32).copy()
    shares[0] = 0
    return NetworkBuffers(
        np.array(sizes, np.int64),
        parameters,
        zeros(sizes.total),
        zeros(hidden, GATES * hidden),
        zeros((steps + 1) * rows, hidden),
        zeros(positions, GATES * hidden),
        zeros(positions, GATES * hidden),
        zeros(positions, sizes.extra),
        zeros(positions, KEPT * hidden),
        zeros(positions, hidden),
        zeros(positions, hidden),
        zeros(positions, classes),
        zeros(positions, hidden),
        zeros(rows, hidden),
        zeros(wide, hidden + MULTIPLE),
        zeros(outer_scratch(wide, lanes("float32"))),
        np.zeros(2 * rows, np.int64),
        np.zeros(1, np.uint64),
        np.ascontiguousarray(order[: sizes.extra // 2]),
        shares,
    )


def make_mixing(characters: int) -> MixingBuffers:
    """Return the last mixture before any text."""
    return MixingBuffers(
        np.zeros(characters + 1, np.float32),
        np.zeros(characters + 1, np.float32),
        np.tile(np.array(TRUST, np.float32), BY_NODE + BY_CONTEXTS),
        np.zeros(8, np.float32),
    )


def places_of(buffers: NetworkBuffers | MixingBuffers) -> Any:
    """Return the addresses of arrays, which the caller keeps alive."""
    return addresses(buffers, np.dtype(np.float32))
