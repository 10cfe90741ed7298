"""What a search keeps: that nothing is lost when it is killed at any moment.

Trials are real here and last under a second.
"""

import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

import charloom
from charloom.cli.main import main
from charloom.engines.protocol import available_cores
from charloom.runs.run import RunControl
from charloom.storage.checkpoint import load_checkpoint
from charloom.text.source import text_from_string
from charloom.training.options import TUNED_OPTIONS
from charloom.training.planner import plan
from charloom.tuning.api import tune
from charloom.tuning.opening import open_search
from charloom.tuning.search import Search, SearchProgress
from charloom.tuning.study import Study
from helpers.searches import QUICK, TEXT, resumed
from helpers.waiting import wait_until

# --- What it keeps --------------------------------------------------------------------------------


def test_the_folder_holds_the_best_run_and_no_other(finished_search: Path) -> None:
    names = {path.name for path in (finished_search / "search").iterdir()}
    assert names == {".lock", "best", "best.toml", "report.html", "study.db"}
    best = {path.name for path in (finished_search / "search" / "best").iterdir()} - {".lock"}
    assert best == {
        *("model.safetensors", "resume.safetensors", "metrics.jsonl", "samples.txt"),
        "report.html",
    }


def test_the_best_run_is_a_run_like_any_other(search: Path, text_file: str) -> None:
    best = search / "best"
    assert load_checkpoint(best / "model.safetensors").mixture is not None
    assert main(["sample", str(best), "--length=20"]) == 0
    assert main(["evaluate", str(best)]) == 0
    steps = load_checkpoint(best / "resume.safetensors").metrics["step"]
    more = ["--out", str(best), "--resume", "--minutes=0.03"]
    assert main(["train", text_file, *more]) == 0
    assert load_checkpoint(best / "resume.safetensors").metrics["step"] > steps


def test_its_options_train_again(finished_search: Path, text_file: str) -> None:
    found = resumed(text_file, finished_search / "search")
    with (finished_search / "search" / "best.toml").open("rb") as file:
        table = tomllib.load(file)
    assert found.best is not None
    assert {"hidden-size": 16, "layers": 1}.items() <= table.items()
    options = {k.replace("-", "_"): v for k, v in table.items()}
    assert options == found.best_options
    assert found.best.options.items() <= options.items()
    config = ["--config", str(finished_search / "search" / "best.toml")]
    assert main(["train", text_file, *config, "--steps=2", "--out=again"]) == 0
    training = load_checkpoint(Path("again/model.safetensors")).training
    assert found.best_options.items() <= training.items()


def test_tune_prints_its_result(finished_search: Path) -> None:
    said = (finished_search / "said.txt").read_text(encoding="utf-8")
    lines = said.splitlines()
    assert "Optuna" not in said
    assert "Trial " not in said  # its way to say it
    assert "Warning" not in said
    assert sum("trial 0:" in line and "nats *" in line for line in lines) == 1
    (next_,) = [line for line in lines if "charloom train" in line]
    words = shlex.split(next_.removeprefix("charloom: "))
    assert words[:3] == ["charloom", "train", str(finished_search / "text.txt")]
    assert words[-4:] == ["--minutes", "0.1", "--out", str(finished_search / "search-longer")]
    assert "--hidden-size" in words
    assert main([*words[1:-4], "--steps=1", "--out=again"]) == 0


def test_the_first_trial_is_what_training_would_choose(
    finished_search: Path, text_file: str
) -> None:
    found = resumed(text_file, finished_search / "search")
    settings, first = found.settings, found.trials[0]
    given = {"hidden_size": 16, "layers": 1}
    chosen = plan(settings.trial_seconds, settings.speed, found.dataset, given).options
    assert first.state == "complete"
    assert first.options == {name: chosen[name] for name in settings.ranges}
    assert set(settings.ranges) == set(TUNED_OPTIONS) - set(given)
    assert found.best is not None
    assert first.loss is not None
    assert found.best.loss is not None
    assert found.best.loss <= first.loss


def test_search_keeps_its_time_budget(text_file: str) -> None:
    """Three seconds; ten over are allowed, in the processor's time."""
    began = time.process_time()
    found = tune(Path(text_file), out="out", **(QUICK | {"minutes": 0.05}))
    assert time.process_time() - began < 13 * available_cores()
    assert found.trials
    assert all(trial.ended is not None for trial in found.trials)


def test_a_trial_as_long_as_the_search(text_file: str) -> None:
    found = tune(Path(text_file), out="out", **(QUICK | {"minutes": 0.03, "trial_minutes": 0.03}))
    assert [trial.state for trial in found.trials] == ["complete"]
    assert found.settings.trial_seconds < 0.03 * 60


def test_a_model_to_start_from_keeps_its_shape(text_file: str, finished_search: Path) -> None:
    options = {"minutes": 0.03, "trial_minutes": 0.0125, "from_run": "base"}
    charloom.train(Path(text_file), out="base", steps=2, hidden_size=16, cell="lstm")
    found = tune(Path(text_file), out="out", **options)
    assert found.best is not None
    assert not {"cell", "hidden_size", "layers"} & set(found.best.options)
    assert not {"cell", "hidden_size", "layers"} & set(found.best_options)
    assert found.model().config.cell == "lstm"


# --- Killed, interrupted, gone on with ------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from charloom.tuning.api import tune
def progress(event):
    seen = event.progress
    if event.trial.number == 1 and seen and seen.kind == "validation" and seen.step > 0:
        os._exit(9)
tune(Path(sys.argv[1]), out=sys.argv[2], minutes=10, trial_minutes=0.02, hidden_size=16, layers=1,
     progress=progress)
"""


def test_killed_search_resumes_its_running_trial(text_file: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, text_file, "out"], check=False)
    assert killed.returncode == 9
    steps = load_checkpoint(Path("out/trials/0001/resume.safetensors")).metrics["step"]
    assert steps > 0
    assert load_checkpoint(Path("out/best/model.safetensors")).mixture is not None
    earlier = Study(Path("out/study.db")).seconds()
    assert earlier > 1
    began: list[int] = []

    def seen(event: SearchProgress) -> None:
        if event.progress is not None:
            began.append(event.progress.step)

    stop: list[str] = []
    with open_search(
        lambda config: text_from_string(TEXT),
        Path("out"),
        {},
        resume=True,
        control=RunControl(should_stop=lambda: bool(stop)),
    ) as search:
        assert search.elapsed > earlier  # because the time of the killed process counts
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


def test_ctrl_c_saves_and_prints_how_to_resume(text_file: str) -> None:
    options = ["--minutes=10", "--trial-minutes=5", "--hidden-size=16", "--out=out"]
    command = [sys.executable, "-m", "charloom", "tune", text_file, *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "characters" in process.stderr.readline()
    assert "trials of 5:00" in process.stderr.readline()
    wait_until(Path("out/trials/0000/resume.safetensors").exists)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130
    (line,) = said.splitlines()
    told = f"charloom tune {shlex.quote(text_file)} --out out --resume"
    assert line == f"charloom: interrupted; everything is saved. To resume: {told}"
    assert load_checkpoint(Path("out/trials/0000/resume.safetensors")).metrics["step"] >= 0
    assert "interrupted" in Path("out/report.html").read_text(encoding="utf-8")


def trial_folder(found: Search) -> Path:
    assert found.best is not None
    return found.folder / "trials" / f"{found.best.number:04d}"


def model_bytes(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("at", ["before", "between", "after", "removing"])
def test_best_run_is_placed_wherever_the_search_is_killed(
    at: str, search: Path, text_file: str
) -> None:
    found = resumed(text_file, search)
    kept = model_bytes(search / "best")
    other = search / "other"
    charloom.train(Path(text_file), out=other, steps=1, hidden_size=8)
    run = trial_folder(found)
    run.parent.mkdir()
    if at in ("before", "between"):  # the renames
        (search / "best").rename(run)
        other.rename(search / {"before": "best", "between": "best.old"}[at])
        if at == "before":
            # What the search has kept before had a trial's time.
            minutes = found.settings.trial_seconds / 60
            shutil.rmtree(search / "best")
            charloom.train(Path(text_file), out=search / "best", minutes=minutes, hidden_size=8)
    else:
        other.rename(search / "best.old")
        if at == "removing":
            (search / "best.old" / "model.safetensors").unlink()
            run.mkdir()
            run.rename(run.with_name("0099"))  # no trial's: it stays
    assert resumed(text_file, search).best == found.best
    assert model_bytes(search / "best") == kept
    assert not (search / "best.old").exists()
    assert not run.exists()
    assert not (search / "best-1").exists()


def test_a_best_run_that_was_trained_further_is_put_aside(search: Path, text_file: str) -> None:
    found = resumed(text_file, search)
    shutil.copytree(search / "best", trial_folder(found))
    charloom.train(Path(text_file), out=search / "best", resume=True, minutes=0.03)
    further, kept = model_bytes(search / "best"), model_bytes(trial_folder(found))
    again = resumed(text_file, search)
    assert model_bytes(search / "best-1") == further
    assert model_bytes(search / "best") == kept
    assert any("best-1" in note for note in again.notes)


def test_a_best_run_that_is_in_use_is_left_alone(search: Path, text_file: str) -> None:
    found = resumed(text_file, search)
    shutil.copytree(search / "best", trial_folder(found))
    with FileLock(search / "best" / ".lock"):
        again = resumed(text_file, search)
        assert again.best_run == trial_folder(found)
        assert any("in use" in note for note in again.notes)
        again.model()
    assert resumed(text_file, search).best_run == search / "best"
    assert not trial_folder(found).exists()


def test_more_minutes_go_on(search: Path, text_file: str) -> None:
    before = resumed(text_file, search)
    count = len(before.trials)
    more: list[str] = []
    with open_search(
        lambda config: text_from_string(TEXT),
        search,
        {"minutes": 5.0},
        resume=True,
        control=RunControl(should_stop=lambda: bool(more)),
    ) as after:
        for event in after:
            if event.progress is None:
                more.append(event.trial.state)
    assert len(after.trials) == count + 1
    assert after.trials[:count] == before.trials
    assert after.settings == replace(before.settings, minutes=5.0)
