"""The arrays of the counts in one call of the mixed kernels, for the caller and the kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.kernels.buffers import Doubles

READ = 16  # besides the modes of `charloom.engines.compiled.buffers`


class Beside(NamedTuple):
    """The arrays of the counts in one call, whose predictions the network finds in `Call.extra`."""

    states: NDArray[Any]  # ((1 or threads) · B · S,), changed, see `by_time`
    found: NDArray[np.float32]  # (T · B · V,), in GENERATE (B · V,): the predictions
    lengths: NDArray[np.int32]  # as many rows: the longest context seen
    shares: NDArray[np.float32]  # and its weight
    theta: Doubles  # the parameters of the network's weight, (F,); without any, only it predicts
