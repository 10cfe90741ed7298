"""What a search refuses."""

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from charloom.errors import CharloomError
from charloom.runs.clock import Clock
from charloom.tuning.api import tune
from charloom.tuning.search import Search, SearchProgress
from charloom.tuning.study import Study
from charloom.tuning.waiting import Patience
from helpers.cli import refused
from helpers.searches import FIXED, QUICK, TEXT, Scripted, falling, flags, resumed


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "1e9", "0.001", "soon"])
@pytest.mark.parametrize("option", ["--minutes", "--trial-minutes"])
def test_invalid_time_is_refused(option: str, minutes: str, text_file: str) -> None:
    assert option in refused("tune", text_file, f"{option}={minutes}")


@pytest.mark.parametrize("value", [True, "5", [1]])
def test_invalid_time_is_refused_in_python(value: Any, text_file: str) -> None:
    for name in ("minutes", "trial_minutes"):
        with pytest.raises(CharloomError, match=name.replace("_", "-")):
            tune(Path(text_file), out="out", **{name: value})
    assert not Path("out").exists()


REFUSED = {
    "--trial-minutes=2": "more than the 1 minute of the whole search",
    "--steps=10": "--trial-minutes",
    "--epochs=3": "--trial-minutes",
    "--preset=small": "auto",
    "--refit=0.5": "validation split",
    "--split=95/0/5": "validation split",
    "--window=60000": "validation split",
    "--cell=snn": "--cell",
    "--out=": "--out is empty",
    "--from=nowhere": "nowhere",
    "--config=nowhere.toml": "nowhere.toml",
}


@pytest.mark.parametrize("option", REFUSED)
def test_invalid_search_option_is_refused(option: str, text_file: str) -> None:
    assert REFUSED[option] in refused("tune", text_file, "--minutes=1", option)


def test_nothing_to_search_is_refused(text_file: str) -> None:
    line = refused("tune", text_file, *flags(**FIXED))
    assert "nothing to search" in line
    assert "--hidden-size" in line


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("ab" * 4, "validation split"),
        ("a" * 999, "distinct"),
    ],
)
def test_a_text_that_is_too_short_is_refused(content: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text(content, encoding="utf-8")
    assert told in refused("tune", str(path), "--minutes=0.1")


def test_a_folder_of_something_else_is_refused(search: Path, text_file: str) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").touch()
    for resume in ([], ["--resume"]):
        line = refused("tune", text_file, "--out=mine", *resume)
        assert "notes.txt is in it" in line
        line = refused("tune", text_file, f"--out={search}/best", *resume)
        assert "is not empty" in line
    assert "already holds a search: add --resume" in refused("tune", text_file, "--out=search")
    assert "is not empty" in refused("train", text_file, "--out=search", "--resume", "--steps=1")


def test_the_default_folder_of_another_text_is_refused(search: Path) -> None:
    shutil.copytree(search, "runs/people-tune")
    Path("people.csv").write_text(TEXT, encoding="utf-8")
    line = refused("tune", "people.csv", "--minutes=0.1")
    assert "runs/people-tune holds a search of another text, " in line
    assert line.endswith("pass another folder with --out")


def test_a_folder_in_use_is_refused(search: Path, text_file: str) -> None:
    with FileLock(search / ".lock"):
        line = refused("tune", text_file, "--out=search", "--resume")
    assert "another charloom is searching in search" in line


def test_changed_options_are_named_on_resume(search: Path, text_file: str) -> None:
    for option, told in {
        "--hidden-size=32": "--hidden-size is 32, but the search has 16",
        "--clip=2": "--clip was not set",
        "--trial-minutes=0.02": "--trial-minutes is 0.02, but the search has 0.0125",
        "--minutes=0.02": "--minutes 0.02 is less than the search's 0.1",
    }.items():
        assert told in refused("tune", text_file, "--out=search", "--resume", option)
    Path("other.txt").write_text(TEXT[1:], encoding="utf-8")
    line = refused("tune", "other.txt", "--out=search", "--resume")
    assert "is not the text of the search" in line


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda data: b"This is no database, and it never was one.\n" * 100,
    "cut": lambda data: data[: len(data) // 2],
    "zeros in the middle": lambda data: data[:4096] + bytes(len(data) - 4096),
    "another beginning": lambda data: b"\0" * 100 + data[100:],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_storage_is_reported(kind: str, search: Path, text_file: str) -> None:
    path = search / "study.db"
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    line = refused("tune", text_file, "--out=search", "--resume")
    assert "study.db is damaged" in line


@pytest.mark.parametrize("settings", ["[]", '{"text": 1}', '"x"', "{}"])
def test_damaged_settings_are_reported(settings: str, search: Path, text_file: str) -> None:
    with contextlib.closing(sqlite3.connect(search / "study.db")) as database:
        query = "update study_user_attributes set value_json = ? where key = 'settings'"
        assert database.execute(query, [settings]).rowcount == 1
        database.commit()
    line = refused("tune", text_file, "--out=search", "--resume")
    assert "study.db is damaged" in line


def test_empty_storage_is_recreated(text_file: str) -> None:
    """As a kill leaves it that comes before the search had begun."""
    Path("out").mkdir()
    Path("out/study.db").touch()
    assert resumed(text_file, Path("out"), **QUICK).best is not None


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_unwritable_storage_is_reported(search: Path, text_file: str) -> None:
    (search / "study.db").chmod(0o400)
    line = refused("tune", text_file, "--out=search", "--resume", "--minutes=0.1")
    assert "free space or change the permissions" in line


@pytest.mark.parametrize("name", ["a b", "50%", "what?", "#1", "{x}", "ä字"])
def test_any_name_of_a_folder(name: str) -> None:
    search = Scripted(lambda number: falling(2.0), 2).search(name)
    assert Path(name, "study.db").stat().st_size
    assert len(search.trials) == 2


# --- Another program has locked the study ---------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "PIECE", 0.02)
    monkeypatch.setattr(Patience, "SILENT", 0.1)


def lock(path: Path, how: str) -> sqlite3.Connection:
    """Lock a study as a program that writes to it does."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute(f"begin {how}")
    return other


@pytest.mark.usefixtures("impatient")
def test_a_search_waits_while_the_study_is_locked(tmp_path: Path) -> None:
    locks = {(0, 1): "immediate", (0, 4): "exclusive"}  # by trial and validation
    held: list[sqlite3.Connection] = []
    said: list[str] = []

    def play(number: int) -> list[float]:
        return [4.0 - number - i / 4 for i in range(5)]

    def while_locked(event: SearchProgress, search: Search) -> None:
        step = None if event.progress is None else event.progress.step
        how = locks.pop((event.trial.number, step), None)
        if how is not None:
            held.append(lock(search.folder / "study.db", how))

    def on_wait(line: str) -> None:
        said.append(line)
        held.pop().rollback()

    script = Scripted(play, 2)
    search = script.search(str(tmp_path / "out"), on_event=while_locked, on_wait=on_wait)
    assert not locks
    assert not held
    assert [(trial.state, trial.loss) for trial in search.trials] == [
        ("complete", 3.0),
        ("complete", 2.0),
    ]
    path = tmp_path / "out" / "study.db"
    line = f"another program has locked {path}: the search waits until it is free"
    assert said == [line, line]


@pytest.mark.usefixtures("impatient")
def test_waiting_can_be_interrupted(search: Path) -> None:
    path = search / "study.db"
    asked = iter([False, False, True])
    with contextlib.closing(lock(path, "exclusive")), pytest.raises(CharloomError) as error:
        Study(path, should_stop=lambda: next(asked))
    assert str(error.value) == f"another program keeps {path} locked: end it, then use --resume"
    assert list(asked) == []
    assert Study(path).trials()


@pytest.mark.usefixtures("impatient")
def test_a_trial_is_not_charged_for_waiting(search: Path) -> None:
    held: list[sqlite3.Connection] = []
    study = Study(search / "study.db", on_wait=lambda line: held.pop().rollback())
    held.append(lock(search / "study.db", "exclusive"))
    before = study.waited
    early = time.monotonic()
    clock = Clock(held_up=lambda: study.waited - before)
    began = clock.now()
    study.keep_seconds(1.0)
    ended = clock.now()
    elapsed = clock.elapsed()
    assert not held
    assert Patience.SILENT < study.waited <= ended - began
    # Between the looks at the clock the machine can do other work, which counts.
    assert ended - began - study.waited <= elapsed <= clock.now() - early - study.waited
