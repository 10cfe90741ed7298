"""Ids to training windows: inputs and targets of shape (T, B), the target one character further.

All kinds of windows are functions of the step number alone, so that a resumed run finds its place
in the text from its step count.

T is the number of time steps of a window, B that of a batch's rows, W that of consecutive steps. N
is the number of the training split's characters, D that of its documents, E that of the extra
inputs beside a character.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from charloom.text.dataset import TextIds
from charloom.text.excerpt import document_ends
from charloom.text.extra_inputs import ExtraInputs, Float32

GATHERED_AT_ONCE = 1 << 16  # ids of the windows that are gathered together; at least one window
Integers = NDArray[np.signedinteger]


class Batch(NamedTuple):
    """The windows of one step. With `fresh`, the state starts at zero instead of being carried."""

    inputs: NDArray[np.intp]  # (T, B)
    targets: NDArray[np.intp]  # (T, B)
    fresh: bool
    extra: Float32 | None = None  # (T, B, E): the extra inputs, read together with the inputs


class Windows(NamedTuple):
    """The windows of W consecutive steps, of the same shape; `fresh` as in `Batch`, for each."""

    inputs: NDArray[np.intp]  # (W, T, B)
    targets: NDArray[np.intp]  # (W, T, B)
    fresh: NDArray[np.bool_]  # (W,)


class Batches(Protocol):
    """Windows by step number; an epoch of `steps_per_epoch` reads the training split once."""

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def rows(self) -> int: ...

    def __call__(self, step: int) -> Batch: ...

    def several(self, step: int, most: int) -> Windows:
        """Return the windows of at least one step, and at most `most`, without extra inputs."""
        ...


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
    extra: ExtraInputs | None = None  # at least N

    @property
    def rows(self) -> int:
        return max(1, min(self.batch_size, (len(self.ids) - 1) // self.window))

    @property
    def steps_per_epoch(self) -> int:
        return max(1, (len(self.ids) - 1) // self.rows // self.window)

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        places = self._places(step, 1)  # (T + 1, B)
        block = self.ids[places].astype(np.intp)
        fresh = step % self.steps_per_epoch == 0
        return Batch(block[:-1], block[1:], fresh, _beside(self.extra, places[:-1]))

    def several(self, step: int, most: int) -> Windows:
        """Return the windows of up to `most` steps of an epoch, (W, T, B)."""
        index = step % self.steps_per_epoch
        count = min(most, self.steps_per_epoch - index)
        return _cut(self.ids[self._places(step, count)].astype(np.intp), count, index == 0)

    def _places(self, step: int, count: int) -> NDArray[np.intp]:
        """Return the indices of the ids that n steps of an epoch read, (n · T + 1, B)."""
        row_length = (len(self.ids) - 1) // self.rows
        window = min(self.window, row_length)
        epoch, index = divmod(step, self.steps_per_epoch)
        left_over = row_length - self.steps_per_epoch * window
        start = index * window + (left_over if epoch % 2 else 0)
        rows = np.arange(self.rows) * row_length + start  # (B,)
        places: NDArray[np.intp] = rows + np.arange(count * window + 1)[:, None]
        return places


class ShuffledDocuments:
    """Streams of documents: in every epoch, the documents in another order, each after an END.

    An epoch reads END d₁ END d₂ END … d_D END, with the documents in an order that follows from the
    seed and the epoch's number. That stream is cut into B equal rows, each read window after
    window, as `Streams` reads a text. An engine begins every document from a zero state, because
    it reads END. A text with fewer than B whole windows gets fewer rows.

    Every window is of full length. An epoch skips the last characters of each row that do not fill
    a window; in the next epoch these are other ones.

    Args:
        ids: the documents, (N,), each followed by END.
        end_id: the id of END.
        batch_size: the number of rows of a batch, at most.
        window: the length of a batch, at most.
        seed: the random seed of the orders.
        extra: the extra inputs, at least N. Those of a document's END are read with the END before
            the next document of the order.
    """

    def __init__(
        self,
        ids: TextIds,
        end_id: int,
        batch_size: int,
        window: int,
        seed: int = 0,
        extra: ExtraInputs | None = None,
    ) -> None:
        self.ids = ids
        self.extra = extra
        self.end_id = end_id
        self.seed = seed
        self.rows = max(1, min(batch_size, len(ids) // window))
        self.row_length = len(ids) // self.rows
        self.window = min(window, self.row_length)
        self.steps_per_epoch = self.row_length // self.window
        self._at_once = max(1, GATHERED_AT_ONCE // (self.rows * self.window))
        # The latest values are kept, because steps are nearly always taken in their order.
        self._documents: _Documents | None = None
        self._order: _Order | None = None
        self._block = _Block(0, 0, np.zeros((0, 0), np.intp), np.zeros((0, 0), np.intp))

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        begin, window = step - self._block.first, self.window
        if not 0 <= begin < self._block.steps:
            self._block = self._block_of(step)
            begin = step - self._block.first
        first, last = begin * window, (begin + 1) * window
        read = self._block.read[first : last + 1]  # (T + 1, B)
        fresh = step % self.steps_per_epoch == 0
        return Batch(
            read[:-1], read[1:], fresh, _beside(self.extra, self._block.places[first:last])
        )

    def several(self, step: int, most: int) -> Windows:
        """Return the windows of up to `most` steps of an epoch, (W, T, B)."""
        fresh = self(step).fresh
        begin = step - self._block.first
        count = min(most, self._block.steps - begin)
        first, last = begin * self.window, (begin + count) * self.window
        return _cut(self._block.read[first : last + 1], count, fresh)

    def _block_of(self, step: int) -> _Block:
        epoch, index = divmod(step, self.steps_per_epoch)
        first = index - index % self._at_once
        count = min(self._at_once, self.steps_per_epoch - first)
        starts = np.arange(self.rows) * self.row_length + first * self.window
        places = self._order_of(epoch).read(starts, count * self.window + 1)  # (B, length)
        read = self.ids[places].T.astype(np.intp, order="C")
        return _Block(step - index + first, count, read, places.T)

    def _order_of(self, epoch: int) -> _Order:
        if self._order is None or self._order.epoch != epoch:
            self._order = None  # so that there are never two in memory
            if self._documents is None:
                self._documents = _Documents.of(self.ids, self.end_id)
            self._order = self._documents.shuffled(self.seed, epoch)
        return self._order


class _Block(NamedTuple):
    """The ids of consecutive steps of an epoch, gathered together."""

    first: int  # the first of the steps
    steps: int  # the number of steps
    read: NDArray[np.intp]  # (count · T + 1, B)
    places: NDArray[np.intp]  # the index of each in the text, (count · T + 1, B)


@dataclass(frozen=True)
class _Documents:
    """The places of the documents in the ids: the index of each one's first id, and N, (D + 1,)."""

    starts: Integers

    @classmethod
    def of(cls, ids: TextIds, end_id: int) -> _Documents:
        if len(ids) and ids[-1] != end_id:
            raise ValueError("the last document has no end")
        starts = np.concatenate([np.zeros(1, np.int64), document_ends(ids, end_id)])
        return cls(starts.astype(np.int32 if len(ids) < 2**31 - 1 else np.int64))

    def shuffled(self, seed: int, epoch: int) -> _Order:
        """Return the order of an epoch."""
        generator = np.random.Generator(np.random.PCG64([seed, epoch]))
        order = generator.permutation(len(self.starts) - 1)
        sources = np.empty_like(self.starts)
        sources[0] = self.starts[-1] - 1  # the last END is also the one before the first document
        np.take(self.starts, order, out=sources[1:], mode="clip")
        places = np.empty(len(self.starts) + 1, self.starts.dtype)
        places[:2] = 0, 1
        np.cumsum(np.diff(self.starts)[order], out=places[2:])
        places[2:] += 1
        return _Order(epoch, sources, places)


@dataclass(frozen=True)
class _Order:
    """The documents in the order of an epoch, after an END, as a stream of N + 1 ids.

    Attributes:
        epoch: the number of the epoch.
        sources: the index of each document's first id in the ids, (D + 1,).
        places: the index of each document's first id in the stream, and N + 1, (D + 2,).
    """

    epoch: int
    sources: Integers
    places: Integers

    def read(self, starts: NDArray[np.intp], length: int) -> NDArray[np.intp]:
        """Return the indices of `length` ids of the stream from each start on, (B, length)."""
        first = np.searchsorted(self.places, starts, side="right") - 1  # (B,), of documents
        last = np.searchsorted(self.places, starts + length - 1, side="right") - 1
        counts = last - first + 1
        rows = np.repeat(np.arange(len(starts)), counts)
        found = np.arange(counts.sum()) + (first - (np.cumsum(counts) - counts))[rows]
        begin = np.maximum(self.places[found] - starts[rows], 0)  # in the row
        end = np.minimum(self.places[found + 1] - starts[rows], length)
        shift = self.sources[found].astype(np.intp) - self.places[found] + starts[rows]
        indices = np.repeat(shift, end - begin).reshape(len(starts), length)
        indices += np.arange(length)
        return indices


@dataclass(frozen=True)
class SlidingWindows:
    """The notebook's windows: one row, a new one every `stride` characters, each from a zero state.

    The last windows of an epoch are shorter, because they end where the text ends.
    """

    ids: TextIds  # (N,)
    window: int
    stride: int
    rows: int = 1
    extra: ExtraInputs | None = None  # at least N

    @property
    def steps_per_epoch(self) -> int:
        return -(-(len(self.ids) - 1) // self.stride)

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        start = step % self.steps_per_epoch * self.stride
        block = self.ids[start : start + self.window + 1, None].astype(np.intp)  # (T + 1, 1)
        beside = None
        if self.extra is not None:
            beside = self.extra.gather(np.arange(start, start + len(block) - 1)[:, None])
        return Batch(block[:-1], block[1:], True, beside)

    def several(self, step: int, most: int) -> Windows:
        """Return the windows of up to `most` steps of an epoch, (W, T, 1).

        Windows that the end of the text shortens are returned alone.
        """
        index = step % self.steps_per_epoch
        whole = (len(self.ids) - 1 - self.window) // self.stride + 1 - index
        if whole < 1:
            batch = self(step)
            return Windows(batch.inputs[None], batch.targets[None], np.ones(1, np.bool_))
        start, count = index * self.stride, min(most, whole)
        last = start + (count - 1) * self.stride + self.window
        read = sliding_window_view(self.ids[start : last + 1], self.window + 1)[:: self.stride]
        block = read[..., None].astype(np.intp)  # (W, T + 1, 1)
        return Windows(block[:, :-1], block[:, 1:], np.ones(count, np.bool_))


def _cut(read: NDArray[np.intp], count: int, fresh: bool) -> Windows:
    """Return the windows of n steps of an epoch from their ids, (n · T + 1, B)."""
    shape = count, (len(read) - 1) // count, read.shape[1]
    begins = np.zeros(count, np.bool_)
    begins[0] = fresh
    return Windows(read[:-1].reshape(shape), read[1:].reshape(shape), begins)


def _beside(extra: ExtraInputs | None, places: NDArray[np.intp]) -> Float32 | None:
    """Return the extra inputs at the places of inputs, (T, B), if there are any."""
    return None if extra is None else extra.gather(places)
