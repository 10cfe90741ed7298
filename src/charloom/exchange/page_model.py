"""A model in few bits, for a page that runs it: rounded weights, and fewer contexts.

A page's model is a checkpoint again, with the values that the page has, so that its predictions
can be computed and measured. Its arrays have the names of model.safetensors. Each is stored in a
type that `floats` in pages/web/player/model.js reads.

V: characters in the vocabulary; E: extra inputs; N: nodes of a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.network.parameters import Parameters
from charloom.ngrams.counts import Counts
from charloom.ngrams.mixing import Mixture, feature_count
from charloom.ngrams.table import NGramTable
from charloom.storage.checkpoint import PREFIX, Checkpoint

if TYPE_CHECKING:  # Numba comes with it
    from charloom.context_mixing.layout import Weights
    from charloom.context_mixing.mixer import ContextMixer

Bits = int  # of a weight: 16 or 8
Array = NDArray[Any]
SCALE = ".scale"  # the end of the name of an array of scales


class Stored(NamedTuple):
    """An array of a page."""

    numbers: Array  # as they are stored
    kind: str  # the type in the page's header
    shape: tuple[int, ...]
    values: Array  # that the page computes with


@dataclass(frozen=True)
class PageModel:
    """A model as a page has it.

    Attributes:
        checkpoint: the same model.
        arrays: its arrays, by name.
        scales: of the rows of arrays of integers, by their names.
        bits: of a weight.
        probing: whether the tables of a context mixer have no entries that lead to the next one.
    """

    checkpoint: Checkpoint
    arrays: Mapping[str, Stored]
    scales: Mapping[str, Array]
    bits: Bits
    probing: bool = False

    @property
    def page_arrays(self) -> dict[str, Array]:
        """The arrays of numbers that the page has."""
        found = {name: in_planes(stored) for name, stored in self.arrays.items()}
        return found | {f"{name}{SCALE}": scale for name, scale in self.scales.items()}

    @property
    def types(self) -> dict[str, dict[str, Any]]:
        """The type and the shape of each array, for the page's header."""
        return {
            name: {"type": stored.kind, "shape": list(stored.shape)}
            for name, stored in self.arrays.items()
        }


def in_planes(stored: Stored) -> Array:
    """Return the numbers of an array as a page has them: those of 16 bits byte by byte.

    All low bytes are followed by all high ones, because these resemble each other.
    """
    numbers = np.ascontiguousarray(stored.numbers)
    if not stored.kind.endswith("16"):
        return numbers.reshape(-1)
    little = numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).reshape(-1)
    return np.ascontiguousarray(little.view(np.uint8).reshape(-1, 2).T).reshape(-1)


def as_page_model(checkpoint: Checkpoint, bits: Bits) -> PageModel:
    """Round the weights of a model to 16 or 8 bits."""
    arrays: dict[str, Stored] = {}
    scales: dict[str, Array] = {}
    parameters = Parameters(replace(checkpoint.config, dtype="float32"))
    for name, values in checkpoint.parameters.items():
        single = values.astype(np.float32)
        if values.ndim == 1:
            arrays[name] = Stored(single, "float32", single.shape, single)
        else:
            arrays[name], scales[name] = in_rows(single, bits)
        parameters[name][...] = arrays[name].values
    mixture = checkpoint.mixture
    if mixture is not None:
        counts, of_counts, of_rows = _counts(mixture.counts, bits)
        arrays |= {PREFIX + name: stored for name, stored in of_counts.items()}
        scales |= {PREFIX + name: scale for name, scale in of_rows.items()}
        mixture = Mixture(counts, mixture.theta)
    rounded = replace(checkpoint, parameters=parameters, mixture=mixture, sha256=None)
    return PageModel(rounded, arrays, scales, bits)


def in_rows(values: Array, bits: Bits) -> tuple[Stored, Array]:
    """Return a matrix as integers, and the scale of each row, by which they are multiplied."""
    most = 2 ** (bits - 1) - 1
    scale = (np.abs(values).max(axis=1) / most).astype(np.float32)
    divisor = np.where(scale > 0, scale, 1)[:, None]
    numbers = np.rint(values / divisor).clip(-most, most).astype(f"int{bits}")
    rounded = (numbers.astype(np.float32) * scale[:, None]).astype(np.float32)
    return Stored(numbers, f"int{bits}", values.shape, rounded), scale


def in_logarithms(p: Array, bits: Bits) -> Stored:
    """Return probabilities, above 0 and at most 1, as their logarithms."""
    steps = 2048 if bits == 16 else 16
    codes = np.rint(-np.log2(p.astype(np.float64)) * steps).clip(0, 2**bits - 1)
    values = np.exp2(-codes / steps).astype(np.float32)
    return Stored(codes.astype(f"uint{bits}"), f"log{bits}", p.shape, values)


def in_logits(p: Array) -> Stored:
    """Return probabilities as bytes: their logits, in fifteenths."""
    wide = p.astype(np.float64)
    codes = np.rint(np.log(wide / (1 - wide)) * 15 + 128).clip(0, 255)
    values = (1 / (1 + np.exp((128 - codes) / 15))).astype(np.float32)
    return Stored(codes.astype(np.uint8), "logit8", p.shape, values)


def as_integers(values: Array) -> Stored:
    """Return integers in the smallest type that a page knows."""
    kind = "int32"
    if values.min(initial=0) >= 0:
        most = values.max(initial=0)
        kind = "uint8" if most < 2**8 else "uint16" if most < 2**16 else "int32"
    return Stored(values.astype(kind), kind, values.shape, values)


def _counts(counts: Counts, bits: Bits) -> tuple[Counts, dict[str, Stored], dict[str, Array]]:
    """Return rounded counts, their arrays, and the scales of these."""
    if isinstance(counts, NGramTable):
        children = np.diff(counts.first)
        arrays = {
            "characters": as_integers(counts.characters),
            "probabilities": in_logarithms(counts.probabilities, bits),
            "children": as_integers(children),
            "weights": in_logarithms(counts.weights, bits),
        }
        rounded = replace(
            counts,
            probabilities=arrays["probabilities"].values,
            weights=arrays["weights"].values,
        )
        return rounded, arrays, {}
    from charloom.context_mixing.mixer import ContextMixer

    assert isinstance(counts, ContextMixer)
    arrays, scales = _weights(counts.frozen, bits)
    frozen = counts.frozen._replace(
        **{
            name.removeprefix("frozen_"): stored.values.reshape(-1)
            for name, stored in arrays.items()
        }
    )
    tree = counts.tree
    arrays |= {
        "children": as_integers(tree.children),
        "prior": Stored(tree.prior, "float32", tree.prior.shape, tree.prior),
        "kind": as_integers(tree.kind),
        "folded": as_integers(tree.folded),
        "rank": as_integers(tree.rank),
    }
    arrays |= _tables(counts, probing=False)
    rounded_mixer = ContextMixer(
        counts.vocabulary_size, tree, counts.tables, frozen, counts.adaptive, counts.state,
        counts.blocks, counts.version,
    )  # fmt: skip
    return rounded_mixer, arrays, scales


def _weights(weights: Weights, bits: Bits) -> tuple[dict[str, Stored], dict[str, Array]]:
    """Return the weights of a context mixer. With 16 bits, they are those of its file."""
    from charloom.context_mixing.layout import INPUT_COUNT
    from charloom.context_mixing.packing import PROBABILITY

    arrays: dict[str, Stored] = {}
    scales: dict[str, Array] = {}
    for name in ("counts", "recent", "refined"):
        p = getattr(weights, name)
        if bits == 8:
            arrays[f"frozen_{name}"] = in_logits(p)
            continue
        parts = np.rint(p.astype(np.float64) * PROBABILITY).clip(0, PROBABILITY - 1)
        values = (parts / PROBABILITY).astype(np.float32)
        arrays[f"frozen_{name}"] = Stored(parts.astype(np.uint16), "share16", p.shape, values)
    sets = weights.sets.reshape(-1, INPUT_COUNT)
    if bits == 8:
        arrays["frozen_sets"], scales["frozen_sets"] = in_rows(sets, 8)
    else:
        arrays["frozen_sets"] = in_halves(sets)
    arrays["frozen_final"] = in_halves(weights.final)
    return arrays, scales


def in_halves(values: Array) -> Stored:
    """Return numbers in half precision."""
    halves = values.astype(np.float16)
    return Stored(halves, "float16", values.shape, halves.astype(np.float32))


def _tables(mixer: ContextMixer, *, probing: bool) -> dict[str, Stored]:
    """Return the lists of a context mixer."""
    from charloom.context_mixing.packing import SHAPES, Lists, lists_of
    from charloom.context_mixing.tables import MOVED

    arrays: dict[str, Stored] = {}
    for table in SHAPES:
        lists = lists_of(mixer.tables, table)
        if probing:
            first = np.cumsum(lists.lengths, dtype=np.int64) - lists.lengths
            kept = lists.entries[first] >> 16 != MOVED
            bucket = np.repeat(np.arange(len(lists.used)), lists.used)
            lists = Lists(
                np.bincount(bucket[kept], minlength=len(lists.used)).astype(np.uint8),
                lists.checks[kept],
                lists.lengths[kept],
                lists.entries[np.repeat(kept, lists.lengths)],
            )
        for plane, numbers in lists.planes().items():
            if plane == "lengths" and table == "singles":
                continue
            kind = numbers.dtype.name
            if plane == "characters":
                arrays[f"{table}_{plane}"] = as_integers(numbers)
            else:
                arrays[f"{table}_{plane}"] = Stored(numbers, kind, numbers.shape, numbers)
    return arrays


def with_less_context(found: PageModel, context: int) -> PageModel:
    """Return a model whose n-gram table has fewer characters of context."""
    mixture = found.checkpoint.mixture
    assert mixture is not None
    assert isinstance(mixture.counts, NGramTable)
    counts, arrays, _ = _counts(mixture.counts.with_less_context(context), found.bits)
    theta = theta_of_context(mixture.theta, mixture.counts.context, context)
    return _with_counts(found, Mixture(counts, theta), arrays, found.probing)


def with_pruned_mixer(found: PageModel, mixer: ContextMixer) -> PageModel:
    """Return a model with another context mixer, which has the same weights and fewer lists.

    Entries that lead from one of its tables to the next one are omitted, and the page searches
    every table instead.
    """
    mixture = found.checkpoint.mixture
    assert mixture is not None
    return _with_counts(found, Mixture(mixer, mixture.theta), _tables(mixer, probing=True), True)


def _with_counts(
    found: PageModel, mixture: Mixture, arrays: Mapping[str, Stored], probing: bool
) -> PageModel:
    named = {PREFIX + name: stored for name, stored in arrays.items()}
    return replace(
        found,
        checkpoint=replace(found.checkpoint, mixture=mixture),
        arrays={**found.arrays, **named},
        probing=probing,
    )


def theta_of_context(theta: NDArray[np.float64], longest: int, context: int) -> NDArray[np.float64]:
    """Return the parameters of a mixture whose counts have a shorter context."""
    common = feature_count(longest) - 2 * (longest + 1)
    of_length = theta[common:].reshape(2, longest + 1)[:, : context + 1]
    return np.concatenate([theta[:common], of_length.ravel()])
