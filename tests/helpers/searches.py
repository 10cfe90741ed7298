"""Searches for options that last seconds."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from charloom.prediction.validation import Validation
from charloom.runs.run import RunControl
from charloom.storage.checkpoint import FORMAT
from charloom.text.source import text_from_string
from charloom.training.options import TrainingConfig, option_name
from charloom.training.state import DivergedError, Progress
from charloom.tuning.api import tune
from charloom.tuning.opening import open_search
from charloom.tuning.search import Search, SearchProgress
from charloom.tuning.study import connect
from charloom.tuning.waiting import Patience, WaitingConnection
from helpers.texts import wheel_barrows

TEXT = wheel_barrows(4_000)


# A search of two trials or so, of two fifths of a second.
QUICK: dict[str, Any] = {"minutes": 0.1, "trial_minutes": 0.0125, "hidden_size": 16, "layers": 1}


def connect_without_waiting(path: Path, patience: Patience) -> WaitingConnection:
    """For the disk: no test cuts the power."""
    connection = connect(path, patience)
    connection.cursor().execute("pragma synchronous = off")
    return connection


def flags(**options: Any) -> list[str]:
    return [f"{option_name(name)}={value}" for name, value in options.items()]


def resumed(text: str, folder: Path, **options: Any) -> Search:
    """A search that goes on until its time is up: at once, if it was."""
    return tune(Path(text), out=folder, resume=True, **options)


class Scripted:
    """Trials in place of runs: `play(number)` returns the losses of a trial, at equal distances up
    to its end, or raises."""

    def __init__(self, play: Callable[[int], list[float]], most: int) -> None:
        self.play = play
        self.most = most  # trials
        self.options: list[dict[str, Any]] = []  # of every trial so far

    def open_run(self, text: Any, folder: Path, options: dict[str, Any], **control: Any) -> Any:
        """Stand in for `charloom.runs.opening.open_run`."""
        self.options.append(options)
        folder.mkdir(parents=True)
        write_resume_file(folder / "resume.safetensors", options)
        return _ScriptedRun(self.play(int(folder.name)))

    def search(
        self,
        out: str = "out",
        on_event: Callable[[SearchProgress, Search], None] = lambda *_: None,
        on_wait: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Search:
        """Start or resume a search, until it has run so many trials or is over."""
        with open_search(
            lambda config: text_from_string(TEXT),
            Path(out),
            {"minutes": 10.0, **options},
            resume=True,
            control=RunControl(should_stop=lambda: len(self.options) >= self.most, on_wait=on_wait),
            speed=1.0,
            open_run=self.open_run,
        ) as search:
            for event in search:
                on_event(event, search)
        return search


def write_resume_file(path: Path, options: dict[str, Any]) -> None:
    """Write the one part of a resume file that a search reads: the time budget of its run."""
    header = {"format": FORMAT, "position": json.dumps({"ends": {"minutes": options["minutes"]}})}
    save_file({"nothing": np.zeros(1, np.float32)}, path, header)


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
