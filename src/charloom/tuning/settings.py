"""Settings of a search: searched options, ranges and limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError, shortened
from charloom.storage.checkpoint import load_checkpoint
from charloom.storage.folders import model_path
from charloom.training.options import TrainingConfig, option_name
from charloom.tuning.folder import BEST

# What is searched, where it was not given.
SEARCHED = (
    *("cell", "hidden_size", "layers", "learning_rate", "dropout", "weight_drop"),
    *("batch_size", "window"),
)
DEFAULT_MINUTES = 30.0
SHORTEST_TRIAL = 0.01  # minutes

Range = dict[str, Any]  # choices; or low, high, and perhaps step or log


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
    """What does not change in a search, but for its `minutes`."""

    text: dict[str, Any]  # name, sha256, characters
    given: dict[str, Any]  # options of every trial
    minutes: float  # of the whole search
    trial_minutes: float  # as they were asked for
    trial_seconds: float  # as they fit into the search
    speed: float  # of the machine that it began on
    planned: dict[str, Any]  # what charloom would choose for a trial's time
    ranges: dict[str, Range]  # what is searched

    @classmethod
    def read(cls, found: Any, path: Path) -> Settings:
        """The settings as the storage keeps them. Raises CharloomError where they are damaged."""
        try:
            settings = cls(**found)
            TrainingConfig.of(settings.given | settings.planned)
            numbers = settings.minutes, settings.trial_seconds, settings.speed
            if not all(number > 0 for number in numbers) or not settings.ranges:
                raise ValueError
            settings.text["sha256"], settings.text["name"]
        except (CharloomError, KeyError, TypeError, ValueError):
            raise damaged_study(path, "its settings are not readable") from None
        return settings

    def options_with(self, trial: Trial) -> dict[str, Any]:
        """The options of `charloom.train` that a trial had, those that were given among them."""
        rest = {name: value for name, value in self.planned.items() if name not in self.given}
        if self.given.get("from_run") is not None:  # whose shape they have anyway
            rest = {n: v for n, v in rest.items() if n not in ("cell", "hidden_size", "layers")}
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
    if value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not SHORTEST_TRIAL <= value <= 1e7:
        raise CharloomError(
            f"{spelled} is {shortened(value)}: give a number of minutes, at least {SHORTEST_TRIAL} "
            "and at most 10,000,000"
        )


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
        fixed |= {name: getattr(base, name) for name in ("cell", "hidden_size", "layers")}
    if all(name in fixed for name in SEARCHED):
        raise nothing_to_search()
    return fixed


def nothing_to_search() -> CharloomError:
    return CharloomError(
        "there is nothing to search, for all options are given that could be: leave out one of "
        + ", ".join(map(option_name, SEARCHED))
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
