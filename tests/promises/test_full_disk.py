"""A full disk ends in one sentence and leaves a folder that can be resumed from."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from charloom.storage.checkpoint import load_checkpoint
from helpers.faults import CONFIGURATIONS, Workshop, file_names, posix_only, run_program, said


def refused_write(errors: str) -> None:
    """A report that could not be drawn before, which ends nothing, may have been told of."""
    *notes, line = said(errors)
    assert all("report.html" in note and "training continues" in note for note in notes)
    assert len(notes) <= 1
    assert line.startswith("charloom: cannot write to ")
    assert "the last checkpoint there is intact" in line
    assert "--resume" in line


@posix_only
@pytest.mark.parametrize(
    "point",
    [
        "before making a temporary resume.safetensors #1",
        "halfway through writing resume.safetensors #1",
        "before syncing a file #4",  # after report.html, metrics.jsonl and samples.txt
        "halfway through writing model.safetensors #1",
        "halfway through writing metrics.jsonl #1",
        "before writing samples.txt #1",
    ],
)
def test_full_disk_keeps_the_checkpoint(point: str, killed_run: Path, workshop: Workshop) -> None:
    before = (killed_run / "resume.safetensors").read_bytes()
    after_first = "model" in point or "samples" in point  # which come with the next validation
    stopped = workshop.drive(killed_run, "--resume", actions={point: "full disk"})
    assert stopped.returncode == 2, stopped.stderr
    refused_write(stopped.stderr)
    assert after_first or (killed_run / "resume.safetensors").read_bytes() == before
    assert file_names(killed_run) == workshop.through(CONFIGURATIONS["lstm"])["files"]
    assert load_checkpoint(killed_run / "resume.safetensors").position is not None
    load_checkpoint(killed_run / "model.safetensors")
    assert workshop.resume_and_compare(killed_run, CONFIGURATIONS["lstm"]) == []


@posix_only
def test_disk_full_from_the_start_leaves_a_usable_folder(
    workshop: Workshop, tmp_path: Path
) -> None:
    options, folder = CONFIGURATIONS["gru"], tmp_path / "run"
    actions = {"halfway through writing resume.safetensors #1": "full disk"}
    stopped = workshop.drive(folder, options, actions=actions)
    assert stopped.returncode == 2, stopped.stderr
    refused_write(stopped.stderr)
    assert file_names(folder) == ["metrics.jsonl", "samples.txt"]
    assert workshop.resume_and_compare(folder, options) == []


@posix_only
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS may end a process at this limit")
def test_a_limit_on_the_size_of_files(killed_run: Path, workshop: Workshop) -> None:
    before = (killed_run / "resume.safetensors").read_bytes()
    stopped = workshop.drive(killed_run, "--resume", largest_file=len(before) // 2)
    assert stopped.returncode == 2, stopped.stderr
    refused_write(stopped.stderr)
    assert (killed_run / "resume.safetensors").read_bytes() == before
    assert file_names(killed_run) == workshop.through(CONFIGURATIONS["lstm"])["files"]
    assert workshop.resume_and_compare(killed_run, CONFIGURATIONS["lstm"]) == []


@posix_only
def test_a_disk_that_is_really_full(killed_run: Path, workshop: Workshop, tmp_path: Path) -> None:
    disk, result = tmp_path / "disk", tmp_path / "result"
    disk.mkdir()
    in_own_mounts = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
    mount = 'mount -t tmpfs -o size=1m tmpfs "$0"'
    if (
        shutil.which("unshare") is None
        or run_program([*in_own_mounts, mount, str(disk)]).returncode
    ):
        pytest.skip("this system lets a test mount no disk of its own")
    script = f"""{mount}
        cp -R "$1" "$0/run"
        cat /dev/zero > "$0/filler" 2> /dev/null || true
        cp "$0/run/resume.safetensors" "$2.before"
        shift 2
        status=0
        "$@" || status=$?
        cp -R "$0/run" "$RESULT"
        exit $status"""
    command = [sys.executable, "-m", "charloom", *workshop.arguments(disk / "run", "--resume")]
    stopped = run_program(
        [*in_own_mounts, script, str(disk), str(killed_run), str(result), *command],
        env={**os.environ, "RESULT": str(result)},
    )
    assert stopped.returncode == 2, stopped.stderr
    refused_write(stopped.stderr)
    assert "No space left" in stopped.stderr
    before = (killed_run / "resume.safetensors").read_bytes()
    assert (result / "resume.safetensors").read_bytes() == before
    assert file_names(result) == workshop.through(CONFIGURATIONS["lstm"])["files"]
    assert workshop.resume_and_compare(result, CONFIGURATIONS["lstm"]) == []
