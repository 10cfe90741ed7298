"""What several tests share: where the large texts are, and a small text to train on."""

import os
from pathlib import Path

import pytest


def corpus_path(file_name: str) -> Path:
    """A text of the folder that CHARLOOM_CORPORA names; skips the test where there is none."""
    folder = os.environ.get("CHARLOOM_CORPORA")
    if not folder:
        pytest.skip("CHARLOOM_CORPORA names no folder of texts")
    path = Path(folder) / file_name
    if not path.is_file():
        pytest.skip(f"{file_name} is not in the folder that CHARLOOM_CORPORA names")
    return path


@pytest.fixture(scope="session")
def austen() -> Path:
    return corpus_path("1342-0.txt")


@pytest.fixture(scope="session")
def shakespeare() -> Path:
    return corpus_path("tiny-shakespeare.txt")
