"""Split a text in three; put the documents of each split of a collection together.

A document's split depends on a hash of its content alone. A document and its copies are therefore
in the same split, and stay there when the text grows. Few long documents are each cut by
themselves. The splits of a book follow one another in its own order.

D is the number of documents, N that of characters with the ends of documents.
"""

from __future__ import annotations

import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from charloom.text.excerpt import document_ends
from charloom.text.vocabulary import Vocabulary

FEW_DOCUMENTS, LONG_DOCUMENT = 100, 10_000  # documents; characters
NEAR_LINE_BREAK = 1000  # characters to the line break to which a cut is moved
LARGEST_SHARE = 0.01  # of the text; more frequent documents are for training
COPIED_AT_ONCE = 1 << 20  # characters
IN_MEMORY_AT_MOST = 1 << 26  # bytes of ids; a longer text is stored in a memory-mapped file

Ids = NDArray[np.unsignedinteger]
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]
TRAIN, VALIDATION, TEST = range(3)
PART_NUMBERS = {"validation": VALIDATION, "test": TEST}


class Percentages(Protocol):
    """The percentages of a split, as `charloom.text.dataset.Split` implements them."""

    @property
    def train(self) -> float: ...

    @property
    def validation(self) -> float: ...

    @property
    def test(self) -> float: ...

    def boundaries(self, length: int) -> tuple[int, int]: ...

    def without(self, *, validation: bool, test: bool) -> Percentages: ...


@dataclass(frozen=True)
class EncodedText:
    """A text as ids, in its own order.

    Attributes:
        ids: the text, (N,).
        folded: for each character without an id, the index of the id that follows it.
        hashes: of the contents of its documents, (D,); of a book, none.
    """

    ids: Ids
    folded: Places
    hashes: Hashes


@dataclass(frozen=True)
class Division:
    """A text in three parts, one after another.

    Attributes:
        ids: training, validation and test.
        boundaries: the indices at which validation and test begin.
        documents: the documents, or pieces of documents, of each part; of a book, none.
        folded: the characters without an id of each part.
        rule: how documents were divided; of a book, empty.
        notes: what is missing, each in a line to print.
    """

    ids: Ids
    boundaries: tuple[int, int]
    documents: tuple[int, int, int]
    folded: tuple[int, int, int]
    rule: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pieces:
    """Stretches of ids that are put one after another: D starts and lengths, in order."""

    ids: Ids
    starts: Places
    lengths: Places

    @property
    def total(self) -> int:
        return int(self.lengths.sum())

    def of(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Pieces:
        return Pieces(self.ids, self.starts[chosen], self.lengths[chosen])

    def count(self, places: Places) -> int:
        """Return how many places, in ascending order, are inside the stretches."""
        ends = self.starts + self.lengths
        return int((np.searchsorted(places, ends) - np.searchsorted(places, self.starts)).sum())

    def documents(self, end_id: int | None) -> int:
        """Return the number of documents that end in the stretches."""
        if end_id is None:
            return 0
        lasts = (self.starts + self.lengths - 1)[self.lengths > 0]
        return int((self.ids[lasts] == end_id).sum())

    def blocks(self) -> Iterator[Ids]:
        """Return the ids in blocks of bounded size."""
        long = np.flatnonzero(self.lengths > COPIED_AT_ONCE)
        begin = 0
        for index in [*long.tolist(), len(self.lengths)]:
            yield from self._blocks_of_short(begin, index)
            if index < len(self.lengths):
                start, length = int(self.starts[index]), int(self.lengths[index])
                for place in range(start, start + length, COPIED_AT_ONCE):
                    yield self.ids[place : min(place + COPIED_AT_ONCE, start + length)]
            begin = index + 1

    def _blocks_of_short(self, begin: int, end: int) -> Iterator[Ids]:
        while begin < end:
            sums = np.cumsum(self.lengths[begin : min(end, begin + COPIED_AT_ONCE)])
            stop = begin + int(np.searchsorted(sums, COPIED_AT_ONCE, side="right"))
            lengths = self.lengths[begin:stop]
            offsets = self.starts[begin:stop] - (np.cumsum(lengths) - lengths)
            yield self.ids[np.repeat(offsets, lengths) + np.arange(lengths.sum())]
            begin = stop


def find_documents(ids: Ids, end_id: int) -> Pieces:
    """Return the documents of an encoded text, each with the id of its end."""
    ends = document_ends(ids, end_id)
    lengths = np.diff(ends, prepend=0)
    return Pieces(ids, ends - lengths, lengths)


def are_cut_by_themselves(lengths: Places) -> bool:
    """Return True if each document, (D,), is split by itself: there are few, and they are long."""
    if len(lengths) >= FEW_DOCUMENTS:
        return False
    are_long = lengths.mean() >= LONG_DOCUMENT and np.median(lengths) >= LONG_DOCUMENT / 10
    return bool(are_long) or len(lengths) < 3


def cut_documents(documents: Pieces, split: Percentages, newline: int) -> list[Pieces]:
    """Cut each document into its training, validation and test pieces, without empty ones.

    Args:
        documents: the documents, each with its end.
        split: the percentages.
        newline: the id of a line break, to which cuts are moved; -1 without one.

    Returns:
        For each split its pieces, with the end of the document after each one.
    """
    parts: list[list[tuple[int, int]]] = [[], [], []]
    for start, length in zip(documents.starts.tolist(), documents.lengths.tolist(), strict=True):
        first, second = _cuts(documents.ids[start : start + length - 1], split, newline)
        bounds = (0, first), (first, second), (second, length - 1)
        for part, (begin, end) in zip(parts, bounds, strict=True):
            if end > begin:
                part += [(start + begin, end - begin), (start + length - 1, 1)]
    return [_pieces(documents.ids, part) for part in parts]


def _pieces(ids: Ids, stretches: Sequence[tuple[int, int]]) -> Pieces:
    starts, lengths = np.array(stretches, np.int64).reshape(-1, 2).T
    return Pieces(ids, starts, lengths)


def _cuts(content: Ids, split: Percentages, newline: int) -> tuple[int, int]:
    length = len(content)
    near = min(NEAR_LINE_BREAK, length // 50)

    def cut(percentage: float) -> int:
        place = int(length * percentage / 100)
        if 0 < place < length:
            breaks = np.flatnonzero(content[place - 1 : place + near] == newline)
            place += int(breaks[0]) if len(breaks) else 0
        return place

    if not length:
        return 0, 0
    # Each part gets a character, if the document has as many.
    least_held_out = (split.validation > 0) + (split.test > 0)
    first = max(1, min(cut(split.train), length - least_held_out))
    if split.test <= 0:
        return first, length
    second = max(cut(split.train + split.validation), first + (split.validation > 0))
    return first, max(first, min(second, length - 1))


def parts_by_hash(
    hashes: Hashes,
    lengths: NDArray[np.int64],
    split: Percentages,
    given: Container[int] = (),
) -> NDArray[np.uint8]:
    """Return the split of each document, (D,): 0 training, 1 validation, 2 test.

    A document whose copies make up more than a hundredth of the text is for training. So is a
    single one of that size if it is ten times as long as the mean. A split that would be empty,
    although its percentage is not, gets the document whose hash is nearest to its own.

    Args:
        hashes: of the documents' contents, (D,).
        lengths: their characters, (D,).
        split: the percentages.
        given: the parts that are texts of their own. Their percentage is for training.
    """
    distinct, which, copies = np.unique(hashes, return_inverse=True, return_counts=True)
    sizes = np.bincount(which, weights=lengths).astype(np.float64)
    places = distinct / 2.0**64  # in [0, 1]
    first, second = split.train / 100, (split.train + split.validation) / 100
    parts = np.where(places < first, TRAIN, np.where(places < second, VALIDATION, TEST))
    if split.test <= 0:
        parts = np.where(parts == TEST, VALIDATION if split.validation > 0 else TRAIN, parts)
    for part in (VALIDATION, TEST):
        if part in given:
            parts[parts == part] = TRAIN
    frequent = (copies > 1) | (sizes > 10 * lengths.mean())
    parts[(sizes > LARGEST_SHARE * lengths.sum()) & frequent] = TRAIN
    wanted = {VALIDATION: (split.validation, first, second), TEST: (split.test, second, 1.0)}
    for part, (percentage, begin, end) in wanted.items():
        if percentage > 0 and part not in given and not (parts == part).any():
            _move_nearest(parts, part, np.maximum(begin - places, places - end), sizes)
    if not (parts == TRAIN).any():
        _move_nearest(parts, TRAIN, places - first, sizes)
    return parts[which].astype(np.uint8)


def _move_nearest(
    parts: NDArray[np.intp], part: int, distances: NDArray[np.float64], sizes: NDArray[np.float64]
) -> None:
    """Move the nearest document into a part, but no document that is alone in its own part.

    A document that makes up more than a tenth of the text moves only if there is no other.
    """
    counts = np.bincount(parts, minlength=3)
    movable = (counts[parts] > 1) & (parts != part)
    small = movable & (sizes <= sizes.sum() / 10)
    candidates = np.flatnonzero(small if small.any() else movable)
    if len(candidates):
        parts[candidates[np.argmin(distances[candidates])]] = part


def order_of(hashes: Hashes) -> NDArray[np.intp]:
    """Return an order of documents that does not depend on their order in the text, (D,).

    It looks random, and copies do not follow one another.
    """
    by_hash = np.argsort(hashes, kind="stable")
    ordered = hashes[by_hash]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    copies = np.arange(len(hashes)) - np.repeat(begins, np.diff(np.r_[begins, len(hashes)]))
    keys = _mixed(ordered + copies.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return by_hash[np.argsort(keys, kind="stable")]


def _mixed(numbers: Hashes) -> Hashes:
    """Return the numbers with their bits mixed (the finalizer of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def divide(
    text: EncodedText,
    own: Mapping[str, EncodedText],
    split: Percentages,
    vocabulary: Vocabulary,
    folder: Path | None = None,
) -> Division:
    """Divide a text into training, validation and test.

    Args:
        text: the text.
        own: texts that are the "validation" or the "test" part. Their percentage is for training.
        split: the percentages.
        vocabulary: that of all texts.
        folder: where a long text is stored, in a temporary file without a name.
    """
    given = {PART_NUMBERS[name] for name in own}
    rule = ""
    if vocabulary.end_id is None or not len(text.hashes):
        kept = split.without(validation=VALIDATION in given, test=TEST in given)
        first, second = kept.boundaries(len(text.ids))
        bounds = (0, first), (first, second - first), (second, len(text.ids) - second)
        parts = [_pieces(text.ids, [bound]) for bound in bounds]
        in_order = not own
    else:
        parts, rule = _divide_documents(text, split, given, vocabulary)
        in_order = False
    folded = _count_folded(parts, text.folded)
    for name, other in own.items():
        parts[PART_NUMBERS[name]] = _whole(other, vocabulary)
        folded[PART_NUMBERS[name]] = len(other.folded)
    totals = [pieces.total for pieces in parts]
    ids = text.ids
    if not in_order:
        blocks = (block for pieces in parts for block in pieces.blocks())
        ids = store_ids(blocks, sum(totals), vocabulary.id_type, folder)
    boundaries = totals[TRAIN], totals[TRAIN] + totals[VALIDATION]
    train, validation, test = (pieces.documents(vocabulary.end_id) for pieces in parts)
    return Division(
        ids,
        boundaries,
        (train, validation, test),
        (folded[0], folded[1], folded[2]),
        rule,
        _missing(split, (validation, test)) if rule else (),
    )


def _missing(split: Percentages, documents: tuple[int, int]) -> tuple[str, ...]:
    """Return a note for the parts that have no document although they have a percentage."""
    wanted = zip(PART_NUMBERS, (split.validation, split.test), documents, strict=True)
    empty = [name for name, percentage, count in wanted if percentage > 0 and not count]
    if not empty:
        return ()
    splits = " and the ".join(f"{name} split" for name in empty)
    return (f"the {splits} would need more documents that differ: all are for training",)


def _divide_documents(
    text: EncodedText, split: Percentages, given: Container[int], vocabulary: Vocabulary
) -> tuple[list[Pieces], str]:
    """Return the documents of each part, and the rule."""
    assert vocabulary.end_id is not None
    documents = find_documents(text.ids, vocabulary.end_id)
    if are_cut_by_themselves(documents.lengths - 1):
        kept = split.without(validation=VALIDATION in given, test=TEST in given)
        newline = int(vocabulary.ids_or_minus_one("\n")[0])
        return cut_documents(documents, kept, newline), f"each document is split {kept} by itself"
    order = order_of(text.hashes)
    if VALIDATION in given and TEST in given:
        nothing = order[:0]
        return (
            [documents.of(order), documents.of(nothing), documents.of(nothing)],
            "no split, because validation and test have texts of their own",
        )
    parts = parts_by_hash(text.hashes, documents.lengths, split, given)[order]
    return (
        [documents.of(order[parts == part]) for part in range(3)],
        "documents are split by a hash of their content, copies alike",
    )


def _count_folded(parts: Sequence[Pieces], places: Places) -> list[int]:
    """Return the number of characters without an id in each part."""
    counts = [0, 0, 0]
    if len(places):
        seen = np.zeros(0, np.int64)  # the end of a document is in each part of it
        for part in (TEST, VALIDATION, TRAIN):
            new = ~np.isin(parts[part].starts, seen)
            counts[part] = parts[part].of(new).count(places)
            seen = np.concatenate([seen, parts[part].starts])
        # Characters after the last id of a book belong to its last part.
        last = max((part for part in range(3) if parts[part].total), default=TRAIN)
        counts[last] += len(places) - sum(counts)
    return counts


def _whole(text: EncodedText, vocabulary: Vocabulary) -> Pieces:
    if vocabulary.end_id is None:
        return _pieces(text.ids, [(0, len(text.ids))])
    return find_documents(text.ids, vocabulary.end_id).of(order_of(text.hashes))


def store_ids(
    blocks: Iterable[Ids],
    length: int,
    id_type: np.dtype[np.unsignedinteger],
    folder: Path | None = None,
    in_memory: int = IN_MEMORY_AT_MOST,
) -> Ids:
    """Return the ids of blocks as one array, (N,).

    Args:
        blocks: the blocks, of N ids in all.
        length: N.
        id_type: the type of the ids.
        folder: where a long array is stored, in a memory-mapped temporary file without a name. By
            default it is the system's folder for temporary files.
        in_memory: bytes that are kept in memory instead.
    """
    ids: Ids
    if length * id_type.itemsize <= in_memory:
        ids = np.empty(length, id_type)
        written = 0
        for block in blocks:
            ids[written : written + len(block)] = block
            written += len(block)
        return ids
    with tempfile.TemporaryFile(dir=folder) as file:
        for block in blocks:
            file.write(block.tobytes())
        file.flush()
        # The mapping keeps the file's bytes alive after the file is closed.
        return np.memmap(cast(BinaryIO, file), dtype=id_type, mode="r")
