"""The parts of a run, each by itself: start, recorder, checkpoints, schedule, opening."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charloom.engines.process_group import SINGLE_PROCESS
from charloom.errors import CharloomError
from charloom.prediction.validation import Validation
from charloom.runs.checkpointing import Checkpoints
from charloom.runs.clock import Clock
from charloom.runs.compute import open_setup
from charloom.runs.material import PreparedText, prepare_text
from charloom.runs.opening import open_run
from charloom.runs.recorder import Recorder
from charloom.runs.run import RunControl
from charloom.runs.start import Start, fine_tuned, fresh, resumed, start_of
from charloom.storage.checkpoint import load_checkpoint
from charloom.storage.folders import RunFolder
from charloom.text.source import Text, text_from_string
from charloom.training.options import TrainingConfig
from charloom.training.schedule import Schedule
from charloom.training.state import DivergedError, Progress, TrainingState

TEXT = "".join(f"{i} plus {i} is {2 * i};\n" for i in range(300))
OPTIONS: dict[str, Any] = {"hidden_size": 8, "batch_size": 2, "window": 8, "steps": 4, "threads": 1}


def open_text(config: TrainingConfig) -> Text:
    return text_from_string(TEXT)


def prepared(**options: Any) -> PreparedText:
    return prepare_text(text_from_string(TEXT), TrainingConfig.of(OPTIONS | options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    list(open_run(open_text, folder, OPTIONS))
    return folder


# --- Start ----------------------------------------------------------------------------------------


def test_a_fresh_start_has_the_options_alone() -> None:
    start = fresh(OPTIONS)
    assert start.config == TrainingConfig.of(OPTIONS)
    assert start.state == TrainingState()
    assert (start.earlier, start.base, start.position) == (None, None, {})


def test_a_resumed_start_has_the_state_of_the_checkpoint(trained: Path) -> None:
    start = resumed(RunFolder(trained), {"steps": 9})
    assert start.config == replace(TrainingConfig.of(OPTIONS), steps=9, engine="compiled")
    assert start.state.step == 4
    assert start.earlier is not None
    assert start.position["metrics_lines"] == len(
        (trained / "metrics.jsonl").read_text().splitlines()
    )


def test_a_fine_tuned_start_has_the_shape_of_its_base(trained: Path) -> None:
    base = load_checkpoint(trained / "model.safetensors")
    start = fine_tuned(base, {"minutes": 1.0})
    assert (start.config.hidden_size, start.config.cell) == (8, "gru")
    shape = {"cell": "gru", "hidden_size": 8, "layers": 1, "norm": "none", "read_counts": False}
    assert start.fixed == {"minutes": 1.0} | shape
    assert start.state == TrainingState()
    with pytest.raises(CharloomError, match="--cell is rnn, but the model of --from has gru"):
        fine_tuned(base, {"cell": "rnn"})


def test_the_folder_decides_which_start_it_is(trained: Path, tmp_path: Path) -> None:
    assert start_of(RunFolder(trained), {}, resume=True).earlier is not None
    assert start_of(RunFolder(tmp_path / "new"), {}, resume=True).earlier is None
    from_run = start_of(RunFolder(tmp_path / "new"), {"from_run": str(trained)}, resume=False)
    assert from_run.base is not None
    with pytest.raises(CharloomError, match="already holds a run"):
        start_of(RunFolder(trained), {}, resume=False)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(
        (trained / "model.safetensors").read_bytes()
    )
    with pytest.raises(CharloomError, match=r"no resume.safetensors to resume from: use --from"):
        start_of(RunFolder(tmp_path / "model"), {}, resume=True)


# --- Recorder and checkpoints ---------------------------------------------------------------------


def progress(kind: str, step: int, **more: Any) -> Progress:
    numbers = {"loss": 2.0, "smoothed_loss": 2.5, "learning_rate": 0.1, "gradient_norm": 1.0}
    return Progress(
        kind=kind,
        step=step,
        epoch=0.5,
        done=0.5,
        characters=100 * step,
        elapsed=step,
        **numbers,
        **more,
    )


def test_a_recorder_cuts_its_files_to_its_position_and_continues(tmp_path: Path) -> None:
    files, clock = RunFolder(tmp_path), Clock()
    recorder = Recorder(files, {}, clock)
    recorder.start(0, {"uniform": 1.0})
    recorder.record(progress("step", 1))
    recorder.record(
        progress("validation", 1, validation=Validation(1.5, 10, "carried"), sample="a\nb")
    )
    position = recorder.sync()
    whole = files.metrics.read_bytes(), files.samples.read_bytes()
    assert position == {"metrics_lines": 2, "samples_bytes": len(whole[1])}
    assert whole[1] == b"--- step 1, 1.5000 nats\na\nb\n\n"
    recorder.record(progress("report", 2))
    recorder.record(progress("validation", 2, sample="c"))
    recorder.close()
    assert files.samples.read_bytes() == whole[1] + b"--- step 2\nc\n\n"
    again = Recorder(files, position, clock)
    assert (files.metrics.read_bytes(), files.samples.read_bytes()) == whole
    again.record(progress("report", 2))
    lines = [json.loads(line) for line in files.metrics.read_text().splitlines()]
    assert [(line["event"], line["step"]) for line in lines] == [
        ("start", 0),
        ("validation", 1),
        ("report", 2),
    ]
    assert again.sync() == {"metrics_lines": 3, "samples_bytes": len(whole[1])}


def test_samples_that_the_user_deleted_do_not_become_zeros(tmp_path: Path) -> None:
    recorder = Recorder(RunFolder(tmp_path), {"samples_bytes": 1_000, "metrics_lines": 5}, Clock())
    assert (tmp_path / "samples.txt").read_bytes() == b""
    assert recorder.sync()["samples_bytes"] == 0


def test_a_file_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(CharloomError, match=r"cannot write to .*--resume"):
        Recorder(RunFolder(tmp_path), {}, Clock())


def test_checkpoints_save_what_a_start_resumes_from(tmp_path: Path) -> None:
    text, config = prepared(), TrainingConfig.of(OPTIONS)
    clock = Clock(before=5.0)
    setup = open_setup(Start(config, OPTIONS), text, config, SINGLE_PROCESS)
    files = RunFolder(tmp_path)
    checkpoints = Checkpoints(files, text, config, setup, SINGLE_PROCESS, clock)
    assert not checkpoints.are_due()
    assert not checkpoints.resume_exists()
    state = TrainingState(step=3, smoothed_loss=2.0)
    checkpoints.save_if_best(progress("validation", 3, best=False), state)
    assert not checkpoints.best_exists()
    checkpoints.save_if_best(progress("validation", 3, best=True), state)
    assert checkpoints.load_best().metrics["step"] == 3
    checkpoints.save_resume(state, {"metrics_lines": 2, "samples_bytes": 7})
    start = resumed(files, {})
    assert start.state.step == 3
    assert start.state.elapsed >= 5.0
    assert (start.position["metrics_lines"], start.position["samples_bytes"]) == (2, 7)
    np.testing.assert_array_equal(start.earlier.parameters.flat, setup.engine.parameters.flat)  # type: ignore[union-attr]
    setup.engine.parameters.flat[0] = math.nan
    with pytest.raises(DivergedError):
        checkpoints.refuse_if_diverged(state)


# --- Schedule -------------------------------------------------------------------------------------


def test_a_schedule_by_steps_needs_no_clock() -> None:
    def clock() -> float:
        return 0.0

    state = TrainingState()
    config = TrainingConfig.of({"steps": 200, "refit": 0.5, "split": "60/30/10"})
    schedule = Schedule(config, 200, 100, state, clock, lambda _: 0.0)
    found: dict[str, list[int]] = {"validation": [], "report": [], "refit": []}
    for state.step in range(201):
        if schedule.validation_is_due():
            found["validation"].append(state.step)
            state.validated_step = state.step
        if schedule.report_is_due():
            found["report"].append(state.step)
        if schedule.refit_is_due():
            found["refit"].append(state.step)
    assert found["validation"] == list(range(0, 201, 10))
    assert found["report"] == list(range(0, 201, 2))
    assert found["refit"] == list(range(100, 200))
    assert schedule.done() == 1


def test_a_schedule_by_minutes_reserves_time_for_the_end() -> None:
    now = [0.0]
    config = TrainingConfig.of({"minutes": 1.0, "preset": "small"})
    schedule = Schedule(config, None, 100, TrainingState(), lambda: now[0], lambda _: 20.0)
    now[0] = 20.0
    assert schedule.done() == pytest.approx(0.5)
    schedule.note_validation(began=10.0)  # it took ten seconds, and so will the last one
    assert schedule.done() == pytest.approx(20 / 29)
    now[0] = 29.0
    assert schedule.done() == 1


# --- Opening --------------------------------------------------------------------------------------


def test_a_text_that_is_prepared_is_not_read_again(tmp_path: Path) -> None:
    text = prepared()
    run = open_run(text, tmp_path / "run", OPTIONS)
    assert run.dataset is text.dataset
    list(run)
    files = ("model.safetensors", "samples.txt")
    list(open_run(open_text, tmp_path / "other", OPTIONS))
    for name in files:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_known_speed_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> float:
        raise AssertionError("the speed is known")

    monkeypatch.setattr("charloom.training.planner.measure_speed", fail)
    options = {"minutes": 1.0, "threads": 1, "engine": "reference"}
    control = RunControl(should_stop=lambda: True)
    run = open_run(prepared(), tmp_path / "run", options, speed=0.25, control=control)
    assert "at 0.25 times the reference speed" in run.notes[0]
    list(run)
    assert run.interrupted


def test_a_caller_can_omit_the_mixture(tmp_path: Path) -> None:
    for adds in (False, True):
        control = RunControl(adds_mixture=lambda adds=adds: adds)  # type: ignore[misc]
        run = open_run(prepared(), tmp_path / str(adds), OPTIONS, control=control)
        list(run)
        assert (run.model().checkpoint.mixture is not None) == adds


def test_a_run_that_cannot_be_opened_leaves_no_folder_and_no_lock(tmp_path: Path) -> None:
    def fail(config: TrainingConfig) -> Text:
        raise CharloomError("missing text: pass one")

    with pytest.raises(CharloomError, match="missing text"):
        open_run(fail, tmp_path / "run", OPTIONS)
    assert not (tmp_path / "run").exists()
