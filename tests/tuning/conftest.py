"""A search and its text."""

from pathlib import Path

import pytest

from charloom import planning, tuning
from helpers.searches import _connect_without_waiting


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(planning, "PROBED_FOR", 0.02)
    monkeypatch.setattr(tuning, "_connect", _connect_without_waiting)
    return folder
