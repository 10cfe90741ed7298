"""Logits and probabilities in single numbers, the same on every machine.

Logarithm and exponential function are polynomials in sums, products and quotients. The exponent
is read from the bits of a number, and written there.
"""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.kernels.compiling import subroutine

ONE, TWO, HALF = np.float32(1), np.float32(2), np.float32(0.5)
LN_2 = np.float32(0.69314718)
LOG2_E = np.float32(1.44269504)
ROOT_2 = np.float32(1.41421356)
MANTISSA, EXPONENT_OF_ONE, BIAS = np.int32(0x7FFFFF), np.int32(0x3F800000), np.int32(127)
BITS = np.int32(23)
LARGEST_LOGIT = np.float32(14)


@subroutine(types.float32, inline=True)
def logarithm(x):
    """Return log x for a normal x > 0, with an error of about 1e-7."""
    bits = np.float32(x).view(np.int32)
    exponent = np.int32(bits >> BITS) - BIAS
    m = np.int32((bits & MANTISSA) | EXPONENT_OF_ONE).view(np.float32)
    if m > ROOT_2:
        m = m * HALF
        exponent += 1
    t = (m - ONE) / (m + ONE)
    s = t * t
    series = ONE + s * (np.float32(1 / 3) + s * (np.float32(1 / 5) + s * np.float32(1 / 7)))
    return TWO * t * series + np.float32(exponent) * LN_2


@subroutine(types.float32, inline=True)
def logit_of(p):
    """Return log p / (1 - p)."""
    return logarithm(p) - logarithm(ONE - p)


@subroutine(types.float32, inline=True)
def probability_of(logit):
    """Return 1 / (1 + e^-x) for a logit x."""
    x = min(max(logit, -LARGEST_LOGIT), LARGEST_LOGIT) * -LOG2_E
    n = np.float32(int(x + np.float32(64.5)) - 64)
    r = (x - n) * LN_2
    e = ONE + r * (
        ONE
        + r * (HALF + r * (np.float32(1 / 6) + r * (np.float32(1 / 24) + r * np.float32(1 / 120))))
    )
    scale = np.int32((np.int32(n) + BIAS) << BITS).view(np.float32)
    return ONE / (ONE + e * scale)
