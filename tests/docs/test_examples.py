"""The examples run, from a clean start; they are what people copy first."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
    (tmp_path / "mine.txt").write_text("I have a text of my own, and it goes on and on.\n" * 80)
    out = run_example(tmp_path, "own_text.py", "mine.txt", "0.05")
    assert "bits per character" in out
    assert (tmp_path / "own.safetensors").exists()


def test_names(tmp_path: Path) -> None:
    out = run_example(tmp_path, "names.py", "0.05")
    names, said, more = out.partition("\nBeginning with GREEK:\n")
    assert said
    assert names.count("\n") == 20
    assert more.count("GREEK ") == 5


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
