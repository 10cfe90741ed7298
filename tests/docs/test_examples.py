"""The examples run, from a clean start; they are what people copy first."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import charloom
from helpers.paths import ROOT

EXAMPLES = ROOT / "examples"


def run_example(folder: Path, name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_on_your_own_text(tmp_path: Path) -> None:
    lines = (
        f"I have {n} texts of my own, and it goes on and on, {n * n} times.\n" for n in range(400)
    )
    (tmp_path / "mine.txt").write_text("".join(lines))
    out = run_example(tmp_path, "own_text.py", "mine.txt", "0.05")
    assert "bits per character" in out
    assert (tmp_path / "own.safetensors").exists()
    (tmp_path / "mine.txt").write_text("A short text of my own.\n" * 20)
    assert "no test split" in run_example(tmp_path, "own_text.py", "mine.txt", "0.05")


def test_names(tmp_path: Path) -> None:
    out = run_example(tmp_path, "names.py", "unicode-names", "0.05")
    new, likeliest, strangest = (part.splitlines()[1:] for part in out.split("\n\n"))
    known = set(charloom.open_text("unicode-names").read().split("\n"))
    assert len(new) == 15
    assert len(likeliest) == 10
    assert not known & {name.strip() for name in (*new, *likeliest)}
    values, names = zip(*(line.strip().split("  ", 1) for line in strangest), strict=True)
    assert len(names) == 10
    assert known > set(names)
    assert sorted(map(float, values), reverse=True) == list(map(float, values))


def test_names_of_a_list_of_ones_own(tmp_path: Path) -> None:
    ways = ["Street", "Lane", "Road", "Hill"]
    lines = [
        f"{a}{b} {way}" for a in "ABCDEFGHKLMNPR" for b in ("ash", "oak", "im") for way in ways
    ]
    (tmp_path / "mine.txt").write_text("\n".join([*lines, "44 & 7"]) + "\n")
    out = run_example(tmp_path, "names.py", "mine.txt", "0.05")
    assert out.count("\n") == 15 + 10 + 10 + 5
    assert "  44 & 7\n" in out.rpartition("per character:\n")[2]


def test_comparing_cells(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="Matplotlib (extra `notebook`) is not installed")
    out = run_example(tmp_path, "compare_cells.py", "10")
    assert [line.split(":")[0].strip() for line in out.splitlines()] == ["rnn", "lstm", "gru"]
    assert (tmp_path / "compare_cells.png").stat().st_size > 10_000


def cells(notebook: Any, kind: str) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def test_the_notebook_is_stored_with_its_outputs() -> None:
    nbformat = pytest.importorskip("nbformat", reason="the extra `notebook` is not installed")
    notebook = nbformat.read(EXAMPLES / "from_scratch.ipynb", as_version=4)
    outputs = [output for cell in cells(notebook, "code") for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
    counts = [cell.execution_count for cell in cells(notebook, "code")]
    assert counts == list(range(1, len(counts) + 1)), "run it once, from a clean kernel"


def test_the_notebook_runs_from_a_clean_kernel(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="the extra `notebook` is not installed")
    pytest.importorskip("ipykernel", reason="the extra `notebook` is not installed")
    pytest.importorskip("matplotlib", reason="Matplotlib (extra `notebook`) is not installed")
    import nbformat

    notebook = nbformat.read(EXAMPLES / "from_scratch.ipynb", as_version=4)
    (training,) = [c for c in cells(notebook, "code") if "\nseconds = 50\n" in c.source]
    training.source = training.source.replace("seconds = 50", "seconds = 4")
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    said = "".join(
        output.get("text", "") for cell in cells(notebook, "code") for output in cell.outputs
    )
    assert "WRONG" in said  # the planted mistake, seen
    first, second = said.split("WRONG", 1)
    assert first.count("right") >= 5  # and the whole check without it
    assert "this notebook took" in second
