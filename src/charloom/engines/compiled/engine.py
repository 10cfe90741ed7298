"""The compiled engine: the reference's arithmetic in Numba kernels, several times faster.

A training step is one call of a kernel, and so is a text to score or to generate. A kernel runs in
as many threads as make it faster, each on its own rows of the batch. Read these modules in order:

    kernels/arrays        flat arrays in kernels, by name
    kernels/vectors       SIMD arithmetic
    kernels/vector_math   exp, tanh and the logistic function on it
    kernels/compiling     compilation, and the cache of compiled code
    kernels/threads       the barriers and the crew of threads
    kernels/products      matrix products on packed weights
    plan                  sizes, and offsets in the flat arrays
    cells                 arithmetic of rnn, lstm and gru, forward and backward
    train                 a training step
    infer                 scoring, stepping, generating

V: characters in the vocabulary; T: time steps; B: rows of a batch; P: parameters in all;
S: arrays of state (2 for lstm, else 1); L: layers; H: hidden units; E: extra inputs.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charloom.engines.compiled.buffers import (
    ADAGRAD,
    ADAGRAD_INSIDE,
    ADAM,
    CLIP,
    FOLLOW,
    FRESH,
    GENERATE,
    GRADIENTS_ONLY,
    HELD,
    KEPT,
    KEPT_WEIGHT,
    KIND,
    LOG_PROBABILITIES,
    LOGITS,
    LOSS,
    NORM,
    OF_WEIGHTS,
    PACK,
    RMSPROP,
    SGD_KIND,
    TAKEN,
    WINDOWS,
    Call,
)
from charloom.engines.compiled.plan import DECODED_AT_ONCE, make_plan
from charloom.engines.compiled.windows import InferenceWindows, TrainingWindows
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Ids, available_cores, check_extra, refuse_extra_inputs
from charloom.engines.restrictions import NO_RESTRICTIONS, Restrictions
from charloom.kernels.kernel import Kernel
from charloom.network.dropout import dropout_key
from charloom.network.optimizers import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    NonFiniteGradientError,
    Optimizer,
    RMSProp,
)
from charloom.network.parameters import STATES, Float, Parameters, State, aligned_zeros
from charloom.network.units import Clamp

if TYPE_CHECKING:
    from charloom.engines.reference import ReferenceEngine
    from charloom.text.batches import Windows

TRAIN = Kernel("charloom.engines.compiled.train:train", "training")
INFER = Kernel("charloom.engines.compiled.infer:infer", "inference")

# With fewer multiplications another thread costs more time than it saves: in a training step, and
# in one time step of inference.
LEAST_FOR_ROWS = 4e6
LEAST_FOR_UNITS = 1.5e5
# The most multiplications and windows of a call of several training steps, so that it ends after
# some milliseconds and signals are noticed.
MOST_AT_ONCE, MOST_WINDOWS = 1.5e8, 128
READ_AT_ONCE = 256  # characters of a prompt, so that their states fit in memory
KEPT_WINDOWS = 4  # shapes of windows whose workspaces are kept
INT, DOUBLE = np.dtype(np.int64), np.dtype(np.float64)
NO_NUMBERS, NO_UNIFORMS = np.zeros(HELD + 1), np.zeros((0, 0))


class CompiledEngine:
    """The Engine protocol in Numba, see `charloom.engines.protocol`.

    Training returns the same bytes for the same number of threads; all other methods return the
    same bytes for any number.

    Args:
        parameters: the model's parameters, which training changes.
        seed: seed of dropout.
        classic: whether the gradient is the notebook's, of the sum of the losses.
        threads: the largest number of threads; by default that of the processor's cores.
    """

    name = "compiled"
    window_equals_steps = True
    device = "cpu"

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
        self._nothing = np.zeros(0, self._dtype)
        self._reads_extra = self.config.extra_inputs > 0
        self.parameters = parameters
        self.seed = seed
        self.classic = classic
        self.threads = threads or available_cores()
        # The preset classic is chaotic. Only the notebook's own order of sums, which the reference
        # engine keeps in float64, reproduces the notebook's numbers.
        self._notebook: ReferenceEngine | None = None
        if classic and self.config.dtype == "float64":
            from charloom.engines.reference import ReferenceEngine

            self._notebook = ReferenceEngine(parameters, seed=seed, classic=True)
        self._gradients: Parameters | None = None
        plan = make_plan(self.config, 1, 1, 1, training=False)
        self.packed = aligned_zeros(plan.packed_length, self.config.dtype)
        self._packed_is_current = False
        self._training_windows: dict[tuple[int, int], TrainingWindows] = {}
        self._inference_windows: dict[tuple[int, int, int], InferenceWindows] = {}
        self._train: Any = None
        self._infer: Any = None
        self._lock = threading.RLock()  # because several threads can call the engine
        # Multiplications for one character, in the forward pass.
        config = self.config
        inputs = config.layers - 1  # layers whose input is the output of another
        self._multiplications = config.hidden_size * (
            config.gates * (config.hidden_size * (config.layers + inputs) + config.extra_inputs)
            + config.vocabulary_size
        )

    @property
    def takes_restrictions(self) -> bool:
        """Return whether `generate` takes restrictions of its rows."""
        return not self._reads_extra

    @property
    def gradients(self) -> Parameters:
        """Return the gradients, allocated on first use because sampling and scoring need none."""
        if self._gradients is None:
            self._gradients = Parameters(self.config)
            if self._notebook is not None:
                self._gradients = self._notebook.gradients
        return self._gradients

    def parameters_changed(self) -> None:
        self._packed_is_current = False

    def zero_state(self, rows: int) -> State:
        return self.config.zero_state(rows)

    def loss_and_gradients(
        self,
        inputs: Ids,
        targets: Ids,
        state: State,
        *,
        dropout_step: int | None = None,
        extra: Float | None = None,
    ) -> tuple[float, State]:
        if self._notebook is not None:
            self._packed_is_current = False
            return self._notebook.loss_and_gradients(
                inputs, targets, state, dropout_step=dropout_step, extra=extra
            )
        with self._lock:
            windows = self._run_train(
                inputs, targets, state, dropout_step, NO_UPDATE, 0.0, (), extra
            )
            return windows.results.item(LOSS), windows.new_state.copy()

    def train_step(
        self,
        inputs: Ids,
        targets: Ids,
        state: State,
        optimizer: Optimizer,
        *,
        extra: Float | None = None,
    ) -> tuple[float, float, State]:
        with self._lock:
            return self._train_step(inputs, targets, state, optimizer, extra)

    def _train_step(
        self, inputs: Ids, targets: Ids, state: State, optimizer: Optimizer, extra: Float | None
    ) -> tuple[float, float, State]:
        described = _describe(optimizer)
        if self._notebook is not None or described is None:
            loss, new_state = self.loss_and_gradients(
                inputs, targets, state, dropout_step=optimizer.step_count, extra=extra
            )
            if not math.isfinite(loss):
                raise NonFiniteGradientError
            norm = optimizer.update(self.parameters.flat, self.gradients.flat)
            self._packed_is_current = False
            return loss, norm, new_state
        optimizer.prepare(self.parameters.flat)
        slots = tuple(optimizer.slots.values())
        windows = self._run_train(
            inputs, targets, state, optimizer.step_count, described, optimizer.clip or 0.0, slots,
            extra,
        )  # fmt: skip
        loss, norm = windows.results.item(LOSS), windows.results.item(NORM)
        if not math.isfinite(loss):
            raise NonFiniteGradientError
        if math.isfinite(norm):
            optimizer.step_count += 1
        else:  # because its square can overflow where the norm itself does not
            with np.errstate(all="ignore"):
                norm = optimizer.update(self.parameters.flat, self.gradients.flat)
        return loss, norm, windows.new_state.copy()

    def windows_at_once(self, steps: int, batch: int) -> int:
        config = self.config
        steps_differ = config.dropout or config.weight_drop or self._reads_extra
        if self._notebook is not None or steps_differ or self._threads_for(steps, batch) > 1:
            return 1
        work = 3 * self._multiplications * steps * batch
        return int(min(max(MOST_AT_ONCE // max(work, 1), 1), MOST_WINDOWS))

    def train_windows(
        self,
        windows: Windows,
        state: State,
        optimizer: Optimizer,
        learning_rates: Sequence[float],
    ) -> tuple[list[float], list[float], State]:
        with self._lock:
            most = self.windows_at_once(*windows.inputs.shape[1:])
            rates = learning_rates[: min(len(windows.fresh), most)]
            if len(rates) > 1 and _describe(optimizer) is not None:
                taken, after = self._take_several(windows, state, optimizer, rates)
                if len(taken):
                    return taken[:, LOSS].tolist(), taken[:, NORM].tolist(), after
            optimizer.learning_rate = learning_rates[0]
            before = np.zeros_like(state) if windows.fresh[0] else state
            inputs, targets = windows.inputs[0], windows.targets[0]
            loss, norm, after = self._train_step(inputs, targets, before, optimizer, None)
            return [loss], [norm], after

    def log_probabilities(
        self, inputs: Ids, state: State, *, extra: Float | None = None
    ) -> tuple[Float, State]:
        return self._run_infer(LOG_PROBABILITIES, inputs, state, extra=extra)

    def read(self, inputs: Ids, state: State, *, extra: Float | None = None) -> State:
        check_extra(self.config, extra, *inputs.shape)
        state = state.copy()
        for begin in range(0, len(inputs), READ_AT_ONCE):
            here = slice(begin, begin + READ_AT_ONCE)
            beside = None if extra is None else extra[here]
            _, state = self.states(inputs[here], state, extra=beside)
        return state

    def step(
        self, ids: Ids, state: State, clamps: Sequence[Clamp] = (), *, extra: Float | None = None
    ) -> tuple[Float, State]:
        beside = None if extra is None else extra[None]
        logits, state = self._run_infer(LOGITS, ids[None], state, clamps=clamps, extra=beside)
        return logits[0], state

    def generate(
        self,
        ids: Ids,
        state: State,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
        clamps: Sequence[Clamp] = (),
        rules: Restrictions = NO_RESTRICTIONS,
    ) -> tuple[Ids, State]:
        refuse_extra_inputs(self.config)
        steps, batch = uniforms.shape
        drawn = np.empty((steps + 1, batch), dtype=np.int64)
        drawn[0] = ids
        _, state = self._run_infer(GENERATE, drawn, state, settings, uniforms, clamps, rules=rules)
        return drawn[1:], state

    def states(
        self, inputs: Ids, state: State, *, extra: Float | None = None
    ) -> tuple[Float, State]:
        return self._run_infer(FOLLOW, inputs, state, extra=extra)

    def _run_train(
        self,
        inputs: Ids,
        targets: Ids,
        state: State,
        dropout_step: int | None,
        described: tuple[float, ...],
        clip: float,
        slots: tuple[Float, ...],
        extra: Float | None,
    ) -> TrainingWindows:
        shape = inputs.shape
        if extra is not None or self._reads_extra:
            check_extra(self.config, extra, *shape)
        windows = self._windows_of(shape)
        self._bind(windows, slots)
        windows.inputs[...] = inputs
        windows.targets[...] = targets
        windows.state[...] = state
        if extra is not None:
            windows.extra[...] = extra
        numbers = windows.numbers
        if windows.described != (described, clip):
            kind, *rest = described
            numbers[: len(rest)] = rest
            numbers[KIND] = kind
            numbers[CLIP] = clip
            windows.described = described, clip
        if self.config.dropout:
            windows.keys[:OF_WEIGHTS], numbers[KEPT] = dropout_key(
                self.seed, dropout_step, self.config.dropout
            )
        if self.config.weight_drop:
            windows.keys[OF_WEIGHTS:], numbers[KEPT_WEIGHT] = dropout_key(
                self.seed, dropout_step, self.config.weight_drop, of_weights=True
            )
        self._call_train(windows)
        return windows

    def _take_several(
        self,
        windows: Windows,
        state: State,
        optimizer: Optimizer,
        learning_rates: Sequence[float],
    ) -> tuple[NDArray[np.float64], State]:
        """Take a step for each learning rate in one call, at least two.

        Returns:
            The losses and norms of the steps that were taken, (W, 2), and the state.
        """
        shape = windows.inputs.shape[1:]
        held = self._windows_of(shape)
        count = len(learning_rates)
        optimizer.prepare(self.parameters.flat)
        self._bind(held, tuple(optimizer.slots.values()))
        held.several[:count, 0] = windows.inputs[:count]
        held.several[:count, 1] = windows.targets[:count]
        held.of_each[:count, FRESH] = windows.fresh[:count]
        held.state[...] = 0 if windows.fresh[0] else state
        held.numbers[KIND] = _describe_steps(held.of_each[:count], optimizer, learning_rates)
        held.numbers[CLIP] = optimizer.clip or 0.0
        held.numbers[WINDOWS] = count
        held.described = NOT_DESCRIBED
        try:
            self._call_train(held)
        finally:
            held.numbers[WINDOWS] = 1
        taken = int(held.results[TAKEN])
        optimizer.step_count += taken
        if taken:
            optimizer.learning_rate = learning_rates[taken - 1]
        after = held.new_state if taken == count else held.state
        return held.taken[:taken], after.copy()

    def _windows_of(self, shape: Any) -> TrainingWindows:
        """Return the arrays for windows of this shape, (T, B)."""
        windows = self._training_windows.get(shape)
        return self._make_training_windows(*shape) if windows is None else windows

    def _bind(self, windows: TrainingWindows, slots: tuple[Float, ...]) -> None:
        if not windows.arguments or not windows.has(slots):
            windows.bind(self.parameters.flat, self.gradients.flat, self.packed, slots)

    def _call_train(self, windows: TrainingWindows) -> None:
        if self._train is None:
            self._train = TRAIN.compiled((*windows.arguments, windows.crew.sync, 1, 0))
        self._packed_is_current = False
        windows.crew.run(self._train, windows.arguments, stays=True)

    def _run_infer(
        self,
        mode: int,
        ids: Ids,
        state: State,
        settings: SamplingSettings | None = None,
        uniforms: NDArray[np.float64] | None = None,
        clamps: Sequence[Clamp] = (),
        extra: Float | None = None,
        rules: Restrictions = NO_RESTRICTIONS,
    ) -> tuple[Float, State]:
        if extra is not None or self._reads_extra:
            check_extra(self.config, extra, *ids.shape)
        generating = mode == GENERATE
        batch = ids.shape[1]
        steps = len(ids) - 1 if generating else len(ids)
        chunk = 1
        if mode in (LOGITS, LOG_PROBABILITIES):
            chunk = min(max(DECODED_AT_ONCE // max(batch, 1), 1), max(steps, 1))
        expected = (len(state), self.config.layers, batch, self.config.hidden_size)
        if state.shape != expected or len(state) != STATES[self.config.cell]:
            raise ValueError(f"the state is {state.shape}, for {batch} rows of ids")
        new_state = np.empty(state.shape, self._dtype)
        out = self._nothing
        if mode == FOLLOW:
            out = np.empty((steps, *state.shape), self._dtype)
        elif not generating:
            out = np.empty((steps, batch, self.config.vocabulary_size), self._dtype)
        numbers = NO_NUMBERS
        if settings is not None or clamps:
            numbers = settings_numbers(settings or SamplingSettings(), clamps)
        call = Call(
            ids=plain(ids, INT),
            extra=self._nothing if extra is None else plain(extra, self._dtype).reshape(-1),
            state=plain(state, self._dtype),
            new_state=new_state,
            out=out.reshape(-1),
            settings=numbers,
            uniforms=NO_UNIFORMS if uniforms is None else plain(uniforms, DOUBLE),
            rules=rules,
        )
        with self.inference(chunk, batch) as (windows, packed):
            crew, places = windows.crew, windows.places
            if self._infer is None:
                self._infer = INFER.compiled((places, call, mode, steps, crew.sync, 1, 0))
            if not packed:
                crew.run(self._infer, (places, call, PACK, 0))
            crew.run(self._infer, (places, call, mode, steps))
        return out, new_state

    @contextlib.contextmanager
    def inference(
        self, steps: int, batch: int, beside: float = 0
    ) -> Iterator[tuple[InferenceWindows, bool]]:
        """Yield the arrays of inference to a kernel that runs the network, and keep others out.

        Args:
            steps: time steps whose outputs are decoded at once.
            batch: rows of the batch.
            beside: multiplications that the kernel needs besides, for a character of each row.

        Yields:
            The arrays, and whether the weights in them are packed already. Otherwise, the kernel
            packs them.
        """
        work = (self._multiplications + beside) * batch
        threads = self.threads if work >= LEAST_FOR_UNITS else 1
        shape = steps, batch, threads
        with self._lock:
            windows = self._inference_windows.get(shape)
            if windows is None:
                _forget_all_but(KEPT_WINDOWS - 1, self._inference_windows)
                windows = InferenceWindows(
                    self.config, steps, batch, threads, self.parameters.flat, self.packed
                )
                self._inference_windows[shape] = windows
            yield windows, self._packed_is_current
            self._packed_is_current = True

    def _make_training_windows(self, steps: int, batch: int) -> TrainingWindows:
        threads = self._threads_for(steps, batch)
        _forget_all_but(KEPT_WINDOWS - 1, self._training_windows)
        most = self.windows_at_once(steps, batch)
        windows = TrainingWindows(self.config, steps, batch, threads, self.classic, most)
        self._training_windows[steps, batch] = windows
        return windows

    def _threads_for(self, steps: int, batch: int) -> int:
        """Return the number of threads for a training step on windows (T, B)."""
        work = 3 * self._multiplications * steps * batch
        return min(self.threads, batch) if work >= LEAST_FOR_ROWS else 1


def _forget_all_but(count: int, windows: dict[Any, Any]) -> None:
    """Drop the oldest windows until `count` are left."""
    while len(windows) > count:
        windows.pop(next(iter(windows)))


def plain(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array as kernels need it: contiguous, aligned and writable; a copy if necessary."""
    if values.dtype == dtype and values.flags.carray:
        return values
    return np.array(values, dtype, order="C")


def settings_numbers(settings: SamplingSettings, clamps: Sequence[Clamp]) -> NDArray[np.float64]:
    """Return the sampling settings and the held units in the kernel's format, see `Call`."""
    numbers = [
        settings.temperature,
        settings.top_k or 0,
        settings.top_p or 0,
        settings.min_p or 0,
        len(clamps),
    ]
    for unit, value in clamps:
        numbers += [*unit, value, math.tanh(value)]
    return np.array(numbers, dtype=np.float64)


NO_UPDATE = (GRADIENTS_ONLY,)


NOT_DESCRIBED: tuple[tuple[float, ...], float] = (), 0.0


def _describe_steps(
    described: NDArray[np.float64], optimizer: Optimizer, learning_rates: Sequence[float]
) -> float:
    """Write the optimizer's settings for each of several steps, see `TrainingBuffers.described`.

    Returns:
        The optimizer's kind.
    """
    before, kind = optimizer.step_count, 0.0
    same = not isinstance(optimizer, Adam) and len(set(learning_rates[: len(described)])) == 1
    for window, row in enumerate(described):
        optimizer.learning_rate = learning_rates[window]
        optimizer.step_count = before + window
        found = _describe(optimizer)
        assert found is not None
        kind, *settings = found
        if same:
            described[:, : len(settings)] = settings
            break
        row[: len(settings)] = settings
    optimizer.step_count = before
    return kind


def _describe(optimizer: Optimizer) -> tuple[float, ...] | None:
    """Return an optimizer's kind and settings for the kernel; None for an unknown class."""
    kind = type(optimizer)
    rate = optimizer.learning_rate
    if kind is SGD and isinstance(optimizer, SGD):
        return SGD_KIND, rate, optimizer.momentum
    if kind is AdaGrad and isinstance(optimizer, AdaGrad):
        name = ADAGRAD_INSIDE if optimizer.epsilon_inside else ADAGRAD
        return name, rate, optimizer.epsilon
    if kind is RMSProp and isinstance(optimizer, RMSProp):
        return RMSPROP, rate, optimizer.decay, optimizer.epsilon
    if kind in (Adam, AdamW) and isinstance(optimizer, Adam):
        step = optimizer.step_count + 1
        decay = rate * optimizer.weight_decay if isinstance(optimizer, AdamW) else 0.0
        beta1, beta2 = optimizer.beta1, optimizer.beta2
        first, second = 1 - beta1**step, math.sqrt(1 - beta2**step)
        return ADAM, rate, beta1, beta2, optimizer.epsilon, first, second, 1 - decay
    return None
