"""Every message between the processes of a group, between two threads and in a single process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charloom.engines.backend import Backend
from charloom.engines.process_group import (
    SINGLE_PROCESS,
    Order,
    ProcessGroup,
    SingleProcess,
    StartMessage,
    TextMessage,
)
from charloom.errors import CharloomError
from charloom.network.initialization import initialize
from charloom.network.optimizers import AdamW
from charloom.network.parameters import ModelConfig, State

TIMEOUT = 20.0  # seconds


class ThreadGroup(SingleProcess):
    """One of two ranks, connected by queues; everything but the transport is ProcessGroup's."""

    def __init__(self, rank: int, down: Queue[bytes], up: Queue[bytes]) -> None:
        self.rank, self.size = rank, 2
        self.first_row = rank
        self.rows = slice(rank, rank + 1)
        self._out, self._in = (down, up) if rank == 0 else (up, down)

    introduce = ProcessGroup.introduce
    _order = ProcessGroup._order
    _send = ProcessGroup._send

    def broadcast(self, values: NDArray[Any]) -> None:
        if self.leads:
            self._out.put(values.tobytes())
        else:
            values[...] = np.frombuffer(self._in.get(timeout=TIMEOUT), values.dtype).reshape(
                values.shape
            )

    def collect(self, value: Any) -> list[Any]:
        self._out.put(json.dumps(value).encode())
        other = json.loads(self._in.get(timeout=TIMEOUT))
        return [value, other] if self.leads else [other, value]

    def _gather_rows(self, state: State) -> Any:
        if not self.leads:
            self._out.put(state.tobytes())
            return None
        other = np.frombuffer(self._in.get(timeout=TIMEOUT), state.dtype).reshape(state.shape)
        return np.concatenate([state, other], axis=2)


def together(leader: Callable[[ProcessGroup], Any], follower: Callable[[ProcessGroup], Any]) -> Any:
    """The results of both sides."""
    down: Queue[bytes] = Queue()
    up: Queue[bytes] = Queue()
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follower, ThreadGroup(1, down, up))
        led = leader(ThreadGroup(0, down, up))
        return led, following.result(timeout=TIMEOUT)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"--seed": 1}, {"--seed": 2}, "--seed is 2 at rank 1 and 1 at rank 0"),
        ({}, {"--cell": "rnn", "--seed": 2}, "--cell is rnn at rank 1 and None at rank 0"),
    ],
)
def test_different_options_are_refused_at_rank_0(
    first: Mapping[str, Any], second: Mapping[str, Any], expected: str
) -> None:
    def lead(group: ProcessGroup) -> None:
        with pytest.raises(CharloomError, match=expected):
            group.introduce(first)

    together(lead, lambda group: group.introduce(second))


def test_equal_options_are_accepted() -> None:
    together(lambda group: group.introduce({"a": 1}), lambda group: group.introduce({"a": 1}))


def test_text_and_refusal() -> None:
    message = TextMessage({"split": "90/5/5", "steps": None}, ["\n", "ß", "\ud800"], False, "ab12")

    def lead(group: ProcessGroup) -> None:
        group.send_text(message)
        with pytest.raises(CharloomError, match="rank 1: cannot read its text"):
            group.check_refusals()

    def follow(group: ProcessGroup) -> TextMessage | None:
        received = group.receive_text()
        group.refuse("cannot read its text (denied)")
        return received

    assert together(lead, follow)[1] == message


def test_a_text_that_every_rank_read_is_accepted() -> None:
    together(lambda group: group.check_refusals(), lambda group: group.refuse(None))


def test_the_start_carries_configuration_and_arrays() -> None:
    message = StartMessage({"cell": "gru"}, 7, None, 5)
    sent = [np.arange(6.0).reshape(2, 3), np.arange(4, dtype=np.float32)]

    def follow(group: ProcessGroup) -> tuple[StartMessage | None, list[NDArray[Any]]]:
        received = group.receive_start()
        arrays = [np.zeros_like(values) for values in sent]
        group.share(arrays)
        return received, arrays

    _, (received, arrays) = together(lambda group: group.send_start(message, sent), follow)
    assert received == message
    for ours, theirs in zip(sent, arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_orders_arrive_in_order_and_end_only_once() -> None:
    def lead(group: ProcessGroup) -> State:
        group.introduce({})
        group.order_step(0.125)
        group.order_refit()
        whole = group.gather(np.full((1, 2, 1, 3), 1.0))
        group.end()
        group.end()
        return whole

    def follow(group: ProcessGroup) -> list[Order]:
        group.introduce({})
        orders = []
        while not orders or orders[-1].kind != "end":
            orders.append(group.receive_order())
            if orders[-1].kind == "gather":
                group.give_rows(np.full((1, 2, 1, 3), 2.0))
        assert group._in.empty()  # type: ignore[attr-defined]
        return orders

    whole, orders = together(lead, follow)
    assert [order.kind for order in orders] == ["step", "refit", "gather", "end"]
    assert orders[0].value == 0.125
    np.testing.assert_array_equal(whole[0, 0], [[1.0] * 3, [2.0] * 3])


@pytest.mark.parametrize("receive", ["receive_text", "receive_start"])
def test_a_follower_notices_that_rank_0_ended_the_run(receive: str) -> None:
    def lead(group: ProcessGroup) -> None:
        group.introduce({})
        group.end()

    def follow(group: ProcessGroup) -> Any:
        group.introduce({})
        return getattr(group, receive)()

    assert together(lead, follow)[1] is None


def test_a_single_process_is_a_group_of_one() -> None:
    group = SINGLE_PROCESS
    values = np.arange(3.0)
    with group:
        group.introduce({"--seed": 1})
        group.send_text(TextMessage({}, [], False, ""))
        group.check_refusals()
        group.send_start(StartMessage({}, 0, None, None), [values])
        group.split(1)
        group.order_step(0.1)
        group.order_refit()
        state = np.ones((1, 1, 4, 2))
        assert group.gather(state) is state
        group.end()
    assert group.leads
    assert (group.rank, group.size, group.first_row) == (0, 1, 0)
    assert group.collect("answer") == ["answer"]
    assert group.backend_options({"engine": "compiled"}) == {}
    assert np.arange(5)[group.rows].tolist() == [0, 1, 2, 3, 4]


def test_an_engine_of_one_process_refuses_a_larger_group() -> None:
    parameters = initialize(ModelConfig("gru", 4, 1, 5), 0)
    with pytest.raises(AssertionError, match="several processes"):
        Backend("reference").open(
            parameters, process_group=ThreadGroup(0, Queue[bytes](), Queue[bytes]())
        )
    assert Backend("reference").open(parameters).train_step(
        np.zeros((2, 1), np.intp), np.ones((2, 1), np.intp), np.zeros((1, 1, 1, 4)), AdamW(0.1, 1.0)
    )[0] == pytest.approx(np.log(5), abs=0.2)
