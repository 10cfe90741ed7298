"""What --resume starts, refuses and continues.

It starts what is not there yet, refuses another text or other options and changes nothing then, and
continues further when an end is raised.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from charloom.cli import terminal
from charloom.cli.main import main
from charloom.engines.backend import Backend
from charloom.runs import clock as clock_module
from charloom.storage.checkpoint import load_checkpoint, save_checkpoint
from charloom.training import schedule
from helpers.cli import refused
from helpers.faults import (
    CONFIGURATIONS,
    SMALL,
    Workshop,
    command_line,
    content_of,
    differences,
    file_hashes,
    file_names,
    metrics_of,
    said,
    tensors_of,
)


@pytest.mark.parametrize("there", [(), ("empty folder",), ("empty folder", "killed before a save")])
def test_resume_starts_where_there_is_no_checkpoint(
    there: tuple[str, ...],
    workshop: Workshop,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options, folder = CONFIGURATIONS["gru"], tmp_path / "deep" / "run"
    if "empty folder" in there:
        folder.mkdir(parents=True)
    if "killed before a save" in there:
        (folder / "metrics.jsonl").write_text('{"event": "validation", "st', encoding="utf-8")
        (folder / "samples.txt").write_text("--- step 0", encoding="utf-8")
        (folder / ".model.safetensors.abcdefgh.tmp").write_bytes(b"half")
    status, errors = command_line(capsys, workshop.arguments(folder, f"{options} --resume"))
    assert status == 0, errors
    assert differences(folder, workshop.through(options)) == []


def test_a_used_folder_is_refused_without_resume(finished_run: Path, workshop: Workshop) -> None:
    before = file_hashes(finished_run)
    line = refused(*workshop.arguments(finished_run, f"{SMALL} --steps 6"))
    assert "already holds a run" in line
    assert "--resume" in line
    assert file_hashes(finished_run) == before


def test_a_folder_of_something_else_is_refused_and_left_alone(
    workshop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "letters"
    folder.mkdir()
    for name in ("letter.txt", ".letter.txt.tmp"):
        (folder / name).write_text("Dear")
    before = file_hashes(folder)
    assert "is not empty" in refused(*workshop.arguments(folder, SMALL))
    assert {name: found for name, found in file_hashes(folder).items() if name != ".lock"} == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--hidden-size 5", "--hidden-size is 5, but the run has 4"),
        ("--cell lstm", "--cell is lstm, but the run has gru"),
        ("--layers 2", "--layers is 2, but the run has 1"),
        ("--dropout 0.5", "--dropout is 0.5, but the run has 0"),
        ("--dtype float64", "--dtype is float64, but the run has float32"),
        ("--batch-size 2", "--batch-size is 2, but the run has 4"),
        ("--window 9", "--window is 9, but the run has 8"),
        ("--optimizer sgd", "--optimizer is sgd, but the run has adamw"),
        ("--learning-rate 0.1", "--learning-rate is 0.1, but the run has 0.004"),
        ("--schedule linear", "--schedule is linear, but the run has cosine"),
        ("--warmup 0.5", "--warmup is 0.5, but the run has 0.02"),
        ("--clip 2", "--clip is 2.0, but the run has 1"),
        ("--split 80/10/10", "--split is 80/10/10, but the run has 90/5/5"),
        ("--seed 1", "--seed is 1, but the run has 0"),
        ("--validate-every 2", "--validate-every is 2, but the run has 3"),
        ("--preset classic", "--preset is classic, but the run has auto"),
        ("--keep-newlines", "--keep-newlines is"),
        ("--bytes", "--bytes is"),
        ("--from elsewhere", "--from is"),
        ("--steps 5", "--steps 5 is less than the run's 6"),
        ("--hidden-size 0", "--hidden-size is 0"),
    ],
)
def test_other_options_are_refused_by_name(
    options: str,
    named: str,
    finished_run: Path,
    workshop: Workshop,
) -> None:
    before = file_hashes(finished_run)
    line = refused(*workshop.arguments(finished_run, f"{options} --resume"))
    assert named in line
    assert file_hashes(finished_run) == before


def test_another_text_is_refused(finished_run: Path, workshop: Workshop, tmp_path: Path) -> None:
    other = tmp_path / workshop.text.name
    other.write_text("." + workshop.text.read_text(encoding="utf-8"), encoding="utf-8")
    before = file_hashes(finished_run)
    line = refused("train", str(other), "--out", str(finished_run), "--resume")
    assert "is not the one that the run was trained on" in line
    assert file_hashes(finished_run) == before


@pytest.mark.parametrize("options", ["", f"{SMALL} --steps 6 --seed 0 --cell gru"])
def test_a_finished_run_stays_as_it_is(
    options: str, finished_run: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    content, before = content_of(finished_run), file_hashes(finished_run)
    status, errors = command_line(capsys, workshop.arguments(finished_run, f"{options} --resume"))
    assert status == 0, errors
    assert differences(finished_run, content) == []
    after = file_hashes(finished_run)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {"resume.safetensors", "report.html"}
    assert "best validation loss:" in errors


def test_a_file_of_options_is_compared_like_options(
    finished_run: Path, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.toml"
    arguments = [*workshop.arguments(finished_run, "--resume"), "--config", str(file)]
    file.write_text("hidden-size = 4\ndropout = 0\n")
    assert command_line(capsys, arguments)[0] == 0
    file.write_text("hidden-size = 4\nwindow = 9\n")
    assert "--window is 9, but the run has 8" in refused(*arguments)


@pytest.mark.parametrize(
    ("name", "content", "option"),
    [
        ("crlf.txt", ("The cat sat.\r\nThe dog sat.\r\n" * 40).encode(), "--keep-newlines"),
        ("latin.txt", ("Le chat était là.\n" * 40).encode("latin-1"), "--bytes"),
    ],
)
def test_omitted_options_default_to_the_run(
    name: str,
    content: bytes,
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    assert main(["train", name, option, *SMALL.split(), "--steps", "2"]) == 0
    status, errors = command_line(capsys, ["train", name, "--resume", "--steps", "4"])
    assert status == 0, errors
    assert metrics_of(tmp_path / "runs" / Path(name).stem)[-1]["step"] == 4


@pytest.mark.parametrize(
    ("first", "less", "more"),
    [
        ("--steps 6", "--steps 5", "--steps 12"),
        ("--epochs 0.25", "--epochs 0.2", "--epochs 0.5"),
        ("--minutes 800 --steps 6", "--minutes 700", "--minutes 900 --steps 12"),
    ],
)
def test_an_end_can_be_raised_and_not_lowered(
    first: str,
    less: str,
    more: str,
    workshop: Workshop,
    tmp_path: Path,
) -> None:
    # Only with a constant learning rate do the first steps not depend on where the run ends.
    constant = f"{SMALL} --schedule constant --warmup 0"
    folder, through = tmp_path / "run", tmp_path / "through"
    assert main(workshop.arguments(through, f"{constant} {more}")) == 0
    assert main(workshop.arguments(folder, f"{constant} {first}")) == 0
    lines, samples = metrics_of(folder), (folder / "samples.txt").read_bytes()
    line = refused(*workshop.arguments(folder, f"{less} --resume"))
    assert line.startswith(f"charloom: {less}")
    assert "is less than the run's" in line
    assert main(workshop.arguments(folder, f"{more} --resume")) == 0
    assert lines[-1]["step"] < metrics_of(folder)[-1]["step"] == metrics_of(through)[-1]["step"]
    assert metrics_of(folder)[: len(lines)] == lines
    assert (folder / "samples.txt").read_bytes().startswith(samples)
    assert tensors_of(folder) == tensors_of(through)


def test_more_minutes_go_on(
    workshop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = 0.0

    def clock() -> float:
        nonlocal seconds
        seconds += 0.05
        return seconds

    for module in (terminal, clock_module, schedule):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))
    folder, steps = tmp_path / "run", [0]
    for minutes in (0.1, 0.2, 0.4):
        seconds += 10_000  # between the commands
        options = SMALL if minutes == 0.1 else "--resume"
        assert main(workshop.arguments(folder, f"{options} --minutes {minutes}")) == 0
        lines = metrics_of(folder)
        elapsed = [line["timing"]["elapsed_seconds"] for line in lines]
        assert elapsed == sorted(elapsed)
        assert 30 * minutes < elapsed[-1] < 60 * minutes + 1
        assert lines[-1]["step"] > steps[-1]
        steps.append(lines[-1]["step"])
    refused(*workshop.arguments(folder, "--resume --minutes 0.3"))


@pytest.mark.parametrize("options", ["--threads 1", "--engine reference --threads 3"])
def test_other_threads_are_only_noted(
    options: str, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(workshop.arguments(folder, f"{SMALL} --steps 3 --threads 2")) == 0
    arguments = workshop.arguments(folder, "--resume --steps 4")
    status, errors = command_line(capsys, arguments)
    assert status == 0
    assert "threads: 2" in errors  # the run's own
    assert "not repeat" not in errors
    arguments = workshop.arguments(folder, f"--resume --steps 6 {options}")
    status, errors = command_line(capsys, arguments)
    assert status == 0
    assert f"threads: {options[-1]}" in errors
    notes = [line for line in errors.splitlines() if "will not repeat to the byte" in line]
    assert len(notes) == 1
    assert "compiled on 2 threads" in notes[0]
    assert metrics_of(folder)[-1]["step"] == 6


def test_omitted_engine_defaults_to_the_run(
    workshop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # As if there were another engine, which `auto` prefers to the one that the run asked for.
    open_backend = Backend.open

    def open_one_of_two(self: Backend, *arguments: Any, **named: Any) -> Any:
        engine = open_backend(Backend("reference", self.threads), *arguments, **named)
        engine.name = {"auto": "other"}.get(self.engine, self.engine)
        return engine

    monkeypatch.setattr(Backend, "open", open_one_of_two)
    folder = tmp_path / "run"
    assert main(workshop.arguments(folder, f"{SMALL} --steps 3 --engine reference")) == 0
    status, errors = command_line(capsys, workshop.arguments(folder, "--resume --steps 6"))
    assert status == 0, errors
    assert "engine reference" in errors
    assert "not repeat" not in errors


@pytest.mark.parametrize("more", ["", "--steps 8"])
def test_deleted_model_is_searched_again(
    more: str, finished_run: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished_run / "model.safetensors").unlink()
    status, errors = command_line(capsys, workshop.arguments(finished_run, f"--resume {more}"))
    assert status == 0, errors
    assert "the search for the best weights starts again" in errors
    assert "best validation loss:" in errors
    load_checkpoint(finished_run / "model.safetensors")


def test_deleted_samples_are_not_recreated(finished_run: Path, workshop: Workshop) -> None:
    (finished_run / "samples.txt").unlink()
    assert main(workshop.arguments(finished_run, "--resume --steps 8")) == 0
    assert (finished_run / "samples.txt").read_text(encoding="utf-8").startswith("--- step 8, ")


@pytest.mark.parametrize(
    "options",
    [
        "--cell lstm --learning-rate 1e6 --clip 0",
        "--cell gru --learning-rate 1e6 --optimizer adamw --clip 1",
        "--cell rnn --learning-rate 1e6 --clip 0 --split 100/0/0",
        "--cell lstm --learning-rate 1e5 --clip 0 --validate-every 1",
        "--cell lstm --learning-rate 1e6 --clip 0 --split 100/0/0 --validate-every 1",
    ],
)
def test_non_finite_loss_ends_in_one_line(options: str, workshop: Workshop, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = workshop.train(folder, f"{SMALL} --steps 200 {options}")
    assert done.returncode == 2, done.stderr
    (line,) = said(done.stderr)
    assert "the loss became NaN or infinite at step " in line
    assert "--learning-rate" in line
    assert "smaller --clip (it is 0)" not in line  # there is no limit to make smaller
    for name in ("model.safetensors", "resume.safetensors"):
        checkpoint = load_checkpoint(folder / name)
        assert np.isfinite(checkpoint.parameters.flat).all()
    assert file_names(folder) == sorted(
        ["metrics.jsonl", "model.safetensors", "report.html", "resume.safetensors", "samples.txt"]
    )


def test_a_run_of_an_earlier_version_keeps_its_line_ends_and_its_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "\ufeff" + "The cat sat.\r\nThe dog sat.\r\n" * 40
    Path("text.txt").write_bytes(text.encode())
    # An earlier version read every text as --raw does now, and recorded another option.
    assert main(["train", "text.txt", "--out", "run", "--raw", *SMALL.split(), "--steps", "2"]) == 0
    for name in ("model", "resume"):
        checkpoint = load_checkpoint(Path(f"run/{name}.safetensors"))
        for option in ("keep_newlines", "encoding", "encoding_errors"):
            del checkpoint.training[option]
        checkpoint.training |= {"raw": False, "normalize_newlines": False}
        save_checkpoint(Path(f"run/{name}.safetensors"), checkpoint)
    for step in ("4", "6"):  # the second time, its own record is read
        assert main(["evaluate", "run"]) == 0
        status, errors = command_line(
            capsys, ["train", "text.txt", "--out", "run", "--resume", "--steps", step]
        )
        assert status == 0, errors
    resumed = load_checkpoint(Path("run/model.safetensors"))
    assert resumed.training["normalize_newlines"] is False
    assert {"\r", "\ufeff"} <= set(resumed.vocabulary.characters)
    line = refused("train", "text.txt", "--out", "run", "--resume", "--normalize-newlines")
    assert "--keep-newlines is False, but the run has True" in line
