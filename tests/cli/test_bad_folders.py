"""Folders that a run cannot be written to, or must not be."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from charloom.cli.main import main
from charloom.training.options import OPTIONS, option_name
from helpers.cli import refused
from helpers.runs import FEW
from helpers.texts import WOODS


def test_unwritable_path_is_refused(text_file: str) -> None:
    Path("file").write_text("kept", encoding="utf-8")
    Path("dangling").symlink_to("nowhere/at/all")
    places = ["file", "file/below", "dangling", "new/" + "x" * 300, "x" * 300 + "/new"]
    if sys.platform == "linux":
        places += ["/proc/new", "/dev/null", "/dev/null/new"]
    for out in places:
        line = refused("train", text_file, "--out", out, *FEW)
        assert "--out" in line or "file name too long" in line.lower()
        assert "--out" in refused("demo", "--minutes=0.001", "--out", out)


def test_an_empty_name_of_a_folder_is_refused(text_file: str) -> None:
    assert "--out" in refused("train", text_file, "--out=", *FEW)


def test_a_run_that_cannot_be_written_here_is_refused(text_file: str) -> None:
    """As where the current folder is read-only, which the system's owner is not held to."""
    Path("runs").write_text("a file where the runs would be", encoding="utf-8")
    assert "--out" in refused("train", text_file, *FEW)
    assert "--out" in refused("demo", "--minutes=0.001")


def test_a_read_only_folder_is_refused(text_file: str) -> None:
    Path("locked").mkdir(mode=0o500)
    if os.access("locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "--out" in refused("train", text_file, "--out=locked/run", *FEW)


def test_a_folder_of_something_else_is_left_alone(text_file: str) -> None:
    folder = Path("letters")
    folder.mkdir()
    (folder / "letter.txt").write_text("Dear …", encoding="utf-8")
    (folder / ".draft.tmp").write_text("Dear …", encoding="utf-8")
    (folder / ".lock").write_text("somebody's", encoding="utf-8")
    (folder / ".folder.tmp").mkdir()
    for arguments in (
        ["train", text_file, "--out=letters", *FEW],
        ["train", text_file, "--out=letters", "--resume", *FEW],
        ["demo", "--minutes=0.001", "--out=letters"],
    ):
        assert "letters is not empty" in refused(*arguments)


def test_a_refusal_leaves_no_lock_in_a_folder(text_file: str) -> None:
    Path("letters").mkdir()
    Path("letters/letter.txt").write_text("Dear …", encoding="utf-8")
    assert "letters is not empty" in refused("train", text_file, "--out=letters", *FEW)


def test_run_is_never_overwritten(text_file: str, trained_run: str) -> None:
    shutil.copytree(trained_run, "run")
    assert "--resume" in refused("train", text_file, "--out=run", *FEW)
    assert "--out" in refused("demo", "--minutes=0.001", "--out=run")


def test_model_without_resume_file_is_never_overwritten(text_file: str, trained_run: str) -> None:
    """A model still loads after its larger file was deleted, or if it came without one."""
    shutil.copytree(trained_run, "run")
    Path("run/resume.safetensors").unlink()
    refused("train", text_file, "--out=run", "--resume", *FEW)


def test_deleted_samples_are_not_padded_with_zeros(text_file: str, trained_run: str) -> None:
    shutil.copytree(trained_run, "run")
    Path("run/samples.txt").unlink()
    assert main(["train", text_file, "--out=run", "--resume", "--steps=5"]) == 0
    assert b"\0" not in Path("run/samples.txt").read_bytes()


def test_resume_with_another_text_or_options_is_refused(text_file: str, trained_run: str) -> None:
    shutil.copytree(trained_run, "run")
    Path("other.txt").write_text(WOODS.replace("woods", "moods"), encoding="utf-8")
    line = refused("train", "other.txt", "--out=run", "--resume")
    assert "not the one" in line
    assert "--out" in line, "it must say what to do"
    again = ["train", text_file, "--out=run", "--resume"]
    assert "--hidden-size" in refused(*again, "--hidden-size=9")
    assert "--steps" in refused(*again, "--steps=3")
    assert "--cell" in refused(*again, "--cell=lstm")
    assert "--bytes" in refused(*again, "--bytes")
    assert "--from" in refused(*again, "--from", trained_run)


@pytest.mark.parametrize("name", OPTIONS)
def test_invalid_option_is_refused_on_resume(text_file: str, trained_run: str, name: str) -> None:
    shutil.copytree(trained_run, "run")
    value = f"{option_name(name)}=\N{SNOWMAN}"
    line = refused("train", text_file, "--out=run", "--resume", value)
    assert option_name(name) in line


def test_byte_run_resumes_in_its_default_folder(text_file: str) -> None:
    assert main(["train", text_file, "--bytes", *FEW]) == 0
    assert main(["train", text_file, "--resume", "--steps=5"]) == 0
