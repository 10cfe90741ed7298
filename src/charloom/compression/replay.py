"""A network that learns a text while it is coded, from random windows of the text so far.

It learns the text before a block while that block is coded. The predictions of a block therefore
come from weights that do not change: the mean of the latest ones before it.

A batch is divided between two workers, and each adds up the gradients of its own rows. A second
thread, if there is one, takes steps alone until the block is coded. Then each thread runs a worker.
No bit depends on that.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from charloom.compression.network import (
    MULTIPLE,
    WORKERS,
    NetworkPlan,
    make_mixing,
    make_network,
    make_parameters,
    places_of,
    sizes_of,
)
from charloom.kernels.kernel import Kernel

FIND_GRADIENTS = Kernel(
    "charloom.compression.network_kernel:find_gradients", "learning while compressing"
)
CHANGE_WEIGHTS = Kernel(
    "charloom.compression.network_kernel:change_weights", "weights while compressing"
)
MOST_REMEMBERED = 400_000_000  # bytes of the mixer's predictions
WARM_UP = 50  # steps
DECAYS = 0.9, 0.99  # of Adam's means
LATEST = 1 / 32  # the share of new weights in the mean of the latest ones
WINDOWS_IN_A_ROW = 8  # before a row begins elsewhere
RECENT_ROWS = 4  # among these rows, one reads recent text
RECENT_PART = 25  # of all the text, of which recent text is one part
LEAST_RECENT = 20_000  # characters
LEARNED_BLOCK = 1024  # characters that are coded while the network learns those before
MULTIPLIER, INCREMENT = 6364136223846793005, 1442695040888963407


class Replay:
    """A network, its predictions of the text that is coded, and its steps.

    Args:
        order: the ids of characters by falling frequency, (V,).
        length: characters of the text, N.
        plan: the network's size, and how it learns.
        threads: that learn, at most.
    """

    def __init__(
        self, order: NDArray[np.int64], length: int, plan: NetworkPlan, threads: int
    ) -> None:
        characters = len(order)
        self._plan, self._length = plan, length
        self.uses_network = plan.hidden > 0
        self._remembered = 1
        if self.uses_network:
            self._remembered = max(1, min(length, MOST_REMEMBERED // characters))
        sizes = sizes_of(characters, plan, 1, 1, self._remembered)
        self._parameters = make_parameters(sizes)
        self._average, self._used = self._parameters.copy(), self._parameters.copy()
        self._live = make_network(sizes, self._used, order)
        of_worker = sizes_of(characters, plan, plan.rows, plan.steps, self._remembered)
        self._workers = [
            make_network(of_worker, self._parameters, order)
            for _ in range(WORKERS if self.uses_network else 0)
        ]
        self._worker_places = [places_of(worker) for worker in self._workers]
        self._mixing = make_mixing(characters)
        self._first, self._second = np.zeros((2, sizes.total), np.float32)
        self._settings = np.zeros(2, np.float32)
        self._left = np.zeros(WORKERS * plan.rows, np.int64)
        self._due, self._steps, self._step, self._random = 0, 0, 0, 1
        self._coded = threading.Event()
        self._running: Future[int] | None = None
        self._first_decay = self._second_decay = 1.0
        self._pool: ThreadPoolExecutor | None = None
        if self.uses_network and threads > 1:
            self._pool = ThreadPoolExecutor(WORKERS - 1)
        self.codes = np.zeros(self._remembered * characters, np.uint8)
        self.places = places_of(self._live), places_of(self._mixing)

    def begin_steps(self, ids: NDArray[np.int64], begin: int) -> None:
        """Begin to learn the characters before a block that begins at `begin`."""
        cost = 10 * WORKERS * self._plan.rows * self._plan.steps
        self._steps, self._due = divmod(self._due, cost)
        if begin <= self._plan.steps + 1:
            self._steps = 0
        self._coded.clear()
        if self._pool is not None:
            self._running = self._pool.submit(self._step_until_coded, ids, begin)

    def end_steps(self, ids: NDArray[np.int64], begin: int, end: int) -> None:
        """Take the rest of these steps, after the block is coded, and use the new weights."""
        self._coded.set()
        done = 0 if self._running is None else self._running.result()
        for _ in range(self._steps - done):
            self.step(ids, begin, self._pool)
        self._used[:] = self._average
        self._due += (end - begin) * self._plan.passes

    def step(
        self, ids: NDArray[np.int64], end: int, pool: ThreadPoolExecutor | None = None
    ) -> None:
        """Take a step on windows of the characters before `end`, half of it in a pool."""
        self._choose_windows(end)
        self._take_step(ids, end, pool)

    def close(self) -> None:
        """End the threads."""
        self._coded.set()
        if self._pool is not None:
            self._pool.shutdown()

    def _step_until_coded(self, ids: NDArray[np.int64], end: int) -> int:
        """Take steps until all are taken or the block is coded, and return their number."""
        for done in range(self._steps):
            if self._coded.is_set():
                return done
            self.step(ids, end)
        return self._steps

    def _choose_windows(self, end: int) -> None:
        plan = self._plan
        earliest, most = 0, end - plan.steps - 1
        if self._remembered < self._length:  # The block replaces what lies further back.
            earliest = max(0, end + LEARNED_BLOCK - self._remembered)
        for number, left in enumerate(self._left.tolist()):
            worker, row = self._workers[number % WORKERS], number // WORKERS
            begin = int(worker.windows[row]) + plan.steps
            anew = left <= 0 or not earliest <= begin <= most
            if anew:
                lowest = earliest
                if row % RECENT_ROWS == 0:
                    lowest = max(lowest, end - max(LEAST_RECENT, end // RECENT_PART))
                self._random = (self._random * MULTIPLIER + INCREMENT) % (1 << 64)
                begin = lowest + (self._random >> 33) % (most - lowest + 1)
                self._left[number] = WINDOWS_IN_A_ROW
            self._left[number] -= 1
            worker.windows[row] = begin
            worker.windows[plan.rows + row] = anew

    def _take_step(self, ids: NDArray[np.int64], end: int, pool: ThreadPoolExecutor | None) -> None:
        self._step += 1
        for worker in self._workers:
            self._random = (self._random * MULTIPLIER + INCREMENT) % (1 << 64)
            worker.key[0] = self._random
        self._settings[:] = self._rate(end), max(LATEST, 1 / (1 + self._step / 5))
        gradients = [worker.gradients for worker in self._workers]
        total = len(self._parameters)
        half = total // 2 // MULTIPLE * MULTIPLE
        with_workers = [(ids, self.codes, places, self._settings) for places in self._worker_places]
        means = self._first, self._second, self._average
        weights = self._parameters, *means, *gradients, self._settings
        for kernel, parts in (
            (FIND_GRADIENTS, with_workers),
            (CHANGE_WEIGHTS, [(*weights, 0, half), (*weights, half, total)]),
        ):
            if pool is None:
                for part in parts:
                    kernel(*part)
            else:
                other = pool.submit(kernel, *parts[1])
                kernel(*parts[0])
                other.result()

    def _rate(self, end: int) -> float:
        """Return the learning rate, with the correction of Adam's means."""
        plan = self._plan
        share = min(1.0, end / max(1, self._length))
        rate = plan.rate / 10_000 * (1 - share * (100 - plan.last_rate) / 100)
        rate *= min(1.0, self._step / WARM_UP)
        # No power is used, because its last digits depend on the system's library.
        self._first_decay *= DECAYS[0]
        self._second_decay *= DECAYS[1]
        return rate * math.sqrt(1 - self._second_decay) / (1 - self._first_decay)
