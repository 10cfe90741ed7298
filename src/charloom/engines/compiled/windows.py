"""Arrays of a window, allocated once and reused by every call of a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from charloom.engines.compiled.buffers import (
    CLASSIC,
    DESCRIBED,
    NUMBERS,
    SUMS,
    WINDOWS,
    InferenceBuffers,
    TrainingBuffers,
)
from charloom.engines.compiled.plan import Plan, make_plan
from charloom.kernels.buffers import addresses
from charloom.kernels.crew import Crew
from charloom.network.parameters import Float, ModelConfig, aligned_zeros


class Windows:
    """The arrays of one shape of windows: the plan and the workspace, and the crew of threads."""

    def __init__(self, plan: Plan, threads: int, dtype: str) -> None:
        self.plan = np.array(plan, dtype=np.int64)
        self.threads = threads
        self.crew = Crew(threads)
        self.work = aligned_zeros(plan.work_length * threads, dtype)


class InferenceWindows(Windows):
    """The arrays of inference that stay the same from call to call.

    Args:
        config: the model's configuration.
        steps: time steps whose outputs are decoded at once.
        batch: rows of the batch.
        threads: number of threads.
        parameters: flat vector of the parameters, (P,).
        packed: the packed weights.
    """

    def __init__(
        self,
        config: ModelConfig,
        steps: int,
        batch: int,
        threads: int,
        parameters: Float,
        packed: Float,
    ) -> None:
        plan = make_plan(config, steps, batch, threads, training=False)
        super().__init__(plan, threads, config.dtype)
        choices = plan.classes64 * threads
        self._held = InferenceBuffers(
            plan=self.plan,
            parameters=parameters,
            packed=packed,
            work=self.work,
            probabilities=np.empty(choices),
            order=np.empty(choices, np.int64),
        )
        self.places = addresses(self._held, np.dtype(config.dtype))
        self.crew.holds(self._held)


class TrainingWindows(Windows):
    """The arrays of training, with the inputs and results of a step always in the same places.

    The threads that wait for the next step read and write it there.
    """

    def __init__(
        self, config: ModelConfig, steps: int, batch: int, threads: int, classic: bool, most: int
    ) -> None:
        super().__init__(make_plan(config, steps, batch, threads), threads, config.dtype)
        self.inputs = np.zeros((steps, batch), dtype=np.int64)
        self.targets = np.zeros_like(self.inputs)
        self.extra = np.zeros((steps, batch, config.extra_inputs), config.dtype)
        self.state = config.zero_state(batch)
        self.new_state = np.zeros_like(self.state)
        self.keys = np.zeros(6, dtype=np.uint64)
        self.numbers = np.zeros(NUMBERS)
        self.numbers[CLASSIC] = classic
        self.numbers[WINDOWS] = 1
        self.several = np.zeros((most if most > 1 else 0, 2, steps, batch), dtype=np.int64)
        self.of_each = np.zeros((len(self.several), DESCRIBED))
        self.taken = np.zeros((len(self.several), 2))
        self.characters = np.zeros((2, config.vocabulary_size), dtype=np.int64)
        self.results = np.zeros(SUMS + 2 * threads)
        self.described: tuple[tuple[float, ...], float] = (), 0.0  # the contents of `numbers`
        self.slots: tuple[Float, ...] = ()
        self.arguments: tuple[Any, ...] = ()

    def has(self, slots: tuple[Float, ...]) -> bool:
        """Return whether the arguments hold these very slots; no optimizer has more than two."""
        own = self.slots
        return len(own) == len(slots) and (
            not slots or (own[0] is slots[0] and own[-1] is slots[-1])
        )

    def bind(
        self, parameters: Float, gradients: Float, packed: Float, slots: tuple[Float, ...]
    ) -> None:
        """Build the kernel's arguments from the flat vectors (P,) and the optimizer's slots.

        Args:
            parameters: the parameters.
            gradients: the gradients.
            packed: the packed weights.
            slots: up to two vectors of the optimizer.
        """
        if self.arguments:
            self.crew = Crew(self.threads)  # because the old one's threads have the old arguments
        self.slots = slots
        nothing = np.zeros(0, self.work.dtype)
        first, second = (*slots, nothing, nothing)[:2]
        held = TrainingBuffers(
            plan=self.plan,
            inputs=self.inputs,
            targets=self.targets,
            extra=self.extra,
            state=self.state,
            new_state=self.new_state,
            parameters=parameters,
            gradients=gradients,
            first_slot=first,
            second_slot=second,
            packed=packed,
            work=self.work,
            keys=self.keys,
            numbers=self.numbers,
            results=self.results,
            several=self.several,
            described=self.of_each,
            taken=self.taken,
            characters=self.characters,
        )
        self.crew.holds(held)
        self.arguments = (addresses(held, self.work.dtype), nothing)
