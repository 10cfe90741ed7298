"""The protocols `Predictor` and `Engine`, which every engine implements."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from charloom.engines.choices import Device, EngineName
from charloom.engines.decoding import SamplingSettings
from charloom.network.optimizers import Optimizer
from charloom.network.parameters import Float, ModelConfig, Parameters, State
from charloom.network.units import Clamp

ENGINES: tuple[str, ...] = get_args(EngineName)
DEVICES: tuple[str, ...] = get_args(Device)

Ids = NDArray[np.intp]


class Predictor(Protocol):
    """What scoring and sampling ask of an engine, or of an engine and counts (charloom.mixture).

    No method changes the state that it is given.
    """

    @property
    def config(self) -> ModelConfig: ...

    @property
    def window_equals_steps(self) -> bool:
        """Whether `log_probabilities` leaves the state that `step` leaves, to the byte."""
        ...

    def zero_state(self, rows: int) -> Any:
        """The state of that many rows before any character."""
        ...

    def log_probabilities(self, inputs: Ids, state: Any) -> tuple[Float, Any]:
        """The natural logarithms of the next character's probabilities, (T, B, V)."""
        ...

    def read(self, inputs: Ids, state: Any) -> Any:
        """The state that `step` leaves, to the byte, when it has read inputs (T, B) one by one."""
        ...

    def step(self, ids: Ids, state: Any, clamps: Sequence[Clamp] = ()) -> tuple[Float, Any]:
        """One character a row, (B,), to the next one's logits, (B, V).

        A row gets the same bytes whatever the batch size, its companions, or how its prompt was
        cut up; and an engine's logits of old characters do not change by a bit when new ones are
        added. clamps: units that take their value whatever the cell makes of them.
        """
        ...

    def generate(
        self,
        ids: Ids,
        state: Any,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
        clamps: Sequence[Clamp] = (),
    ) -> tuple[Ids, Any]:
        """Reads ids (B,) and draws a character a row for each row of uniforms (count, B).

        Returns the drawn ids, (count, B), and the state before the last of them is read: what
        `step` and `decoding.choose` in turn would give.
        """
        ...


class Engine(Predictor, Protocol):
    """What every engine does. The whole model is the boundary: inside, it may fuse what it likes.

    A state is (S, L, B, H). Whoever writes to `parameters` calls `parameters_changed` before the
    next step or score.
    """

    name: str
    config: ModelConfig
    threads: int  # the most that it uses
    window_equals_steps: bool
    device: str

    @property
    def parameters(self) -> Parameters: ...

    @property
    def gradients(self) -> Parameters:
        """Where loss_and_gradients leaves them."""
        ...

    def parameters_changed(self) -> None:
        """Says so; training and gradients see it without being told."""
        ...

    def states(self, inputs: Ids, state: State) -> tuple[Float, State]:
        """The state after each character of inputs (T, B): (T, S, L, B, H), and the last one."""
        ...

    def loss_and_gradients(
        self, inputs: Ids, targets: Ids, state: State, *, dropout_step: int | None = None
    ) -> tuple[float, State]:
        """The mean loss of windows (T, B), in nats per character, and the state after them.

        The gradients of the mean land in `gradients`. Dropout is on where a step's number is
        given: the mask is drawn for that step.
        """
        ...

    def train_step(
        self, inputs: Ids, targets: Ids, state: State, optimizer: Optimizer
    ) -> tuple[float, float, State]:
        """One step of training: the loss before it, the gradient's norm, and the state after.

        Raises NonFiniteGradientError, with the parameters as they were, where the loss or the
        gradient is not finite.
        """
        ...


def available_cores() -> int:
    """The processor's cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
