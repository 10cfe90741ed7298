"""Arrays of a window, allocated once and reused by every call of a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from charloom.engines.compiled.plan import Plan, make_plan
from charloom.engines.compiled.train import CLASSIC, NUMBERS, SUMS
from charloom.kernels.threads import Crew
from charloom.network.parameters import Float, ModelConfig, aligned_zeros


class Windows:
    """What one shape of windows needs: the plan, as an array, the threads and their workspace."""

    def __init__(self, plan: Plan, threads: int, dtype: str) -> None:
        self.plan = np.array(plan, dtype=np.int64)
        self.threads = threads
        self.crew = Crew(threads)
        self.choices = plan.classes64 * threads
        self.work = aligned_zeros(plan.work_length * threads, dtype)


class TrainingWindows(Windows):
    """For training also what a step takes and gives, always in the same places: the threads of the
    step before look there for the next one."""

    def __init__(
        self, config: ModelConfig, steps: int, batch: int, threads: int, classic: bool
    ) -> None:
        super().__init__(make_plan(config, steps, batch, threads), threads, config.dtype)
        self.inputs = np.zeros((steps, batch), dtype=np.int64)
        self.targets = np.zeros_like(self.inputs)
        self.state = config.zero_state(batch)
        self.new_state = np.zeros_like(self.state)
        self.keys = np.zeros(6, dtype=np.uint64)
        self.numbers = np.zeros(NUMBERS)
        self.numbers[CLASSIC] = classic
        self.results = np.zeros(SUMS + 2 * threads)
        self.described: tuple[tuple[float, ...], float] = (), 0.0  # what stands in `numbers`
        self.slots: tuple[Float, ...] = ()
        self.arguments: tuple[Any, ...] = ()

    def has(self, slots: tuple[Float, ...]) -> bool:
        """Whether the arguments hold these very slots, of which no optimizer has more than two."""
        own = self.slots
        return len(own) == len(slots) and (
            not slots or (own[0] is slots[0] and own[-1] is slots[-1])
        )

    def bind(
        self, parameters: Float, gradients: Float, packed: Float, slots: tuple[Float, ...]
    ) -> None:
        """Build the kernel's arguments from the flat vectors (P,) and the optimizer's slots."""
        if self.arguments:
            self.crew = Crew(self.threads)  # the old one's threads know the old arguments
        self.slots = slots
        nothing = np.zeros(0, self.work.dtype)
        first, second = (*slots, nothing, nothing)[:2]
        self._held = (
            self.plan,
            self.inputs,
            self.targets,
            self.state,
            self.new_state,
            parameters,
            gradients,
            first,
            second,
            packed,
            self.work,
            self.keys,
            self.numbers,
            self.results,
        )
        for array in self._held:
            assert array.flags.carray, "a kernel needs arrays in one piece"
        places = np.array([array.ctypes.data for array in self._held], dtype=np.int64)
        self.arguments = (places, nothing, self.keys, self.numbers)
