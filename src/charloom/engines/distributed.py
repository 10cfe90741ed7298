"""The process group of several ranks that torchrun starts (extra `torch`).

B: rows of a batch; H: hidden units; L: layers; S: arrays of state.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.engines.process_group import ProcessGroup
from charloom.engines.protocol import available_cores
from charloom.errors import CharloomError, LostRanksError, plural
from charloom.network.parameters import State

# Time that a follower waits for an order, because a validation can take long. It notices at once
# that rank 0 has died, because its connection closes.
PATIENCE = timedelta(days=30)


def started_by_torchrun() -> bool:
    """Return True if torchrun's environment variables name several processes.

    Raises:
        CharloomError: if the variables are invalid.
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
        found = ", ".join(f"{name}={os.environ[name]}" for name in names)
        raise CharloomError(
            f"invalid environment variables ({found}): start with torchrun, which sets them"
        )
    return size > 1


class TorchProcessGroup(ProcessGroup):
    """The processes that torchrun started, connected by PyTorch.

    Args:
        timeout: seconds to wait for the other ranks, at the start and while gradients are summed.
        device: `cpu`, or `cuda` for one GPU per rank.

    Raises:
        CharloomError: if PyTorch is missing, this machine has fewer GPUs than ranks, or a rank
            does not connect.
    """

    def __init__(self, timeout: float, device: str = "cpu") -> None:
        # PyTorch logs long traces for lost connections; `failure` is one line instead.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
        try:
            import torch
            import torch.distributed
        except (ImportError, OSError) as error:
            raise CharloomError(
                f"training on several ranks needs PyTorch, which cannot be imported ({error}): "
                "pip install 'charloom[torch]', or start without torchrun"
            ) from None
        self._torch, self._distributed = torch, torch.distributed
        self.rank = int(os.environ["RANK"])
        self.size = int(os.environ["WORLD_SIZE"])
        self.ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # on this machine
        self.rows, self.first_row = slice(0), 0
        self.all_rows = 0
        if device == "cuda":
            self._take_gpu()
        self._connect(timeout, "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")

    def _connect(self, timeout: float, backend: str) -> None:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        longest = timedelta(seconds=timeout)
        try:
            store, _, _ = next(iter(self._distributed.rendezvous("env://", timeout=longest)))
            start = self._agree_on_start(store, timeout)
            self._distributed.init_process_group(
                backend,
                store=self._distributed.PrefixStore(start, store),
                rank=self.rank,
                world_size=self.size,
                timeout=longest,
            )
            self._messages = self._distributed.new_group(backend="gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:  # PyTorch's own errors are RuntimeErrors
            raise CharloomError(
                f"rank {self.rank} of {self.size} did not reach the others at {address} in "
                f"{timeout:g} seconds ({_reason(error)}): start all of them, or set a larger "
                "--rank-timeout"
            ) from None

    def _agree_on_start(self, store: Any, timeout: float) -> str:
        """Return a name for this start, the same at all ranks.

        torchrun keeps the store when it restarts all ranks, so it still holds the keys of earlier
        starts.

        Raises:
            RuntimeError: if a rank does not connect.
        """
        mine = uuid.uuid4().hex
        if not self.leads:
            store.set(f"charloom/asks/{self.rank}", mine)
            store.wait([f"charloom/start/{mine}"], timedelta(seconds=timeout))
            start = str(store.get(f"charloom/start/{mine}").decode())
            store.set(f"charloom/{start}/{self.rank}", "is here")
            return start
        missing = set(range(1, self.size))
        deadline = time.monotonic() + timeout
        while missing:
            for rank in sorted(missing):
                if store.check([f"charloom/{mine}/{rank}"]):
                    missing.remove(rank)
                elif store.check([f"charloom/asks/{rank}"]):
                    # The key may be that of a dead process, which never answers.
                    theirs = store.get(f"charloom/asks/{rank}").decode()
                    store.set(f"charloom/start/{theirs}", mine)
            if missing and time.monotonic() > deadline:
                names = ", ".join(str(rank) for rank in sorted(missing))
                raise RuntimeError(f"missing: rank {names}")
            time.sleep(0.02)
        return mine

    def _take_gpu(self) -> None:
        local, found = int(os.environ.get("LOCAL_RANK", "0")), self._torch.cuda.device_count()
        if local >= found:
            raise CharloomError(
                f"--device cuda needs a GPU for each rank, and PyTorch finds {found} for "
                f"{local + 1} ranks or more: start one rank for "
                "each GPU (torchrun --nproc-per-node)"
            )
        self._torch.cuda.set_device(local)

    def __exit__(self, kind: object, *_: object) -> None:
        """Close the connection, which PyTorch requires before the process ends."""
        if kind is LostRanksError:  # the connection is gone, and the error must not wait
            return
        if self.leads:
            self.end()
        # An engine that is not collected yet keeps PyTorch's threads, which abort the process.
        gc.collect()
        self._messages = None
        with contextlib.suppress(RuntimeError):
            self._distributed.destroy_process_group()

    # The transport.

    def broadcast(self, values: NDArray[Any]) -> None:
        with self._communicating():
            self._distributed.broadcast(self._torch.from_numpy(values), 0, group=self._messages)

    def collect(self, value: Any) -> list[Any]:
        data = json.dumps(value).encode()
        with self._communicating():
            length = self._torch.tensor([len(data)])
            lengths = [self._torch.zeros_like(length) for _ in range(self.size)]
            self._distributed.all_gather(lengths, length, group=self._messages)
            longest = int(max(lengths))
            mine = np.frombuffer(data.ljust(longest), np.uint8).copy()
            everyone = [
                self._torch.empty(longest, dtype=self._torch.uint8) for _ in range(self.size)
            ]
            self._distributed.all_gather(
                everyone, self._torch.from_numpy(mine), group=self._messages
            )
        return [json.loads(values.numpy().tobytes()) for values in everyone]

    def _gather_rows(self, state: State) -> State | None:
        most = -(-self.all_rows // self.size)
        mine = np.zeros((*state.shape[:2], most, state.shape[3]), state.dtype)
        mine[:, :, : state.shape[2]] = state
        with self._communicating():
            everyone = [self._torch.from_numpy(np.empty_like(mine)) for _ in range(self.size)]
            self._distributed.gather(
                self._torch.from_numpy(mine),
                everyone if self.leads else None,
                group=self._messages,
            )
        if not self.leads:
            return None
        parts = []
        for rank, values in enumerate(everyone):
            rows = self._rows_of(rank, self.all_rows)
            parts.append(values.numpy()[:, :, : rows.stop - rows.start])
        return np.concatenate(parts, axis=2)

    @contextlib.contextmanager
    def _communicating(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self.failure(error) from None

    # The work of each rank.

    def split(self, rows: int) -> None:
        if rows < self.size:
            raise CharloomError(
                f"a batch of this text has {plural(rows, 'row')} for {self.size} "
                "ranks: set a larger --batch-size, use a longer text, or start fewer ranks"
            )
        self.rows, self.all_rows = self._rows_of(self.rank, rows), rows
        self.first_row = self.rows.start

    def _rows_of(self, rank: int, rows: int) -> slice:
        return slice(rows * rank // self.size, rows * (rank + 1) // self.size)

    def backend_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        engine = options.get("engine", "auto")
        if engine not in ("auto", "pytorch"):
            raise CharloomError(
                f"--engine {engine} trains in one process: omit it, or start without torchrun"
            )
        threads = options.get("threads") or max(1, available_cores() // self.ranks_here)
        return {"engine": "pytorch", "threads": threads}

    # The engine's part.

    def in_parallel(self, module: Any) -> Any:
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(module, init_sync=False, gradient_as_bucket_view=True)

    def rows_of_all(self, rows: int) -> int:
        return self.all_rows

    def mean(self, total: Any, characters: int) -> Any:
        # Gradients are averaged over the ranks, however unequal their rows.
        return total * (self.size / characters)

    def begin_sum(self, value: Any) -> Any:
        return self._distributed.all_reduce(value, async_op=True)

    def failure(self, error: Exception) -> LostRanksError:
        return LostRanksError(
            f"rank {self.rank} lost the others ({_reason(error)}): the last checkpoint is "
            "intact; restart all ranks with --resume, if torchrun does not"
        )


def _reason(error: Exception) -> str:
    """Return the first sentence of PyTorch's error, without the location in its source."""
    line, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^(\[[^]]*\] *)+", "", line).split(". ")[0].rstrip(". ")
