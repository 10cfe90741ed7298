"""A search for the options that suit a text best: many short training runs, proposed by Optuna.

Every trial is an ordinary run (charloom.runs) on the same text, and all take equal wall time. The
first trial has the options that `charloom train --minutes` would choose for a trial's time, so a
search is never worse than no search. Then Optuna's TPE sampler proposes options, and its median
pruner ends trials that fall behind.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from charloom.errors import CharloomError
from charloom.language_model import LanguageModel, load
from charloom.pages.live import LivePage
from charloom.pages.page import LEFT_UNCHANGED, write_page
from charloom.runs.clock import Clock
from charloom.runs.material import PreparedText
from charloom.runs.opening import open_run
from charloom.runs.report import RunStatus
from charloom.runs.run import TrainingRun
from charloom.training.options import TrainingConfig
from charloom.training.state import Progress
from charloom.tuning.folder import SearchFolder
from charloom.tuning.page import make_search_page
from charloom.tuning.settings import Settings, Trial, best_trial
from charloom.tuning.space import untried_combinations
from charloom.tuning.study import Curve, ProposedTrial, Study, TrialRecord
from charloom.tuning.trial import FINISHING, TrialTask, run_trial, seconds_to_finish

HOPELESS = 5  # failed trials without a complete one


@dataclass(frozen=True)
class SearchProgress:
    """An event of a search: of a trial's training, or its end.

    Attributes:
        trial: the trial.
        progress: the event of its training; None at its end.
    """

    trial: Trial
    progress: Progress | None


class Search:
    """A search that is open: iterate over it to run trials; it yields SearchProgress.

    `charloom.tune` returns it at its end, with all results.

    Attributes:
        folder: the search's folder.
        settings: its settings, which a resumed search keeps.
        dataset: the encoded text.
        trials: all trials, by number.
        notes: sentences for the user.
        interrupted: whether the caller stopped the search before its end.
        exhausted: whether every combination of the searched options has been tried.
    """

    def __init__(
        self,
        files: SearchFolder,
        study: Study,
        settings: Settings,
        prepared: PreparedText,
        clock: Clock,
        should_stop: Callable[[], bool],
        open_run: Callable[..., TrainingRun] = open_run,
    ) -> None:
        """Continue the search of an open folder.

        Args:
            files: the folder, which stays locked during the search.
            study: its study.
            settings: its settings.
            prepared: the text.
            clock: counts the time of the search.
            should_stop: called after every step; True saves and ends the iteration.
            open_run: opens a trial's run.
        """
        self.folder: Path = files.path
        self.settings = settings
        self.dataset = prepared.dataset
        self.trials = study.trials()
        self.notes = list(prepared.notes)
        self.interrupted = False
        self.exhausted = False
        self._files = files
        self._study = study
        self._prepared = prepared
        self._clock = clock
        self._should_stop = should_stop
        self._open_run = open_run
        self._page = LivePage(self._note, "the search continues")
        self._seed = TrainingConfig.of(settings.options).seed
        self._finishing = seconds_to_finish(prepared)

    @property
    def elapsed(self) -> float:
        """The seconds that the search has taken, in all processes."""
        return self._clock.elapsed()

    @property
    def done(self) -> float:
        """The completed share of the search's time."""
        return min(self.elapsed / (self.settings.minutes * 60), 1.0)

    @property
    def best(self) -> Trial | None:
        """The best complete trial."""
        return best_trial(self.trials)

    @property
    def best_run(self) -> Path:
        """The folder of the best run."""
        return self._files.best_run(self.best)

    @property
    def best_options(self) -> dict[str, Any]:
        """The best options for `charloom.train`, including the user's."""
        assert self.best is not None
        return self.settings.options_with(self.best)

    def model(self) -> LanguageModel:
        """Return the model of the best run.

        Raises:
            CharloomError: if no trial is complete yet.
        """
        options = self.settings.options
        compute = {
            name: options[name] for name in ("engine", "threads", "device") if name in options
        }
        return load(self.best_run, **compute)

    def __iter__(self) -> Generator[SearchProgress, None, None]:
        state = "interrupted"
        try:
            yield from self._run_trials()
            state = "interrupted" if self.interrupted else "finished"
        finally:
            # Suppress errors here, because an error that ended the search is being raised already.
            with contextlib.suppress(CharloomError):
                self._study.keep_seconds(self.elapsed)
                self._draw(state, now=True)

    def _run_trials(self) -> Iterator[SearchProgress]:
        self._keep_best()
        while True:
            if self._should_stop():
                self.interrupted = True
                return
            proposed = self._next_trial()
            if proposed is None:
                _refuse_if_hopeless(self.trials, 1)
                return
            yield from self._run_trial(proposed)
            if self.interrupted:
                return
            self._keep_best()
            _refuse_if_hopeless(self.trials, HOPELESS)

    def _next_trial(self) -> ProposedTrial | None:
        """Return the trial that a killed process left, or a new one; None if the search is over."""
        settings = self.settings
        unfinished = [trial.number for trial in self.trials if trial.state == "running"]
        if unfinished:
            return self._study.resume(unfinished[0], settings.ranges)
        options = None
        if not self.trials:  # the first trial is run in any case
            options = {name: settings.planned[name] for name in settings.ranges}
        else:
            seconds_left = settings.minutes * 60 - self.elapsed
            if seconds_left < settings.trial_seconds + self._finishing:
                return None
            tried = [trial.options for trial in self.trials]
            untried = untried_combinations(settings.ranges, tried)
            if untried is not None:
                if not untried:
                    self.exhausted = True
                    return None
                random = np.random.default_rng((self._seed, len(self.trials)))
                options = untried[random.integers(len(untried))]
        proposed = self._study.propose(settings.ranges, self._seed, options)
        self.trials = self._study.trials()
        return proposed

    def _run_trial(self, proposed: ProposedTrial) -> Iterator[SearchProgress]:
        number, trial, best = proposed.number, self.trials[proposed.number], self.best
        waited = self._study.waited
        task = TrialTask(
            self._prepared,
            self._files.trial_run(number),
            self.settings.trial_options(trial),
            self.settings.speed,
            trial.curve,
            None if best is None else best.loss,
            lambda: self._study.waited - waited,
        )

        def on_validation(curve: Curve, step: int) -> bool:
            prune = self._study.report(proposed, TrialRecord(curve, step, self.elapsed))
            loss = min(loss for _, loss, _ in curve)
            self.trials[number] = replace(self.trials[number], loss=loss, curve=curve, steps=step)
            self._draw("searching")
            return prune

        training = run_trial(task, on_validation, self._should_stop, self._open_run)
        last_step = None
        with contextlib.closing(training):
            while True:
                try:
                    progress = next(training)
                except StopIteration as end:
                    result = end.value
                    break
                yield SearchProgress(self.trials[number], progress)
                last_step = time.monotonic()
        if result.interrupted:
            self.interrupted = True
            return
        steps = trial.steps if result.steps is None else result.steps
        record = TrialRecord(result.curve, steps, self.elapsed, result.reason)
        self._study.end(proposed, record, result.loss)
        self.trials = self._study.trials()
        if last_step is not None:
            self._finishing = max(self._finishing, FINISHING + time.monotonic() - last_step)
        yield SearchProgress(self.trials[number], None)

    def _keep_best(self) -> None:
        for note in self._files.keep_best(self.settings, self.trials):
            self._note(note)
        self._draw("searching", now=True)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _draw(self, state: str, *, now: bool = False) -> None:
        def write() -> None:
            status, importances = RunStatus(state, self.done), self._study.importances(self.trials)
            page = make_search_page(self.settings, self.trials, status, importances)
            write_page(self._files.report, page, LEFT_UNCHANGED)

        self._page.update(write, now=now)


def _refuse_if_hopeless(trials: Sequence[Trial], most: int) -> None:
    """Raise CharloomError if no trial is complete, and `most` or more failed."""
    failed = [trial for trial in trials if trial.state == "failed"]
    if best_trial(trials) is None and len(failed) >= most:
        last = "the only trial" if len(failed) == 1 else f"the last of {len(failed)} trials"
        raise CharloomError(
            f"every trial failed, {last} because {failed[-1].reason}: change or omit the options "
            "that you set, with another --out"
        )
