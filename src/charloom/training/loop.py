"""Training: a generator that takes steps and yields what happened. It does no I/O.

Each step reads one batch, windows of shape (T, B). Between steps the whole of a run's state is a
TrainingState, so that a run can be left and taken up at any of them.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

import numpy as np

from charloom.engines.process_group import Ranks
from charloom.engines.protocol import Engine
from charloom.network.optimizers import NonFiniteGradientError, Optimizer, learning_rate_factor
from charloom.prediction.sampling import stream_text
from charloom.prediction.scoring import validate
from charloom.text.batches import Batches
from charloom.text.dataset import Dataset
from charloom.training.options import TrainingConfig
from charloom.training.setup import VALIDATED_AT_ONCE, make_batches, rows_of_validation, total_steps
from charloom.training.state import DivergedError, Progress, TrainingState

SAMPLE_LENGTH = 300
LEAST_TRAINING = 2.0  # seconds, however long it took to get started
PATIENCE = 0.35  # part of a run in which no validation was the best


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
        self.learned, watched = self.dataset.fit_and_holdout(refit)
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
