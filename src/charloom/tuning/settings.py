"""Settings of a search: searched options, ranges and limits."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from charloom.errors import CharloomError, shortened
from charloom.schema import find_mismatch
from charloom.storage.checkpoint import load_checkpoint
from charloom.storage.folders import model_path
from charloom.training.options import SHAPE_OPTIONS, TUNED_OPTIONS, TrainingConfig, option_name
from charloom.tuning.folder import BEST

DEFAULT_MINUTES = 30.0
SHORTEST_TRIAL = 0.01  # minutes

TrialMinutes = Annotated[float, Meta(ge=SHORTEST_TRIAL, le=1e7)]
Positive = Annotated[float, Meta(gt=0, le=sys.float_info.max)]


class Range(TypedDict, total=False):
    """The values of a searched option: choices; or low and high, with a step or a log scale."""

    choices: list[str]
    low: int | float
    high: int | float
    step: int | float
    log: bool


class SearchedText(TypedDict):
    """The text of a search. Another text is refused by its SHA-256."""

    name: str
    sha256: str
    characters: int


@dataclass(frozen=True)
class Trial:
    """One run of a search."""

    number: int
    state: str  # running, complete, pruned or failed; waiting where a kill came before it began
    options: dict[str, Any]  # those that were searched
    loss: float | None  # the best validation's, nats per character; None: failed, or none yet
    curve: list[list[float]]  # its validations: part of its time, nats per character, its seconds
    steps: int | None
    ended: float | None  # seconds of the search
    reason: str | None  # why it failed


@dataclass(frozen=True)
class Settings:
    """The settings of a search. Only `minutes` can change, on resume."""

    text: SearchedText
    given: dict[str, Any]  # the user's options, which every trial has
    minutes: Positive  # of the whole search
    trial_minutes: Positive  # as requested
    trial_seconds: Positive  # as they fit into the search
    speed: Positive  # of the machine that the search began on
    planned: dict[str, Any]  # the planner's choices for a trial's time
    ranges: Annotated[dict[str, Range], Meta(min_length=1)]  # of the searched options

    @classmethod
    def read(cls, found: Any, path: Path) -> Settings:
        """Return the settings that a storage keeps. Raises CharloomError if they are damaged."""
        problem = find_mismatch(found, cls)
        try:
            if problem is None:
                settings = cls(**found)
                TrainingConfig.of(settings.given | settings.planned)
                return settings
        except (CharloomError, TypeError):  # TypeError: of unknown entries
            pass
        raise damaged_study(path, "its settings are not readable")

    def options_with(self, trial: Trial) -> dict[str, Any]:
        """The options of `charloom.train` that a trial had, those that were given among them."""
        rest = {name: value for name, value in self.planned.items() if name not in self.given}
        if self.given.get("from_run") is not None:  # whose shape they have anyway
            rest = {n: v for n, v in rest.items() if n not in SHAPE_OPTIONS}
        return self.given | rest | trial.options

    def command(self, trial: Trial, sources: Sequence[str]) -> list[str]:
        """What trains on texts with a trial's options, for as long as the whole search."""
        words = ["charloom", "train", *sources]
        for name, value in self.options_with(trial).items():
            if isinstance(value, bool):
                words += [option_name(name)] if value else []
            elif value is not None:
                shown = f"{value:g}" if isinstance(value, float) else str(value)
                words += [option_name(name), shown]
        return [*words, "--minutes", f"{self.minutes:g}"]


def check_minutes(spelled: str, value: Any) -> None:
    """Raise CharloomError unless a time for a search or a trial is None or within limits."""
    if mismatch := find_mismatch(value, TrialMinutes | None):
        raise CharloomError(f"{spelled} is {shortened(value)}: pass {mismatch.expected}")


def refuse_senseless(given: dict[str, Any]) -> None:
    """Raises CharloomError for options that no trial could take."""
    for name in ("steps", "epochs"):
        if given.get(name) is not None:
            raise CharloomError(
                f"{option_name(name)}: the trials of a search take equal time, not equal work; "
                "leave it out, or give --trial-minutes"
            )
    if given.get("preset", "auto") != "auto":
        raise CharloomError(
            f"--preset is {shortened(given['preset'])}: a search starts from what auto chooses; "
            "leave it out, and give what is not to be searched"
        )
    if given.get("refit"):
        raise CharloomError(
            "--refit: trials are compared on the validation part, so none may learn from it; leave "
            "it out, and give it to the training that follows"
        )
    TrainingConfig.of(given)
    if given.get("from_run") is not None:
        given["from_run"] = str(Path(given["from_run"]).absolute())


def refuse_nothing_to_search(given: dict[str, Any]) -> dict[str, Any]:
    """What is not searched: what was given, and the shape of a model that trials start from. Raises
    CharloomError where that is everything."""
    fixed = dict(given)
    if given.get("from_run") is not None:
        base = load_checkpoint(model_path(given["from_run"])).config
        fixed |= {name: getattr(base, name) for name in SHAPE_OPTIONS}
    if all(name in fixed for name in TUNED_OPTIONS):
        raise nothing_to_search()
    return fixed


def nothing_to_search() -> CharloomError:
    return CharloomError(
        "there is nothing to search, for all options are given that could be: leave out one of "
        + ", ".join(map(option_name, TUNED_OPTIONS))
    )


def continued_settings(
    before: Settings, given: dict[str, Any], minutes: float | None, trial_minutes: float | None
) -> Settings:
    """The settings that a search goes on with. Raises CharloomError, naming the first difference,
    where what is given is not the search's."""
    for name, value in given.items():
        if name not in before.given:
            raise CharloomError(
                f"{option_name(name)} was not given when the search began: leave it out to go on "
                "with it, or give another --out"
            )
        if before.given[name] != value:
            raise CharloomError(
                f"{option_name(name)} is {value}, but the search has {before.given[name]}: leave "
                "the option out to go on with it, or give another --out"
            )
    if trial_minutes is not None and trial_minutes != before.trial_minutes:
        raise CharloomError(
            f"--trial-minutes is {trial_minutes:g}, but the search has {before.trial_minutes:g}: "
            "trials are only compared when they take equal time; leave it out, or give another "
            "--out"
        )
    if minutes is None:
        return before
    if minutes < before.minutes:
        raise CharloomError(
            f"--minutes {minutes:g} is less than the search's {before.minutes:g}: it can only be "
            "raised"
        )
    return replace(before, minutes=float(minutes))


def settings_key(name: str) -> str:
    """How a --config file spells an option."""
    return option_name(name).removeprefix("--")


def to_toml(value: Any) -> str:
    """A value in TOML, whose strings and numbers are those of JSON."""
    return json.dumps(value)


def damaged_study(path: Path, what: str) -> CharloomError:
    what = " ".join(what.split())
    return CharloomError(
        f"{path} is damaged ({what}): put a copy of it back, or search again with another --out; "
        f"the best run is still in {BEST}/"
    )
