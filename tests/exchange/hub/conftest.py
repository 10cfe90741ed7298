"""A hub that nobody runs, and a run that was evaluated."""

from pathlib import Path

import pytest

import charloom
from helpers.cli import run
from helpers.hub import FEW, NOBODY, ask_at
from helpers.texts import QUOTING_WOODS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and a hub that nobody runs: no test asks the real one."""
    monkeypatch.chdir(tmp_path)
    ask_at(NOBODY, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def evaluated_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a mixture that was evaluated by two protocols."""
    folder = tmp_path_factory.mktemp("runs") / "woods"
    text = folder.parent / "woods.txt"
    text.write_text(QUOTING_WOODS, "utf-8")
    charloom.train(text, out=folder, **FEW)
    assert run("evaluate", str(folder))[0] == 0
    assert run("evaluate", str(folder), "--protocol=cold-16")[0] == 0
    return folder
