"""Engines compute a model's losses, gradients and next characters. One is opened by its name.

V: characters in the vocabulary; H: hidden units; L: layers; T: time steps; B: rows of a batch;
P: parameters in all; S: arrays of state (2 for lstm: hidden and cell state; else 1).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from charloom.decoding import SamplingSettings
from charloom.errors import CharloomError
from charloom.model import Float, ModelConfig, Parameters, State
from charloom.optimizers import Optimizer

ENGINES = ("auto", "compiled", "reference")

Ids = NDArray[np.intp]


class Engine(Protocol):
    """What every engine does. The whole model is the boundary: inside, it may fuse what it likes.

    A state is (S, L, B, H); no method changes the one it is given.
    """

    name: str
    config: ModelConfig
    parameters: Parameters

    @property
    def gradients(self) -> Parameters:
        """Where loss_and_gradients leaves them."""
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

    def log_probabilities(self, inputs: Ids, state: State) -> tuple[Float, State]:
        """The natural logarithms of the next character's probabilities, (T, B, V)."""
        ...

    def step(self, ids: Ids, state: State) -> tuple[Float, State]:
        """One character a row, (B,), to the next one's logits, (B, V).

        A row gets the same bytes whatever the batch size, its companions, or how its prompt was
        cut up; and the logits of old characters do not change by a bit when new ones are added.
        """
        ...

    def generate(
        self,
        ids: Ids,
        state: State,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
    ) -> tuple[Ids, State]:
        """Reads ids (B,) and draws a character a row for each row of uniforms (count, B).

        Returns the drawn ids, (count, B), and the state before the last of them is read: what
        `step` and `decoding.choose` in turn would give.
        """
        ...


def open_engine(
    name: str, parameters: Parameters, *, seed: int = 0, classic: bool = False
) -> Engine:
    """The engine of that name on these parameters; `auto` takes the fastest there is.

    seed: of dropout's masks. classic: the notebook's objective, the gradient of the window's sum,
    with `bias_hh` left at zero.
    """
    if name not in ENGINES:
        raise CharloomError(f"engine {name!r} is not one of {', '.join(ENGINES)}")
    from charloom.engines.reference import ReferenceEngine

    return ReferenceEngine(parameters, seed=seed, classic=classic)
