"""The training loop: a generator that takes steps and yields progress, without I/O.

Each step reads one batch, windows of shape (T, B). Between two steps, a TrainingState is the whole
state of a run, so a run can stop and resume at any of them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np

from charloom.engines.process_group import SINGLE_PROCESS, ProcessGroup
from charloom.engines.protocol import Engine, Predictor, TakesSeveral
from charloom.network.optimizers import NonFiniteGradientError, Optimizer
from charloom.ngrams.counts import Counts
from charloom.ngrams.mixing import Mixture, feature_count
from charloom.prediction.mixture import MixedPredictor
from charloom.prediction.validation import Validation, validate
from charloom.text.batches import Batches
from charloom.text.dataset import Dataset, TextIds
from charloom.text.extra_inputs import ExtraInputs
from charloom.training.options import TrainingConfig
from charloom.training.samples import validation_sample
from charloom.training.schedule import Schedule
from charloom.training.setup import (
    make_batches,
    reset_rows,
    rows_of_validation,
    total_steps,
    validated_extra,
    validated_part,
)
from charloom.training.state import DivergedError, Progress, TrainingState


def train_steps(
    engine: Engine,
    optimizer: Optimizer,
    dataset: Dataset,
    config: TrainingConfig,
    state: TrainingState,
    elapsed: Callable[[], float] | None = None,
    reserve: Callable[[float], float] = lambda validation: 0.0,
    process_group: ProcessGroup = SINGLE_PROCESS,
    counts: Counts | None = None,
    every_step: bool = True,
) -> Iterator[Progress]:
    """Train until the end that the configuration sets, and yield Progress after every step.

    Small steps can be taken several at a time, in one call of the engine. The parameters are the
    same, to the byte, as after single ones.

    Args:
        engine: the engine, whose parameters are trained.
        optimizer: the optimizer.
        dataset: the text.
        config: the options.
        state: the run's state, changed in place; of the hidden state, only this rank's rows.
        elapsed: returns the seconds that count against --minutes; by default those since this call.
            With --steps or --epochs alone, no result depends on it.
        reserve: returns the seconds needed after the last validation, from the duration of a
            validation.
        process_group: the processes that train together; the others call `follow_steps`.
        counts: the counts that the network reads, for samples. Without them it takes none.
        every_step: False takes several steps at a time where the engine is faster for it. They end
            where a report, a validation or the end of the run can be due.

    Yields:
        Progress after every step, or several of them, and during and after every validation.

    Raises:
        DivergedError: before a step that would make the parameters NaN or infinite.
    """
    steps = _Steps(engine, optimizer, dataset, config, state, process_group)
    schedule = Schedule(config, steps.total, steps.steps_per_epoch, state, elapsed, reserve)
    if config.minutes is not None and state.step == 0 and state.validated_step < 0:
        state.began = schedule.began
    return _Training(steps, schedule, _sampler(engine, counts), every_step).run()


def _sampler(engine: Engine, counts: Counts | None) -> Predictor | None:
    """Return the predictor of samples: the network, with the counts that it reads."""
    if not engine.config.extra_inputs:
        return engine
    if counts is None:
        return None
    mixture = Mixture(counts, np.zeros(feature_count(counts.context)))
    return MixedPredictor(engine, mixture, network_only=True)


def follow_steps(
    engine: Engine,
    optimizer: Optimizer,
    dataset: Dataset,
    config: TrainingConfig,
    state: TrainingState,
    process_group: ProcessGroup,
) -> None:
    """Take the steps that rank 0 orders, on this rank's rows, until it ends the run.

    `state` is that of rank 0, as far as steps depend on it.
    """
    steps = _Steps(engine, optimizer, dataset, config, state, process_group)
    while True:
        order = process_group.receive_order()
        if order.kind == "step":
            with contextlib.suppress(DivergedError):  # rank 0 raises it too, and ends the run
                steps.take(order.value)
        elif order.kind == "refit":
            steps.refit()
        elif order.kind == "gather":
            assert state.hidden is not None
            process_group.give_rows(state.hidden)
        else:
            return


@dataclass(frozen=True)
class _Phase:
    """The part of a run before the refit, or from it on: its texts and batches."""

    batches: Batches
    fit: TextIds  # the text that is trained on
    holdout: TextIds  # the text after it that is validated on
    extra: ExtraInputs | None  # with which the holdout is scored
    first_step: int
    epochs_before: float

    @classmethod
    def first(cls, config: TrainingConfig, dataset: Dataset) -> _Phase:
        return cls(make_batches(config, dataset), *_texts(config, dataset, refit=False), 0, 0.0)

    def refit(self, config: TrainingConfig, dataset: Dataset, step: int) -> _Phase:
        """Return the phase that begins at this step."""
        batches = make_batches(config, dataset, refit=True)
        texts = _texts(config, dataset, refit=True)
        return _Phase(batches, *texts, step, self.epoch(step))

    def epoch(self, step: int) -> float:
        """Return the passes over the text, of both phases, before this step."""
        return self.epochs_before + (step - self.first_step) / self.batches.steps_per_epoch


def _texts(
    config: TrainingConfig, dataset: Dataset, *, refit: bool
) -> tuple[TextIds, TextIds, ExtraInputs | None]:
    (fit, holdout), most = dataset.fit_and_holdout(refit), config.validate_characters
    part = validated_part(dataset, holdout, most)
    return fit, part, validated_extra(dataset, fit, holdout, most)


class _Steps:
    """Take the steps of a run, on this rank's rows. The leader and its followers all do."""

    def __init__(
        self,
        engine: Engine,
        optimizer: Optimizer,
        dataset: Dataset,
        config: TrainingConfig,
        state: TrainingState,
        process_group: ProcessGroup,
    ) -> None:
        self.engine = engine
        self._several = engine if isinstance(engine, TakesSeveral) else None
        self.optimizer = optimizer
        self.dataset = dataset
        self.config = config
        self.state = state
        self.process_group = process_group
        self.characters = 0  # predicted in this process
        self._begin(_Phase.first(config, dataset))
        self.total = total_steps(config, self.phase.batches)
        self.steps_per_epoch = self.phase.batches.steps_per_epoch
        if state.refit_step is not None:
            self._begin(self.phase.refit(config, dataset, state.refit_step))
        if state.hidden is not None:
            state.hidden = state.hidden[:, :, process_group.rows]
        if state.smoothed_loss is None:
            state.smoothed_loss = math.log(len(dataset.vocabulary))
        # The notebook smooths the losses of single windows; a batch of them is smoother already.
        self._smoothing = 0.999 if config.classic else 0.99

    def _begin(self, phase: _Phase) -> None:
        self.phase = phase
        self.process_group.split(phase.batches.rows)

    def refit(self) -> None:
        """Begin the last phase, which trains on a part of the validation split too."""
        state = self.state
        state.refit_step, state.hidden = state.step, None
        # The holdout is another text from now on, so earlier losses do not compare.
        state.best_step = state.best_loss = None
        self._begin(self.phase.refit(self.config, self.dataset, state.step))

    def take(self, learning_rate: float) -> None:
        """Take one step.

        Raises:
            DivergedError: if the loss or the gradient is NaN or infinite.
        """
        state, optimizer, rows = self.state, self.optimizer, self.process_group.rows
        batch = self.phase.batches(state.step - self.phase.first_step)
        inputs, targets = batch.inputs[:, rows], batch.targets[:, rows]
        extra = None
        if batch.extra is not None:
            extra = batch.extra[:, rows].astype(self.engine.config.dtype, copy=False)
        hidden = state.hidden
        if batch.fresh or hidden is None:
            hidden = self.engine.config.zero_state(inputs.shape[1])
        elif self.config.reset_state:
            reset = reset_rows(self.config, state.step, batch.inputs.shape[1])[rows]
            hidden = np.where(reset[:, None], hidden.dtype.type(0), hidden)
        optimizer.learning_rate = learning_rate
        try:
            loss, state.gradient_norm, state.hidden = self.engine.train_step(
                inputs, targets, hidden, optimizer, extra=extra
            )
        except NonFiniteGradientError:
            raise DivergedError(state.step + 1, self.config) from None
        self._note([loss], learning_rate, batch.targets.size)

    @property
    def most(self) -> int:
        """Return the largest number of steps that one call of the engine takes."""
        if self.process_group.size > 1 or self._several is None or self.config.reset_state:
            return 1
        batches = self.phase.batches
        return self._several.windows_at_once(self.config.window, batches.rows)

    def take_several(self, learning_rates: list[float]) -> None:
        """Take steps in one call of the engine: at most one for each learning rate, at least one.

        Raises:
            DivergedError: as `take`, if it is the first of the steps.
        """
        state, optimizer, engine = self.state, self.optimizer, self._several
        assert engine is not None
        first = state.step - self.phase.first_step
        windows = self.phase.batches.several(first, len(learning_rates))
        hidden = state.hidden
        if hidden is None:
            hidden = engine.config.zero_state(windows.inputs.shape[2])
        try:
            losses, norms, state.hidden = engine.train_windows(
                windows, hidden, optimizer, learning_rates
            )
        except NonFiniteGradientError:
            raise DivergedError(state.step + 1, self.config) from None
        state.gradient_norm = norms[-1]
        self._note(losses, learning_rates[len(losses) - 1], windows.targets[0].size)

    def _note(self, losses: list[float], learning_rate: float, characters: int) -> None:
        """Note the losses of steps, the learning rate of the last, and the characters of each."""
        state = self.state
        assert state.smoothed_loss is not None
        state.learning_rate = learning_rate
        state.step += len(losses)
        state.recent_steps += len(losses)
        recent, smoothed, kept = state.recent_loss, state.smoothed_loss, self._smoothing
        for loss in losses:
            recent += loss
            smoothed = kept * smoothed + (1 - kept) * loss
        state.recent_loss, state.smoothed_loss = recent, smoothed
        self.characters += len(losses) * characters


class _Training:
    """Train as the schedule decides: steps, reports and validations."""

    def __init__(
        self, steps: _Steps, schedule: Schedule, predictor: Predictor | None, every_step: bool
    ) -> None:
        self.steps = steps
        self.most = 1 if every_step else steps.most
        self.predictor = predictor
        self.schedule = schedule
        self.state = steps.state

    def run(self) -> Iterator[Progress]:
        state, schedule = self.state, self.schedule
        while True:
            if schedule.refit_is_due():
                if state.validated_step != state.step:
                    yield from self._validate()
                self.steps.process_group.order_refit()
                self.steps.refit()
            if schedule.validation_is_due():
                yield from self._validate()
            if schedule.done() >= 1 or schedule.stops_early():
                return
            several = schedule.steps_until_due(self.most) if self.most > 1 else 1
            if several > 1:
                self.steps.take_several(schedule.learning_rates(several))
            else:
                learning_rate = schedule.learning_rate()
                self.steps.process_group.order_step(learning_rate)
                self.steps.take(learning_rate)
            if schedule.report_is_due():
                state.reported_loss = state.recent_loss / state.recent_steps
                state.recent_loss, state.recent_steps = 0.0, 0
                schedule.note_report()
                yield self._progress("report")
            else:
                yield self._progress("step")

    def _validate(self) -> Generator[Progress, None, None]:
        """Validate on the holdout and write a sample."""
        began = self.schedule.elapsed()
        state, steps = self.state, self.steps
        if not np.isfinite(steps.engine.parameters.flat).all():
            raise DivergedError(state.step, steps.config)
        validation = yield from self._score_holdout()
        best = self._is_best(validation)
        if best:
            state.best_step, state.best_done = state.step, self.schedule.done()
        sample = None
        if self.predictor is not None:
            sample = validation_sample(
                self.predictor, steps.dataset.vocabulary, steps.config.seed, state.step
            )
        state.validated_step = state.step
        self.schedule.note_validation(began)
        yield replace(self._progress("validation"), validation=validation, best=best, sample=sample)

    def _score_holdout(self) -> Generator[Progress, None, Validation | None]:
        """Score the holdout piece by piece and return the result; None without a holdout."""
        holdout = self.steps.phase.holdout
        if not len(holdout):
            return None
        phase, rows = self.steps.phase, rows_of_validation(len(holdout))
        before = int(phase.fit[-1])
        scoring = validate(self.steps.engine, holdout, before, rows, extra=phase.extra)
        while True:
            try:
                with np.errstate(all="ignore"):
                    next(scoring)
            except StopIteration as end:
                validation: Validation = end.value
                return validation
            yield self._progress("validating")

    def _is_best(self, validation: Validation | None) -> bool:
        """Return True if these weights are kept, and note their loss.

        Without a holdout, and with --keep last, the weights of every validation replace the
        earlier ones.
        """
        if validation is None:
            return True
        state, loss = self.state, validation.nats_per_character
        if not math.isfinite(loss):
            raise DivergedError(state.step, self.steps.config)
        if self.steps.config.keep == "last" or state.best_loss is None or loss < state.best_loss:
            state.best_loss = loss
            return True
        return False

    def _progress(self, kind: str) -> Progress:
        state = self.state
        assert state.smoothed_loss is not None
        return Progress(
            kind=kind,
            step=state.step,
            epoch=self.steps.phase.epoch(state.step),
            done=self.schedule.done(),
            loss=state.reported_loss,
            smoothed_loss=state.smoothed_loss,
            learning_rate=state.learning_rate,
            gradient_norm=state.gradient_norm,
            characters=self.steps.characters,
            elapsed=self.schedule.elapsed(),
        )
