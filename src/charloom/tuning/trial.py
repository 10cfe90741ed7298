"""Train one trial of a search: an ordinary run, of a text that is prepared already."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charloom.runs.compute import TooLargeError
from charloom.runs.finishing import COUNTING
from charloom.runs.material import PreparedText
from charloom.runs.opening import open_run
from charloom.runs.run import RunControl, TrainingRun
from charloom.training.state import DivergedError, Progress
from charloom.tuning.study import Curve

FINISHING = 0.5  # seconds that the end of a trial takes outside its own time, without counting


@dataclass(frozen=True)
class TrialTask:
    """A trial to train.

    Attributes:
        prepared: the text.
        folder: the folder of its run, which is resumed if it exists.
        options: all options of the run.
        speed: that of the machine, as `measure_speed` returns it.
        curve: the validations of an earlier process.
        loss_to_beat: of the best trial so far; None without one.
        held_up: returns the seconds in which the search held the run up, which do not count.
    """

    prepared: PreparedText
    folder: Path
    options: dict[str, Any]
    speed: float
    curve: Curve
    loss_to_beat: float | None
    held_up: Callable[[], float] | None = None

    def improves(self, loss: float | None) -> bool:
        """Return whether a loss is better than that of the best trial so far."""
        return loss is not None and (self.loss_to_beat is None or loss < self.loss_to_beat)


@dataclass(frozen=True)
class TrialResult:
    """The end of a trial's training in this process.

    Attributes:
        curve: all its validations.
        steps: updates of the weights; None if the run could not be opened.
        loss: of its best validation, in nats per character; None unless the trial is complete.
        reason: the reason of a failure; None without one.
        interrupted: whether the caller stopped it. It has no result yet then, and can be resumed.
    """

    curve: Curve
    steps: int | None
    loss: float | None
    reason: str | None
    interrupted: bool


def run_trial(
    task: TrialTask,
    on_validation: Callable[[Curve, int], bool],
    should_stop: Callable[[], bool],
    open_run: Callable[..., TrainingRun] = open_run,
) -> Generator[Progress, None, TrialResult]:
    """Train one trial until its time is over, or until it is pruned or fails.

    Args:
        task: the trial.
        on_validation: called with the curve and the step after every validation; True prunes.
        should_stop: called after every step; True saves and ends the training.
        open_run: opens the run, as `charloom.runs.opening.open_run`.

    Yields:
        The progress of the run.

    Returns:
        The result. Failures that concern only this trial are results too.
    """
    curve, pruned, reason = task.curve, False, None
    run: TrainingRun | None = None

    def is_best() -> bool:
        """Decide whether to fit the mixture, which takes time, so only a kept run gets one."""
        assert run is not None
        return not run.interrupted and task.improves(run.state.best_loss)

    try:
        run = open_run(
            task.prepared,
            task.folder,
            task.options,
            resume=True,
            speed=task.speed,
            control=RunControl(should_stop=should_stop, adds_mixture=is_best, held_up=task.held_up),
        )
        with contextlib.closing(iter(run)) as events:
            for progress in events:
                if progress.validation is not None:
                    curve = _extended(curve, progress)
                    pruned = on_validation(curve, progress.step) and progress.done < 1
                yield progress
                if pruned:
                    break
    except (DivergedError, TooLargeError) as error:
        reason = str(error).split(": ")[0]
    except MemoryError:
        reason = "not enough memory"
    if run is None:
        return TrialResult(curve, None, None, reason, interrupted=False)
    complete = reason is None and not pruned
    return TrialResult(
        curve,
        run.state.step,
        run.state.best_loss if complete else None,
        reason,
        interrupted=run.interrupted and reason is None,
    )


def _extended(curve: Curve, progress: Progress) -> Curve:
    """Return a curve with one more validation.

    Validations that a killed process recorded after its last save are repeated, so the earlier
    records of them are dropped.
    """
    assert progress.validation is not None
    point = [progress.done, progress.validation.nats_per_character, progress.elapsed]
    return [earlier for earlier in curve if earlier[0] < point[0]] + [point]


def seconds_to_finish(prepared: PreparedText) -> float:
    """Return the seconds to reserve for the end of a trial, after its own time."""
    counting = 0.0 if prepared.context is None else COUNTING * prepared.counting
    return FINISHING + counting
