"""Training: a generator that takes steps and yields what happened. It does no I/O.

Each step reads one batch, windows of shape (T, B). Between steps the whole of a run's state is a
TrainingState, so that a run can be left and taken up at any of them.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from charloom.batches import Batches, SlidingWindows, Streams
from charloom.dataset import Dataset, Split
from charloom.engines import DEVICES, ENGINES, Engine
from charloom.errors import CharloomError, printable, shortened
from charloom.model import GATES, LARGEST_HIDDEN_SIZE, MOST_LAYERS, ModelConfig, State
from charloom.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    AdaGrad,
    NonFiniteGradientError,
    Optimizer,
    learning_rate_factor,
)
from charloom.ranks import Ranks
from charloom.sampling import stream_text
from charloom.scoring import Validation, validate

PRESETS: dict[str, dict[str, Any]] = {
    # Chosen for the time and the text where --minutes alone ends the run, else the defaults below.
    "auto": {},
    "tiny": {"hidden_size": 96, "batch_size": 16, "learning_rate": 0.012},
    "small": {"hidden_size": 256, "batch_size": 16, "learning_rate": 8e-3},
    "medium": {
        "hidden_size": 448,
        "batch_size": 16,
        "learning_rate": 5.5e-3,
        "dropout": 0.2,
        "weight_drop": 0.1,
    },
    "large": {
        "hidden_size": 704,
        "batch_size": 16,
        "learning_rate": 4e-3,
        "dropout": 0.35,
        "weight_drop": 0.2,
    },
    # The notebook's: sliding windows from a zero state, one row, gradient of the window's sum.
    "classic": {
        "cell": "rnn",
        "hidden_size": 100,
        "batch_size": 1,
        "window": 25,
        "optimizer": "adagrad",
        "learning_rate": 0.1,
        "schedule": "constant",
        "warmup": 0.0,
        "clip": 0.0,
        "no_mix": True,
    },
}
CLASSIC_STRIDE = 10
DEFAULT_MINUTES = 3.0
VALIDATED_AT_ONCE = 200_000  # characters of the validation part that one validation reads
SAMPLE_LENGTH = 300
LEAST_TRAINING = 2.0  # seconds, however long it took to get started
PATIENCE = 0.35  # part of a run in which no validation was the best


def option(default: Any, help_text: str, **limits: Any) -> Any:
    """A field of TrainingConfig: its default, what --help says, and what values it may take."""
    return field(default=default, metadata={"help": help_text, **limits})


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a run's outcome, the text aside: the one list of options, which the
    command line, --config files and checkpoints share.
    """

    preset: str = option("auto", "what the other options start from", choices=tuple(PRESETS))
    cell: str = option("gru", "kind of recurrent cell", choices=tuple(GATES))
    hidden_size: int = option(256, "hidden units of a layer", least=1, most=LARGEST_HIDDEN_SIZE)
    layers: int = option(1, "layers of cells", least=1, most=MOST_LAYERS)
    dropout: float = option(0.0, "part of each layer's outputs dropped", least=0, below=1)
    weight_drop: float = option(
        0.0, "part of the recurrent weights dropped in each step", least=0, below=1
    )
    dtype: str = option("float32", "type of the numbers", choices=("float32", "float64"))
    batch_size: int = option(32, "rows of text read side by side", least=1, most=65_536)
    window: int = option(64, "characters between two updates", least=1, most=65_536)
    optimizer: str = option("adamw", "kind of optimizer", choices=tuple(OPTIMIZERS))
    learning_rate: float | None = option(
        None, "highest learning rate (default: the optimizer's own)", above=0, most=1e12
    )
    schedule: str = option("cosine", "how the learning rate falls", choices=SCHEDULES)
    warmup: float = option(0.02, "part of the run in which it rises first", least=0, most=1)
    clip: float = option(1.0, "largest norm of the gradient; 0 for no limit", least=0, most=1e9)
    split: str = option("90/5/5", "percent of the text to train, validate, test")
    seed: int = option(0, "of every random number", least=0, most=2**63 - 1)
    steps: int | None = option(None, "end after that many updates", least=1, most=10**15)
    epochs: float | None = option(None, "end after that many passes", above=0, most=1e9)
    minutes: float | None = option(
        None, "end after that much wall time (3 if no end is given)", above=0, most=1e7
    )
    validate_every: int | None = option(
        None, "updates between validations (default: about twenty in a run)", least=1, most=10**15
    )
    refit: float = option(
        0.0,
        "last part of the run that learns from four fifths of the validation part too",
        least=0,
        most=1,
    )
    no_mix: bool = option(False, "count no n-grams to mix with the network")
    mix_megabytes: float = option(
        16.0, "largest size of what is counted, in the model's file", above=0, most=1e6
    )
    bytes: bool = option(False, "characters are bytes, for text that is not UTF-8")
    raw: bool = option(False, "keep a named book's header and license")
    normalize_newlines: bool = option(False, "turn CRLF and CR into LF")
    from_run: str | None = option(None, "a run to start from (fine-tuning)")
    engine: str = option("auto", "what computes", choices=ENGINES)
    threads: int | None = option(
        None, "threads to compute with (default: all cores)", least=1, most=256
    )
    device: str = option("cpu", "where the engine pytorch computes", choices=DEVICES)
    bf16: bool = option(False, "let the engine pytorch train with products in bfloat16")
    compile: bool = option(False, "let PyTorch compile a part of the engine pytorch's steps")
    rank_timeout: float = option(
        300.0, "seconds to wait for the other ranks of torchrun", above=0, most=1e6
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            check_option(f.name, getattr(self, f.name))
        Split.parse(self.split)
        if self.refit > 0 and Split.parse(self.split).test == 0:
            raise CharloomError(
                f"--refit learns from the validation part, and --split {self.split} has no test "
                "part to evaluate on: leave --refit out, or give a third part"
            )
        if self.preset == "classic" and self.batch_size != 1:
            raise CharloomError("--batch-size: the preset classic reads one row; leave it out")

    @classmethod
    def of(cls, given: dict[str, Any]) -> TrainingConfig:
        """The configuration from the options given, their preset's and the defaults.

        Raises CharloomError, naming the option, for a value that makes no sense.
        """
        known = {f.name for f in fields(cls)}
        for name in given:
            if name not in known:
                raise CharloomError(
                    f"there is no option {printable(option_name(name))}; there are: "
                    + ", ".join(option_name(n) for n in sorted(known))
                )
        preset = given.get("preset", "auto")
        check_option("preset", preset)
        config = cls(**{**PRESETS[preset], **given})
        if config.learning_rate is None:
            rate = OPTIMIZERS[config.optimizer].default_learning_rate
            config = replace(config, learning_rate=rate)
        if config.steps is None and config.epochs is None and config.minutes is None:
            config = replace(config, minutes=DEFAULT_MINUTES)
        return config

    @property
    def classic(self) -> bool:
        return self.preset == "classic"

    @property
    def is_to_be_planned(self) -> bool:
        """Whether charloom.planning chooses what was not given."""
        return self.preset == "auto" and self.steps is None and self.epochs is None


def option_name(name: str) -> str:
    """How the command line spells a field."""
    return "--" + {"from_run": "from"}.get(name, name.replace("_", "-"))


def check_option(name: str, value: Any) -> None:
    """Raises CharloomError unless the field of TrainingConfig may have that value."""
    (f,) = (f for f in fields(TrainingConfig) if f.name == name)
    spelled, limits = option_name(name), f.metadata
    kinds = {k.strip() for k in str(f.type).split("|")}
    if value is None:
        if "None" not in kinds:
            raise CharloomError(f"{spelled} needs a value")
        return
    right = {
        "str": isinstance(value, str),
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, (int, float)) and not isinstance(value, bool),
    }
    if not any(right.get(kind, False) for kind in kinds):
        wanted = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        names = [wanted.get(kind, "a word") for kind in sorted(kinds - {"None"})]
        raise CharloomError(f"{spelled} is {shortened(value)}: give {' or '.join(names)}")
    if "choices" in limits and value not in limits["choices"]:
        raise CharloomError(
            f"{spelled} is {shortened(value)}: choose from {', '.join(limits['choices'])}"
        )
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = limits.get("least", limits.get("above")), limits.get("most")
        fits = isinstance(value, int) or math.isfinite(value)
        fits = fits and ("least" not in limits or value >= limits["least"])
        fits = fits and ("above" not in limits or value > limits["above"])
        fits = fits and ("below" not in limits or value < limits["below"])
        fits = fits and (most is None or value <= most)
        if not fits:
            lower = f"above {least:,}" if "above" in limits else f"at least {least:,}"
            upper = f"below {limits['below']:,}" if "below" in limits else f"at most {most:,}"
            raise CharloomError(
                f"{spelled} is {shortened(value)}: give a number {lower} and {upper}"
            )


def make_optimizer(config: TrainingConfig) -> Optimizer:
    """The optimizer that a configuration names."""
    assert config.learning_rate is not None
    clip = config.clip or None
    if config.classic and config.optimizer == "adagrad":
        return AdaGrad(config.learning_rate, clip, epsilon=1e-8, epsilon_inside=True)
    return OPTIMIZERS[config.optimizer](config.learning_rate, clip)


def make_batches(config: TrainingConfig, dataset: Dataset, refit: bool = False) -> Batches:
    """The training windows that a configuration asks for; `refit`: in its last part.

    Raises CharloomError where a part of the text is too short.
    """
    train, validation = dataset.learned_and_watched(refit)
    if len(train) < 2:
        raise CharloomError(
            f"the training part has {len(train)} of the text's {len(dataset.ids)} characters and "
            "needs at least 2: give a longer text or a larger first part in --split"
        )
    if 0 < len(validation) < config.window and not refit:
        raise CharloomError(
            f"the validation part has {len(validation):,} characters, less than one window of "
            f"{config.window}: give a longer text, a smaller --window, or --split 100/0/0 to go "
            "without"
        )
    if config.classic:
        return SlidingWindows(train, config.window, CLASSIC_STRIDE)
    return Streams(train, config.batch_size, config.window)


def model_config(config: TrainingConfig, vocabulary_size: int) -> ModelConfig:
    """The model that a training configuration describes."""
    return ModelConfig(
        cell=config.cell,
        hidden_size=config.hidden_size,
        layers=config.layers,
        vocabulary_size=vocabulary_size,
        dropout=float(config.dropout),
        weight_drop=float(config.weight_drop),
        dtype=config.dtype,
    )


@dataclass
class TrainingState:
    """Where a run stands between two steps. With the weights and the optimizer's slots, this is all
    that the rest of the run depends on."""

    step: int = 0
    hidden: State | None = None  # (S, L, B, H), carried between windows
    smoothed_loss: float | None = None  # nats per character
    recent_loss: float = 0.0  # summed over the steps since the last report
    recent_steps: int = 0
    reported_loss: float | None = None  # mean over the steps of the last report
    refit_step: int | None = None  # from which on the validation part is learned from
    learning_rate: float | None = None  # of the last step
    gradient_norm: float | None = None  # of the last step, before clipping
    validated_step: int = -1  # the last validation's
    best_step: int | None = None
    best_loss: float | None = None  # nats per character
    best_done: float = 0.0  # the part of the run that lay behind it
    elapsed: float = 0.0  # seconds, in all processes


@dataclass(frozen=True)
class Progress:
    """What happened. `kind`: step (an update), report (one whose figures are kept), validating
    (a part of a validation is done), validation (it is done; with a sample)."""

    kind: str
    step: int
    epoch: float
    done: float  # the part of the run that lies behind, 0 to 1
    loss: float | None  # mean over the steps since the last report, nats per character
    smoothed_loss: float
    learning_rate: float | None
    gradient_norm: float | None
    characters: int  # predictions made by this process's updates
    elapsed: float
    validation: Validation | None = None
    best: bool = False  # no validation before was better
    sample: str | None = None


class DivergedError(CharloomError):
    """The loss became NaN or infinite."""

    def __init__(self, step: int, config: TrainingConfig) -> None:
        clip = f"a smaller --clip (it is {config.clip:g})" if config.clip else "with --clip 1"
        super().__init__(
            f"the loss became NaN or infinite at step {step}: train again with a lower "
            f"--learning-rate (it is {config.learning_rate:g}) or {clip}; the last good checkpoint "
            "is still there"
        )


def total_steps(config: TrainingConfig, batches: Batches) -> int | None:
    """The updates after which a run ends, if --steps or --epochs say so."""
    ends = []
    if config.steps is not None:
        ends.append(config.steps)
    if config.epochs is not None:
        ends.append(math.ceil(config.epochs * batches.steps_per_epoch))
    return min(ends, default=None)


def train_steps(
    engine: Engine,
    optimizer: Optimizer,
    dataset: Dataset,
    config: TrainingConfig,
    state: TrainingState,
    elapsed: Callable[[], float] | None = None,
    reserve: Callable[[float], float] = lambda validation: 0.0,
    ranks: Ranks | None = None,
) -> Iterator[Progress]:
    """Trains until the end that the configuration names, changing `state` in place; yields Progress
    after every step and validation.

    elapsed: gives the seconds that count against --minutes; by default from the call on. With
    --steps or --epochs alone, no result depends on it. reserve: from the seconds that a validation
    takes, those that are needed after the last one. ranks: the processes that train too, which
    call `follow_steps` meanwhile; of all rows, `state.hidden` keeps this one's.
    Raises DivergedError before a step that would spoil the weights.
    """
    trainer = _Trainer(engine, optimizer, dataset, config, state, elapsed, reserve, ranks)
    return trainer.run()


def follow_steps(
    engine: Engine,
    optimizer: Optimizer,
    dataset: Dataset,
    config: TrainingConfig,
    state: TrainingState,
    ranks: Ranks,
) -> None:
    """Takes the steps that rank 0 takes, with this rank's rows, until it ends. `state` is rank 0's,
    as far as steps depend on it."""
    _Trainer(engine, optimizer, dataset, config, state, ranks=ranks).follow()


def rows_of_validation(characters: int) -> int:
    """Rows in which a part of that length is read during training."""
    return max(1, min(32, characters // 512))


class _Trainer:
    def __init__(
        self,
        engine: Engine,
        optimizer: Optimizer,
        dataset: Dataset,
        config: TrainingConfig,
        state: TrainingState,
        elapsed: Callable[[], float] | None = None,
        reserve: Callable[[float], float] = lambda validation: 0.0,
        ranks: Ranks | None = None,
    ) -> None:
        self.reserve = reserve
        self.ranks = ranks
        self.engine = engine
        self.optimizer = optimizer
        self.dataset = dataset
        self.config = config
        self.state = state
        self._read_from(make_batches(config, dataset))
        self.steps = total_steps(config, self.batches)
        self._hold(False)
        self.epochs_before = 0.0  # passes before `began_with`, the step that these batches begin at
        self.began_with = 0
        if state.refit_step is not None:
            self._begin_refit(state.refit_step)
        if ranks is not None and state.hidden is not None:
            state.hidden = state.hidden[:, :, ranks.rows]
        self.budget = None if config.minutes is None else config.minutes * 60
        started = time.monotonic() - state.elapsed
        self.elapsed = elapsed or (lambda: time.monotonic() - started)
        self.characters = 0
        if state.smoothed_loss is None:
            state.smoothed_loss = math.log(len(dataset.vocabulary))
        # The notebook smooths a single window; a batch of them is smoother already.
        self.smoothing = 0.999 if config.classic else 0.99
        self.validation_seconds = 0.0
        self.validated_at = -math.inf
        self.began = self.reported_at = self.elapsed()

    def run(self) -> Iterator[Progress]:
        state = self.state
        while True:
            if self._refit_is_due():
                if state.validated_step != state.step:
                    yield from self._validate()
                state.refit_step, state.hidden = state.step, None
                # What is held against it from now on is another text.
                state.best_step = state.best_loss = None
                if self.ranks is not None:
                    self.ranks.tell("refit")
                self._begin_refit(state.step)
            if self._validation_is_due():
                yield from self._validate()
            if self._done() >= 1 or self._nothing_more_is_learned():
                return
            rate = self._rate()
            if self.ranks is not None:
                self.ranks.tell("step", rate)
            self._step(rate)
            if self._report_is_due():
                state.reported_loss = state.recent_loss / state.recent_steps
                state.recent_loss, state.recent_steps = 0.0, 0
                self.reported_at = self.elapsed()
                yield self._progress("report")
            else:
                yield self._progress("step")

    def _done(self) -> float:
        """The part of the run that lies behind. At 1 it ends."""
        parts = []
        if self.steps is not None:
            parts.append(self.state.step / self.steps)
        if self.budget is not None:
            # The last validation and what comes after it belong to the time that was given. But
            # something is to be learned also where getting started took all of it.
            validation = self.validation_seconds
            usable = self.budget - 1.1 * validation - self.reserve(validation)
            usable = max(usable, self.began + min(self.budget / 2, LEAST_TRAINING))
            parts.append(self.elapsed() / usable)
        return min(max(parts), 1.0)

    def _refit_is_due(self) -> bool:
        refit = self.config.refit
        return refit > 0 and self.state.refit_step is None and 1 - refit <= self._done() < 1

    def _begin_refit(self, step: int) -> None:
        self.epochs_before, self.began_with = step / self.batches.steps_per_epoch, step
        self._read_from(make_batches(self.config, self.dataset, refit=True))
        self._hold(True)

    def _read_from(self, batches: Batches) -> None:
        self.batches = batches
        if self.ranks is not None:
            self.ranks.split(batches.rows)

    def _hold(self, refit: bool) -> None:
        self.learned, watched = self.dataset.learned_and_watched(refit)
        self.watched = watched[:VALIDATED_AT_ONCE]

    def _nothing_more_is_learned(self) -> bool:
        """Whether a run that is to be as good as its time allows can end before."""
        state = self.state
        if self.config.preset != "auto" or self.budget is None or state.best_step is None:
            return False
        if state.validated_step != state.step:
            return False  # where validations are slow and far between, the next one is waited for
        return self._done() - state.best_done > PATIENCE

    def follow(self) -> None:
        state, ranks = self.state, self.ranks
        assert ranks is not None
        while True:
            order, value = ranks.hear()
            if order == "step":
                with contextlib.suppress(DivergedError):  # rank 0 sees it too, and ends
                    self._step(value)
            elif order == "refit":
                state.refit_step, state.hidden = state.step, None
                self._begin_refit(state.step)
            elif order == "gather":
                assert state.hidden is not None
                ranks.gather(state.hidden)
            else:
                return

    def _rate(self) -> float:
        assert self.config.learning_rate is not None
        return self.config.learning_rate * learning_rate_factor(
            self.config.schedule, self.config.warmup, self._done()
        )

    def _step(self, learning_rate: float) -> None:
        state, optimizer = self.state, self.optimizer
        batch = self.batches(state.step - self.began_with)
        inputs, targets = batch.inputs, batch.targets
        if self.ranks is not None:
            inputs, targets = inputs[:, self.ranks.rows], targets[:, self.ranks.rows]
        hidden = state.hidden
        if batch.fresh or hidden is None:
            hidden = self.engine.config.zero_state(inputs.shape[1])
        optimizer.learning_rate = learning_rate
        try:
            loss, state.gradient_norm, state.hidden = self.engine.train_step(
                inputs, targets, hidden, optimizer
            )
        except NonFiniteGradientError:
            raise DivergedError(state.step + 1, self.config) from None
        state.learning_rate = learning_rate
        state.step += 1
        state.recent_loss += loss
        state.recent_steps += 1
        assert state.smoothed_loss is not None
        state.smoothed_loss = self.smoothing * state.smoothed_loss + (1 - self.smoothing) * loss
        self.characters += batch.targets.size

    def _report_is_due(self) -> bool:
        if self.steps is not None:
            every = max(1, min(100, self.steps // 100))
            return self.state.step % every == 0 or self.state.step == self.steps
        assert self.budget is not None
        return self.elapsed() - self.reported_at >= min(max(self.budget / 200, 0.5), 10)

    def _validation_is_due(self) -> bool:
        step = self.state.step
        if step == self.state.validated_step:
            return False
        if step == 0 or self._done() >= 1:
            return True
        if self.config.validate_every is not None:
            return step % self.config.validate_every == 0
        if self.steps is not None:
            return step % max(1, min(1000, self.steps // 20)) == 0
        assert self.budget is not None
        now = self.elapsed()
        if self.validated_at == -math.inf:  # the first since the process began
            self.validated_at = now
        wait = max(min(self.budget / 20, 120), 10 * self.validation_seconds)
        # Not shortly before the end, where another one comes anyway.
        return now - self.validated_at >= wait and self.budget - now >= wait / 2

    def _validate(self) -> Generator[Progress, None, None]:
        began = self.elapsed()
        if not np.isfinite(self.engine.parameters.flat).all():
            raise DivergedError(self.state.step, self.config)
        validation = None
        ids = self.watched
        if len(ids):
            before = int(self.learned[-1])
            scoring = validate(self.engine, ids, before, rows_of_validation(len(ids)))
            while validation is None:
                try:
                    with np.errstate(all="ignore"):
                        next(scoring)
                except StopIteration as end:
                    validation = end.value
                else:
                    yield self._progress("validating")
        state = self.state
        best = validation is None
        if validation is not None:
            if not math.isfinite(validation.nats_per_character):
                raise DivergedError(state.step, self.config)
            if state.best_loss is None or validation.nats_per_character < state.best_loss:
                state.best_loss, best = validation.nats_per_character, True
        if best:
            state.best_step, state.best_done = state.step, self._done()
        pieces = stream_text(
            self.engine,
            self.dataset.vocabulary,
            length=SAMPLE_LENGTH,
            seed=self.config.seed,
            index=state.step,
        )
        sample = "".join(pieces)
        state.validated_step = state.step
        self.validated_at = self.elapsed()
        self.validation_seconds = self.validated_at - began
        yield replace(self._progress("validation"), validation=validation, best=best, sample=sample)

    def _progress(self, kind: str) -> Progress:
        state = self.state
        assert state.smoothed_loss is not None
        return Progress(
            kind=kind,
            step=state.step,
            epoch=self.epochs_before
            + (state.step - self.began_with) / self.batches.steps_per_epoch,
            done=self._done(),
            loss=state.reported_loss,
            smoothed_loss=state.smoothed_loss,
            learning_rate=state.learning_rate,
            gradient_norm=state.gradient_norm,
            characters=self.characters,
            elapsed=self.elapsed(),
        )
