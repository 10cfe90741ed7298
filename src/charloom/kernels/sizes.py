"""The sizes of vectors and blocks, which depend on the processor."""

from __future__ import annotations

from typing import Any

import numpy as np

from charloom.kernels.processor import has_avx512, machine

MACHINE = machine()
VECTOR_BYTES = 64 if has_avx512() else 32
# The number of vector registers of that width, which limits the blocks of a product.
VECTOR_REGISTERS = 16 if MACHINE in ("x86_64", "i686") and VECTOR_BYTES == 32 else 32
# Whether the processor has estimates of 1/x and 1/√x for a vector of float32.
ESTIMATES = VECTOR_BYTES == 64 and MACHINE == "x86_64"
# The most rows of a product's block, and the values of k that an outer product sums at a time.
MOST_ROWS = 14 if VECTOR_REGISTERS == 32 else 6
OUTER_PIECE = 128


def lanes(dtype: Any) -> int:
    """Return how many numbers of that type a vector holds."""
    return VECTOR_BYTES // np.dtype(str(dtype)).itemsize


def outer_scratch(columns: int, lanes: int) -> int:
    """Return the numbers that `outer_product` copies at a time; `columns` are whole panels."""
    return OUTER_PIECE * (columns + -(-MOST_ROWS // lanes) * lanes)
