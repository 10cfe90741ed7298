"""A search's trials in an Optuna study. Nothing of Optuna is used outside this module.

The study is an SQLite file, because a transaction is complete or absent whenever the process is
killed. Optuna's other file format, the journal, cannot be read past a line that a kill cut. Its
lock is a file too, which outlives its process.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charloom.errors import CharloomError
from charloom.tuning.folder import BEST
from charloom.tuning.settings import Settings, Trial
from charloom.tuning.space import Range, rounded
from charloom.tuning.waiting import Patience, WaitingConnection, is_locked

STUDY = "charloom"  # the study's name in the storage
# The loss of a trial is reported at each tenth of its time. From half of its time on, it can be
# pruned; not earlier, because a large network can be behind at first and still win.
PARTS, FIRST_PRUNED = 10, 5
NEVER_PRUNED = 4  # trials that must be complete before one is pruned
RANDOM_TRIALS = 8  # before TPE has enough results to propose from
IMPORTANCES_FROM = 8  # complete trials
TARGET = 0.25  # the share of the best trials, for importances

Curve = list[list[float]]  # see Trial.curve


@dataclass(frozen=True)
class TrialRecord:
    """The part of a trial that Optuna has no field for.

    Attributes:
        curve: its validations, as in Trial.
        steps: updates of the weights.
        seconds: of the search.
        reason: the reason of a failure.
    """

    curve: Curve
    steps: int | None
    seconds: float
    reason: str | None = None


@dataclass(frozen=True)
class ProposedTrial:
    """A trial with options and without a result: a study's own handle, and its number."""

    number: int
    handle: Any


def load_optuna() -> Any:
    """Import Optuna.

    Raises:
        CharloomError: if it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise CharloomError(
            f"a search needs Optuna ({error}): install it with pip install 'charloom[tune]'"
        ) from None
    return optuna


def connect(path: Path, patience: Patience) -> WaitingConnection:
    """Open the file of a study."""
    return WaitingConnection(os.fspath(path), timeout=patience.PIECE, patience=patience)


class Study:
    """A study in its file. Optuna's messages are silenced, and its errors become one sentence."""

    def __init__(
        self,
        path: Path,
        on_wait: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Open a study, or create it; the arguments are those of Patience."""
        self._path = path
        self._patience = Patience(path, on_wait, should_stop)
        with self._optuna() as optuna:
            from sqlalchemy.pool import NullPool

            # A function instead of a URL, in which some characters of a path have a meaning.
            storage = optuna.storages.RDBStorage(
                "sqlite://",
                engine_kwargs={
                    "creator": lambda: connect(path, self._patience),
                    "poolclass": NullPool,
                },
            )
            self._study = optuna.create_study(
                storage=storage,
                study_name=STUDY,
                pruner=optuna.pruners.MedianPruner(NEVER_PRUNED, FIRST_PRUNED),
                load_if_exists=True,
            )

    @property
    def waited(self) -> float:
        """The seconds in which another program had locked the file."""
        return self._patience.waited

    @contextlib.contextmanager
    def _optuna(self) -> Iterator[Any]:
        """Silence the library and convert its errors."""
        optuna = load_optuna()
        from sqlalchemy.exc import SQLAlchemyError

        wrong = (SQLAlchemyError, sqlite3.Error, optuna.exceptions.OptunaError, AssertionError)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield optuna
        except (*wrong, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise self._converted(error) from None
        finally:
            optuna.logging.set_verbosity(verbosity)

    def _converted(self, error: BaseException) -> CharloomError:
        found: BaseException = error
        while not isinstance(found, sqlite3.Error):
            inner = getattr(found, "orig", None) or found.__cause__
            if inner is None:
                break
            found = inner
        if isinstance(found, sqlite3.Error) and is_locked(found):
            return CharloomError(
                f"another program keeps {self._path} locked: end it, then use --resume"
            )
        if isinstance(found, sqlite3.OperationalError) and "no such" not in str(found):
            return CharloomError(
                f"cannot read or write {self._path} ({found}): free space or change the "
                "permissions, then use --resume"
            )
        return self._damaged(str(found) or type(found).__name__)

    def _damaged(self, problem: str) -> CharloomError:
        return CharloomError(
            f"{self._path} is damaged ({' '.join(problem.split())}): restore a copy, or search "
            f"again with another --out; the best run is still in {BEST}/"
        )

    def settings(self) -> Settings | None:
        """Return the settings of the search, or None if it was killed before they were stored."""
        with self._optuna():
            stored = self._study.user_attrs.get("settings")
        if stored is None:
            return None
        try:
            return Settings.from_stored(stored)
        except ValueError:
            raise self._damaged("invalid settings") from None

    def keep_settings(self, settings: Settings) -> None:
        """Store the settings of the search."""
        with self._optuna():
            self._study.set_user_attr("settings", settings.to_stored())

    def seconds(self) -> float:
        """Return the seconds that the search has taken, up to the last record."""
        with self._optuna():
            records = [trial.user_attrs.get("seen") for trial in self._study.get_trials()]
            ended = float(self._study.user_attrs.get("seconds", 0))
            seconds = [float(record["seconds"]) for record in records if record is not None]
            return max([ended, *seconds])

    def keep_seconds(self, seconds: float) -> None:
        """Store the seconds that the search has taken."""
        with self._optuna():
            self._study.set_user_attr("seconds", seconds)

    def trials(self) -> list[Trial]:
        """Return all trials, by number."""
        with self._optuna():
            return [_trial(stored) for stored in self._study.get_trials(deepcopy=False)]

    def propose(
        self, ranges: Mapping[str, Range], seed: int, options: dict[str, Any] | None = None
    ) -> ProposedTrial:
        """Create a trial.

        Args:
            ranges: the ranges of the searched options.
            seed: of the search.
            options: the options of the trial; None if the sampler should propose them.
        """
        with self._optuna() as optuna:
            number = len(self._study.get_trials(deepcopy=False))
            # One seed for each trial, so that a resumed search does not repeat proposals.
            own = np.random.SeedSequence((seed, number)).generate_state(1)[0]
            self._study.sampler = optuna.samplers.TPESampler(
                seed=int(own), n_startup_trials=RANDOM_TRIALS, multivariate=True
            )
            if options is not None:
                self._study.enqueue_trial(options)
            return _proposed(self._study.ask(), ranges)

    def resume(self, number: int, ranges: Mapping[str, Range]) -> ProposedTrial:
        """Return a trial that a killed process left, with the options that it still lacks."""
        with self._optuna() as optuna:
            stored = self._study.get_trials(deepcopy=False)[number]
            trial = optuna.trial.Trial(self._study, stored._trial_id)
            return _proposed(trial, ranges)

    def report(self, trial: ProposedTrial, record: TrialRecord) -> bool:
        """Report a trial's loss at the tenths of its time that its last validation passed.

        Losses between two validations are interpolated, so that trials are compared at equal parts
        of their time. Nothing else is written, because every transaction waits for the disk.

        Returns:
            Whether the trial should be pruned.
        """
        if len(record.curve) < 2:
            return False
        (before, first, _), (now, last, _) = record.curve[-2:]
        with self._optuna():
            stored = self._study.get_trials(deepcopy=False)[trial.number]
            parts = range(max(stored.intermediate_values, default=0) + 1, PARTS)
            passed = [part for part in parts if before < part / PARTS <= now]
            if not passed:
                return False
            trial.handle.set_user_attr("seen", asdict(record))
            for part in passed:
                along = (part / PARTS - before) / (now - before)
                trial.handle.report(first + (last - first) * along, part)
            return bool(trial.handle.should_prune())

    def end(self, trial: ProposedTrial, record: TrialRecord, loss: float | None) -> None:
        """Store a trial's result.

        A failed trial is stored as pruned, because the sampler ignores failed ones and would
        propose similar options again.

        Args:
            trial: the trial.
            record: its curve, and the reason if it failed.
            loss: its loss; None if it was pruned or failed.
        """
        with self._optuna() as optuna:
            trial.handle.set_user_attr("seen", asdict(record))
            if loss is not None:
                self._study.tell(trial.handle, loss)
            else:
                self._study.tell(trial.handle, state=optuna.trial.TrialState.PRUNED)

    def importances(self, trials: Sequence[Trial]) -> dict[str, float] | None:
        """Return how much each option decides whether a trial is among the best quarter.

        Returns:
            Shares with a sum of 1, by option; None if there are too few trials.
        """
        complete = [trial for trial in trials if trial.state == "complete"]
        if len(complete) < IMPORTANCES_FROM or len({trial.loss for trial in complete}) < 2:
            return None
        with self._optuna() as optuna:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=TARGET)
            found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
            return {name: float(value) for name, value in found.items()}


def _proposed(trial: Any, ranges: Mapping[str, Range]) -> ProposedTrial:
    """Return Optuna's trial with an option from every range; it keeps the options that it has."""
    for name, range_ in ranges.items():
        if "choices" in range_:
            trial.suggest_categorical(name, range_["choices"])
        elif isinstance(range_["low"], int):
            trial.suggest_int(name, **range_)
        else:
            trial.suggest_float(name, **range_)
    return ProposedTrial(trial.number, trial)


def _trial(stored: Any) -> Trial:
    seen = stored.user_attrs.get("seen")
    record = TrialRecord([], None, 0.0) if seen is None else TrialRecord(**seen)
    running = stored.state.name in ("RUNNING", "WAITING")
    state = "failed" if record.reason is not None else stored.state.name.lower()
    losses = [loss for _, loss, _ in record.curve]
    loss = stored.value if state == "complete" else min(losses, default=None)
    return Trial(
        number=stored.number,
        state=state,
        options=rounded(stored.params),
        loss=None if state == "failed" else loss,
        curve=record.curve,
        steps=record.steps,
        ended=None if running else record.seconds,
        reason=record.reason,
    )
