"""Measure the processor's peak: the fastest square float32 matrix product.

The sizes are 512 to 2048. The libraries are NumPy's BLAS, and PyTorch's if it is installed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

SIZES = (512, 1024, 2048)


def peak(threads: int) -> dict[str, float]:
    """Return the best operations per second of each library."""
    found = {}
    generator = np.random.default_rng(0)
    squares = [generator.random((n, n), dtype=np.float32) for n in SIZES]
    with threadpool_limits(threads, user_api="blas"):
        found["numpy"] = max(_best(lambda a=a: a @ a, len(a)) for a in squares)
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(threads)
        tensors: list[Any] = [torch.from_numpy(a) for a in squares]
        found["pytorch"] = max(_best(lambda a=a: a @ a, len(a)) for a in tensors)
    return found


def _best(product: Callable[[], Any], n: int) -> float:
    product()
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best
