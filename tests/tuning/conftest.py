"""Searches that probe shortly and do not wait for the disk."""

import pytest

from charloom.training import planner as planning
from charloom.tuning import study
from helpers.searches import connect_without_waiting


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PROBED_FOR", 0.02)
    monkeypatch.setattr(study, "connect", connect_without_waiting)
