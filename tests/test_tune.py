"""A search for options: what it keeps, that nothing is lost when it is killed at any moment, what
it refuses; and its page in a browser.

Where only the search matters, its trials are scripted; where files do, they are real and last under
a second.
"""

import contextlib
import importlib.util
import io
import json
import logging
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

import charloom
from charloom.cli.main import main
from charloom.errors import CharloomError
from charloom.prediction.scoring import Validation
from charloom.runs.compute import TooLargeError
from charloom.runs.report import Standing
from charloom.storage.checkpoint import load_checkpoint
from charloom.text.source import text_from_string
from charloom.training import planner as planning
from charloom.training.options import TrainingConfig, option_name
from charloom.training.planner import plan
from charloom.training.state import DivergedError, Progress
from charloom.tuning import search as tuning
from charloom.tuning import study as study_module
from charloom.tuning.page import make_search_page
from charloom.tuning.search import Search, tune
from charloom.tuning.settings import SEARCHED, Settings, Trial

pytestmark = [
    pytest.mark.tune,
    pytest.mark.skipif(
        importlib.util.find_spec("optuna") is None,
        reason="Optuna (extra `tune`) is not installed",
    ),
]

WORDS = "so much depends upon a red wheel barrow glazed with rain water beside the white chickens"
TEXT = " ".join(np.random.default_rng(2).choice(WORDS.split(), 4_000))
# A search of two trials or so, of two fifths of a second.
QUICK: dict[str, Any] = {"minutes": 0.1, "trial_minutes": 0.0125, "hidden_size": 16, "layers": 1}
PLANTED = "<script>window.planted=1</script> & &amp; <img src=x onerror=window.planted=1>"

OpenPage = Callable[..., Any]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(planning, "PROBED_FOR", 0.02)
    monkeypatch.setattr(study_module, "_connect", _connect_without_waiting)
    return folder


def _connect_without_waiting(path: Path) -> sqlite3.Connection:
    """For the disk: no test cuts the power."""
    connection = sqlite3.connect(path)
    connection.execute("pragma synchronous = off")
    return connection


def flags(**options: Any) -> list[str]:
    return [f"{option_name(name)}={value}" for name, value in options.items()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, a search on it, and what the command said."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        out = str(folder / "search")
        assert main(["tune", str(folder / "text.txt"), "--out", out, *flags(**QUICK)]) == 0
    (folder / "said.txt").write_text(said.getvalue(), encoding="utf-8")
    return folder


@pytest.fixture
def text(place: Path) -> str:
    return str(place / "text.txt")


@pytest.fixture
def search(place: Path, here: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(place / "search", here / "search"))


def resumed(text: str, folder: Path, **options: Any) -> Search:
    """A search that goes on until its time is up: at once, if it was."""
    return tune(Path(text), out=folder, resume=True, **options)


def refused(capsys: Captured, *arguments: str) -> str:
    """The one line of a command that is refused; whatever is here stays as it was."""
    before = {path: path.is_file() and path.read_bytes() for path in Path.cwd().rglob("*")}
    capsys.readouterr()
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == ""
    assert line.startswith("charloom: ")
    assert line.isprintable()
    assert {path: path.is_file() and path.read_bytes() for path in Path.cwd().rglob("*")} == before
    return line


# --- What it keeps --------------------------------------------------------------------------------


def test_the_folder_holds_the_best_run_and_no_other(place: Path) -> None:
    names = {path.name for path in (place / "search").iterdir()}
    assert names == {".lock", "best", "best.toml", "report.html", "study.db"}
    best = {path.name for path in (place / "search" / "best").iterdir()} - {".lock"}
    assert best == {
        *("model.safetensors", "resume.safetensors", "metrics.jsonl", "samples.txt"),
        "report.html",
    }


def test_the_best_run_is_a_run_like_any_other(search: Path, text: str, capsys: Captured) -> None:
    best = search / "best"
    assert load_checkpoint(best / "model.safetensors").mixture is not None
    assert main(["sample", str(best), "--length=20"]) == 0
    assert main(["evaluate", str(best)]) == 0
    steps = load_checkpoint(best / "resume.safetensors").metrics["step"]
    more = ["--out", str(best), "--resume", "--minutes=0.03"]
    assert main(["train", text, *more]) == 0
    assert load_checkpoint(best / "resume.safetensors").metrics["step"] > steps


def test_its_options_train_again(place: Path, text: str, capsys: Captured) -> None:
    found = resumed(text, place / "search")
    with (place / "search" / "best.toml").open("rb") as file:
        table = tomllib.load(file)
    assert found.best is not None
    assert {"hidden-size": 16, "layers": 1}.items() <= table.items()
    options = {k.replace("-", "_"): v for k, v in table.items()}
    assert options == found.best_options
    assert found.best.options.items() <= options.items()
    config = ["--config", str(place / "search" / "best.toml")]
    assert main(["train", text, *config, "--steps=2", "--out=again"]) == 0
    training = load_checkpoint(Path("again/model.safetensors")).training
    assert found.best_options.items() <= training.items()


def test_what_the_command_says(place: Path) -> None:
    said = (place / "said.txt").read_text(encoding="utf-8")
    lines = said.splitlines()
    assert "Optuna" not in said
    assert "Trial " not in said  # its way to say it
    assert "Warning" not in said
    assert sum("trial 0:" in line and "nats *" in line for line in lines) == 1
    (next_,) = [line for line in lines if "charloom train" in line]
    words = shlex.split(next_.removeprefix("charloom: "))
    assert words[:3] == ["charloom", "train", str(place / "text.txt")]
    assert words[-2:] == ["--minutes", "0.1"]
    assert "--hidden-size" in words
    assert main([*words[1:-2], "--steps=1", "--out=again"]) == 0


def test_the_first_trial_is_what_training_would_choose(place: Path, text: str) -> None:
    found = resumed(text, place / "search")
    settings, first = found.settings, found.trials[0]
    given = {"hidden_size": 16, "layers": 1}
    chosen = plan(settings.trial_seconds, settings.speed, found.dataset, given).options
    assert first.state == "complete"
    assert first.options == {name: chosen[name] for name in settings.ranges}
    assert set(settings.ranges) == set(SEARCHED) - set(given)
    assert found.best is not None
    assert first.loss is not None
    assert found.best.loss is not None
    assert found.best.loss <= first.loss


def test_it_takes_its_time_and_no_more(text: str) -> None:
    """Three seconds; ten over are allowed on a machine with other work to do."""
    began = time.monotonic()
    found = tune(Path(text), out="out", **(QUICK | {"minutes": 0.05}))
    assert time.monotonic() - began < 13
    assert found.trials
    assert all(trial.ended is not None and trial.ended < 13 for trial in found.trials)


def test_a_trial_as_long_as_the_search(text: str) -> None:
    found = tune(Path(text), out="out", **(QUICK | {"minutes": 0.03, "trial_minutes": 0.03}))
    assert [trial.state for trial in found.trials] == ["complete"]
    assert found.settings.trial_seconds < 0.03 * 60


def test_a_model_to_start_from_keeps_its_shape(text: str, place: Path) -> None:
    options = {"minutes": 0.03, "trial_minutes": 0.0125, "from_run": "base"}
    charloom.train(Path(text), out="base", steps=2, hidden_size=16, cell="lstm")
    found = tune(Path(text), out="out", **options)
    assert found.best is not None
    assert not {"cell", "hidden_size", "layers"} & set(found.best.options)
    assert not {"cell", "hidden_size", "layers"} & set(found.best_options)
    assert found.model().config.cell == "lstm"


# --- Killed, interrupted, gone on with ------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from charloom.tuning.search import tune
def progress(event):
    seen = event.progress
    if event.trial.number == 1 and seen and seen.kind == "validation" and seen.step > 0:
        os._exit(9)
tune(Path(sys.argv[1]), out=sys.argv[2], minutes=10, trial_minutes=0.02, hidden_size=16, layers=1,
     progress=progress)
"""


def test_a_killed_search_goes_on_with_the_trial_that_was_under_way(text: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, text, "out"], check=False)
    assert killed.returncode == 9
    steps = load_checkpoint(Path("out/trials/0001/resume.safetensors")).metrics["step"]
    assert steps > 0
    assert load_checkpoint(Path("out/best/model.safetensors")).mixture is not None
    began: list[int] = []

    def seen(event: tuning.SearchProgress) -> None:
        if event.progress is not None:
            began.append(event.progress.step)

    stop: list[str] = []
    search = Search(
        lambda config: text_from_string(TEXT),
        Path("out"),
        {},
        resume=True,
        should_stop=lambda: bool(stop),
    )
    assert search._before > 1  # the time of the one that was killed counts
    for event in search:
        seen(event)
        if event.progress is None:
            stop.append(event.trial.state)
    assert [trial.state for trial in search.trials] == ["complete", stop[0]]
    assert began[0] >= steps
    assert search.trials[1].options.keys() == search.settings.ranges.keys()
    dones = [done for done, _, _ in search.trials[1].curve]
    assert dones == sorted(dones)
    assert not Path("out/trials").exists()


def test_ctrl_c_saves_and_tells_how_to_go_on(text: str) -> None:
    options = ["--minutes=10", "--trial-minutes=5", "--hidden-size=16", "--out=out"]
    command = [sys.executable, "-m", "charloom", "tune", text, *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "characters" in process.stderr.readline()
    assert "trials of 5:00" in process.stderr.readline()
    deadline = time.monotonic() + 30
    while not Path("out/trials/0000/resume.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    (line,) = said.splitlines()
    told = f"charloom tune {shlex.quote(text)} --out out --resume"
    assert line == f"charloom: interrupted; all is saved. To go on: {told}"
    assert load_checkpoint(Path("out/trials/0000/resume.safetensors")).metrics["step"] >= 0
    assert "interrupted" in Path("out/report.html").read_text(encoding="utf-8")


def trial_folder(found: Search) -> Path:
    assert found.best is not None
    return found.folder / "trials" / f"{found.best.number:04d}"


def model_bytes(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("at", ["before", "between", "after", "removing"])
def test_wherever_it_is_killed_the_best_run_comes_into_its_place(
    at: str, search: Path, text: str
) -> None:
    found = resumed(text, search)
    kept = model_bytes(search / "best")
    other = search / "other"
    charloom.train(Path(text), out=other, steps=1, hidden_size=8)
    run = trial_folder(found)
    run.parent.mkdir()
    if at in ("before", "between"):  # the renames
        (search / "best").rename(run)
        other.rename(search / {"before": "best", "between": "best.old"}[at])
        if at == "before":
            # What the search has kept before had a trial's time.
            minutes = found.settings.trial_seconds / 60
            shutil.rmtree(search / "best")
            charloom.train(Path(text), out=search / "best", minutes=minutes, hidden_size=8)
    else:
        other.rename(search / "best.old")
        if at == "removing":
            (search / "best.old" / "model.safetensors").unlink()
            run.mkdir()
            run.rename(run.with_name("0099"))  # no trial's: it stays
    assert resumed(text, search).best == found.best
    assert model_bytes(search / "best") == kept
    assert not (search / "best.old").exists()
    assert not run.exists()
    assert not (search / "best-1").exists()


def test_a_best_run_that_was_trained_further_is_put_aside(search: Path, text: str) -> None:
    found = resumed(text, search)
    shutil.copytree(search / "best", trial_folder(found))
    charloom.train(Path(text), out=search / "best", resume=True, minutes=0.03)
    further, kept = model_bytes(search / "best"), model_bytes(trial_folder(found))
    again = resumed(text, search)
    assert model_bytes(search / "best-1") == further
    assert model_bytes(search / "best") == kept
    assert any("best-1" in note for note in again.notes)


def test_a_best_run_that_is_in_use_is_left_alone(search: Path, text: str) -> None:
    found = resumed(text, search)
    shutil.copytree(search / "best", trial_folder(found))
    with FileLock(search / "best" / ".lock"):
        again = resumed(text, search)
        assert again.best_run == trial_folder(found)
        assert any("in use" in note for note in again.notes)
        again.model()
    assert resumed(text, search).best_run == search / "best"
    assert not trial_folder(found).exists()


def test_more_minutes_go_on(search: Path, text: str) -> None:
    before = resumed(text, search)
    count = len(before.trials)
    more: list[str] = []
    after = Search(
        lambda config: text_from_string(TEXT),
        search,
        {"minutes": 5.0},
        resume=True,
        should_stop=lambda: bool(more),
    )
    for event in after:
        if event.progress is None:
            more.append(event.trial.state)
    assert len(after.trials) == count + 1
    assert after.trials[:count] == before.trials
    assert after.settings == replace(before.settings, minutes=5.0)


# --- The search itself, with trials that are scripted ---------------------------------------------


class Scripted:
    """In place of open_run: `play(number)` gives a trial's losses, at equal distances to its
    end, or raises."""

    def __init__(self, play: Callable[[int], list[float]], most: int) -> None:
        self.play = play
        self.most = most  # trials
        self.given: list[dict[str, Any]] = []

    def __call__(self, text: Any, folder: Path, given: Any, **rest: Any) -> Any:
        self.given.append(given)
        folder.mkdir(parents=True)
        return _ScriptedRun(self.play(int(folder.name)))

    def search(self, monkeypatch: pytest.MonkeyPatch, out: str = "out", **options: Any) -> Search:
        monkeypatch.setattr(tuning, "open_run", self)
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


def test_what_falls_behind_is_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    play = lambda number: falling(2.0 if number < study_module.NEVER_PRUNED else 3.0)  # noqa: E731
    search = Scripted(play, 7).search(monkeypatch)
    states = [trial.state for trial in search.trials]
    assert states == ["complete"] * study_module.NEVER_PRUNED + ["pruned"] * 3
    last = search.trials[-1]
    assert last.curve[-1][0] == pytest.approx(study_module.FIRST_PRUNED / study_module.PARTS)
    assert last.loss == last.curve[-1][1]
    assert search.best is not None
    assert search.best.number == 0  # of equals the first
    assert search.best_run.name == "best"


def test_trials_are_compared_at_equal_parts_of_their_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever a trial's validations were, it is the value of the line between them that counts."""
    few = [4.0, 3.0, 2.0]
    Scripted(lambda number: few if number else falling(2.0), 2).search(monkeypatch)
    import optuna

    found = optuna.load_study(study_name="charloom", storage="sqlite:///out/study.db")
    for trial in found.trials:
        for part, value in trial.intermediate_values.items():
            assert value == pytest.approx(4 - 2 * part / 10)
        assert set(trial.intermediate_values) == set(range(1, 10))


def test_a_trial_that_fails_ends_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(number: int) -> list[float]:
        if number == 1:
            return [4.0, float("nan")]
        if number == 2:
            raise TooLargeError("this model and batch need about 9 GiB of memory: use less")
        if number == 3:
            raise MemoryError
        return falling(2.0)

    search = Scripted(play, 5).search(monkeypatch)
    assert [t.state for t in search.trials] == [
        "complete",
        "failed",
        "failed",
        "failed",
        "complete",
    ]
    reasons = [trial.reason for trial in search.trials[1:4]]
    assert reasons == [
        "the loss became NaN or infinite at step 1",
        "this model and batch need about 9 GiB of memory",
        "there is not enough memory for it",
    ]
    assert all(trial.loss is None for trial in search.trials[1:4])


def test_a_search_of_which_every_trial_fails_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CharloomError, match=r"every trial failed, the last of 5.*step 0"):
        Scripted(lambda number: [float("nan")], 100).search(monkeypatch)


def test_another_error_ends_it_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(number: int) -> list[float]:
        if number == 1:
            raise CharloomError("cannot write to there: make room, then go on with --resume")
        return falling(2.0)

    with pytest.raises(CharloomError, match="make room"):
        Scripted(play, 3).search(monkeypatch)
    shutil.rmtree("out/trials/0001")  # the scripted run makes it anew
    search = Scripted(lambda number: falling(1.5), 2).search(monkeypatch)
    assert [trial.state for trial in search.trials] == ["complete"] * 3


def test_few_combinations_are_gone_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = {name: value for name, value in FIXED.items() if name not in ("cell", "layers")}
    search = Scripted(lambda number: falling(2 + number), 100).search(monkeypatch, **fixed)
    assert search.exhausted
    tried = [tuple(trial.options.values()) for trial in search.trials]
    assert sorted(tried) == [("gru", 1), ("gru", 2), ("lstm", 1), ("lstm", 2)]
    assert tried[0] == ("gru", 1)


def proposed(search: Search) -> list[dict[str, Any]]:
    return [trial.options for trial in search.trials]


def test_a_seed_proposes_the_same_in_one_go_or_in_two(monkeypatch: pytest.MonkeyPatch) -> None:
    play = lambda number: falling(2 + 0.1 * (number * 7 % 5))  # noqa: E731
    whole = Scripted(play, 12).search(monkeypatch, "whole", seed=3)
    Scripted(play, 5).search(monkeypatch, "parts", seed=3)
    parts = Scripted(play, 7).search(monkeypatch, "parts")
    assert proposed(parts) == proposed(whole)
    assert len({json.dumps(options) for options in proposed(whole)}) == 12
    assert proposed(Scripted(play, 3).search(monkeypatch, "other", seed=4))[1] != proposed(whole)[1]


def test_what_is_tried_is_what_a_run_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted(lambda number: falling(2.0), 6)
    search = script.search(monkeypatch, dropout=0.3, clip=0.5)
    for trial, given in zip(search.trials, script.given, strict=True):
        assert trial.options.items() <= given.items()
        assert given["dropout"] == 0.3
        assert given["clip"] == 0.5
        assert given["refit"] == 0
        assert given["minutes"] == search.settings.trial_seconds / 60
        TrainingConfig.of(given)
        for name, range_ in search.settings.ranges.items():
            if "choices" in range_:
                assert given[name] in range_["choices"]
            else:
                assert range_["low"] * 0.99 <= given[name] <= range_["high"] * 1.01
    assert "dropout" not in search.settings.ranges


def test_importances_are_told_when_there_are_enough_trials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def play(number: int) -> list[float]:
        return [4.0, 2 + script.given[-1]["dropout"]]

    script = Scripted(play, 20)
    monkeypatch.setattr(study_module, "NEVER_PRUNED", 100)
    search = script.search(monkeypatch)
    found = search._study.importances(search.trials)
    assert found is not None
    assert sum(found.values()) == pytest.approx(1)
    assert set(found) == set(search.settings.ranges)
    assert search._study.importances(search.trials[:7]) is None


def test_optuna_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Scripted(lambda number: falling(2.0), 3).search(monkeypatch)
    assert optuna.logging.get_verbosity() == before
    assert logging.getLogger("optuna").handlers


@pytest.mark.parametrize("optimizer", ["adagrad", "rmsprop", "sgd"])
def test_an_optimizer_of_which_nothing_is_known(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Scripted(lambda number: falling(2.0), 2).search(monkeypatch, optimizer=optimizer)
    rate = TrainingConfig.of({"optimizer": optimizer}).learning_rate
    assert search.trials[0].options["learning_rate"] == rate
    assert search.trials[1].options["learning_rate"] != rate


@pytest.mark.parametrize("characters", [2_000, 700])
def test_a_short_text_s_window_is_not_searched(
    characters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "open_run", Scripted(lambda number: falling(2.0), 1))
    search = Search(lambda config: text_from_string(TEXT[:characters]), Path("out"), {})
    assert ("window" in search.settings.ranges) == (characters == 2_000)
    search._files.close()


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


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "1e9", "0.001", "soon"])
@pytest.mark.parametrize("option", ["--minutes", "--trial-minutes"])
def test_nonsense_for_a_time_is_refused(
    option: str, minutes: str, text: str, capsys: Captured
) -> None:
    assert option in refused(capsys, "tune", text, f"{option}={minutes}")


@pytest.mark.parametrize("value", [True, "5", [1]])
def test_nonsense_for_a_time_is_refused_in_a_call(value: Any, text: str) -> None:
    for name in ("minutes", "trial_minutes"):
        with pytest.raises(CharloomError, match=name.replace("_", "-")):
            tune(Path(text), out="out", **{name: value})
    assert not Path("out").exists()


REFUSED = {
    "--trial-minutes=2": "more than the whole search's 1",
    "--steps=10": "--trial-minutes",
    "--epochs=3": "--trial-minutes",
    "--preset=small": "auto",
    "--refit=0.5": "validation part",
    "--split=95/0/5": "validation part",
    "--window=60000": "validation part",
    "--cell=snn": "--cell",
    "--out=": "--out is empty",
    "--from=nowhere": "nowhere",
    "--config=nowhere.toml": "nowhere.toml",
}


@pytest.mark.parametrize("option", REFUSED)
def test_what_makes_no_sense_is_refused(option: str, text: str, capsys: Captured) -> None:
    assert REFUSED[option] in refused(capsys, "tune", text, "--minutes=1", option)


def test_nothing_to_search_is_refused(text: str, capsys: Captured) -> None:
    line = refused(capsys, "tune", text, *flags(**FIXED))
    assert "there is nothing to search" in line
    assert "--hidden-size" in line


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("ab" * 4, "validation part"),
        ("a" * 999, "distinct"),
    ],
)
def test_a_text_that_is_too_short_is_refused(
    content: str, told: str, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "short.txt"
    path.write_text(content, encoding="utf-8")
    assert told in refused(capsys, "tune", str(path), "--minutes=0.1")


def test_a_folder_of_something_else_is_refused(search: Path, text: str, capsys: Captured) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").touch()
    for resume in ([], ["--resume"]):
        line = refused(capsys, "tune", text, "--out=mine", *resume)
        assert "notes.txt is in it" in line
        line = refused(capsys, "tune", text, f"--out={search}/best", *resume)
        assert "is not empty" in line
    assert "already holds a search: add --resume" in refused(capsys, "tune", text, "--out=search")
    assert "is not empty" in refused(capsys, "train", text, "--out=search", "--resume", "--steps=1")


def test_a_folder_in_use_is_refused(search: Path, text: str, capsys: Captured) -> None:
    with FileLock(search / ".lock"):
        line = refused(capsys, "tune", text, "--out=search", "--resume")
    assert "another charloom is searching in search" in line


def test_what_differs_is_named_when_it_goes_on(search: Path, text: str, capsys: Captured) -> None:
    for option, told in {
        "--hidden-size=32": "--hidden-size is 32, but the search has 16",
        "--clip=2": "--clip was not given",
        "--trial-minutes=0.02": "--trial-minutes is 0.02, but the search has 0.0125",
        "--minutes=0.02": "--minutes 0.02 is less than the search's 0.1",
    }.items():
        assert told in refused(capsys, "tune", text, "--out=search", "--resume", option)
    Path("other.txt").write_text(TEXT[1:], encoding="utf-8")
    line = refused(capsys, "tune", "other.txt", "--out=search", "--resume")
    assert "is not the one that was searched on" in line


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda data: b"This is no database, and it never was one.\n" * 100,
    "cut": lambda data: data[: len(data) // 2],
    "zeros in the middle": lambda data: data[:4096] + bytes(len(data) - 4096),
    "another beginning": lambda data: b"\0" * 100 + data[100:],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_storage_is_told_of(kind: str, search: Path, text: str, capsys: Captured) -> None:
    path = search / "study.db"
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    line = refused(capsys, "tune", text, "--out=search", "--resume")
    assert "study.db is damaged" in line


@pytest.mark.parametrize("settings", ["[]", '{"text": 1}', '"x"', "{}"])
def test_damaged_settings_are_told_of(
    settings: str, search: Path, text: str, capsys: Captured
) -> None:
    with contextlib.closing(sqlite3.connect(search / "study.db")) as database:
        query = "update study_user_attributes set value_json = ? where key = 'settings'"
        assert database.execute(query, [settings]).rowcount == 1
        database.commit()
    line = refused(capsys, "tune", text, "--out=search", "--resume")
    assert "study.db is damaged" in line


def test_a_storage_of_nothing_is_begun_anew(text: str) -> None:
    """As a kill leaves it that comes before the search had begun."""
    Path("out").mkdir()
    Path("out/study.db").touch()
    assert resumed(text, Path("out"), **QUICK).best is not None


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_storage_that_cannot_be_written_is_told_of(
    search: Path, text: str, capsys: Captured
) -> None:
    (search / "study.db").chmod(0o400)
    line = refused(capsys, "tune", text, "--out=search", "--resume", "--minutes=0.1")
    assert "make room or give access" in line


@pytest.mark.parametrize("name", ["a b", "50%", "what?", "#1", "{x}", "ä字"])
def test_any_name_of_a_folder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Scripted(lambda number: falling(2.0), 2).search(monkeypatch, name)
    assert Path(name, "study.db").stat().st_size
    assert len(search.trials) == 2


# --- The page -------------------------------------------------------------------------------------


def shown(count: int = 14) -> tuple[Settings, list[Trial]]:
    """A search of so many trials, of every kind."""
    ranges: dict[str, Any] = {
        "cell": {"choices": ["gru", "lstm"]},
        "hidden_size": {"low": 64, "high": 320, "step": 16},
        "layers": {"low": 1, "high": 2, "step": 1},
        "learning_rate": {"low": 0.002, "high": 0.04, "log": True},
        "dropout": {"low": 0.0, "high": 0.6, "step": 0.01},
    }
    settings = Settings(
        {"name": f"woods {PLANTED}", "sha256": "0" * 64, "characters": 100_000},
        {"seed": 1, "split": PLANTED},
        30.0,
        1.5,
        90.0,
        1.0,
        {"batch_size": 16},
        ranges,
    )
    random = np.random.default_rng(1)
    trials = []
    kinds = ["complete"] * 3 + ["pruned", "failed"]
    for number in range(count):
        state = "running" if number == count - 1 else kinds[number % len(kinds)]
        end = 1.4 + 0.3 * random.random() - 0.004 * number
        parts = {"complete": 21, "pruned": 10, "failed": 5, "running": 13}[state]
        curve = [[i / 20, end + 3 * 0.8**i, 4.5 * i] for i in range(parts)]
        options = {
            "cell": ["gru", "lstm"][random.integers(2)],
            "hidden_size": int(16 * random.integers(4, 21)),
            "layers": int(random.integers(1, 3)),
            "learning_rate": float(f"{0.002 * 20 ** random.random():.3g}"),
            "dropout": round(0.6 * random.random(), 2),
        }
        failed = state == "failed"
        trials.append(
            Trial(
                number,
                state,
                options,
                None if failed else curve[-1][1],
                curve,
                100 * parts,
                None if state == "running" else 80.0 * (number + 1),
                f"the loss became {PLANTED}" if failed else None,
            )
        )
    return settings, trials


IMPORTANCES = {
    "cell": 0.1,
    "hidden_size": 0.4,
    "layers": 0.05,
    "learning_rate": 0.35,
    "dropout": 0.1,
}


def page_of(count: int = 14, state: str = "searching", done: float = 0.4) -> Path:
    settings, trials = shown(count)
    path = Path("page.html")
    found = IMPORTANCES if count >= 8 else None
    path.write_text(
        make_search_page(settings, trials, Standing(state, done), found), encoding="utf-8"
    )
    return path


def readout(page: Any) -> dict[str, str]:
    names, values = (page.locator(f".readout {kind}").all_text_contents() for kind in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def test_the_page_runs_nothing_of_what_it_shows(open_page: OpenPage) -> None:
    page = open_page(page_of())
    assert PLANTED in page.locator("h1").text_content()
    page.locator(".plot").first.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert PLANTED in readout(page)["how it ended"]
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.planted") is None


def test_the_page_tells_of_every_trial_by_keys(open_page: OpenPage) -> None:
    page = open_page(page_of())
    _, trials = shown()
    best = min((t for t in trials if t.state == "complete"), key=lambda t: t.loss or 9)
    page.locator(".plot").nth(3).focus()
    for trial in trials:
        page.keyboard.press("ArrowRight")
        found = readout(page)
        assert found["trial"] == str(trial.number)
        loss = "–" if trial.loss is None else f"{trial.loss / np.log(2):.4f}"
        assert found["best validation, bits"] == loss
        assert found["cell"] == trial.options["cell"]
        assert float(found["learning-rate"]) == trial.options["learning_rate"]
        how = {"complete": "came to its end", "pruned": "pruned after 45%", "running": "under way"}
        expected = "the best" if trial is best else how.get(trial.state, "failed: ")
        assert found["how it ended"].startswith(expected)
        assert page.locator("tr[aria-selected=true] td").first.text_content() == str(trial.number)
    page.keyboard.press("ArrowRight")
    assert readout(page)["trial"] == "13"
    page.keyboard.press("Home")
    assert readout(page)["trial"] == "0"
    page.keyboard.press("Escape")
    assert page.locator(".readout dd").count() == 0


def test_the_page_tells_of_what_the_mouse_points_at(open_page: OpenPage) -> None:
    page = open_page(page_of())

    def point_at(part: float) -> None:
        plot = page.locator(".plot").first
        plot.evaluate("plot => plot.scrollIntoView({ block: 'center' })")
        box = plot.bounding_box()
        x = box["x"] + 58 + (box["width"] - 72) * part
        page.mouse.move(x, box["y"] + box["height"] / 4)

    point_at(6 / 13)
    assert readout(page)["trial"] in ("5", "6", "7")
    page.get_by_label("along").select_option("ended")
    point_at(1)
    assert readout(page)["trial"] == "13"
    page.get_by_role("button", name="2", exact=True).click()
    assert readout(page)["trial"] == "2"
    page.get_by_label("loss in").select_option("nats")
    assert readout(page)["best validation, nats"] == f"{shown()[1][2].loss:.4f}"


def test_the_page_tells_the_command_and_the_importances(open_page: OpenPage) -> None:
    page = open_page(page_of())
    settings, trials = shown()
    best = min((t for t in trials if t.state == "complete"), key=lambda t: t.loss or 9)
    command = page.locator("pre").text_content()
    assert command == shlex.join(settings.command(best, ["TEXT"]))
    rows = page.locator("table.importances tbody tr").all_text_contents()
    assert rows[:2] == ["hidden-size40%", "learning-rate35%"]
    assert page.locator("table.trials tbody tr").count() == len(trials)


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_the_page_of_few_trials_and_of_many(count: int, open_page: OpenPage) -> None:
    page = open_page(page_of(count))
    assert page.locator("h1").is_visible()
    if count < 2:  # the only one is under way
        assert page.get_by_text("No trial has come to its end yet.").is_visible()
    for key in ("ArrowRight", "End", "Home", "Escape"):
        if count:
            page.locator(".plot").first.focus()
            page.keyboard.press(key)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_read_in_any_light(scheme: str, open_page: OpenPage) -> None:
    from test_pages_report import CONTRAST

    page = open_page(page_of(), color_scheme=scheme)
    page.locator(".plot").first.focus()
    page.keyboard.press("ArrowRight")
    texts = "h1, h2, p, td, th, dt, dd, li, pre, label, button, select, figcaption"
    for selector, kind in ((texts, "color"), (".plot text", "fill"), (".curve, .hollow", "stroke")):
        contrast, of = page.evaluate(CONTRAST, [selector, kind])
        assert contrast >= 4.5, of


def test_the_page_fits_a_telephone(open_page: OpenPage) -> None:
    page = open_page(page_of(), viewport={"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert page.locator(".plot svg").first.bounding_box()["width"] <= 400


def test_the_page_keeps_up_with_the_search(open_page: OpenPage) -> None:
    page = open_page(page_of(6))
    page.clock.install(time=time.time())
    page.reload()
    page.wait_for_selector("#standing")
    assert (
        "searching, 40% of 30 minutes, 5 trials of 1:30" in page.locator("#standing").text_content()
    )
    page_of(9, "finished")
    page.clock.fast_forward(20_000)
    page.wait_for_function(
        "document.querySelector('#standing')?.textContent.startsWith('finished')"
    )
    assert page.locator("#standing input").count() == 0


def test_the_page_of_a_real_search(place: Path, text: str, open_page: OpenPage) -> None:
    found = resumed(text, place / "search")
    page = open_page(place / "search" / "report.html")
    assert page.locator("#standing").text_content().startswith("finished")
    assert page.locator("table.trials tbody tr").count() == len(found.trials)
    assert replace(found.settings, minutes=1.0) != found.settings
