"""A folder has one trainer at a time, and a lock that was left behind locks nothing."""

import os
import subprocess
from pathlib import Path

import pytest

from helpers.cli import refused
from helpers.faults import (
    CONFIGURATIONS,
    Workshop,
    differences,
    file_hashes,
    note,
    posix_only,
    wait_for,
)


@posix_only
def test_a_second_trainer_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    options, folder = CONFIGURATIONS["gru"], tmp_path / "run"
    command = workshop.driven(folder, options, actions={"before a step #9": "wait"})
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        wait_for(note(folder, ".reached"), process)
        before = file_hashes(folder)
        for more in ("", " --resume"):
            line = refused(*workshop.arguments(folder, options + more))
            assert "another charloom is training in" in line
        assert file_hashes(folder) == before
        note(folder, ".released").touch()
        errors = process.communicate(timeout=100)[1]
    assert process.returncode == 0, errors
    assert differences(folder, workshop.through(options)) == []


@posix_only
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\x00 garbage \n" * 99, f"{os.getpid()}\n".encode()],
    ids=["empty", "garbage", "living process"],
)
def test_stale_lock_is_ignored(content: bytes, killed_run: Path, workshop: Workshop) -> None:
    assert (killed_run / ".lock").exists()
    (killed_run / ".lock").write_bytes(content)
    assert workshop.resume_and_compare(killed_run, CONFIGURATIONS["lstm"]) == []
