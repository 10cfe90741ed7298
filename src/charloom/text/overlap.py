"""Verbatim overlap of two texts: has a held-out split leaked, is a sample copied?

N is the number of characters of the training text, S that of the other text, V that of the
vocabulary.

A suffix array lists all positions of a text, sorted by the text that follows each one, as in a
dictionary. All occurrences of a stretch are adjacent in it, and binary search finds them (Manber
and Myers 1993).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.text.typed import as_shown
from charloom.text.vocabulary import Vocabulary

LONGEST_TO_INDEX = 50_000_000  # characters; a longer text takes too much time and memory

Integers = NDArray[np.integer[Any]]


class Overlap(NamedTuple):
    """A stretch of `length` characters in both texts, 0 where they share no character."""

    length: int
    place: int  # index of its first character in the text
    training_place: int  # index of its first occurrence in the training text


class IndexArrays(NamedTuple):
    """The arrays of a `TrainingIndex`."""

    text: NDArray[np.uint8]  # its ids, each in big-endian bytes
    starts: Integers  # of its suffixes in these bytes, sorted by the suffixes, (N,)
    width: int  # bytes of an id


@dataclass(frozen=True)
class CopiedStretch:
    """The longest verbatim overlap of a sample with the training text.

    Attributes:
        length: its number of characters, 0 if there is no overlap.
        text: its characters, which are shown as text if they are bytes.
        place: the index of its first character in the sample, from 0.
        training_place: the index of its first occurrence in the training text, from 0; in a
            collection, that in the document.
        training_line: the line of that occurrence, from 1.
        training_document: the document of that occurrence, None without a collection.
    """

    length: int
    text: str
    place: int
    training_place: int
    training_line: int
    training_document: str | None = None


def longest_overlap(training: Integers, text: Integers) -> Overlap:
    """Return the longest stretch of a text's ids, (S,), that the training text's, (N,), contain."""
    largest = max(int(training.max(initial=0)), int(text.max(initial=0)))
    return TrainingIndex(training, largest + 1).longest(text)


class TrainingIndex:
    """A suffix array of a training text's ids, (N,), in which any stretch is found fast.

    It takes five bytes a character, or six where the vocabulary has more than 255 characters.
    Building it takes twenty. Raises ImportError where pydivsufsort is missing.
    """

    def __init__(self, training: Integers, vocabulary_size: int) -> None:
        from pydivsufsort import divsufsort

        self.vocabulary_size = vocabulary_size
        # Big-endian, so that bytes sort as ids do. One id more than the vocabulary has is reserved
        # for characters that the training text cannot contain.
        sizes = (("u1", 1 << 8), (">u2", 1 << 16), (">u4", 1 << 32))
        self._type = np.dtype(next(name for name, size in sizes if vocabulary_size < size))
        self._width = self._type.itemsize
        self._text = self._encoded(training)
        starts = divsufsort(self._text)  # of suffixes, in bytes
        if self._width > 1:
            starts = starts[starts % self._width == 0]
        # A memoryview, because it returns Python integers faster than NumPy does.
        self._starts = memoryview(starts).cast("B").cast(starts.dtype.char)

    def __len__(self) -> int:
        return len(self._starts)

    @cached_property
    def arrays(self) -> IndexArrays:
        """The text and its suffixes, for kernels."""
        starts = np.asarray(self._starts)
        return IndexArrays(np.frombuffer(self._text, np.uint8), starts, self._width)

    @property
    def ids(self) -> Integers:
        """The ids of the training text, (N,)."""
        return np.frombuffer(self._text, self._type)

    def longest(self, ids: Integers, begin: int = 0) -> Overlap:
        """Return the longest stretch of a text's ids that the training text contains.

        Args:
            ids: the text's, (S,), with -1 for a character that the training text cannot contain.
            begin: only stretches that end at or after this index count.

        Returns:
            The first of the longest stretches, at its first occurrence.
        """
        text, width = self._encoded(ids), self._width

        def occurs(start: int, end: int) -> bool:
            return self._contains(text[start * width : end * width])

        found, best, start, end = 0, 0, 0, begin + 1
        while end <= len(ids):
            start = _earliest(occurs, start, end)
            if end - start > best:
                step = 1  # extends the stretch, by doubled steps first and then by halved ones
                while step:
                    if end + step <= len(ids) and occurs(start, end + step):
                        end += step
                        step *= 2
                    else:
                        step //= 2
                found, best = start, end - start
            # A stretch that ends later begins no earlier, so no shorter end can improve on `best`.
            end = max(end, start + best) + 1
        if not best:
            return Overlap(0, 0, 0)
        low, high = self._range(text[found * width : (found + best) * width])
        return Overlap(best, found, int(np.asarray(self._starts[low:high]).min()) // width)

    def followers(self, stretch: Integers) -> NDArray[np.bool_]:
        """Return which characters, (V,), follow an occurrence of the ids `stretch`, (n,)."""
        found = np.zeros(self.vocabulary_size, dtype=bool)
        known = self._encoded(stretch)
        size = len(known) + self._width
        low, high = self._range(known)
        while low < high:  # Suffixes with the same follower are adjacent, so jump over them.
            longer = self._text[self._starts[low] : self._starts[low] + size]
            if len(longer) == size:  # The text does not end here.
                found[int.from_bytes(longer[-self._width :], "big")] = True
            low = bisect_right(self._starts, longer, low, high, key=self._prefix(size))
        return found

    def copied(self, ids: Integers) -> int:
        """Return how many of the last ids of a text, (S,), are copied from the training text."""
        text, width = self._encoded(ids), self._width
        start = _earliest(lambda start, end: self._contains(text[start * width :]), 0, len(ids))
        return len(ids) - start

    def _encoded(self, ids: Integers) -> bytes:
        if ids.dtype.kind != "u":
            ids = np.where(ids < 0, np.int64(self.vocabulary_size), ids)
        return ids.astype(self._type).tobytes()

    def _prefix(self, size: int) -> Callable[[int], bytes]:
        """Return a function that returns the first `size` bytes of the suffix at a start."""
        text = self._text
        return lambda start: text[start : start + size]

    def _contains(self, stretch: bytes) -> bool:
        low = bisect_left(self._starts, stretch, key=self._prefix(len(stretch)))
        return low < len(self) and self._text.startswith(stretch, self._starts[low])

    def _range(self, stretch: bytes) -> tuple[int, int]:
        """Return the range of suffixes that begin with a stretch."""
        key = self._prefix(len(stretch))
        low = bisect_left(self._starts, stretch, key=key)
        return low, bisect_right(self._starts, stretch, low, key=key)


def find_copied_stretch(
    index: TrainingIndex, vocabulary: Vocabulary, text: str, drawn_from: int
) -> CopiedStretch:
    """Find the longest stretch of a sample that the training text contains.

    Args:
        index: the training text.
        vocabulary: its characters.
        text: the prompt and the sample, in characters of the model.
        drawn_from: the length of the prompt in them. The stretch ends after it.
    """
    ids = vocabulary.ids_or_minus_one(text)
    found = index.longest(ids, drawn_from)
    training, begin, end = index.ids, 0, found.training_place
    document = None
    if vocabulary.end_id is not None and found.length:
        ends = np.flatnonzero(training == vocabulary.end_id)
        number = int(np.searchsorted(ends, found.training_place))
        begin = int(ends[number - 1]) + 1 if number else 0
        last = int(ends[number]) if number < len(ends) else len(training)
        document = as_shown(vocabulary.decode(training[begin:last]), vocabulary)
    newline = vocabulary.ids_or_minus_one("\n")[0]
    return CopiedStretch(
        found.length,
        as_shown(text[found.place : found.place + found.length], vocabulary),
        found.place,
        end - begin,
        1 + int(np.count_nonzero(training[begin:end] == newline)),
        document,
    )


def _earliest(occurs: Callable[[int, int], bool], start: int, end: int) -> int:
    """Return the first index, from `start` on, whose stretch up to `end` occurs."""
    return bisect_left(range(end), True, start, key=lambda place: occurs(place, end))
