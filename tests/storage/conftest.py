"""A run whose checkpoints can be damaged."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from charloom.storage.folders import RESUME_FILE
from helpers.checkpoints import OPTIONS
from helpers.runs import train_tiny
from helpers.texts import PROMISES


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run, with its text beside it."""
    return train_tiny(tmp_path_factory.mktemp("run"), PROMISES, "--steps=4", *OPTIONS)


@pytest.fixture(scope="session")
def model_file(trained_run: Path) -> bytes:
    return (trained_run / "model.safetensors").read_bytes()


@pytest.fixture(scope="session")
def resume_file(trained_run: Path) -> bytes:
    return (trained_run / RESUME_FILE).read_bytes()


@pytest.fixture(autouse=True)
def nothing_is_left_behind(here: Path) -> Iterator[None]:
    """The current folder, an empty one, must be empty in the end."""
    yield
    assert list(here.iterdir()) == []
