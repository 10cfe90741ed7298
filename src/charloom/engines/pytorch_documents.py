"""Windows with the ends of documents inside, as packed sequences for PyTorch's layers.

T: time steps; B: rows of a batch; M: length of an input; H: hidden units; S: arrays of state (2 for
lstm, else 1).
"""

from __future__ import annotations

from typing import TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor


class Documents:
    """The documents of windows (T, B) as packed sequences, for one call of a layer.

    Every row is cut before each end of a document that it reads. The pieces run side by side, the
    longest first: their first inputs, their second inputs, and so on, as in PyTorch's
    PackedSequence. Only the first piece of a row starts from the row's state.

    Args:
        ends: whether the inputs are the end of a document, (T, B).

    Attributes:
        running: for each time step of the pieces, how many of them are as long.
    """

    def __init__(self, ends: Tensor) -> None:
        starts = ends.T.cpu().clone()  # (B, T): whether a piece starts
        starts[:, 0] = True
        rows, steps = starts.shape
        first = starts.flatten().nonzero()[:, 0]  # the place of each piece in the rows, (pieces)
        lengths = torch.diff(first, append=torch.tensor([rows * steps]))
        order = torch.argsort(lengths, descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        self.running = len(first) - torch.bincount(lengths).cumsum(0)[:-1]
        piece = starts.flatten().cumsum(0) - 1  # of each place, (B·T)
        within = torch.arange(rows * steps) - first[piece]
        place = self.running.cumsum(0)[within] - self.running[within] + rank[piece]  # when packed
        place = place.view(rows, steps).T.flatten()  # (T·B)
        self._shape = steps, rows
        self._to = place.to(ends.device)
        self._from = torch.argsort(place).to(ends.device)
        last = piece.view(rows, steps)[:, -1]
        self._last = rank[last].to(ends.device)  # the last piece of each row
        self._opening = rank[piece.view(rows, steps)[:, 0]].to(ends.device)  # the first one

    @classmethod
    def cut(cls, ends: Tensor) -> Documents | None:
        """Return the documents of windows; None if they all start with the windows."""
        return cls(ends) if ends[1:].any() else None

    def pack(self, x: Tensor) -> Tensor:
        """Return x, (T, B, M), in the order of the packed sequences, (T·B, M)."""
        return x.flatten(0, 1)[self._from]

    def unpack(self, packed: Tensor) -> Tensor:
        """Return the reverse of `pack`."""
        return packed[self._to].unflatten(0, self._shape)

    def states(self, before: Tensor) -> Tensor:
        """Return the states before each piece, from those before the windows, (S, 1, B, H)."""
        arrays, layers, _, size = before.shape
        states = before.new_zeros((arrays, layers, int(self.running[0]), size))
        return states.index_copy(2, self._opening, before)

    def last(self, after: Tensor) -> Tensor:
        """Return the states after the windows, (1, B, H), from those after each piece."""
        return after[:, self._last]
