"""The protocols `Predictor` and `Engine`, which every engine implements."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from charloom.engines.choices import Device, EngineName
from charloom.engines.decoding import SamplingSettings
from charloom.network.optimizers import Optimizer
from charloom.network.parameters import Float, ModelConfig, Parameters, State
from charloom.network.units import Clamp

if TYPE_CHECKING:
    from charloom.text.batches import Windows

ENGINES: tuple[str, ...] = get_args(EngineName)
DEVICES: tuple[str, ...] = get_args(Device)

Ids = NDArray[np.intp]


class Predictor(Protocol):
    """The methods of an engine, or of an engine with counts, for scoring and sampling.

    No method changes the state that it receives. In a model of documents, every method sets a row's
    state to zero before it reads the end of a document, `config.end_id`.
    """

    @property
    def config(self) -> ModelConfig: ...

    @property
    def window_equals_steps(self) -> bool:
        """Return whether `log_probabilities` returns the same bytes of state as `step`."""
        ...

    def zero_state(self, rows: int) -> Any:
        """Return the state of a number of rows before any character."""
        ...

    def log_probabilities(self, inputs: Ids, state: Any) -> tuple[Float, Any]:
        """Return the natural logarithms of the next character's probabilities, (T, B, V)."""
        ...

    def read(self, inputs: Ids, state: Any) -> Any:
        """Return the state after inputs (T, B), the same bytes as `step` one by one."""
        ...

    def states(self, inputs: Ids, state: Any) -> tuple[Float, Any]:
        """Return the network's state after each of inputs (T, B), (T, S, L, B, H), and the last."""
        ...

    def step(self, ids: Ids, state: Any, clamps: Sequence[Clamp] = ()) -> tuple[Float, Any]:
        """Return the next characters' logits, (B, V), after one character a row, (B,).

        A row's bytes do not depend on the batch size, on other rows or on the pieces of its prompt.
        An engine's logits of old characters stay the same, bit for bit, when new ones are added.

        Args:
            ids: one character a row, (B,).
            state: the state before them.
            clamps: units that are held at a value instead of the cell's result.
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
        """Read ids and sample characters, one a row for each row of uniforms.

        Args:
            ids: one character a row, (B,).
            state: the state before them.
            settings: how characters are sampled.
            uniforms: random numbers in [0, 1), (count, B).
            clamps: as in `step`.

        Returns:
            The sampled ids, (count, B), and the state before the last of them is read. Alternate
            calls of `step` and `decoding.choose` return the same.
        """
        ...


class Engine(Predictor, Protocol):
    """The methods of every engine. The whole model is the boundary: an engine can fuse any of it.

    A state is (S, L, B, H). After writing to `parameters`, call `parameters_changed` before the
    next step or score.

    A model with extra inputs reads E = `config.extra_inputs` further numbers beside each character.
    Every method that reads characters requires them as `extra`, (T, B, E) or in `step` (B, E), in
    the model's dtype. It raises ValueError if they are missing or do not fit, and if a model
    without extra inputs gets any. `generate` always raises it for a model with extra inputs,
    because they depend on the sampled characters: call `step` instead.
    """

    name: str
    config: ModelConfig
    threads: int  # the largest number that it uses
    window_equals_steps: bool
    device: str

    @property
    def parameters(self) -> Parameters: ...

    @property
    def gradients(self) -> Parameters:
        """Return the gradients that loss_and_gradients writes."""
        ...

    def parameters_changed(self) -> None:
        """Invalidate copies of the parameters.

        Required before inference; training rereads the parameters in every step.
        """
        ...

    def log_probabilities(
        self, inputs: Ids, state: State, *, extra: Float | None = None
    ) -> tuple[Float, State]: ...

    def read(self, inputs: Ids, state: State, *, extra: Float | None = None) -> State: ...

    def step(
        self, ids: Ids, state: State, clamps: Sequence[Clamp] = (), *, extra: Float | None = None
    ) -> tuple[Float, State]: ...

    def states(
        self, inputs: Ids, state: State, *, extra: Float | None = None
    ) -> tuple[Float, State]:
        """Return the state after each of inputs (T, B), (T, S, L, B, H), and the last."""
        ...

    def loss_and_gradients(
        self,
        inputs: Ids,
        targets: Ids,
        state: State,
        *,
        dropout_step: int | None = None,
        extra: Float | None = None,
    ) -> tuple[float, State]:
        """Compute the mean loss of windows, and write its gradients to `gradients`.

        Args:
            inputs: ids, (T, B).
            targets: the ids after them, (T, B).
            state: the state before the windows.
            dropout_step: number of the step whose dropout masks are applied; None for no dropout.
            extra: the extra inputs, (T, B, E).

        Returns:
            The loss in nats per character, and the state after the windows.
        """
        ...

    def train_step(
        self,
        inputs: Ids,
        targets: Ids,
        state: State,
        optimizer: Optimizer,
        *,
        extra: Float | None = None,
    ) -> tuple[float, float, State]:
        """Take one training step.

        Args:
            inputs: ids, (T, B).
            targets: the ids after them, (T, B).
            state: the state before the windows.
            optimizer: the optimizer, whose step count is that of dropout.
            extra: the extra inputs, (T, B, E).

        Returns:
            The loss before the step, the gradient's norm, and the state after the windows.

        Raises:
            NonFiniteGradientError: if the loss or the gradient is not finite. The parameters are
                unchanged.
        """
        ...


@runtime_checkable
class TakesSeveral(Engine, Protocol):
    """An engine that takes several training steps in one call, which is faster for small ones."""

    def windows_at_once(self, steps: int, batch: int) -> int:
        """Return the largest number of windows (T, B) of one call; 1 if several are not faster."""
        ...

    def train_windows(
        self,
        windows: Windows,
        state: State,
        optimizer: Optimizer,
        learning_rates: Sequence[float],
    ) -> tuple[list[float], list[float], State]:
        """Take training steps on windows, one after another, with the same bytes as `train_step`.

        It ends before a step whose loss or gradient is not finite, unless that is the first.

        Args:
            windows: the windows of the steps, at most those of `windows_at_once` are read.
            state: the state before the first of them.
            optimizer: the optimizer.
            learning_rates: the learning rate of each step.

        Returns:
            The loss before each step that was taken, the gradients' norms, and the state after the
            last of these windows.

        Raises:
            NonFiniteGradientError: as `train_step`, for the first step.
        """
        ...


def check_extra(config: ModelConfig, extra: Float | None, *shape: int) -> None:
    """Check the extra inputs for ids of this shape, (T, B) or (B,).

    Raises:
        ValueError: unless they are (*shape, E) in the model's dtype, or None if E is 0.
    """
    expected = (*shape, config.extra_inputs) if config.extra_inputs else None
    found = None if extra is None else extra.shape
    if found != expected:
        raise ValueError(f"the extra inputs are {found}, not {expected}")
    if extra is not None and extra.dtype != config.dtype:
        raise ValueError(f"the extra inputs are {extra.dtype}, not {config.dtype}")


def refuse_extra_inputs(config: ModelConfig) -> None:
    """Raise ValueError for a model with extra inputs, which `generate` does not have."""
    if config.extra_inputs:
        raise ValueError("a model with extra inputs cannot generate: call step")


def available_cores() -> int:
    """Return the number of the processor's cores that this process can use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
