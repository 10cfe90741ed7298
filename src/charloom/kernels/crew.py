"""The crew of threads that run a kernel, see `charloom.kernels.threads`."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.kernels.kernel import CompiledKernel

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
        self._calls: list[Callable[[], None]] = []  # of the threads
        self._arguments: Any = None  # those of the calls

    def run(self, kernel: CompiledKernel, arguments: tuple[Any, ...], stays: bool = False) -> None:
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
        if not stays or self._arguments is not arguments:
            self._calls = [
                kernel.bind(*arguments, sync, threads, number) for number in range(threads)
            ]
            self._arguments = arguments
        first = self._calls[0]
        if threads == 1:
            first()
        else:
            try:
                if stays:
                    first()
                else:
                    sync[PLACES::PLACE] = TO_WAKE
                if not stays or sync[MISSING]:
                    self._wake(arguments)
                    sync[WOKEN] = 1
                    first()
                    sync[WOKEN] = 0
            except BaseException:
                sync[STOPPED] = 1  # so that no thread waits for this one
                self._muster()
                raise
        if sync[FAULT]:
            sync[FAULT] = 0
            raise IndexError("an id is not in the vocabulary")

    def _wake(self, arguments: tuple[Any, ...]) -> None:
        while len(self._queues) < self.threads - 1:
            tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
            name = f"charloom-{len(self._queues) + 1}"
            threading.Thread(target=_work, args=(tasks,), daemon=True, name=name).start()
            weakref.finalize(self, tasks.put, None)
            self._queues.append(tasks)
        for number, tasks in enumerate(self._queues, start=1):
            if self.sync[PLACES + number * PLACE] == TO_WAKE:
                # A call has only the addresses of arrays. A thread can still read and write `sync`
                # when the crew is gone.
                tasks.put((self._calls[number], arguments, self._held, self.sync))


def _work(tasks: queue.SimpleQueue[Any]) -> None:
    while (task := tasks.get()) is not None:
        call, *held = task
        call()
        del task, call, held  # so that they are not kept until the next task
