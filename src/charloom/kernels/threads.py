"""Threads of a kernel: their barriers inside it, and the crew that runs them.

A kernel releases Python's lock, so that the same kernel runs in several Python threads at once,
each on its own part of the work. Waking a thread takes some 50 µs, as long as a small training
step. A thread that has finished its part of a step therefore spins for a while before it sleeps.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from charloom.kernels.compiling import subroutine
from charloom.kernels.vectors import INT32, MACHINE

# The function of the system's library that yields the processor to another thread.
_YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
_PAUSE = "llvm.x86.sse2.pause" if MACHINE == "x86_64" else None  # some 10 to 50 ns

# The entries of a kernel's array `sync`:
ARRIVALS = 0  # arrivals at barriers in all
STOPPED = 1  # whether a thread will not arrive
FAULT = 2  # whether the input is invalid
MISSING = 3  # the number of threads that must be woken
WOKEN = 4  # whether they have been woken
PLACES, PLACE = 8, 8  # the first thread's place, and the distance: each has its own cache line
# The values of a thread's place:
GONE = 0  # outside the kernel
READY = 1  # waiting for the next step
CALLED = 2  # called to it
TO_WAKE = 3  # sleeping, so that it must be woken for it
BUSY = 4  # working on it

_LOOKS = 4_000 if _PAUSE else 100_000  # polls in some 50 µs (measured)


@intrinsic
def _atomic_add(context, array, index, value):  # type: ignore[no-untyped-def]
    """Add to an entry, in one order for all threads; returns the value before."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", builder.gep(args[0], [args[1]]), args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), emit


@intrinsic
def _atomic_load(context, array, index):  # type: ignore[no-untyped-def]
    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "seq_cst", 8)

    return types.int64(array, types.intp), emit


@intrinsic
def _atomic_store(context, array, index, value):  # type: ignore[no-untyped-def]
    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        builder.store_atomic(args[2], builder.gep(args[0], [args[1]]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), emit


@intrinsic
def _replace(context, array, index, old, new):  # type: ignore[no-untyped-def]
    """Replace an entry by `new` if it is `old`, atomically; returns whether it was."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        pair = builder.cmpxchg(
            builder.gep(args[0], [args[1]]), args[2], args[3], "seq_cst", "seq_cst"
        )
        return builder.extract_value(pair, 1)

    return types.boolean(array, types.intp, types.int64, types.int64), emit


def _call(name: str | None, returns: Any) -> Any:
    @intrinsic
    def call(context):  # type: ignore[no-untyped-def]
        def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
            if name is not None:
                kind = ir.FunctionType(returns, [])
                function = builder.module.globals.get(name) or ir.Function(
                    builder.module, kind, name
                )
                builder.call(function, [])
            return context.get_dummy_value()

        return types.void(), emit

    return call


_give_way = _call(_YIELD, INT32)
_pause = _call(_PAUSE, ir.VoidType())


@subroutine(types.boolean)
def barrier(sync, threads):  # type: ignore[no-untyped-def]
    """Wait for all threads. Returns False if one will not arrive: the kernel must return then."""
    if threads == 1:
        return True
    arrived = _atomic_add(sync, ARRIVALS, 1)
    everyone = (arrived // threads + 1) * threads
    looks = 0
    while _atomic_load(sync, ARRIVALS) < everyone:
        looks += 1
        if looks > _LOOKS:
            if _atomic_load(sync, STOPPED) != 0:
                return False
            _give_way()
        elif looks > 100:
            _pause()
    return True


@subroutine(types.boolean)
def call_up(sync, threads):  # type: ignore[no-untyped-def]
    """Call the other threads to a step; returns False if some must be woken first."""
    missing = 0
    if sync[WOKEN] == 0:
        for thread in range(1, threads):
            place = PLACES + thread * PLACE
            while _atomic_load(sync, place) == BUSY:  # because it is leaving the last barrier
                _pause()
            if not _replace(sync, place, READY, CALLED):
                sync[place] = TO_WAKE
                missing += 1
    sync[MISSING] = missing
    return missing == 0


@subroutine()
def at_work(sync, thread):  # type: ignore[no-untyped-def]
    _atomic_store(sync, PLACES + thread * PLACE, BUSY)


@subroutine()
def leave(sync, thread):  # type: ignore[no-untyped-def]
    _atomic_store(sync, PLACES + thread * PLACE, GONE)


@subroutine(types.boolean)
def is_called_again(sync, thread):  # type: ignore[no-untyped-def]
    """Wait for the next step in a thread but the first; returns False after a while."""
    place = PLACES + thread * PLACE
    _atomic_store(sync, place, READY)
    looks = 0
    while _atomic_load(sync, place) == READY:
        looks += 1
        _pause()
        if looks > _LOOKS and _replace(sync, place, READY, GONE):
            return False
    return True


_forks = 0  # forks between the first process and this one


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class Crew:
    """The threads that run kernels together with the calling one, for one shape of windows."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._held: Any = None
        self._muster()

    def holds(self, arrays: Any) -> None:
        """Keep arrays alive while a thread is in a kernel, which knows their addresses alone."""
        self._held = arrays

    def _muster(self) -> None:
        self.sync: NDArray[np.int64] = np.zeros(PLACES + PLACE * self.threads, dtype=np.int64)
        self._queues: list[queue.SimpleQueue[Any]] = []
        self._forks = _forks

    def run(
        self, kernel: Callable[..., Any], arguments: tuple[Any, ...], stays: bool = False
    ) -> None:
        """Run kernel(*arguments, sync, threads, number) in all threads; this one is number 0.

        Args:
            kernel: a compiled kernel that ends with a barrier.
            arguments: its first arguments.
            stays: whether the other threads stay in the kernel and wait for the next call, see
                `call_up`. All calls must then have the same arguments.

        Raises:
            IndexError: if the kernel finds an id that is not in the vocabulary.
        """
        if self._forks != _forks:  # because a forked process lacks its parent's threads
            self._muster()
        sync, threads = self.sync, self.threads
        if threads == 1:
            kernel(*arguments, sync, 1, 0)
        else:
            try:
                if stays:
                    kernel(*arguments, sync, threads, 0)
                else:
                    sync[PLACES::PLACE] = TO_WAKE
                if not stays or sync[MISSING]:
                    self._wake(kernel, (*arguments, sync, threads))
                    sync[WOKEN] = 1
                    kernel(*arguments, sync, threads, 0)
                    sync[WOKEN] = 0
            except BaseException:
                sync[STOPPED] = 1  # so that no thread waits for this one
                self._muster()
                raise
        if sync[FAULT]:
            sync[FAULT] = 0
            raise IndexError("an id is not in the vocabulary")

    def _wake(self, kernel: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        while len(self._queues) < self.threads - 1:
            tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
            name = f"charloom-{len(self._queues) + 1}"
            threading.Thread(target=_work, args=(tasks,), daemon=True, name=name).start()
            weakref.finalize(self, tasks.put, None)
            self._queues.append(tasks)
        for number, tasks in enumerate(self._queues, start=1):
            if self.sync[PLACES + number * PLACE] == TO_WAKE:
                tasks.put((kernel, (*arguments, number), self._held))


def _work(tasks: queue.SimpleQueue[Any]) -> None:
    while (task := tasks.get()) is not None:
        kernel, arguments, held = task
        kernel(*arguments)
        del task, kernel, arguments, held  # so that they are not kept until the next task
