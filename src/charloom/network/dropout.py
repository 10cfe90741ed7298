"""Dropout masks hashed from a counter, so that every engine samples the same mask."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.network.parameters import Float


def dropout_mask(
    seed: int,
    step: int,
    layer: int,
    shape: tuple[int, int, int],
    rate: float,
    dtype: str,
    first_row: int = 0,
) -> Float:
    """Return a mask over (T, B, H): 0 with probability `rate`, else 1 / (1 - rate).

    A counter is hashed for each entry, keyed by seed, step, layer and row (SplitMix64's finalizer,
    Steele et al. 2014), so that every engine samples the same mask, in any order.

    Args:
        seed: seed of the masks.
        step: number of the training step.
        layer: index of the layer.
        shape: (T, B, H).
        rate: probability of 0.
        dtype: dtype of the mask.
        first_row: index of the first row in a larger batch.
    """
    return _mask(dropout_key(seed, step, rate), layer, shape, dtype, first_row)


def weight_mask(
    seed: int, step: int, layer: int, shape: tuple[int, int], rate: float, dtype: str
) -> Float:
    """Return a mask over a layer's recurrent weights, (G·H, H), for a whole window.

    This is DropConnect (Wan et al. 2013), on recurrent weights as in Merity et al. 2018. The
    arguments are those of `dropout_mask`.
    """
    key = dropout_key(seed, step, rate, of_weights=True)
    return _mask(key, layer, (1, *shape), dtype).reshape(shape)


def _mask(
    key_and_scale: tuple[NDArray[np.uint64], float],
    layer: int,
    shape: tuple[int, int, int],
    dtype: str,
    first_row: int = 0,
) -> Float:
    steps, rows, size = shape
    golden = np.uint64(GOLDEN)
    (_, key, least), kept = key_and_scale
    with np.errstate(over="ignore"):
        key = _mix(key + np.uint64(layer) * golden)
        keys = _mix(key + np.arange(first_row, first_row + rows, dtype=np.uint64) * golden)  # (B,)
        counters = np.arange(1, steps * size + 1, dtype=np.uint64).reshape(steps, 1, size)
        bits = _mix(keys[None, :, None] + counters * golden)  # (T, B, H)
    # An entry is dropped if its uppermost 53 bits, as a number from 0 to 1, are below the rate.
    bits >>= np.uint64(11)
    return np.asarray((bits >= least) * np.dtype(dtype).type(kept))


GOLDEN = 0x9E3779B97F4A7C15


def dropout_key(
    seed: int, step: int | None, rate: float, *, of_weights: bool = False
) -> tuple[NDArray[np.uint64], float]:
    """Return the numbers that a step's masks are computed from.

    Args:
        seed: seed of the masks.
        step: number of the training step; None for no dropout.
        rate: probability of 0.
        of_weights: whether the masks are those of weights, whose key is the complement.

    Returns:
        Three integers, and the factor of kept entries. The integers are 1 for dropout or 0 without,
        the key of seed and step, and the least 53-bit number that is kept.
    """
    if step is None or rate == 0:
        return np.zeros(3, dtype=np.uint64), 1.0
    golden = np.uint64(GOLDEN)
    with np.errstate(over="ignore"):
        key = _mix(np.uint64(seed) + golden)
        key = _mix(key + np.uint64(step) * golden)
    if of_weights:
        key = ~key
    least = np.uint64(math.ceil(rate * 2.0**53))
    return np.array([1, key, least], dtype=np.uint64), 1 / (1 - rate)


def _mix(z: Any) -> Any:
    """Return SplitMix64's finalizer of uint64 numbers, in place where z is an array."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
