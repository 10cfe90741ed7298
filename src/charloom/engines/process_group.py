"""The processes that train together, and every message between them.

Rank 0 leads. It does everything that a single process does, including the run's folder and the
clock, and orders each step. The other ranks follow: they read the same text, take every step on
their own rows of the batch, and write nothing. Messages are small and travel between CPUs. The
gradients travel between the devices, averaged by the engine.

`ProcessGroup` has both sides of each message next to each other, in the order of a run:

    introduce                         every rank compares its options with those of rank 0
    send_text, receive_text           how to read the text
    check_refusals, refuse            whether every follower could read it
    send_start, receive_start         configuration, weights, optimizer and state
    order_step, order_refit, gather   training; the follower calls `receive_order` until the end
    end                               the leader has finished, or has failed

`SingleProcess` is the group of a run in one process. It has no followers, so it sends nothing.

T: time steps; B: rows of a batch; H: hidden units; L: layers; S: arrays of state.
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError
from charloom.network.parameters import State

# The orders of rank 0. Each comes with a number: of "message" the bytes of the JSON value that
# follows, of "step" the learning rate.
ORDERS = ("end", "message", "step", "refit", "gather")


class Order(NamedTuple):
    """An order of rank 0 to the followers."""

    kind: str  # one of ORDERS
    value: float


@dataclass(frozen=True)
class TextMessage:
    """Everything that a follower needs to read the text as rank 0 did."""

    config: dict[str, Any]
    characters: list[str]  # the vocabulary
    as_bytes: bool
    sha256: str
    own: dict[str, Any] = field(default_factory=dict)  # the texts that are parts of their own


@dataclass(frozen=True)
class StartMessage:
    """The run just before its first step; arrays follow, in an order that both sides know."""

    config: dict[str, Any]
    step: int
    refit_step: int | None
    rows: int | None  # of the hidden state, if there is one
    mixer_version: int | None = None  # of a run that resumes, None for the newest


Message = TypeVar("Message", TextMessage, StartMessage)


class ProcessGroup(ABC):
    """The processes that train together, as one of them uses them.

    Attributes:
        rank: this process's number; rank 0 leads.
        size: number of processes.
        rows: this rank's rows of a batch.
        first_row: the first of them.
    """

    rank: int
    size: int
    rows: slice
    first_row: int
    _followers_wait = False  # whether the followers wait for an order

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def __enter__(self) -> ProcessGroup:
        return self

    @abstractmethod
    def __exit__(self, kind: object, *_: object) -> None:
        """End the run for all followers and close the connection."""

    # Introduction: all ranks call the same method.

    def introduce(self, options: Mapping[str, Any]) -> None:
        """Begin a run by comparing the options of all ranks.

        Raises:
            CharloomError: at rank 0, if another rank has other options; it names the first one.
        """
        everyone = self.collect(dict(options))
        self._followers_wait = True
        if not self.leads:
            return
        for rank, other in enumerate(everyone):
            for name in sorted({*options, *other}):
                if options.get(name) != other.get(name):
                    raise CharloomError(
                        f"{name} is {other.get(name)} at rank {rank} and {options.get(name)} at "
                        "rank 0: start all ranks with the same options"
                    )

    # The text.

    def send_text(self, message: TextMessage) -> None:
        """Send how to read the text, as rank 0."""
        self._send(message)

    def receive_text(self) -> TextMessage | None:
        """Return how to read the text, as a follower; None if rank 0 ended the run instead."""
        return self._receive(TextMessage)

    def check_refusals(self) -> None:
        """Wait, as rank 0, until every follower has read the text.

        Raises:
            CharloomError: if a follower refused, with its reason.
        """
        for rank, refusal in enumerate(self.collect(None)):
            if refusal is not None:
                raise CharloomError(f"rank {rank}: {refusal}")

    def refuse(self, refusal: str | None) -> None:
        """Answer, as a follower, why this rank cannot read the text; None if it can."""
        self.collect(refusal)

    # The start.

    def send_start(self, message: StartMessage, arrays: Iterable[NDArray[Any]]) -> None:
        """Send the run's start, as rank 0, and the values of these arrays."""
        self._send(message)
        self.share(arrays)

    def receive_start(self) -> StartMessage | None:
        """Return the run's start, as a follower, which calls `share` with its arrays next; None if
        rank 0 ended the run instead."""
        return self._receive(StartMessage)

    def share(self, arrays: Iterable[NDArray[Any]]) -> None:
        """Overwrite these arrays of every rank with those of rank 0."""
        for values in arrays:
            self.broadcast(values)

    # Training.

    def order_step(self, learning_rate: float) -> None:
        """Order a step, as rank 0."""
        self._order("step", learning_rate)

    def order_refit(self) -> None:
        """Order, as rank 0, to train on a part of the validation split from now on."""
        self._order("refit")

    def gather(self, state: State) -> State:
        """Return the state of all rows (S, L, B, H), as rank 0, from this rank's (S, L, b, H)."""
        self._order("gather")
        whole = self._gather_rows(state)
        assert whole is not None
        return whole

    def give_rows(self, state: State) -> None:
        """Give the state of this rank's rows (S, L, b, H), as a follower ordered to "gather"."""
        self._gather_rows(state)

    def receive_order(self) -> Order:
        """Return the next order of rank 0, as a follower."""
        order, value = self._broadcast_order(np.zeros(2))
        return Order(ORDERS[int(order)], float(value))

    def end(self) -> None:
        """End the run, as rank 0, for the followers that are still there."""
        if self._followers_wait:
            self._followers_wait = False
            with contextlib.suppress(CharloomError):
                self._order("end")

    # What these messages are made of.

    def _order(self, kind: str, value: float = 0.0) -> None:
        self._broadcast_order(np.array([ORDERS.index(kind), value], np.float64))

    def _broadcast_order(self, order: NDArray[np.float64]) -> NDArray[np.float64]:
        self.broadcast(order)
        return order

    def _send(self, message: TextMessage | StartMessage) -> None:
        data = np.frombuffer(json.dumps(asdict(message)).encode(), np.uint8).copy()
        self._order("message", len(data))
        self.broadcast(data)

    def _receive(self, kind: type[Message]) -> Message | None:
        order = self.receive_order()
        if order.kind != "message":
            return None
        data = np.empty(int(order.value), np.uint8)
        self.broadcast(data)
        return kind(**json.loads(data.tobytes()))

    # The transport.

    @abstractmethod
    def broadcast(self, values: NDArray[Any]) -> None:
        """Copy the numbers of rank 0 into the other ranks' arrays, in place."""

    @abstractmethod
    def collect(self, value: Any) -> list[Any]:
        """Return the JSON value of every rank, in order of ranks, at all of them."""

    @abstractmethod
    def _gather_rows(self, state: State) -> State | None:
        """Return the rows (S, L, B, H) of all ranks at rank 0, None at the others."""

    # The work of each rank.

    @abstractmethod
    def split(self, rows: int) -> None:
        """Share the rows of a batch between the ranks, as equally as possible.

        Raises:
            CharloomError: if there are fewer rows than ranks.
        """

    @abstractmethod
    def backend_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the backend that this group overrides.

        Raises:
            CharloomError: if the engine in `options` cannot train in this group.
        """

    # The engine's part.

    @abstractmethod
    def in_parallel(self, module: Any) -> Any:
        """Return a PyTorch module whose gradients are the mean over the ranks."""

    @abstractmethod
    def rows_of_all(self, rows: int) -> int:
        """Return the rows of all ranks together, if this one has n rows."""

    @abstractmethod
    def mean(self, total: Any, characters: int) -> Any:
        """Return a loss whose mean over the ranks is the mean over the characters of all.

        Args:
            total: the sum over the characters of this rank.
            characters: their number at all ranks.
        """

    @abstractmethod
    def begin_sum(self, value: Any) -> Any:
        """Begin to sum a tensor over the ranks, in place.

        Returns:
            A handle whose `wait()` returns when the sum is complete.
        """

    @abstractmethod
    def failure(self, error: Exception) -> Exception:
        """Return the error to raise where a collective operation failed."""


class SingleProcess(ProcessGroup):
    """A group of one, without followers, which computes every row."""

    rank, size = 0, 1
    rows, first_row = slice(None), 0

    def __exit__(self, kind: object, *_: object) -> None:
        """Close nothing, because there is no connection."""

    def introduce(self, options: Mapping[str, Any]) -> None:
        """Compare nothing, because there is no other rank."""

    def _order(self, kind: str, value: float = 0.0) -> None:
        """Order nothing, because there is no other rank."""

    def _send(self, message: TextMessage | StartMessage) -> None:
        """Send nothing, because there is no other rank."""

    def broadcast(self, values: NDArray[Any]) -> None:
        """Keep the values, because there is no other rank."""

    def collect(self, value: Any) -> list[Any]:
        return [value]

    def _gather_rows(self, state: State) -> State:
        return state

    def split(self, rows: int) -> None:
        """Keep every row."""

    def backend_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def in_parallel(self, module: Any) -> Any:
        return module

    def rows_of_all(self, rows: int) -> int:
        return rows

    def mean(self, total: Any, characters: int) -> Any:
        return total / characters

    def begin_sum(self, value: Any) -> _Finished:
        return _Finished()

    def failure(self, error: Exception) -> Exception:
        return error


class _Finished:
    """The handle of an operation that is complete."""

    def wait(self) -> None:
        """Return at once."""


SINGLE_PROCESS = SingleProcess()
