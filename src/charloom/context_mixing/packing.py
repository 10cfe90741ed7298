"""A context mixer in few bytes, for its file.

Everything is stored plane by plane, and most planes are compressed. Only occupied lists are stored,
in the order of their buckets. An entry of a list is a character, and a code for its pair of counts:
the 255 most frequent pairs have one byte, others are listed apart.

Weights are rounded: learned probabilities to 65,536ths, others to float16. A mixer is rounded once,
when it has learned its text (`settled`), and is then the same to the bit in memory and in its file.

W: lists in a bucket; L: occupied lists of a table; E: entries of all its lists; V: characters.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.context_mixing.layout import (
    ABOVE,
    ABOVE_LENGTH,
    CLASSES,
    COLUMN,
    LINE,
    LIST_WAYS,
    LONG,
    LONG_WORDS,
    ORDERS,
    RECENT,
    SHORT,
    SINGLE_WAYS,
    STATE,
    VERSION,
    WORD_LENGTH,
    Tree,
    Weights,
    make_weights,
)
from charloom.context_mixing.mixer import ContextMixer
from charloom.context_mixing.planes import FAULTS, OTHER, PAIRS
from charloom.context_mixing.tables import (
    MOVED,
    Tables,
    make_tables,
    put_words,
    width_of,
    words_of,
)
from charloom.context_mixing.trees import tree_of
from charloom.kernels.kernel import Kernel
from charloom.text.vocabulary import Vocabulary

FILL = Kernel("charloom.context_mixing.unpacking:fill", "reading a context mixer")

Arrays = dict[str, NDArray[Any]]
Words = NDArray[np.uint32]

LARGEST_TABLES = 256_000_000  # bytes of a file's tables in memory
PROBABILITY = 65_536  # parts of a learned probability
WEIGHT_SETS = ("frozen", "adaptive")
ROUNDED = ("counts", "recent", "refined")  # probabilities
SEEN = ("counts_seen", "recent_seen")
# The kinds of mixer, by their version. Counts of these contexts are of no use to other ones.
LAYOUTS, CONTEXT = {str(version): version for version in range(1, VERSION + 1)}, ORDERS
LEVEL = 6  # of compression
THREADS = 2  # that unpack
BYTES_OF_ENTRY = 3  # packed, about


class Shape(NamedTuple):
    """The shape of a table: lists in a bucket, entries of a list."""

    ways: int
    entries: int

    @property
    def bytes_of_bucket(self) -> int:
        return self.ways * (8 if self.entries == 1 else 4 * (self.entries + 1))


SHAPES = {
    "singles": Shape(SINGLE_WAYS, 1),
    "shorts": Shape(LIST_WAYS, SHORT),
    "longs": Shape(LIST_WAYS, LONG),
}
PLANES = ("used", "checks", "lengths", "codes", "pairs", "others", "characters")
UNCOMPRESSED = ("checks", "pairs")


def array_names() -> tuple[str, ...]:
    """Return the names of all arrays of a packed mixer."""
    return (
        *(f"{table}_{plane}" for table in SHAPES for plane in PLANES),
        *(f"{chosen}_{name}" for chosen in WEIGHT_SETS for name in Weights._fields),
        "children",
        "prior",
        "rank",
        "state",
        "blocks",
    )


def pack(mixer: ContextMixer) -> Arrays:
    """Return a mixer's arrays as they are stored, by name: bytes of each plane."""
    return dict(mixer.packed) if mixer.packed is not None else _packed(mixer)


def _packed(mixer: ContextMixer) -> Arrays:
    arrays: Arrays = {}
    for table in SHAPES:
        lists = lists_of(mixer.tables, table)
        for plane, found in lists.planes().items():
            arrays[f"{table}_{plane}"] = found if plane in UNCOMPRESSED else _compressed(found)
    for chosen in WEIGHT_SETS:
        weights: Weights = getattr(mixer, chosen)
        for name, values in weights._asdict().items():
            arrays[f"{chosen}_{name}"] = _compressed(_rounded(name, values))
    arrays["children"] = _compressed(mixer.tree.children.astype(np.int32))
    arrays["prior"] = _compressed(mixer.tree.prior.astype(np.float32))
    arrays["rank"] = _compressed(mixer.tree.rank.astype(np.uint16))
    arrays["state"] = _compressed(mixer.state.astype(np.uint64))
    arrays["blocks"] = _compressed(np.array([mixer.blocks], np.int64))
    return arrays


def packed_bytes(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Return the size of a packed mixer in its file."""
    return sum(array.nbytes for array in arrays.values())


def unpack(
    arrays: Mapping[str, NDArray[Any]], vocabulary: Vocabulary, version: int = VERSION
) -> ContextMixer:
    """Return the mixer of a version that was packed.

    Raises:
        ValueError: if the arrays are not those of a mixer of this vocabulary.
    """
    from concurrent.futures import ThreadPoolExecutor

    size = len(vocabulary)

    def table(name: str) -> tuple[NDArray[Any], ...]:
        planes = {plane: arrays[f"{name}_{plane}"] for plane in PLANES}
        return _table(name, SHAPES[name], planes, size)

    def weights(chosen: str) -> Weights:
        values = (
            _weights(f"{chosen}_{name}", name, arrays[f"{chosen}_{name}"], like)
            for name, like in make_weights()._asdict().items()
        )
        return Weights(*values)

    with ThreadPoolExecutor(THREADS) as pool:  # decompression and the kernel free Python's lock
        found, (frozen, adaptive) = pool.map(table, SHAPES), pool.map(weights, WEIGHT_SETS)
        (checks, singles), (shorts,), (longs,) = found
    tables = make_tables(
        len(singles) // SINGLE_WAYS, len(shorts) // LIST_WAYS, len(longs) // LIST_WAYS,
        width_of(size),
    )  # fmt: skip
    tables.checks[:], tables.singles[:], tables.longs[:] = checks, singles, longs.reshape(-1)
    put_words(tables.shorts, shorts)
    blocks = int(_exactly("blocks", arrays["blocks"], np.int64, 1)[0])
    tree, state = _tree(arrays, vocabulary), _state(arrays, size)
    return ContextMixer(size, tree, tables, frozen, adaptive, state, blocks, version)


def settled(mixer: ContextMixer, vocabulary: Vocabulary, most_bytes: float) -> Settled:
    """Return a mixer as it will be stored.

    Contexts that were seen most rarely are omitted until the mixer fits `most_bytes`.
    """
    arrays = _packed(mixer)
    entries = mixer.tables.singles
    alone = (entries != 0) & (entries >> 16 != MOVED)
    omitted = 0
    while (excess := packed_bytes(arrays) - most_bytes) > 0 and alone.any():
        count = np.where(alone, (entries >> 6) & 1023, 1024)
        rarest = np.flatnonzero(count == count.min())
        number = min(len(rarest), int(excess / BYTES_OF_ENTRY) + 1000)
        chosen = rarest[np.linspace(0, len(rarest) - 1, number).astype(np.intp)]
        entries[chosen] = 0
        alone[chosen] = False
        omitted += number
        arrays = _packed(mixer)
    found = unpack(arrays, vocabulary, mixer.version)
    found.packed = arrays
    return Settled(found, packed_bytes(arrays), omitted)


class Settled(NamedTuple):
    """A mixer that equals its file, its bytes there, and the number of omitted contexts."""

    mixer: ContextMixer
    packed: int
    omitted: int


class Lists(NamedTuple):
    """The occupied lists of a table."""

    used: NDArray[np.uint8]  # lists of each bucket
    checks: NDArray[np.uint16]  # (L,)
    lengths: NDArray[np.uint8]  # (L,)
    entries: Words  # (E,)

    def planes(self) -> Arrays:
        """Return the lists as numbers of few bits, by the names in PLANES."""
        characters, pairs = self.entries >> 16, (self.entries & 0xFFFF).astype(np.uint16)
        counts = np.bincount(pairs, minlength=1 << 16)
        frequent = np.argsort(-counts, kind="stable")[:PAIRS]
        frequent = frequent[counts[frequent] > 0]
        code_of = np.full(1 << 16, OTHER, np.uint8)
        code_of[frequent] = np.arange(len(frequent))
        codes = code_of[pairs]
        known = characters[characters != MOVED]
        return {
            "used": self.used,
            "checks": self.checks,
            "lengths": self.lengths,
            "codes": codes,
            "pairs": frequent.astype(np.uint16),
            "others": pairs[codes == OTHER],
            "characters": known.astype(np.uint16),
        }


def lists_of(tables: Tables, name: str) -> Lists:
    """Return the occupied lists of a table. Nothing follows an entry that a list has moved."""
    if name == "singles":
        occupied = tables.singles != 0
        checks, words = tables.checks, tables.singles[:, None]
    else:
        longs = tables.longs.reshape(-1, LONG_WORDS)
        lists = longs if name == "longs" else words_of(tables.shorts)
        occupied = lists[:, 0] != 0
        checks, words = lists[:, 0].astype(np.uint16), lists[:, 1:]
    used = occupied.reshape(-1, SHAPES[name].ways).sum(axis=1).astype(np.uint8)
    words = words[occupied].copy()
    words[words[:, 0] >> 16 == MOVED, 1:] = 0
    lengths = np.count_nonzero(words, axis=1).astype(np.uint8)
    return Lists(used, checks[occupied], lengths, words[words != 0])


def _table(
    name: str, shape: Shape, planes: Mapping[str, NDArray[Any]], vocabulary_size: int
) -> tuple[NDArray[Any], ...]:
    """Return a table from its planes: of singles the checks and entries, of lists all words.

    Raises:
        ValueError: if they are not those of a table.
    """
    used = _bytes(f"{name}_used", planes["used"], np.uint8, LARGEST_TABLES // shape.bytes_of_bucket)
    if len(used) < 1 or used.max() > shape.ways:
        raise ValueError(f"its {name} have no buckets, or too full ones")
    count = int(used.sum(dtype=np.int64))
    checks = planes["checks"]
    if checks.dtype != np.uint16 or checks.shape != (count,):
        raise ValueError(f"its {name} have {count} lists, but not as many checks")
    lengths = _exactly(f"{name}_lengths", planes["lengths"], np.uint8, count)
    if count and not 1 <= lengths.min() <= lengths.max() <= shape.entries:
        raise ValueError(f"a list of its {name} has an impossible length")
    entries = int(lengths.sum(dtype=np.int64))
    codes = _exactly(f"{name}_codes", planes["codes"], np.uint8, entries)
    pairs = planes["pairs"]
    if pairs.dtype != np.uint16 or pairs.ndim != 1 or len(pairs) > PAIRS:
        raise ValueError(f"the counts of its {name} have an impossible shape")
    others = _bytes(f"{name}_others", planes["others"], np.uint16, entries)
    characters = _bytes(f"{name}_characters", planes["characters"], np.uint16, entries)
    places, row = len(used) * shape.ways, shape.entries + (shape.entries > 1)
    of_lists, words = np.zeros(places, np.uint16), np.zeros((places, row), np.uint32)
    numbers = np.array([shape.ways, shape.entries, row, vocabulary_size, 0])
    planes_of_lists = np.ascontiguousarray(checks), lengths, codes, np.ascontiguousarray(pairs)
    FILL(used, *planes_of_lists, others, characters, of_lists, words, numbers)
    if numbers[-1]:
        raise ValueError(FAULTS[int(numbers[-1])].format(name))
    if shape.entries == 1:
        return of_lists, words[:, 0]
    if (checks & 1 == 0).any():
        raise ValueError(f"its {name} have impossible checks")
    words[:, 0] = of_lists
    return (words,)


def _rounded(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return weights as they are stored."""
    if name in ROUNDED:
        scaled = np.rint(values.astype(np.float64) * PROBABILITY)
        return np.clip(scaled, 0, PROBABILITY - 1).astype(np.uint16)
    if name in SEEN:
        return values.astype(np.uint16)
    return values.astype(np.float16) if values.dtype == np.float32 else values


def _weights(what: str, name: str, stored: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """Return the weights of a name, of the shape and type of `like`. Raises ValueError."""
    kind = _rounded(name, like[:1]).dtype
    values = _exactly(what, stored, kind, len(like))
    if name in ROUNDED:
        return (values / np.float32(PROBABILITY)).astype(np.float32)
    if not np.isfinite(values).all() or (kind == np.int64 and values.min() < 0):
        raise ValueError(f"its {what} are not finite")
    return values.astype(like.dtype)


def _tree(arrays: Mapping[str, NDArray[Any]], vocabulary: Vocabulary) -> Tree:
    nodes = len(vocabulary) - 1
    children = _exactly("children", arrays["children"], np.int32, 2 * nodes).reshape(nodes, 2)
    prior = _exactly("prior", arrays["prior"], np.float32, nodes)
    rank = _exactly("rank", arrays["rank"], np.uint16, len(vocabulary))
    if not ((prior > 0) & (prior < 1)).all():
        raise ValueError("its tree has probabilities outside 0 and 1")
    if len(rank) and rank.max() >= CLASSES:
        raise ValueError("its characters have impossible ranks")
    return tree_of(children, prior, rank.astype(np.int32), vocabulary.characters, vocabulary.end_id)


def _state(arrays: Mapping[str, NDArray[Any]], vocabulary_size: int) -> NDArray[np.uint64]:
    """Return the state of a mixer. Raises ValueError."""
    state = _exactly("state", arrays["state"], np.uint64, STATE)
    for i in (*range(RECENT), *range(ABOVE, ABOVE + 2 * LINE)):
        if state[i] > vocabulary_size:
            raise ValueError("its state has characters outside the vocabulary")
    if state[ABOVE_LENGTH] > LINE or max(state[COLUMN], state[WORD_LENGTH]) >= 2**62:
        raise ValueError("its state has an impossible length")
    return state


def _compressed(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values as bytes, compressed plane by plane: all first bytes, then all second ones."""
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    planes = little.reshape(-1).view(np.uint8).reshape(-1, values.dtype.itemsize).T
    return np.frombuffer(zlib.compress(planes.tobytes(), LEVEL), np.uint8)


def _bytes(what: str, stored: NDArray[Any], kind: Any, most: int) -> NDArray[Any]:
    """Return the values of a compressed array, at most `most` of them. Raises ValueError."""
    dtype = np.dtype(kind)
    if stored.dtype != np.uint8 or stored.ndim != 1:
        raise ValueError(f"its {what} have an impossible type")
    opened = zlib.decompressobj()
    try:
        data = opened.decompress(stored.tobytes(), most * dtype.itemsize + 1)
    except zlib.error:
        raise ValueError(f"its {what} cannot be decompressed") from None
    if len(data) % dtype.itemsize or len(data) > most * dtype.itemsize or not opened.eof:
        raise ValueError(f"its {what} have an impossible length")
    planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1)
    values = np.ascontiguousarray(planes.T).view(dtype.newbyteorder("<"))
    return np.asarray(values.reshape(-1).astype(dtype))


def _exactly(what: str, stored: NDArray[Any], kind: Any, count: int) -> NDArray[Any]:
    values = _bytes(what, stored, kind, count)
    if len(values) != count:
        raise ValueError(f"its {what} are {len(values)}, not {count}")
    return values
