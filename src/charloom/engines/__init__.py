"""Engines compute a model's losses, gradients and next characters. One is opened by its name.

V: characters in the vocabulary; H: hidden units; L: layers; T: time steps; B: rows of a batch;
P: parameters in all; S: arrays of state (2 for lstm: hidden and cell state; else 1).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charloom.decoding import SamplingSettings
from charloom.errors import CharloomError
from charloom.model import Float, ModelConfig, Parameters, State
from charloom.optimizers import Optimizer
from charloom.ranks import Ranks
from charloom.units import Clamp

ENGINES = ("auto", "compiled", "reference", "pytorch")
DEVICES = ("cpu", "cuda")

Ids = NDArray[np.intp]


class Predictor(Protocol):
    """What scoring and sampling ask of an engine, or of an engine and counts (charloom.mixture).

    No method changes the state that it is given.
    """

    @property
    def config(self) -> ModelConfig: ...

    @property
    def windows_are_exact(self) -> bool:
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
    windows_are_exact: bool
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


def open_engine(
    name: str,
    parameters: Parameters,
    *,
    seed: int = 0,
    classic: bool = False,
    threads: int | None = None,
    device: str = "cpu",
    bf16: bool = False,
    compile: bool = False,
    ranks: Ranks | None = None,
) -> Engine:
    """The engine of that name on these parameters; `auto` takes the fastest there is that needs no
    extra.

    seed: of dropout's masks. classic: the notebook's objective, the gradient of the window's sum,
    with `bias_hh` left at zero. threads: the most to use; by default all cores. The reference
    leaves them to NumPy. device: cpu, or cuda for the engine pytorch. bf16: lets that engine train
    with products in bfloat16. compile: lets PyTorch compile a part of that engine's steps. ranks:
    the processes that it trains with, for that engine too.
    Raises CharloomError for a name that is none, an engine that cannot be imported, and what it
    cannot do.
    """
    if name not in ENGINES:
        raise CharloomError(f"engine {name!r} is not one of {', '.join(ENGINES)}")
    if device not in DEVICES:
        raise CharloomError(f"device {device!r} is not one of {', '.join(DEVICES)}")
    if name == "pytorch":
        try:
            from charloom.engines.pytorch import PytorchEngine
        except (ImportError, OSError) as error:  # OSError: one of its libraries is missing
            raise CharloomError(
                f"the pytorch engine needs PyTorch, which cannot be imported ({error}): pip "
                "install 'charloom[torch]', or leave --engine out"
            ) from None
        return PytorchEngine(
            parameters,
            seed=seed,
            classic=classic,
            threads=threads,
            device=device,
            bf16=bf16,
            compile=compile,
            ranks=ranks,
        )
    if device != "cpu":
        raise CharloomError(f"--device {device} is for the engine pytorch: add --engine pytorch")
    if bf16:
        raise CharloomError("--bf16 is for the engine pytorch: add --engine pytorch")
    if compile:
        raise CharloomError("--compile is for the engine pytorch: add --engine pytorch")
    assert ranks is None, "only the engine pytorch trains among ranks"
    if name != "reference":
        try:
            from charloom.engines.compiled import CompiledEngine
        except Exception as error:  # Numba refuses with all kinds of errors
            if name == "compiled":
                raise CharloomError(
                    f"the compiled engine needs Numba, which cannot be imported ({error}): "
                    "pip install numba, or use --engine reference"
                ) from None
            _say_once(error)
        else:
            return CompiledEngine(parameters, seed=seed, classic=classic, threads=threads)
    from charloom.engines.reference import ReferenceEngine

    return ReferenceEngine(parameters, seed=seed, classic=classic, threads=threads)


def is_compiled() -> bool:
    """Whether the compiled engine is at hand, and need not compile first."""
    try:
        from charloom.engines.compiled.compiling import is_kept
    except Exception:
        return False
    return is_kept("training") and is_kept("inference")


def available_cores() -> int:
    """The processor's cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _say_once(error: Exception) -> None:
    global _said
    if not _said:
        logging.getLogger("charloom").warning(
            "Numba cannot be imported (%s): the reference engine computes, several times slower",
            error,
        )
    _said = True


_said = False
