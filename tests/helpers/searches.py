"""Searches for options that last seconds."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from charloom.prediction.scoring import Validation
from charloom.text.source import text_from_string
from charloom.training.options import TrainingConfig, option_name
from charloom.training.state import DivergedError, Progress
from charloom.tuning import search as tuning
from charloom.tuning.search import Search, tune
from helpers.texts import wheel_barrows

TEXT = wheel_barrows(4_000)


# A search of two trials or so, of two fifths of a second.
QUICK: dict[str, Any] = {"minutes": 0.1, "trial_minutes": 0.0125, "hidden_size": 16, "layers": 1}


def connect_without_waiting(path: Path) -> sqlite3.Connection:
    """For the disk: no test cuts the power."""
    connection = sqlite3.connect(path)
    connection.execute("pragma synchronous = off")
    return connection


def flags(**options: Any) -> list[str]:
    return [f"{option_name(name)}={value}" for name, value in options.items()]


def resumed(text: str, folder: Path, **options: Any) -> Search:
    """A search that goes on until its time is up: at once, if it was."""
    return tune(Path(text), out=folder, resume=True, **options)


class Scripted:
    """In place of TrainingRun: `play(number)` gives a trial's losses, at equal distances to its
    end, or raises."""

    def __init__(self, play: Callable[[int], list[float]], most: int) -> None:
        self.play = play
        self.most = most  # trials
        self.given: list[dict[str, Any]] = []

    def __call__(self, open_source: Any, folder: Path, given: Any, **rest: Any) -> Any:
        self.given.append(given)
        folder.mkdir(parents=True)
        return _ScriptedRun(self.play(int(folder.name)))

    def search(self, monkeypatch: pytest.MonkeyPatch, out: str = "out", **options: Any) -> Search:
        monkeypatch.setattr(tuning, "TrainingRun", self)
        monkeypatch.setattr(tuning, "measure_speed", lambda *_: 1.0)
        monkeypatch.setattr(Search, "_is_trained_on", lambda *_: False)
        options = {"minutes": 10.0, **options}
        search = Search(
            lambda config: text_from_string(TEXT),
            Path(out),
            options,
            resume=True,
            should_stop=lambda: len(self.given) >= self.most,
        )
        for _ in search:
            pass
        return search


class _ScriptedRun:
    def __init__(self, losses: list[float]) -> None:
        self.losses = losses
        self.interrupted = False
        self.state = SimpleNamespace(best_loss=None, step=0)

    def __iter__(self) -> Iterator[Progress]:
        count = len(self.losses)
        for i, loss in enumerate(self.losses):
            self.state.step = i
            if loss != loss:
                raise DivergedError(i, TrainingConfig.of({}))
            self.state.best_loss = min(self.state.best_loss or loss, loss)
            done = i / max(count - 1, 1)
            yield Progress(
                kind="validation",
                step=i,
                epoch=done,
                done=done,
                loss=loss,
                smoothed_loss=loss,
                learning_rate=None,
                gradient_norm=None,
                characters=0,
                elapsed=done,
                validation=Validation(loss, 100, "carried"),
            )


def falling(to: float) -> list[float]:
    return [4 + (to - 4) * i / 20 for i in range(21)]


# --- What it refuses ------------------------------------------------------------------------------

FIXED: dict[str, Any] = {
    "cell": "gru",
    "hidden_size": 16,
    "layers": 1,
    "learning_rate": 0.01,
    "dropout": 0.1,
    "weight_drop": 0.0,
    "batch_size": 8,
    "window": 32,
}
