"""The entries of a coder's array, and the ends of its bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A coder, (CODER,): the interval, the number that a reader sees, the place of the next byte, the
# end of the bytes, and whether it writes.
CODER = 6
LOW, HIGH, VALUE, PLACE, END, WRITES = range(CODER)
GUESSES_OF_NUMBER = 64
EVEN = 32768  # a guess of one half

Coder = NDArray[np.uint64]
WIDTH = 8  # bytes of the interval


def new_writer() -> Coder:
    """Return a coder that writes."""
    return np.array([0, 2**64 - 1, 0, 0, 0, 1], np.uint64)


def new_reader(data: NDArray[np.uint8]) -> Coder:
    """Return a coder that reads bytes, (n,)."""
    value = int.from_bytes(data[:WIDTH].tobytes().ljust(WIDTH, b"\0"), "big")
    return np.array([0, 2**64 - 1, value, WIDTH, len(data), 0], np.uint64)


def last_bytes(writer: Coder) -> bytes:
    """Return the fewest last bytes from which a reader gets every decision."""
    low, high = int(writer[LOW]), int(writer[HIGH])
    for count in range(WIDTH + 1):
        step = 1 << 8 * (WIDTH - count)
        value = -(-low // step) * step
        if value <= high:
            return (value >> 8 * (WIDTH - count)).to_bytes(count, "big")
    raise AssertionError("an interval holds at least one number")


class Damage(Exception):
    """Compressed bytes were changed, cut or made up."""
