"""The arrays of a context mixer as kernels get them: addresses, read by name."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.context_mixing.layout import (
    LIST_WAYS,
    LONG_WORDS,
    SINGLE_WAYS,
    Constants,
    NotedLists,
    Scratch,
    Tree,
    Weights,
)
from charloom.context_mixing.tables import (
    Tables,
)
from charloom.kernels.buffers import addresses

Float32 = Annotated[NDArray[np.float32], "float32"]
Int32 = Annotated[NDArray[np.int32], "int32"]
Int64 = Annotated[NDArray[np.int64], "int64"]
UInt8 = Annotated[NDArray[np.uint8], "uint8"]
UInt16 = Annotated[NDArray[np.uint16], "uint16"]
UInt32 = Annotated[NDArray[np.uint32], "uint32"]
UInt64 = Annotated[NDArray[np.uint64], "uint64"]


class Sizes(NamedTuple):
    """The numbers that a kernel needs besides the arrays."""

    characters: int  # V
    deepest: int  # D
    single_buckets: int
    short_buckets: int
    long_buckets: int
    short_width: int  # bytes of a word in short lists
    chains: int  # 1 if chains of contexts are inputs


class ModelBuffers(NamedTuple):
    """The tree, the tables of lists and the tables of functions, for kernels."""

    sizes: Annotated[NDArray[np.int64], Sizes]
    path: Int32
    turns: Int32
    depth: Int32
    codes: UInt64
    children: Int32
    prior: Float32
    kind: Int32
    folded: Int32
    rank: Int32
    checks: UInt16
    singles: UInt32
    shorts: UInt8
    longs: UInt32
    stretch: Float32
    squash: Float32
    logs: Float32
    recent_after: Int32


class WeightBuffers(NamedTuple):
    """Weights, for kernels."""

    counts: Float32
    counts_seen: Int32
    recent: Float32
    recent_seen: Int32
    sets: Float32
    final: Float32
    refined: Float32
    steps: Int64


class ScratchBuffers(NamedTuple):
    """Scratch memory, for kernels."""

    contexts: UInt64
    entries: UInt32
    used: Int32
    ends: Int64
    seen: Int32
    first: UInt8
    second: UInt8
    leaves: Int32
    marks: UInt8
    touched: UInt64
    nodes: Int32
    numbers: Int64
    inputs: Float32
    dots: Float32
    keys: UInt64
    refined: Int64
    reach: Float32
    chances: Float32
    group: Int32
    evidence: UInt64
    group_inputs: Float32
    group_cells: Int32
    group_counts: Int32
    group_rows: Int64
    logits: Float32
    places: Int32
    values: Float32
    shares: Float32
    ahead: UInt64
    states: UInt64
    hashes: UInt64
    parted: UInt8


class ListBuffers(NamedTuple):
    """The lists of a block, for kernels."""

    entries: UInt32
    used: Int32
    begins: Int64


FLOATS = np.dtype(np.float32)
Places = NDArray[np.int64]


def model_places(
    tree: Tree, tables: Tables, constants: Constants, version: int
) -> tuple[Places, ModelBuffers]:
    """Return the addresses of a mixer's arrays, and the arrays, which the caller keeps alive."""
    sizes = Sizes(
        len(tree.depth),
        tree.path.shape[1],
        len(tables.singles) // SINGLE_WAYS,
        len(tables.shorts) // LIST_WAYS,
        len(tables.longs) // (LIST_WAYS * LONG_WORDS),
        tables.shorts.shape[2],
        int(version > 1),
    )
    arrays: tuple[Any, ...] = (np.array(sizes, np.int64), *tree, *tables, *constants)
    buffers = ModelBuffers(*arrays)
    return addresses(buffers, FLOATS), buffers


def weight_places(weights: Weights) -> Places:
    """Return the addresses of weights."""
    return addresses(WeightBuffers(*weights), FLOATS)


def scratch_places(scratch: Scratch) -> Places:
    """Return the addresses of scratch memory."""
    return addresses(ScratchBuffers(*scratch), FLOATS)


def list_places(noted: NotedLists) -> Places:
    """Return the addresses of the lists of a block."""
    return addresses(ListBuffers(*noted), FLOATS)
