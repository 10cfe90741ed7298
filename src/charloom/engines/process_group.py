"""Training on several processes, which torchrun starts: which of them this one is, and what they
say to one another (extra `torch`).

Rank 0 leads. It does all that a single process does, the run's folder and the clock included, and
tells the others when to take a step. The others follow: they read the same text, take every step
on rows of their own, and write nothing. What is told are small messages between CPUs; gradients go
between the devices, by DistributedDataParallel in the engine.

T: time steps; B: rows of a batch; H: hidden units; L: layers; S: arrays of state.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError, LostRanksError
from charloom.network.parameters import State

# What rank 0 tells the others, with a number: a message follows, of so many bytes; take a step at
# that learning rate; learn from the validation part too from now on; give your rows of the state.
ORDERS = ("end", "message", "step", "refit", "gather")
# Between two orders the others wait for as long as it takes: a validation, say. That rank 0 has
# died they notice at once, for its connection closes.
PATIENCE = timedelta(days=30)


def started_by_torchrun() -> bool:
    """Whether this process is one of several, as torchrun says in the environment.

    Raises CharloomError where what it says makes no sense.
    """
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if not all(name in os.environ for name in names):
        return False
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        int(os.environ["MASTER_PORT"])
    except ValueError:
        rank, size = -1, 0
    if not 0 <= rank < size:
        told = ", ".join(f"{name}={os.environ[name]}" for name in names)
        raise CharloomError(f"the environment has {told}: start with torchrun, which sets them")
    return size > 1


class Ranks:
    """The processes that train together, seen from one of them.

    wait: seconds in which the others have to come, and to answer while a gradient is summed.
    device: cpu, or cuda for a GPU of its own for each.
    Raises CharloomError where PyTorch is missing, there are fewer GPUs than processes on this
    machine, or the others do not come.
    """

    def __init__(self, wait: float, device: str = "cpu") -> None:
        # Its own words on a lost connection are many; ours tell it in a line.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
        try:
            import torch
            import torch.distributed
        except (ImportError, OSError) as error:
            raise CharloomError(
                f"training on several ranks needs PyTorch, which cannot be imported ({error}): "
                "pip install 'charloom[torch]', or start without torchrun"
            ) from None
        self._torch, self._talk = torch, torch.distributed
        self.rank = int(os.environ["RANK"])
        self.size = int(os.environ["WORLD_SIZE"])
        self.on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.listening = False  # whether the others wait for what rank 0 tells
        self.rows = slice(0)  # this rank's rows of a batch
        self.all_rows = 0
        if device == "cuda":
            self._take_gpu()
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        try:
            longest = timedelta(seconds=wait)
            store, _, _ = next(iter(self._talk.rendezvous("env://", timeout=longest)))
            start = self._agree_on_start(store, wait)
            self._talk.init_process_group(
                "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
                store=self._talk.PrefixStore(start, store),
                rank=self.rank,
                world_size=self.size,
                timeout=longest,
            )
            self._messages = self._talk.new_group(backend="gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:  # PyTorch's own are RuntimeErrors
            raise CharloomError(
                f"rank {self.rank} of {self.size} did not reach the others at {place} in "
                f"{wait:g} seconds ({_reason(error)}): start all of them, let them reach that "
                "address, or give a larger --rank-timeout"
            ) from None

    def _agree_on_start(self, store: Any, wait: float) -> str:
        """A name for this start, the same at all ranks. torchrun keeps the store when it starts
        all ranks again, and what an earlier start wrote there still stands.

        Raises RuntimeError where a rank does not come.
        """
        mine = uuid.uuid4().hex
        if not self.leads:
            store.set(f"charloom/asks/{self.rank}", mine)
            store.wait([f"charloom/start/{mine}"], timedelta(seconds=wait))
            start = str(store.get(f"charloom/start/{mine}").decode())
            store.set(f"charloom/{start}/{self.rank}", "is here")
            return start
        missing = set(range(1, self.size))
        until = time.monotonic() + wait
        while missing:
            for rank in sorted(missing):
                if store.check([f"charloom/{mine}/{rank}"]):
                    missing.remove(rank)
                elif store.check([f"charloom/asks/{rank}"]):  # perhaps a dead one: no answer comes
                    its = store.get(f"charloom/asks/{rank}").decode()
                    store.set(f"charloom/start/{its}", mine)
            if missing and time.monotonic() > until:
                names = ", ".join(str(rank) for rank in sorted(missing))
                raise RuntimeError(f"missing: rank {names}")
            time.sleep(0.02)
        return mine

    def _take_gpu(self) -> None:
        local, there = int(os.environ.get("LOCAL_RANK", "0")), self._torch.cuda.device_count()
        if local >= there:
            raise CharloomError(
                f"--device cuda: PyTorch finds {there} GPUs here for {local + 1} ranks or more: "
                "start as many ranks as there are GPUs (torchrun --nproc-per-node)"
            )
        self._torch.cuda.set_device(local)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Ends the connection: PyTorch wants it ended before the process."""
        if kind is LostRanksError:  # there is none, and what is wrong is to be told at once
            return
        if self.leads:
            self.end()
        # An engine that is not collected yet keeps PyTorch's threads, which abort the process.
        gc.collect()
        self._messages = None
        with contextlib.suppress(RuntimeError):
            self._talk.destroy_process_group()

    def end(self) -> None:
        """Lets the others go, if they are still there."""
        if self.listening:
            self.listening = False
            with contextlib.suppress(CharloomError):
                self.tell("end")

    # The rows of a batch.

    def split(self, rows: int) -> None:
        """Shares out so many rows, each rank's in a row, as equally as it goes.

        Raises CharloomError where there are fewer than ranks.
        """
        if rows < self.size:
            raise CharloomError(
                f"a batch of this text has {rows} row{'s' if rows > 1 else ''} for {self.size} "
                "ranks, and each needs one: give a larger --batch-size (and a longer text), or "
                "start fewer ranks"
            )
        self.rows, self.all_rows = self._rows_of(self.rank, rows), rows

    def _rows_of(self, rank: int, rows: int) -> slice:
        return slice(rows * rank // self.size, rows * (rank + 1) // self.size)

    def gather(self, state: State) -> State | None:
        """Every rank's own rows (S, L, b, H) -> at rank 0, all of them: (S, L, B, H)."""
        most = -(-self.all_rows // self.size)
        mine = np.zeros((*state.shape[:2], most, state.shape[3]), state.dtype)
        mine[:, :, : state.shape[2]] = state
        with self._talking():
            there = [self._torch.from_numpy(np.empty_like(mine)) for _ in range(self.size)]
            self._talk.gather(
                self._torch.from_numpy(mine), there if self.leads else None, group=self._messages
            )
        if not self.leads:
            return None
        cut = [self._rows_of(rank, self.all_rows) for rank in range(self.size)]
        parts = [
            part.numpy()[:, :, : rows.stop - rows.start]
            for part, rows in zip(there, cut, strict=True)
        ]
        return np.concatenate(parts, axis=2)

    # What rank 0 tells the others, and what they answer.

    def tell(self, order: str, value: float = 0.0) -> None:
        """One of ORDERS, to all others."""
        self._order(np.array([ORDERS.index(order), value], np.float64))

    def hear(self) -> tuple[str, float]:
        """What rank 0 tells next."""
        order, value = self._order(np.zeros(2))
        return ORDERS[int(order)], float(value)

    def _order(self, order: NDArray[np.float64]) -> NDArray[np.float64]:
        self.broadcast(order)
        return order

    def tell_message(self, message: Any) -> None:
        """A JSON value, to all others."""
        data = np.frombuffer(json.dumps(message).encode(), np.uint8).copy()
        self.tell("message", len(data))
        self.broadcast(data)

    def hear_message(self) -> Any:
        """The JSON value that rank 0 tells next; None where it ends instead."""
        order, length = self.hear()
        if order != "message":
            return None
        data = np.empty(int(length), np.uint8)
        self.broadcast(data)
        return json.loads(data.tobytes())

    def broadcast(self, values: NDArray[Any]) -> None:
        """Rank 0's numbers into the others' arrays, in place."""
        with self._talking():
            self._talk.broadcast(self._torch.from_numpy(values), 0, group=self._messages)

    def introduce(self, told: dict[str, Any]) -> None:
        """Begins a run: tells all ranks what this one was given.

        Raises CharloomError, at rank 0 and naming the first difference, where another was given
        something else.
        """
        everybody = self.collect(told)
        self.listening = True
        if not self.leads:
            return
        for rank, one in enumerate(everybody):
            for name in sorted({*told, *one}):
                if told.get(name) != one.get(name):
                    raise CharloomError(
                        f"{name} is {one.get(name)} at rank {rank} and {told.get(name)} at rank "
                        "0: start all ranks alike"
                    )

    def collect(self, value: Any) -> list[Any]:
        """Every rank's JSON value, in their order, at all of them."""
        data = json.dumps(value).encode()
        with self._talking():
            length = self._torch.tensor([len(data)])
            lengths = [self._torch.zeros_like(length) for _ in range(self.size)]
            self._talk.all_gather(lengths, length, group=self._messages)
            most = int(max(lengths))
            mine = np.frombuffer(data.ljust(most), np.uint8).copy()
            there = [self._torch.empty(most, dtype=self._torch.uint8) for _ in range(self.size)]
            self._talk.all_gather(there, self._torch.from_numpy(mine), group=self._messages)
        return [json.loads(values.numpy().tobytes()) for values in there]

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self.lost(error) from None

    def lost(self, error: Exception) -> LostRanksError:
        """What to say where the others are gone."""
        return LostRanksError(
            f"rank {self.rank} lost the others ({_reason(error)}): the last checkpoint is "
            "intact; start all ranks again with --resume, if torchrun does not"
        )

    # What the engine needs.

    def in_parallel(self, module: Any) -> Any:
        """The module, such that gradients are the mean over the ranks."""
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(module, init_sync=False, gradient_as_bucket_view=True)

    def begin_sum(self, value: Any) -> Any:
        """Begins to sum a tensor over the ranks, in place; what is returned waits for it."""
        return self._talk.all_reduce(value, async_op=True)


def _reason(error: Exception) -> str:
    """The first sentence of PyTorch's error, without the place in its source."""
    line, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^(\[[^]]*\] *)+", "", line).split(". ")[0].rstrip(". ")
