"""Signals finish the step, save, and print a command that resumes.

A second SIGINT or SIGTERM leaves at once. Neither loses anything.
"""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from charloom.storage.checkpoint import load_checkpoint
from helpers.faults import (
    CONFIGURATIONS,
    SENTENCES,
    SMALL,
    Workshop,
    differences,
    generated_text,
    metrics_of,
    note,
    posix_only,
    run_program,
    said,
    wait_for,
)


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `charloom` is the command that is tested."""
    script = tmp_path / "bin" / "charloom"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m charloom "$@"\n')
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}


def printed_command(errors: str) -> str:
    (line,) = said(errors)
    assert line.startswith("charloom: interrupted at step "), line
    return line.partition("everything is saved. To resume: ")[2]


@posix_only
@pytest.mark.parametrize(
    ("name", "status", "point"),
    [
        ("SIGINT", 130, "before a step #8"),
        ("SIGTERM", 143, "before a step #10"),  # whose validation is then still to come
        ("SIGINT", 130, "halfway through writing resume.safetensors #2"),
        ("SIGTERM", 143, "before writing samples.txt #2"),
        ("SIGHUP", 129, "before a step #9"),  # a closed terminal
        ("SIGHUP SIGHUP", 129, "before a step #9"),  # from the shell, and from the system
        ("SIGHUP SIGTERM", 143, "halfway through writing resume.safetensors #2"),
        ("SIGTERM SIGHUP", 143, "before a step #8"),  # from systemd at the end of a session
        ("SIGUSR1", 128 + signal.SIGUSR1, "before a step #8"),
    ],
)
def test_signal_saves_and_the_printed_command_resumes(
    name: str,
    status: int,
    point: str,
    workshop: Workshop,
    tmp_path: Path,
    shell: dict[str, str],
) -> None:
    options, folder = CONFIGURATIONS["lstm"], tmp_path / "a run's folder"
    stopped = workshop.drive(folder, options, actions={point: name}, save_every=1e9)
    assert stopped.returncode == status, stopped.stderr
    position = load_checkpoint(folder / "resume.safetensors").position
    assert position is not None
    assert f"interrupted at step {position['state']['step']}, everything is saved" in stopped.stderr
    assert position["state"]["step"] == metrics_of(folder)[-1]["step"]
    done = run_program(printed_command(stopped.stderr), shell=True, env=shell, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert differences(folder, workshop.through(options)) == []


@posix_only
def test_signal_during_validation_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    workshop.text.write_text(generated_text(SENTENCES, 3500, seed=2), encoding="utf-8")
    options = f"{SMALL} --split 5/95/0 --steps 4 --validate-every 2"
    folder = tmp_path / "run"
    pieces = [point for point in workshop.points(options) if point.startswith("before a piece")]
    in_each = len(pieces) // 3  # of the validations after steps 0, 2 and 4
    assert in_each >= 4, "the validation part is too short for several pieces"
    stopped = workshop.drive(folder, options, actions={pieces[in_each + 1]: "SIGINT"})
    assert stopped.returncode == 130, stopped.stderr
    assert "interrupted at step 2, " in stopped.stderr
    assert len([line for line in metrics_of(folder) if line["event"] == "validation"]) == 1
    assert workshop.resume_and_compare(folder, options) == []


@posix_only
@pytest.mark.parametrize(
    ("names", "status", "point"),
    [
        ("SIGINT SIGINT", 130, "before a step #8"),
        ("SIGTERM SIGTERM", 143, "halfway through writing resume.safetensors #9"),
        ("SIGINT SIGTERM", 143, "after renaming to model.safetensors #2"),
    ],
)
def test_second_signal_exits_at_once(
    names: str, status: int, point: str, workshop: Workshop, tmp_path: Path
) -> None:
    options, folder = CONFIGURATIONS["lstm"], tmp_path / "run"
    stopped = workshop.drive(folder, options, actions={point: names})
    assert stopped.returncode == status, stopped.stderr
    assert said(stopped.stderr) == []
    assert workshop.resume_and_compare(folder, options) == []


@posix_only
@pytest.mark.parametrize("second", [None, signal.SIGINT, signal.SIGTERM])
def test_signals_from_outside(
    second: signal.Signals | None, workshop: Workshop, tmp_path: Path
) -> None:
    options, folder = CONFIGURATIONS["gru"], tmp_path / "run"
    command = workshop.driven(folder, options, actions={"before a step #9": "wait"})
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        wait_for(note(folder, ".reached"), process)
        process.send_signal(signal.SIGINT)
        wait_for(note(folder, ".received"), process)
        assert process.poll() is None  # the step is not finished
        if second is None:
            note(folder, ".released").touch()
        else:
            process.send_signal(second)
        errors = process.communicate(timeout=100)[1]
    assert process.returncode == 128 + (second or signal.SIGINT)
    assert ("everything is saved" in errors) == (second is None)
    assert metrics_of(folder)[-1]["step"] == (9 if second is None else 8)
    assert workshop.resume_and_compare(folder, options) == []


@posix_only
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signal_before_the_first_step_exits_at_once(
    name: str, status: int, workshop: Workshop, tmp_path: Path
) -> None:
    options, folder = CONFIGURATIONS["gru"], tmp_path / "run"
    workshop.drive(folder, options, actions={"before a step #9": "SIGKILL"})
    before = (folder / "resume.safetensors").read_bytes()
    stopped = workshop.drive(folder, "--resume", actions={"before cutting samples.txt #1": name})
    assert stopped.returncode == status, stopped.stderr
    assert said(stopped.stderr) == []
    assert (folder / "resume.safetensors").read_bytes() == before
    assert workshop.resume_and_compare(folder, options) == []
