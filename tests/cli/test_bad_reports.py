"""Reports and event files that cannot be written."""

import sys
from pathlib import Path

import pytest

from charloom.cli.main import main
from helpers.cli import Captured, refused
from helpers.runs import FEW

# --- Reports and event files ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("nowhere", "not found"),
        ("a-file", "pass the folder of its run"),
        ("empty", "metrics.jsonl not found"),
        ("nu\0ll", "cannot read"),
        ("", "metrics.jsonl not found"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_report_of_a_non_run_is_refused(
    what: str, expected: str, beside: bool, trained_run: str
) -> None:
    Path("a-file").touch()
    Path("empty").mkdir()
    line = refused("report", *([trained_run] if beside else []), what)
    assert expected in line


@pytest.mark.parametrize("out", ["a-folder", "", "missing/page.html", "a-file/page.html", "nu\0ll"])
def test_a_report_that_cannot_be_written_is_refused(out: str, trained_run: str) -> None:
    Path("a-folder").mkdir()
    Path("a-file").touch()
    line = refused("report", trained_run, "--out", out)
    assert "--out is empty" in line or "use another file" in line


def test_missing_tensorboard_names_the_extra(
    text_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    line = refused("train", text_file, "--out", "run", *FEW, "--tensorboard")
    assert "charloom[tensorboard]" in line


def test_a_folder_of_events_that_is_a_file(text_file: str, capsys: Captured) -> None:
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    assert main(["train", text_file, "--out", "run", *FEW]) == 0
    Path("run/tensorboard").touch()
    capsys.readouterr()
    assert main(["train", text_file, "--out", "run", "--resume", "--steps=6", "--tensorboard"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "charloom: " in line]
    assert "cannot write" in line
    assert main(["train", text_file, "--out", "run", "--resume", "--steps=6"]) == 0
