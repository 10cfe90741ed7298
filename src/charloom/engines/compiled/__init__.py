"""The compiled engine: the reference's arithmetic in Numba kernels, several times faster.

One step of training is one call of a kernel, which runs in as many threads as pay, each on its own
rows of the batch; so is a text to score, or a stretch to generate. See, in this order,

    vectors     SIMD arithmetic, and exp, tanh and the logistic function on it
    compiling   how kernels are compiled, and where the compiled code is kept
    threads     how a kernel's threads wait for each other
    products    matrix products on packed weights
    layout      where everything lies in the flat arrays
    cells       what rnn, lstm and gru make of the products, forward and backward
    train       a step of training
    infer       scoring, stepping, generating

V: characters in the vocabulary; T: time steps; B: rows of a batch; P: parameters in all;
S: arrays of state (2 for lstm, else 1); L: layers; H: hidden units.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.decoding import SamplingSettings
from charloom.engines import Ids, available_cores
from charloom.engines.compiled.compiling import Kernel
from charloom.engines.compiled.infer import GENERATE, LOG_PROBABILITIES, LOGITS, PACK, infer
from charloom.engines.compiled.layout import DECODED_AT_ONCE, Plan, aligned, make_plan
from charloom.engines.compiled.threads import FAULT, TEAM, new_sync
from charloom.engines.compiled.train import (
    ADAGRAD,
    ADAGRAD_INSIDE,
    ADAM,
    GRADIENTS_ONLY,
    LOSS,
    NORM,
    RMSPROP,
    SGD_KIND,
    train,
)
from charloom.engines.reference import ReferenceEngine
from charloom.model import Float, Parameters, State, dropout_key
from charloom.optimizers import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    NonFiniteGradientError,
    Optimizer,
    RMSProp,
)

TRAIN = Kernel(train, "training")
INFER = Kernel(infer, "inference")

# Below so many multiplications, waking another thread costs more than it saves: in a whole step of
# training; and in one time step of inference, where threads that run already wait for each other.
LEAST_FOR_THREADS = 2e7
LEAST_FOR_UNITS = 1.5e5
NO_DROPOUT = dropout_key(0, None, 0.0)
INT, DOUBLE = np.dtype(np.int64), np.dtype(np.float64)
NOTHING, NO_UNIFORMS = np.zeros(0), np.zeros((0, 0))
KEPT_PLANS = 4  # shapes of windows whose workspace is kept


class _Windows:
    """What one shape of windows needs: the plan, as an array, and the threads' workspace."""

    def __init__(self, plan: Plan, threads: int, dtype: str) -> None:
        self.plan = np.array(plan, dtype=np.int64)
        self.threads = threads
        self.choices = plan.classes64 * threads
        self.work = aligned(plan.work_length * threads, dtype)


class CompiledEngine:
    """The Engine protocol in Numba; see charloom.engines.

    threads: the most that it uses; all of the processor's cores if it is not given. Training gives
    the same bytes for the same number of threads, everything else whatever their number.
    """

    name = "compiled"

    def __init__(
        self,
        parameters: Parameters,
        *,
        seed: int = 0,
        classic: bool = False,
        threads: int | None = None,
    ) -> None:
        self.config = parameters.config
        self._dtype = np.dtype(self.config.dtype)
        self.parameters = parameters
        self.seed = seed
        self.classic = classic
        self.threads = threads or available_cores()
        # The preset classic is chaotic: only the notebook's own order of sums, which the reference
        # keeps in float64, gives the notebook's own numbers.
        self._notebook = None
        if classic and self.config.dtype == "float64":
            self._notebook = ReferenceEngine(parameters, seed=seed, classic=True)
        self._gradients: Parameters | None = None
        self._nothing = np.zeros(0, self.config.dtype)
        self._plan = make_plan(self.config, 1, 1, training=False)
        self._packed = aligned(self._plan.packed_length, self.config.dtype)
        self._packed_is_current = False
        self._windows: dict[tuple[bool, int, int], _Windows] = {}
        self._results = np.zeros(2 + 2 * self.threads)
        self._sync = new_sync()
        self._train: Any = None
        self._infer: Any = None
        # Multiplications for one character, on the way forward.
        config = self.config
        inputs = config.layers - 1  # layers whose input is another one's output
        self._multiplications = config.hidden_size * (
            config.gates * config.hidden_size * (config.layers + inputs) + config.vocabulary_size
        )

    @property
    def gradients(self) -> Parameters:
        """Made when it is first asked for: sampling and scoring need none."""
        if self._gradients is None:
            self._gradients = Parameters(self.config)
            if self._notebook is not None:
                self._gradients = self._notebook.gradients
        return self._gradients

    def parameters_changed(self) -> None:
        self._packed_is_current = False

    def loss_and_gradients(
        self, inputs: Ids, targets: Ids, state: State, *, dropout_step: int | None = None
    ) -> tuple[float, State]:
        if self._notebook is not None:
            self._packed_is_current = False
            return self._notebook.loss_and_gradients(
                inputs, targets, state, dropout_step=dropout_step
            )
        new_state = self._run_train(
            inputs, targets, state, dropout_step, GRADIENTS_ONLY, NOTHING, 0.0, ()
        )
        return float(self._results[LOSS]), new_state

    def train_step(
        self, inputs: Ids, targets: Ids, state: State, optimizer: Optimizer
    ) -> tuple[float, float, State]:
        described = _describe(optimizer)
        if self._notebook is not None or described is None:
            loss, new_state = self.loss_and_gradients(
                inputs, targets, state, dropout_step=optimizer.step_count
            )
            if not math.isfinite(loss):
                raise NonFiniteGradientError
            norm = optimizer.update(self.parameters.flat, self.gradients.flat)
            self._packed_is_current = False
            return loss, norm, new_state
        optimizer.prepare(self.parameters.flat)
        slots = tuple(optimizer.slots[name] for name in optimizer.slot_names)
        new_state = self._run_train(
            inputs, targets, state, optimizer.step_count, *described, optimizer.clip or 0.0, slots
        )
        loss, norm = float(self._results[LOSS]), float(self._results[NORM])
        if not math.isfinite(loss):
            raise NonFiniteGradientError
        if math.isfinite(norm):
            optimizer.step_count += 1
        else:  # its square may have overflowed where the norm itself does not
            norm = optimizer.update(self.parameters.flat, self.gradients.flat)
        return loss, norm, new_state

    def log_probabilities(self, inputs: Ids, state: State) -> tuple[Float, State]:
        return self._run_infer(LOG_PROBABILITIES, inputs, state)

    def step(self, ids: Ids, state: State) -> tuple[Float, State]:
        logits, state = self._run_infer(LOGITS, ids[None], state)
        return logits[0], state

    def generate(
        self,
        ids: Ids,
        state: State,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
    ) -> tuple[Ids, State]:
        steps, batch = uniforms.shape
        drawn = np.empty((steps + 1, batch), dtype=np.int64)
        drawn[0] = ids
        _, state = self._run_infer(GENERATE, drawn, state, settings, uniforms)
        return drawn[1:], state

    def _run_train(
        self,
        inputs: Ids,
        targets: Ids,
        state: State,
        dropout_step: int | None,
        kind: int,
        numbers: NDArray[np.float64],
        clip: float,
        slots: tuple[Float, ...],
    ) -> State:
        steps, batch = inputs.shape
        windows = self._windows.get((True, steps, batch)) or self._make_windows(True, steps, batch)
        keys, kept = NO_DROPOUT
        if self.config.dropout:
            keys, kept = dropout_key(self.seed, dropout_step, self.config.dropout)
        new_state = np.empty(state.shape, self._dtype)
        arguments = (
            windows.plan,
            steps,
            batch,
            _plain(inputs, INT),
            _plain(targets, INT),
            _plain(state, self._dtype),
            new_state,
            self.parameters.flat,
            self.gradients.flat,
            slots[0] if slots else self._nothing,
            slots[1] if len(slots) > 1 else self._nothing,
            self._packed,
            windows.work,
            keys,
            kept,
            self.classic,
            kind,
            numbers,
            clip,
            self._results,
        )
        if self._train is None:
            self._train = TRAIN.compiled((*arguments, self._sync, 1, 0))
        self._packed_is_current = False
        self._run(self._train, arguments, windows.threads)
        return new_state

    def _run_infer(
        self,
        mode: int,
        ids: Ids,
        state: State,
        settings: SamplingSettings | None = None,
        uniforms: NDArray[np.float64] | None = None,
    ) -> tuple[Float, State]:
        generating = mode == GENERATE
        batch = ids.shape[1]
        steps = len(ids) - 1 if generating else len(ids)
        chunk = 1 if generating else min(max(DECODED_AT_ONCE // max(batch, 1), 1), max(steps, 1))
        windows = self._windows.get((False, chunk, batch)) or self._make_windows(
            False, chunk, batch
        )
        vocabulary = self.config.vocabulary_size
        new_state = np.empty(state.shape, self._dtype)
        out = self._nothing
        if not generating:
            out = np.empty((steps, batch, vocabulary), self.config.dtype)
        numbers = NOTHING
        if settings is not None:
            numbers = np.array(
                [
                    settings.temperature,
                    settings.top_k or 0,
                    settings.top_p or 0,
                    settings.min_p or 0,
                ],
                dtype=np.float64,
            )
        threads = windows.threads

        def arguments(mode: int) -> tuple[Any, ...]:
            return (
                windows.plan,
                mode,
                steps,
                batch,
                chunk,
                _plain(ids, INT),
                _plain(state, self._dtype),
                new_state,
                self.parameters.flat,
                self._packed,
                windows.work,
                out.reshape(-1),
                numbers,
                NO_UNIFORMS if uniforms is None else _plain(uniforms, DOUBLE),
                np.empty(windows.choices if generating else 0),
                np.empty(windows.choices if generating else 0, np.int64),
            )

        if self._infer is None:
            self._infer = INFER.compiled((*arguments(mode), self._sync, 1, 0))
        if not self._packed_is_current:
            self._run(self._infer, arguments(PACK), threads)
            self._packed_is_current = True
        self._run(self._infer, arguments(mode), threads)
        return out, new_state

    def _run(self, kernel: Any, arguments: tuple[Any, ...], threads: int) -> None:
        self._sync[FAULT] = 0
        try:
            TEAM.run(kernel, arguments, self._sync, threads)
        except BaseException:
            self._sync = new_sync()
            raise
        if self._sync[FAULT]:
            raise IndexError(f"an id is not from 0 to {self.config.vocabulary_size - 1}")

    def _make_windows(self, train: bool, steps: int, batch: int) -> _Windows:
        """A window's plan and workspace; of earlier shapes only the latest are kept."""
        if train:
            work = 3 * self._multiplications * steps * batch
            threads = min(self.threads, batch) if work >= LEAST_FOR_THREADS else 1
            plan = make_plan(self.config, steps, -(-batch // threads))
        else:
            work = self._multiplications * batch
            threads = self.threads if work >= LEAST_FOR_UNITS else 1
            plan = make_plan(self.config, steps, batch, training=False)
        while len(self._windows) >= KEPT_PLANS:
            self._windows.pop(next(iter(self._windows)))
        windows = _Windows(plan, threads, self.config.dtype)
        self._windows[train, steps, batch] = windows
        return windows


def _plain(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array as kernels take it: contiguous, aligned, writable; a copy if it is not so."""
    if values.dtype == dtype and values.flags.carray:
        return values
    return np.array(values, dtype, order="C")


def _describe(optimizer: Optimizer) -> tuple[int, NDArray[np.float64]] | None:
    """An optimizer's kind and numbers as the kernel takes them; None for one of somebody's own."""
    kind = type(optimizer)
    rate = optimizer.learning_rate
    if kind is SGD:
        return SGD_KIND, np.array([rate, optimizer.momentum])  # type: ignore[attr-defined]
    if isinstance(optimizer, AdaGrad) and kind is AdaGrad:
        name = ADAGRAD_INSIDE if optimizer.epsilon_inside else ADAGRAD
        return name, np.array([rate, optimizer.epsilon])
    if isinstance(optimizer, RMSProp) and kind is RMSProp:
        return RMSPROP, np.array([rate, optimizer.decay, optimizer.epsilon])
    if isinstance(optimizer, Adam) and kind in (Adam, AdamW):
        step = optimizer.step_count + 1
        decay = rate * optimizer.weight_decay if isinstance(optimizer, AdamW) else 0.0
        beta1, beta2 = optimizer.beta1, optimizer.beta2
        return ADAM, np.array(
            [
                rate,
                beta1,
                beta2,
                optimizer.epsilon,
                1 - beta1**step,
                math.sqrt(1 - beta2**step),
                1 - decay,
            ]
        )
    return None
