"""The schedule of a training: when it validates, reports, refits and ends.

A run that ends by --steps or --epochs is scheduled by its steps alone, so its results do not depend
on a clock. A run that ends by --minutes is scheduled by the seconds that have passed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from charloom.network.optimizers import learning_rate_factor
from charloom.training.options import TrainingConfig
from charloom.training.state import TrainingState

LEAST_TRAINING = 2.0  # seconds, even if the start took all the time
PATIENCE = 0.35  # share of a run that can pass without a better validation


def steps_between_validations(steps: int) -> int:
    """Return the steps between the validations of a run of n steps, if nothing limits them."""
    return max(1, min(1000, steps // 20))


class Schedule:
    """Decide what a run does next.

    Args:
        config: the run's options.
        steps: the step that ends the run; None if only the clock does.
        steps_per_epoch: steps of a pass over the training split.
        state: the run's state, which is read and never changed.
        elapsed: returns the seconds that count against --minutes; by default the time since this
            call, added to that of the state.
        reserve: returns the seconds needed after the last validation, from the duration of a
            validation.
    """

    def __init__(
        self,
        config: TrainingConfig,
        steps: int | None,
        steps_per_epoch: int,
        state: TrainingState,
        elapsed: Callable[[], float] | None,
        reserve: Callable[[float], float],
    ) -> None:
        self.config = config
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch
        self.state = state
        self.elapsed = elapsed or _stopwatch(state.elapsed)
        self.reserve = reserve
        self.budget = None if config.minutes is None else config.minutes * 60
        self.validation_seconds = 0.0
        self.validated_at = -math.inf
        self.began = self.reported_at = self.elapsed()

    def done(self) -> float:
        """Return the completed share of the run; at 1 it ends."""
        if self.budget is None and self.steps is not None:
            return min(self.state.step / self.steps, 1.0)
        shares = []
        if self.steps is not None:
            shares.append(self.state.step / self.steps)
        if self.budget is not None:
            # The last validation and the work after it belong to the budget. But training gets some
            # seconds even if the start took the whole budget.
            validation = self.validation_seconds
            usable = self.budget - 1.1 * validation - self.reserve(validation)
            usable = max(usable, self.began + min(self.budget / 2, LEAST_TRAINING))
            # The schedule is that of the training alone, however long its preparation took.
            before = self.state.began
            shares.append((self.elapsed() - before) / (usable - before))
        return min(max(shares), 1.0)

    def learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        return self._learning_rate(self.done())

    def learning_rates(self, steps: int) -> list[float]:
        """Return the learning rates of the next n steps.

        With --minutes they are that of the next step, because no clock is read between them.
        """
        if self.budget is not None or self.steps is None or self._rate_is_constant():
            return [self.learning_rate()] * steps
        step, total = self.state.step, self.steps
        return [self._learning_rate(min((step + i) / total, 1.0)) for i in range(steps)]

    def _learning_rate(self, done: float) -> float:
        assert self.config.learning_rate is not None
        return self.config.learning_rate * learning_rate_factor(
            self.config.schedule, self.config.warmup, done
        )

    def _rate_is_constant(self) -> bool:
        return self.config.schedule == "constant" and not self.config.warmup

    def steps_until_due(self, most: int) -> int:
        """Return the number of steps until a report, a validation or an end can be due.

        It is at least 1 and at most `most`, and follows from steps alone. Everything that a clock
        decides is decided after these steps.
        """
        step, config = self.state.step, self.config
        dues = [most, _until_multiple(step, self.steps_per_epoch)]
        if config.validate_every is not None:
            dues.append(_until_multiple(step, config.validate_every))
        if self.steps is not None:
            dues += [
                self.steps - step,
                _until_multiple(step, self._steps_between_reports(self.steps)),
                _until_multiple(step, steps_between_validations(self.steps)),
            ]
            if config.refit > 0 and self.state.refit_step is None:
                # Rounded down, so that the step is not passed whatever the rounding of `done`.
                dues.append(int((1 - config.refit) * self.steps) - step)
        return max(min(dues), 1)

    @staticmethod
    def _steps_between_reports(steps: int) -> int:
        return max(1, min(100, steps // 100))

    def refit_is_due(self) -> bool:
        """Return True if the part of the run with --refit begins now."""
        refit = self.config.refit
        return refit > 0 and self.state.refit_step is None and 1 - refit <= self.done() < 1

    def stops_early(self) -> bool:
        """Return True if a run of the preset `auto` can end because it no longer improves."""
        state = self.state
        if self.config.preset != "auto" or self.budget is None or state.best_step is None:
            return False
        if state.validated_step != state.step:
            return False  # if validations are slow and rare, wait for the next one
        return self.done() - state.best_done > PATIENCE

    def report_is_due(self) -> bool:
        """Return True if the metrics of this step should be recorded."""
        if self.steps is not None:
            every = self._steps_between_reports(self.steps)
            return self.state.step % every == 0 or self.state.step == self.steps
        assert self.budget is not None
        return self.elapsed() - self.reported_at >= min(max(self.budget / 200, 0.5), 10)

    def validation_is_due(self) -> bool:
        """Return True if the run validates now."""
        step = self.state.step
        if step == self.state.validated_step:
            return False
        if step == 0 or self.done() >= 1:
            return True
        if self.config.validate_every is not None:
            return step % self.config.validate_every == 0
        if self._ends_doubled_passes():
            return True
        if self.steps is not None:
            return step % steps_between_validations(self.steps) == 0
        assert self.budget is not None
        now = self.elapsed()
        if self.validated_at == -math.inf:  # the first since the process began
            self.validated_at = now
        wait = max(min(self.budget / 20, 120), 10 * self.validation_seconds)
        # Not just before the end, because the run validates there anyway.
        return now - self.validated_at >= wait and self.budget - now >= wait / 2

    def _ends_doubled_passes(self) -> bool:
        """Return True after 1, 2, 4, 8, … passes, until a validation comes between two of them.

        A network that reads a short text thousands of times has memorized it before the first
        twentieth of its run. The rule depends on steps alone, so that a run repeats.
        """
        step, validated = self.state.step, self.state.validated_step
        passes, rest = divmod(step, self.steps_per_epoch)
        if rest or self.state.refit_step is not None:
            return False
        return (passes == 1 and validated == 0) or (
            passes & (passes - 1) == 0 and step == 2 * validated
        )

    def note_report(self) -> None:
        """Note that a report was made now."""
        self.reported_at = self.elapsed()

    def note_validation(self, began: float) -> None:
        """Note that a validation, which began at that second, ended now."""
        self.validated_at = self.elapsed()
        self.validation_seconds = self.validated_at - began


def _until_multiple(step: int, every: int) -> int:
    """Return the steps from `step` to the next multiple of `every`."""
    return every - step % every


def _stopwatch(seconds: float) -> Callable[[], float]:
    started = time.monotonic() - seconds
    return lambda: time.monotonic() - started
