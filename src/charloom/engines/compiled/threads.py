"""Threads of a kernel: how they wait for each other inside it, and where they come from.

A kernel holds no lock of Python's, so that the same kernel runs in several Python threads at once,
each on its own part of the work.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from charloom.engines.compiled.compiling import subroutine
from charloom.engines.compiled.vectors import INT32

# What gives the processor to another thread, from the system's own library.
_YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
_SPINS = 4000  # looks at the others' progress before giving the processor away, some 10 µs


@intrinsic
def _atomic_add(context, array, index, value):  # type: ignore[no-untyped-def]
    """Adds to an entry, seen by all threads in one order; returns what stood there."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        address = builder.gep(args[0], [args[1]])
        return builder.atomic_rmw("add", address, args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), emit


@intrinsic
def _atomic_load(context, array, index):  # type: ignore[no-untyped-def]
    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        address = builder.gep(args[0], [args[1]])
        return builder.load_atomic(address, "seq_cst", 8)

    return types.int64(array, types.intp), emit


@intrinsic
def _give_way(context):  # type: ignore[no-untyped-def]
    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(INT32, [])
        function = builder.module.globals.get(_YIELD) or ir.Function(builder.module, kind, _YIELD)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), emit


# What a kernel's array `sync` counts, and says: a thread will not come; the input is wrong.
ARRIVALS, STOPPED, FAULT = range(3)


def new_sync() -> NDArray[np.int64]:
    return np.zeros(3, dtype=np.int64)


@subroutine(types.boolean)
def barrier(sync, threads):  # type: ignore[no-untyped-def]
    """Waits until all threads are here. False if one will not come: the kernel must return then."""
    if threads == 1:
        return True
    arrived = _atomic_add(sync, ARRIVALS, 1)
    everyone = (arrived // threads + 1) * threads
    spins = 0
    while _atomic_load(sync, ARRIVALS) < everyone:
        spins += 1
        if spins > _SPINS:
            if _atomic_load(sync, STOPPED) != 0:
                return False
            _give_way()
    return True


class Team:
    """The threads that run a kernel with the calling one. They start when they are first needed."""

    def __init__(self) -> None:
        self._queues: list[queue.SimpleQueue[Any]] = []
        self._lock = threading.Lock()  # two kernels that wait for each other's threads would hang
        self._process = os.getpid()

    def run(
        self,
        kernel: Callable[..., Any],
        arguments: tuple[Any, ...],
        sync: NDArray[np.int64],
        threads: int,
    ) -> None:
        """kernel(*arguments, sync, threads, number) in that many threads, this one being number 0.

        The kernel must be compiled already, and must end with a barrier of all. Where the caller is
        interrupted on the way in, `sync` is spent.
        """
        if threads == 1:
            kernel(*arguments, sync, 1, 0)
            return
        if self._process != os.getpid():  # a forked process has none of its parent's threads
            self.__init__()  # type: ignore[misc]
        with self._lock:
            while len(self._queues) < threads - 1:
                tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
                name = f"charloom-{len(self._queues) + 1}"
                threading.Thread(target=_work, args=(tasks,), daemon=True, name=name).start()
                self._queues.append(tasks)
            try:
                for number, tasks in enumerate(self._queues[: threads - 1], start=1):
                    tasks.put((kernel, (*arguments, sync, threads, number)))
                kernel(*arguments, sync, threads, 0)
            except BaseException:
                sync[STOPPED] = 1
                raise


def _work(tasks: queue.SimpleQueue[Any]) -> None:
    while True:
        kernel, arguments = tasks.get()
        kernel(*arguments)
        del kernel, arguments  # not held until the next task comes


TEAM = Team()
