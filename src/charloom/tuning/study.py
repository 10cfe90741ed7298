"""A search's trials in Optuna's study."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charloom.errors import CharloomError
from charloom.tuning.settings import Range, Trial, damaged_study
from charloom.tuning.space import rounded

STUDY = "charloom"  # the study's name in the storage
# A trial's validations are compared at these parts of its time, from its half on: a larger network
# is behind in the first one, though it may be ahead at the end.
PARTS, FIRST_PRUNED = 10, 5
NEVER_PRUNED = 4  # trials that must have come to their end before one is pruned
RANDOM_TRIALS = 8  # before TPE has something to learn from
IMPORTANCES_FROM = 8  # trials that came to their end
TARGET = 0.25  # the best part of them, which importances ask for


# Optuna


@dataclass(frozen=True)
class SeenTrial:
    """What the storage keeps of a trial's training, beside what Optuna keeps."""

    curve: list[list[float]]
    steps: int | None
    seconds: float  # of the search
    reason: str | None = None  # why it failed


def load_optuna() -> Any:
    """The library. Raises CharloomError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise CharloomError(
            f"a search needs Optuna ({error}): install it with pip install 'charloom[tune]'"
        ) from None
    return optuna


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(os.fspath(path))


class Study:
    """Optuna's study in its file: all that is asked of the library, with what it says kept quiet
    and its errors in a sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._asking() as optuna:
            from sqlalchemy.pool import NullPool

            # Not by its address, in which some signs of a path would mean something else.
            storage = optuna.storages.RDBStorage(
                "sqlite://",
                engine_kwargs={
                    "creator": lambda: _connect(path),
                    "poolclass": NullPool,
                },
            )
            self._study = optuna.create_study(
                storage=storage,
                study_name=STUDY,
                pruner=optuna.pruners.MedianPruner(NEVER_PRUNED, FIRST_PRUNED),
                load_if_exists=True,
            )

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Any]:
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
            raise self._in_a_sentence(error) from None
        finally:
            optuna.logging.set_verbosity(verbosity)

    def _in_a_sentence(self, error: BaseException) -> CharloomError:
        found: BaseException = error
        while not isinstance(found, sqlite3.Error):
            inner = getattr(found, "orig", None) or found.__cause__
            if inner is None:
                break
            found = inner
        if isinstance(found, sqlite3.OperationalError) and "no such" not in str(found):
            return CharloomError(
                f"cannot read or write {self._path} ({found}): make room or give access, then go "
                "on with --resume"
            )
        return damaged_study(self._path, str(found) or type(found).__name__)

    def attributes(self) -> dict[str, Any]:
        with self._asking():
            return dict(self._study.user_attrs)

    def set(self, name: str, value: Any) -> None:
        with self._asking():
            self._study.set_user_attr(name, value)

    def ask(self, ranges: Mapping[str, Range], seed: int, wanted: dict[str, Any] | None) -> Any:
        """A new trial, with the options that are wanted or that the sampler proposes."""
        with self._asking() as optuna:
            number = len(self._study.get_trials(deepcopy=False))
            # Seeded anew for every trial: a search that goes on must not propose the same again.
            own = np.random.SeedSequence((seed, number)).generate_state(1)[0]
            self._study.sampler = optuna.samplers.TPESampler(
                seed=int(own), n_startup_trials=RANDOM_TRIALS, multivariate=True
            )
            if wanted is not None:
                self._study.enqueue_trial(wanted)
            return _with_options(self._study.ask(), ranges)

    def take_up(self, number: int, ranges: Mapping[str, Range]) -> Any:
        """A trial whose process ended before it did; what had not been proposed yet now is."""
        with self._asking() as optuna:
            frozen = self._study.get_trials(deepcopy=False)[number]
            return _with_options(optuna.trial.Trial(self._study, frozen._trial_id), ranges)

    def report(self, handle: Any, seen: SeenTrial) -> bool:
        """Reports what the curve's last piece passes, between two validations in a straight line,
        so that trials are compared at equal parts of their time; whether to prune.

        Nothing else is written: every transaction waits for the disk.
        """
        if len(seen.curve) < 2:
            return False
        (before, first, _), (now, last, _) = seen.curve[-2:]
        with self._asking():
            reported = self._study.get_trials(deepcopy=False)[handle.number].intermediate_values
            parts = range(max(reported, default=0) + 1, PARTS)
            passed = [part for part in parts if before < part / PARTS <= now]
            if not passed:
                return False
            handle.set_user_attr("seen", asdict(seen))
            for part in passed:
                along = (part / PARTS - before) / (now - before)
                handle.report(first + (last - first) * along, part)
            return bool(handle.should_prune())

    def end(self, handle: Any, seen: SeenTrial, loss: float | None) -> None:
        """Tells what came of a trial. One that failed counts as pruned, for of failed ones the
        sampler learns nothing and would propose the like again."""
        with self._asking() as optuna:
            handle.set_user_attr("seen", asdict(seen))
            if loss is not None:
                self._study.tell(handle, loss)
            else:
                self._study.tell(handle, state=optuna.trial.TrialState.PRUNED)

    def seconds(self) -> float:
        """Of the search, as far as is known."""
        with self._asking():
            found = [trial.user_attrs.get("seen") for trial in self._study.get_trials()]
            ended = float(self._study.user_attrs.get("seconds", 0))
            seconds = [float(seen["seconds"]) for seen in found if seen is not None]
            return max([ended, *seconds])

    def trials(self) -> list[Trial]:
        with self._asking():
            return [_trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def importances(self, trials: Sequence[Trial]) -> dict[str, float] | None:
        """How much each option decides whether a trial is among the best quarter, in parts of one;
        None where there are too few trials to say so."""
        complete = [trial for trial in trials if trial.state == "complete"]
        if len(complete) < IMPORTANCES_FROM or len({trial.loss for trial in complete}) < 2:
            return None
        with self._asking() as optuna:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=TARGET)
            found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
            return {name: float(value) for name, value in found.items()}


def _with_options(trial: Any, ranges: Mapping[str, Range]) -> Any:
    """Optuna's trial with an option proposed from every range; one that it has already stays."""
    for name, found in ranges.items():
        if "choices" in found:
            trial.suggest_categorical(name, found["choices"])
        elif isinstance(found["low"], int):
            trial.suggest_int(name, **found)
        else:
            trial.suggest_float(name, **found)
    return trial


def _trial(frozen: Any) -> Trial:
    seen = SeenTrial(**frozen.user_attrs.get("seen", {"curve": [], "steps": None, "seconds": 0.0}))
    running = frozen.state.name in ("RUNNING", "WAITING")
    state = "failed" if seen.reason is not None else frozen.state.name.lower()
    losses = [loss for _, loss, _ in seen.curve]
    loss = frozen.value if state == "complete" else min(losses, default=None)
    return Trial(
        number=frozen.number,
        state=state,
        options=rounded(frozen.params),
        loss=None if state == "failed" else loss,
        curve=seen.curve,
        steps=seen.steps,
        ended=None if running else seen.seconds,
        reason=seen.reason,
    )
