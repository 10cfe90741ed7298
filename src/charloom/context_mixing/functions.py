"""The functions that a context mixer's tables are made from, with the same bits on every machine.

Logarithms and exponentials of the system's library, or NumPy's, differ in the last digits between
machines. A text that was encoded with one mixer could then not be decoded with another. Here they
follow from sums, products and quotients of float64, which IEEE 754 fixes, in a fixed order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.floating]

LOG_2 = 0.6931471805599453  # rounded
LOG_2_HIGH = 0.693147180369123816490  # its first 33 bits, so that small multiples are exact
LOG_2_LOW = 1.90821492927058770002e-10  # the rest
SQUARE_ROOT_HALF = 0.7071067811865476
TERMS_OF_LOG, TERMS_OF_EXP = 14, 16  # after which 53 bits do not change


def log(x: Doubles) -> Doubles:
    """Return the natural logarithm of positive numbers, with an error of some 1e-16.

    With x = m 2^k and s = (m - 1) / (m + 1), log m = 2 (s + s³/3 + s⁵/5 + …).
    """
    m, k = np.frexp(x)  # exact
    low = m < SQUARE_ROOT_HALF
    m, k = np.where(low, 2 * m, m), k - low
    s = (m - 1) / (m + 1)
    square, total = s * s, np.zeros_like(s)
    for i in range(TERMS_OF_LOG - 1, -1, -1):
        total = total * square + 1 / (2 * i + 1)
    return np.asarray(k * LOG_2_HIGH + (k * LOG_2_LOW + 2 * s * total))


def exp(x: Doubles) -> Doubles:
    """Return e^x for |x| below 700, with a relative error of some 1e-16.

    With x = k log 2 + r and |r| ≤ (log 2) / 2, e^x = 2^k (1 + r + r²/2! + …).
    """
    k = np.rint(x / LOG_2)
    r = (x - k * LOG_2_HIGH) - k * LOG_2_LOW
    total = np.ones_like(r)
    for i in range(TERMS_OF_EXP, 0, -1):
        total = 1 + total * r / i
    return np.asarray(np.ldexp(total, k.astype(np.int32)))  # exact


def logistic(x: Doubles) -> Doubles:
    """Return 1 / (1 + e^-x)."""
    return np.asarray(1 / (1 + exp(-x)))


def powers_of_half(count: int, steps: int) -> Doubles:
    """Return 2^(-i / steps) for i < count, from square roots; `steps` is a power of 2."""
    root, within = 0.5, np.ones(steps)
    for _ in range(steps.bit_length() - 1):
        root = float(np.sqrt(root))
    for i in range(1, steps):
        within[i] = within[i - 1] * root
    number = np.arange(count)
    return np.asarray(np.ldexp(within[number % steps], -(number // steps)))  # exact
