"""A run and its text, for the tests of the command."""

from pathlib import Path

import pytest

from helpers.runs import FEW, train_tiny
from helpers.texts import WOODS


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, and a run on it."""
    folder = tmp_path_factory.mktemp("trained")
    train_tiny(folder, WOODS, *FEW)
    return folder


@pytest.fixture(scope="session")
def text_file(trained_folder: Path) -> str:
    return str(trained_folder / "woods.txt")


@pytest.fixture(scope="session")
def trained_run(trained_folder: Path) -> str:
    return str(trained_folder / "run")
