"""Where stretches of one text stand verbatim in another: has a part leaked, is a sample copied?

N: characters of the training text; S: characters of the other one; V: characters in the vocabulary.

A suffix array lists the places of a text in the order of what follows them, as a dictionary would.
All places where a stretch stands lie side by side in it, and are found by halving (Manber and Myers
1993).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LONGEST_TO_INDEX = 50_000_000  # characters; more takes too long, and too much memory

Integers = NDArray[np.integer[Any]]


class Overlap(NamedTuple):
    """A stretch of `length` characters; 0 where the texts share no character."""

    length: int
    place: int  # where it begins in the text
    training_place: int  # where it begins in the training text


def longest_overlap(training: Integers, text: Integers) -> Overlap:
    """The longest stretch of a text's ids, (S,), that stands in the training text's, (N,)."""
    largest = max(int(training.max(initial=0)), int(text.max(initial=0)))
    return TrainingIndex(training, largest + 1).longest(text)


class TrainingIndex:
    """A training text's ids, (N,), in such an order that any stretch is found at once.

    It holds five bytes a character; six where the vocabulary has more than 255, and twenty while it
    is made. Raises ImportError where pydivsufsort is missing.
    """

    def __init__(self, training: Integers, vocabulary_size: int) -> None:
        from pydivsufsort import divsufsort

        self.vocabulary_size = vocabulary_size
        # The highest byte first: bytes are then in the order of ids. There is room for one more id,
        # of characters that the training text cannot have.
        sizes = (("u1", 1 << 8), (">u2", 1 << 16), (">u4", 1 << 32))
        self._type = np.dtype(next(name for name, size in sizes if vocabulary_size < size))
        self._width = self._type.itemsize
        self._text = self._encoded(training)
        starts = divsufsort(self._text)  # of suffixes, in bytes
        if self._width > 1:
            starts = starts[starts % self._width == 0]
        # Python's own numbers, which are had sooner than NumPy's.
        self._starts = memoryview(starts).cast("B").cast(starts.dtype.char)

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def ids(self) -> Integers:
        """The training text's, (N,)."""
        return np.frombuffer(self._text, self._type)

    def longest(self, ids: Integers, begin: int = 0) -> Overlap:
        """The longest stretch of a text's ids, (S,), that stands in the training text and ends at
        or after the place `begin`; of several the first, where it first stands. An id of -1 is a
        character that the training text cannot have.
        """
        text, width = self._encoded(ids), self._width

        def stands(start: int, end: int) -> bool:
            return self._holds(text[start * width : end * width])

        found, best, start, end = 0, 0, 0, begin + 1
        while end <= len(ids):
            start = _earliest(stands, start, end)
            if end - start > best:
                step = 1  # how far it goes on: by longer and longer steps, then by shorter ones
                while step:
                    if end + step <= len(ids) and stands(start, end + step):
                        end += step
                        step *= 2
                    else:
                        step //= 2
                found, best = start, end - start
            # What ends later begins no earlier, so what ends before this is no longer.
            end = max(end, start + best) + 1
        if not best:
            return Overlap(0, 0, 0)
        low, high = self._range(text[found * width : (found + best) * width])
        return Overlap(best, found, int(np.asarray(self._starts[low:high]).min()) // width)

    def followers(self, stretch: Integers) -> NDArray[np.bool_]:
        """Which characters, (V,), follow a stretch's ids, (n,), somewhere in the training text."""
        found = np.zeros(self.vocabulary_size, dtype=bool)
        known = self._encoded(stretch)
        size = len(known) + self._width
        low, high = self._range(known)
        while low < high:  # those with the same follower lie side by side: from each to the next
            longer = self._text[self._starts[low] : self._starts[low] + size]
            if len(longer) == size:  # the text goes on here
                found[int.from_bytes(longer[-self._width :], "big")] = True
            low = bisect_right(self._starts, longer, low, high, key=self._beginning(size))
        return found

    def _encoded(self, ids: Integers) -> bytes:
        if ids.dtype.kind != "u":
            ids = np.where(ids < 0, np.int64(self.vocabulary_size), ids)
        return ids.astype(self._type).tobytes()

    def _beginning(self, size: int) -> Any:
        """What gives the first bytes of the suffix that starts at a place."""
        text = self._text
        return lambda start: text[start : start + size]

    def _holds(self, stretch: bytes) -> bool:
        low = bisect_left(self._starts, stretch, key=self._beginning(len(stretch)))
        return low < len(self) and self._text.startswith(stretch, self._starts[low])

    def _range(self, stretch: bytes) -> tuple[int, int]:
        """From where to where the suffixes lie that begin with a stretch."""
        key = self._beginning(len(stretch))
        low = bisect_left(self._starts, stretch, key=key)
        return low, bisect_right(self._starts, stretch, low, key=key)


def _earliest(stands: Any, start: int, end: int) -> int:
    """From which place on, `start` or later, what reaches to `end` stands there."""
    return bisect_left(range(end), True, start, key=lambda place: stands(place, end))
