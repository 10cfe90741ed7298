"""The initial weights and the batches that all systems share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Workload
from charloom.network.initialization import initialize
from charloom.network.parameters import Parameters
from charloom.text.batches import Batches, SlidingWindows, Streams

SEED = 5


def weights(workload: Workload, vocabulary_size: int) -> Parameters:
    return initialize(workload.config(vocabulary_size), SEED)


def batches(workload: Workload, ids: NDArray[np.unsignedinteger]) -> Batches:
    """Return the batches that charloom's own training uses."""
    if workload.classic:
        return SlidingWindows(ids, workload.window, stride=10)
    return Streams(ids, workload.rows, workload.window)
