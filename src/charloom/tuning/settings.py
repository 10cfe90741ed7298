"""Settings of a search: searched options, ranges and limits."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from charloom.base_model.carried import load_base
from charloom.base_model.choices import NOTHING, absolute_base
from charloom.errors import CharloomError, plural, shortened
from charloom.schema import find_mismatch
from charloom.text.dataset import Dataset
from charloom.training.options import (
    SHAPE_OPTIONS,
    TUNED_OPTIONS,
    TrainingConfig,
    option_name,
    option_words,
    rename_earlier,
)
from charloom.training.planner import plan
from charloom.training.setup import make_batches
from charloom.tuning.space import RATE_FACTOR, UNFITTED_RATE_FACTOR, Range, ranges_around

DEFAULT_MINUTES = 30.0
SHORTEST_TRIAL = 0.01  # minutes
TRIALS_IN_A_SEARCH = 20  # if none is pruned
SHORTEST_DEFAULT_TRIAL = 0.25  # minutes; a shorter trial has hardly a curve to prune by

TrialMinutes = Annotated[float, Meta(ge=SHORTEST_TRIAL, le=1e7)]
Positive = Annotated[float, Meta(gt=0, le=sys.float_info.max)]


class SearchedText(TypedDict):
    """The text of a search. Another text is refused by its SHA-256."""

    name: str
    sha256: str
    characters: int


@dataclass(frozen=True)
class Trial:
    """One run of a search.

    Attributes:
        number: its number, from 0.
        state: running, complete, pruned or failed; or waiting, if the search was killed before the
            trial began.
        options: the searched options of this trial.
        loss: of the best validation, in nats per character; None if the trial failed, or before
            the first validation.
        curve: its validations: completed share of its time, nats per character, its seconds.
        steps: updates of the weights.
        ended: its end, in seconds of the search; None while it runs.
        reason: the reason of a failure.
    """

    number: int
    state: str
    options: dict[str, Any]
    loss: float | None
    curve: list[list[float]]
    steps: int | None
    ended: float | None
    reason: str | None


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the complete trial with the lowest loss, the first of equals."""
    complete = [t for t in trials if t.state == "complete" and t.loss is not None]
    return min(complete, key=lambda t: (t.loss, t.number), default=None)


@dataclass(frozen=True)
class SearchOptions:
    """Options of a call or a command, checked.

    Attributes:
        options: those of TrainingConfig, for every trial.
        minutes: of the whole search; None if not set.
        trial_minutes: of a trial; None if not set.
    """

    options: dict[str, Any]
    minutes: float | None
    trial_minutes: float | None

    @classmethod
    def of(cls, options: Mapping[str, Any], trial_minutes: float | None) -> SearchOptions:
        """Separate the options of the search from those of its trials, and check both.

        Args:
            options: options of TrainingConfig, by name; `minutes` is the time of the search.
            trial_minutes: the time of a trial.

        Raises:
            CharloomError: if no trial could have these options.
        """
        options = dict(options)
        minutes = options.pop("minutes", None)
        _check_minutes("--minutes", minutes)
        _check_minutes("--trial-minutes", trial_minutes)
        _refuse_unsuitable(options)
        if options.get("from_run") == NOTHING:
            del options["from_run"]  # a search starts from nothing by default
        if options.get("from_run") is not None:
            options["from_run"] = absolute_base(options["from_run"])
        return cls(options, minutes, trial_minutes)

    def times(self) -> tuple[float, float]:
        """Return the minutes of a new search and of its trials.

        Raises:
            CharloomError: if a trial would take longer than the search.
        """
        minutes = DEFAULT_MINUTES if self.minutes is None else float(self.minutes)
        trial_minutes = self.trial_minutes
        if trial_minutes is None:
            trial_minutes = min(max(minutes / TRIALS_IN_A_SEARCH, SHORTEST_DEFAULT_TRIAL), minutes)
        if trial_minutes > minutes:
            raise CharloomError(
                f"--trial-minutes {trial_minutes:g} is more than the "
                f"{plural(minutes, 'minute')} of the whole search: use fewer, or more --minutes"
            )
        return minutes, trial_minutes

    def fixed(self) -> dict[str, Any]:
        """Return the options that are not searched, with the shape of a model to start from.

        Raises:
            CharloomError: if none is left to search.
        """
        fixed = dict(self.options)
        if fixed.get("from_run") is not None:
            base = load_base(fixed["from_run"]).config
            fixed |= {name: getattr(base, name) for name in SHAPE_OPTIONS}
        if all(name in fixed for name in TUNED_OPTIONS):
            raise _nothing_to_search()
        return fixed


@dataclass(frozen=True)
class Settings:
    """The settings of a search. Only `minutes` can change, on resume.

    Attributes:
        text: name, SHA-256 and length of the text.
        options: the user's options, which every trial has.
        minutes: of the whole search.
        trial_minutes: of a trial, as requested.
        trial_seconds: of a trial, as they fit into the search.
        speed: of the machine that the search began on.
        planned: the planner's choices for a trial's time.
        ranges: of the searched options.
    """

    text: SearchedText
    options: dict[str, Any]
    minutes: Positive
    trial_minutes: Positive
    trial_seconds: Positive
    speed: Positive
    planned: dict[str, Any]
    ranges: Annotated[dict[str, Range], Meta(min_length=1)]

    @classmethod
    def from_stored(cls, stored: Any) -> Settings:
        """Return the settings that a study keeps.

        Raises:
            ValueError: if they are damaged.
        """
        if isinstance(stored, dict):
            stored = {STORED_NAMES.get(name, name): value for name, value in stored.items()}
        if mismatch := find_mismatch(stored, cls):
            raise ValueError(mismatch.problem)
        try:
            settings = cls(**stored)
            rename_earlier(settings.options)
            TrainingConfig.of(settings.options | settings.planned)
        except (CharloomError, TypeError) as error:  # TypeError: unknown entries
            raise ValueError(str(error)) from None
        return settings

    def to_stored(self) -> dict[str, Any]:
        """Return the settings as a study keeps them."""
        names = {name: stored for stored, name in STORED_NAMES.items()}
        return {names.get(name, name): value for name, value in asdict(self).items()}

    def trial_options(self, trial: Trial) -> dict[str, Any]:
        """Return all options of a trial's run."""
        own = self.options.get("from_run") is not None or self.options.get("no_mix")
        return {
            # A trial is judged without a mixer, and learning one would take its time.
            **({} if own or "read_counts" in self.options else {"counts": "kneser-ney"}),
            **self.planned,
            **self.options,
            **trial.options,
            # Trials are compared on the validation split, so none must train on it.
            "refit": 0.0,
            "minutes": self.trial_seconds / 60,
        }

    def options_with(self, trial: Trial) -> dict[str, Any]:
        """Return a trial's options for `charloom.train`, including the user's."""
        rest = {name: value for name, value in self.planned.items() if name not in self.options}
        if self.options.get("from_run") is not None:  # the model has its shape already
            rest = {name: value for name, value in rest.items() if name not in SHAPE_OPTIONS}
        return self.options | rest | trial.options

    def command(self, trial: Trial, sources: Sequence[str]) -> list[str]:
        """Return the command that trains on texts with a trial's options.

        Args:
            trial: the trial.
            sources: the texts, as on the command line. The training takes as long as the search.
        """
        options = option_words(self.options_with(trial) | {"minutes": self.minutes})
        return ["charloom", "train", *sources, *options]


STORED_NAMES = {"given": "options"}  # by the names in study.db


def settings_for(
    wanted: SearchOptions,
    fixed: Mapping[str, Any],
    dataset: Dataset,
    speed: float,
    seconds: float,
) -> Settings:
    """Return the settings of a new search.

    Args:
        wanted: the user's options.
        fixed: the options that are not searched.
        dataset: the text.
        speed: that of this machine, as `measure_speed` returns it.
        seconds: the time left for trials. One trial is run in any case.

    Raises:
        CharloomError: if the text is too short, or nothing is left to search.
    """
    minutes, trial_minutes = wanted.times()
    config = TrainingConfig.of(wanted.options)
    trial_seconds = max(min(trial_minutes * 60, seconds), SHORTEST_TRIAL * 60)
    planned = plan(trial_seconds, speed, dataset, dict(fixed)).options
    for name in ("refit", "epochs"):  # a trial trains for as many epochs as its time allows
        planned.pop(name, None)
    factor = RATE_FACTOR if "learning_rate" in planned else UNFITTED_RATE_FACTOR
    planned.setdefault("learning_rate", config.learning_rate)
    # Refuse a window that is longer than the validation split before any trial starts.
    make_batches(TrainingConfig.of({**planned, **fixed}), dataset)
    validation = len(dataset.validation) if dataset.vocabulary.end_id is None else None
    ranges = ranges_around(planned, fixed, factor, validation)
    if not ranges:
        raise _nothing_to_search()
    text: SearchedText = {
        "name": dataset.name,
        "sha256": dataset.sha256,
        "characters": len(dataset.ids),
    }
    return Settings(
        text, wanted.options, minutes, trial_minutes, trial_seconds, speed, planned, ranges
    )


def resumed_settings(before: Settings, wanted: SearchOptions) -> Settings:
    """Return the settings of a resumed search, which can have more minutes than before.

    Raises:
        CharloomError: if an option differs from that of the search; it names the first one.
    """
    for name, value in wanted.options.items():
        option = option_name(name)
        if name not in before.options:
            raise CharloomError(
                f"{option} was not set when the search began: omit it to resume, or use another "
                "--out"
            )
        if before.options[name] != value:
            raise CharloomError(
                f"{option} is {value}, but the search has {before.options[name]}: omit it to "
                "resume, or use another --out"
            )
    minutes, trial_minutes = wanted.minutes, wanted.trial_minutes
    if trial_minutes is not None and trial_minutes != before.trial_minutes:
        raise CharloomError(
            f"--trial-minutes is {trial_minutes:g}, but the search has {before.trial_minutes:g}, "
            "and only trials of equal time can be compared: omit it, or use another --out"
        )
    if minutes is None:
        return before
    if minutes < before.minutes:
        raise CharloomError(
            f"--minutes {minutes:g} is less than the search's {before.minutes:g}: use at least "
            f"{before.minutes:g}"
        )
    return replace(before, minutes=float(minutes))


def _check_minutes(option: str, value: Any) -> None:
    if mismatch := find_mismatch(value, TrialMinutes | None):
        raise CharloomError(f"{option} is {shortened(value)}: pass {mismatch.expected}")


def _refuse_unsuitable(options: Mapping[str, Any]) -> None:
    """Raise CharloomError for options that no trial could have."""
    for name in ("steps", "epochs"):
        if options.get(name) is not None:
            raise CharloomError(
                f"{option_name(name)} is not available, because the trials of a search take equal "
                "time: omit it, or use --trial-minutes"
            )
    if options.get("preset", "auto") != "auto":
        raise CharloomError(
            f"--preset is {shortened(options['preset'])}, but a search starts from auto: omit it, "
            "and set the options that should not be searched"
        )
    if options.get("refit"):
        raise CharloomError(
            "--refit is not available, because trials are compared on the validation split: omit "
            "it, and use it for the training after the search"
        )
    TrainingConfig.of(dict(options))


def _nothing_to_search() -> CharloomError:
    return CharloomError(
        "nothing to search: every searchable option is fixed. Omit at least one of "
        + ", ".join(map(option_name, TUNED_OPTIONS))
    )


def settings_key(name: str) -> str:
    """Return an option's name in a --config file."""
    return option_name(name).removeprefix("--")


def to_toml(value: Any) -> str:
    """Return a value in TOML, which shares numbers with JSON, and most escapes of strings."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
