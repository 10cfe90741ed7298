"""Searches that probe shortly and do not wait for the disk."""

import pytest

from charloom import planning, tuning
from helpers.searches import connect_without_waiting


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PROBED_FOR", 0.02)
    monkeypatch.setattr(tuning, "_connect", connect_without_waiting)
