"""A run whose checkpoints can be damaged."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from charloom.cli import main
from charloom.runs import RESUME_FILE
from helpers.checkpoints import OPTIONS
from helpers.texts import PROMISES

# --- Helpers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run, with its text beside it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    text = folder / "woods.txt"
    text.write_text(PROMISES, encoding="utf-8")
    command = ["train", str(text), "--out", str(folder / "run"), "--steps", "4", *OPTIONS]
    assert main(command) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def model_file(trained_run: Path) -> bytes:
    return (trained_run / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def resume_file(trained_run: Path) -> bytes:
    return (trained_run / RESUME_FILE).read_bytes()


@pytest.fixture(autouse=True)
def nothing_is_left_behind(here: Path) -> Iterator[None]:
    """The current folder, an empty one, must be empty in the end."""
    yield
    assert list(here.iterdir()) == []
