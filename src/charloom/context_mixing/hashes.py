"""The hash of a context mixer, in Python's integers."""

from __future__ import annotations

from charloom.context_mixing.layout import HASH_SPREAD, MULTIPLIERS

BITS_64 = (1 << 64) - 1


def mixed(x: int) -> int:
    """Return a hash of 64 bits."""
    x ^= x >> 31
    x = x * MULTIPLIERS[0] & BITS_64
    x ^= x >> 27
    x = x * MULTIPLIERS[1] & BITS_64
    return x ^ (x >> 33)


def joined(a: int, b: int, salt: int) -> int:
    """Return the hash of two values and the number of a kind of context."""
    first = mixed(a * HASH_SPREAD + salt + 1 & BITS_64)
    return mixed(first + b * MULTIPLIERS[0] & BITS_64)
