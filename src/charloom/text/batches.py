"""Ids to training windows: inputs and targets of shape (T, B), the target one character further.

Both kinds of windows are functions of the step number alone, so that a resumed run finds its place
in the text from its step count.

T is the number of time steps of a window, B that of a batch's rows, N that of the training split's
characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from charloom.text.dataset import TextIds


class Batch(NamedTuple):
    """The windows of one step. With `fresh`, the state starts at zero instead of being carried."""

    inputs: NDArray[np.intp]  # (T, B)
    targets: NDArray[np.intp]  # (T, B)
    fresh: bool


class Batches(Protocol):
    """Windows by step number; an epoch of `steps_per_epoch` reads the training split once."""

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def rows(self) -> int: ...

    def __call__(self, step: int) -> Batch: ...


@dataclass(frozen=True)
class Streams:
    """Contiguous streams: the text cut into B equal rows, each read window after window.

    The state is carried from window to window (truncated backpropagation through time) and starts
    at zero with every epoch. A text with fewer than B whole windows gets fewer rows.

    Every window is of full length. Odd epochs end at the end of each row, even ones start at its
    beginning. Two epochs together thus skip only the last (N - 1) mod B characters.
    """

    ids: TextIds  # (N,)
    batch_size: int
    window: int

    @property
    def rows(self) -> int:
        return max(1, min(self.batch_size, (len(self.ids) - 1) // self.window))

    @property
    def steps_per_epoch(self) -> int:
        return max(1, (len(self.ids) - 1) // self.rows // self.window)

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        row_length = (len(self.ids) - 1) // self.rows
        window = min(self.window, row_length)
        epoch, index = divmod(step, self.steps_per_epoch)
        left_over = row_length - self.steps_per_epoch * window
        start = index * window + (left_over if epoch % 2 else 0)
        rows = np.arange(self.rows) * row_length + start  # (B,)
        block = self.ids[rows + np.arange(window + 1)[:, None]].astype(np.intp)  # (T + 1, B)
        return Batch(block[:-1], block[1:], fresh=index == 0)


@dataclass(frozen=True)
class SlidingWindows:
    """The notebook's windows: one row, a new one every `stride` characters, each from a zero state.

    The last windows of an epoch are shorter, because they end where the text ends.
    """

    ids: TextIds  # (N,)
    window: int
    stride: int
    rows: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return -(-(len(self.ids) - 1) // self.stride)

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        start = step % self.steps_per_epoch * self.stride
        block = self.ids[start : start + self.window + 1, None].astype(np.intp)  # (T + 1, 1)
        return Batch(block[:-1], block[1:], fresh=True)
