"""The longest stretch of one text that stands verbatim in another: has a held-out part leaked?

N: characters of the training text; S: characters of the other one.

Stretches of one length are told apart by numbers: those of length m + n by the pair of numbers of
their first m and their last n characters, which may overlap (Karp, Miller and Rosenberg 1972). A
common stretch has common beginnings, so that the greatest length can be found by halving.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]


class Overlap(NamedTuple):
    """A stretch of `length` characters; 0 where the texts share no character."""

    length: int
    place: int  # where it begins in the text
    training_place: int  # where it begins in the training text


def longest_overlap(training: Integers, text: Integers) -> Overlap:
    """The longest stretch of a text's ids, (S,), that stands in the training text's, (N,)."""
    both = np.concatenate([training, text]).astype(np.int64)
    lengths = len(training), len(text)
    found = _shared(both, 1, lengths)
    if found is None:
        return Overlap(0, 0, 0)
    known: Integers = both
    size = 1  # numbers of all stretches of that many characters
    while 2 * size <= min(lengths):
        longer = _longer(known, size, 2 * size)
        shared = _shared(longer, 2 * size, lengths)
        if shared is None:
            break
        known, size, found = longer, 2 * size, shared
    least, most = size, min(2 * size, min(lengths) + 1)  # the most are not shared, or not there
    while most - least > 1:
        middle = (least + most) // 2
        shared = _shared(_longer(known, size, middle), middle, lengths)
        if shared is None:
            most = middle
        else:
            least, found = middle, shared
    return Overlap(least, found[0], found[1])


def _longer(known: Integers, size: int, length: int) -> Integers:
    """Numbers of the stretches of `length` characters, size ≤ length ≤ 2 · size, from those of
    `size`. (Some reach from the training text into the other; nobody asks for them.)"""
    count = len(known) - (length - size)
    pairs = known[:count] * (int(known.max()) + 1) + known[length - size :]
    return np.asarray(np.unique(pairs, return_inverse=True)[1], dtype=np.int64)


def _shared(numbers: Integers, length: int, lengths: tuple[int, int]) -> tuple[int, int] | None:
    """Where the first stretch of the text that the training text has begins in each."""
    train = numbers[: lengths[0] - length + 1]
    text = numbers[lengths[0] : lengths[0] + lengths[1] - length + 1]
    place = np.full(int(numbers.max()) + 1, -1)
    place[train[::-1]] = np.arange(len(train))[::-1]
    shared = np.flatnonzero(place[text] >= 0)
    if not len(shared):
        return None
    return int(shared[0]), int(place[text[shared[0]]])
