"""The rows of a predictor's state, whose arrays depend on the kind of predictor.

B is the number of rows. An engine's state is (S, L, B, H).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.network.parameters import State


class MixedState(NamedTuple):
    """The network's state, and that of the counts, which has its rows on the first axis."""

    network: State
    context: NDArray[Any]


def rows_of(state: Any, rows: Sequence[int]) -> Any:
    """Return a predictor's state for the chosen rows, in order; a row can be repeated."""
    if isinstance(state, MixedState):
        return MixedState(rows_of(state.network, rows), state.context[list(rows)])
    return np.take(state, rows, axis=2)


def put_rows(state: Any, rows: Sequence[int], source: Any) -> None:
    """Write the one row of another state of a predictor into the chosen rows of a state."""
    if isinstance(state, MixedState):
        put_rows(state.network, rows, source.network)
        state.context[list(rows)] = source.context
    else:
        state[:, :, list(rows)] = source


def join_states(states: Sequence[Any]) -> Any:
    """Return one state with the rows of several states of a predictor side by side."""
    if isinstance(states[0], MixedState):
        networks, contexts = zip(*states, strict=True)
        return MixedState(join_states(networks), np.concatenate(contexts))
    return np.concatenate(states, axis=2)


def state_bytes(state: Any) -> int:
    """Return the memory of a predictor's state in bytes."""
    arrays = state if isinstance(state, MixedState) else [state]
    return sum(array.nbytes for array in arrays)
