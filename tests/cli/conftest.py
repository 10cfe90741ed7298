"""A run and its text, and an empty current folder, for every test of the command."""

from pathlib import Path

import pytest

from charloom.cli import main
from helpers.runs import FEW
from helpers.texts import WOODS

# --- Helpers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, and a run on it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "woods.txt").write_text(WOODS, encoding="utf-8")
    command = ["train", str(folder / "woods.txt"), "--out", str(folder / "run"), *FEW]
    assert main(command) == 0
    return folder


@pytest.fixture(scope="module")
def text_file(trained_place: Path) -> str:
    return str(trained_place / "woods.txt")


@pytest.fixture(scope="module")
def trained_run(trained_place: Path) -> str:
    return str(trained_place / "run")
