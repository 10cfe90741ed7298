"""A model in few bits, for a page that runs it: rounded weights, and fewer contexts.

A page's model is a checkpoint again, with the values that the page has, so that its predictions
can be computed and measured. Its arrays have the names of model.safetensors. Each is stored in a
type that `floats` in pages/web/player/model.js reads.

V: characters in the vocabulary; E: extra inputs; N: nodes of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.network.parameters import Parameters
from charloom.ngrams.counts import Counts
from charloom.ngrams.mixing import Mixture
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
        probing: whether its lists of contexts are found without entries that lead to them.
        bits: of a weight.
    """

    checkpoint: Checkpoint
    arrays: Mapping[str, Stored]
    scales: Mapping[str, Array]
    probing: bool
    bits: Bits

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


def as_page_model(checkpoint: Checkpoint, bits: Bits, *, probing: bool = False) -> PageModel:
    """Round a model to weights of 16 or 8 bits.

    Args:
        checkpoint: the model.
        bits: of a weight.
        probing: omit the entries that lead from one table of a context mixer to the next one.
    """
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
        counts, of_counts, of_rows = _counts(mixture.counts, bits, probing)
        arrays |= {PREFIX + name: stored for name, stored in of_counts.items()}
        scales |= {PREFIX + name: scale for name, scale in of_rows.items()}
        mixture = Mixture(counts, mixture.theta)
    rounded = replace(checkpoint, parameters=parameters, mixture=mixture, sha256=None)
    return PageModel(rounded, arrays, scales, probing, bits)


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


def _counts(
    counts: Counts, bits: Bits, probing: bool
) -> tuple[Counts, dict[str, Stored], dict[str, Array]]:
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
    arrays |= _tables(counts, probing)
    rounded_mixer = ContextMixer(
        counts.vocabulary_size, tree, counts.tables, frozen, counts.adaptive, counts.state,
        counts.blocks,
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


def _tables(mixer: ContextMixer, probing: bool) -> dict[str, Stored]:
    """Return the lists of a context mixer."""
    from charloom.context_mixing.packing import MOVED, SHAPES, Lists, lists_of

    arrays: dict[str, Stored] = {}
    for table, shape in SHAPES.items():
        lists = lists_of(getattr(mixer.tables, table), shape)
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


def pruned(checkpoint: Checkpoint, level: int) -> Checkpoint:
    """Return a model with fewer contexts, the fewer the higher the level; 0 keeps all of them.

    A context mixer loses the contexts that were seen most rarely. An n-gram table loses a character
    of context with each level.
    """
    mixture = checkpoint.mixture
    if mixture is None or level == 0:
        return checkpoint
    counts: Counts
    if isinstance(mixture.counts, NGramTable):
        counts = shortened_table(mixture.counts, level)
        return replace(checkpoint, mixture=Mixture(counts, _theta_for(mixture, counts.context)))
    counts = _pruned_mixer(mixture.counts, level)
    return replace(checkpoint, mixture=Mixture(counts, mixture.theta))


def levels(checkpoint: Checkpoint) -> int:
    """Return the largest level of `pruned`."""
    mixture = checkpoint.mixture
    if mixture is None:
        return 0
    return mixture.counts.context if isinstance(mixture.counts, NGramTable) else MOST_LEVEL


# A list of several characters takes as many bytes as four single ones.
SINGLE_SHARE = 4
MOST_LEVEL = 4096  # above the count of any list


def _pruned_mixer(mixer: Any, level: int) -> Counts:
    from charloom.context_mixing.layout import LONG_WORDS, SHORT_WORDS
    from charloom.context_mixing.packing import MOVED

    found = mixer.copy()
    singles = found.tables.singles
    entries = (singles & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    count = (entries >> 6) & 1023
    singles[(entries >> 16 != MOVED) & (SINGLE_SHARE * count < level)] = 0
    for table, words in ((found.tables.shorts, SHORT_WORDS), (found.tables.longs, LONG_WORDS)):
        lists = table.reshape(-1, words)
        seen = ((lists[:, 1:] >> 6) & 1023).sum(axis=1)
        lists[(lists[:, 1] >> 16 != MOVED) & (seen < level)] = 0
    return found


def shortened_table(table: NGramTable, less: int) -> NGramTable:
    """Return an n-gram table with fewer characters of context.

    Its longest contexts then have probabilities from continuation counts.
    """
    context = max(0, table.context - less)
    # Nodes of each length are adjacent: the root, those of one character, and so on.
    begins = [0, 1]
    for _ in range(context):
        begins.append(1 + int(table.first[begins[-1]]))
    inner = begins[-1]
    entries = int(table.first[inner])
    return NGramTable(
        table.vocabulary_size,
        context,
        table.characters[:entries],
        table.probabilities[:entries],
        table.first[: inner + 1],
        table.weights[:inner],
    )


def _theta_for(mixture: Mixture, context: int) -> NDArray[np.float64]:
    """Return the parameters of a mixture whose counts have a shorter context."""
    common, longest = 11, mixture.counts.context
    of_length = mixture.theta[common:].reshape(2, longest + 1)
    return np.concatenate([mixture.theta[:common], of_length[:, : context + 1].ravel()])


def smallest_level(most: int, fits: Callable[[int], bool]) -> int | None:
    """Return the smallest level from 0 to `most` that fits, None if the last one does not."""
    if not fits(most):
        return None
    least = 0
    while least < most:
        middle = (least + most) // 2
        if fits(middle):
            most = middle
        else:
            least = middle + 1
    return most
