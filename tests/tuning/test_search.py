"""What a search tries, prunes and proposes; its trials are scripted."""

import contextlib
import json
import logging
import shutil
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import pytest

from charloom.errors import CharloomError
from charloom.runs.compute import TooLargeError
from charloom.runs.run import RunControl
from charloom.text.source import text_from_string
from charloom.training.options import TrainingConfig
from charloom.tuning import study as study_module
from charloom.tuning.opening import open_search
from charloom.tuning.search import Search
from helpers.searches import FIXED, TEXT, Scripted, falling


def test_trials_that_fall_behind_are_pruned() -> None:
    play = lambda number: falling(2.0 if number < study_module.NEVER_PRUNED else 3.0)  # noqa: E731
    search = Scripted(play, 7).search()
    states = [trial.state for trial in search.trials]
    assert states == ["complete"] * study_module.NEVER_PRUNED + ["pruned"] * 3
    last = search.trials[-1]
    assert last.curve[-1][0] == pytest.approx(study_module.FIRST_PRUNED / study_module.PARTS)
    assert last.loss == last.curve[-1][1]
    assert search.best is not None
    assert search.best.number == 0  # of equals the first
    assert search.best_run.name == "best"


def test_trials_are_compared_at_equal_parts_of_their_time() -> None:
    """Whatever a trial's validations were, it is the value of the line between them that counts."""
    few = [4.0, 3.0, 2.0]
    Scripted(lambda number: few if number else falling(2.0), 2).search()
    import optuna

    found = optuna.load_study(study_name="charloom", storage="sqlite:///out/study.db")
    for trial in found.trials:
        for part, value in trial.intermediate_values.items():
            assert value == pytest.approx(4 - 2 * part / 10)
        assert set(trial.intermediate_values) == set(range(1, 10))


def test_failing_trial_does_not_end_the_search() -> None:
    def play(number: int) -> list[float]:
        if number == 1:
            return [4.0, float("nan")]
        if number == 2:
            raise TooLargeError("this model and batch need about 9 GiB of memory: use less")
        if number == 3:
            raise MemoryError
        return falling(2.0)

    search = Scripted(play, 5).search()
    assert [t.state for t in search.trials] == [
        "complete",
        "failed",
        "failed",
        "failed",
        "complete",
    ]
    reasons = [trial.reason for trial in search.trials[1:4]]
    assert reasons == [
        "the loss became NaN or infinite at step 1",
        "this model and batch need about 9 GiB of memory",
        "not enough memory",
    ]
    assert all(trial.loss is None for trial in search.trials[1:4])


def test_search_ends_when_every_trial_fails() -> None:
    with pytest.raises(CharloomError, match=r"every trial failed, the last of 5.*step 0"):
        Scripted(lambda number: [float("nan")], 100).search()


def test_another_error_ends_it_and_loses_nothing() -> None:
    def play(number: int) -> list[float]:
        if number == 1:
            raise CharloomError("cannot write to there: make room, then go on with --resume")
        return falling(2.0)

    with pytest.raises(CharloomError, match="make room"):
        Scripted(play, 3).search()
    shutil.rmtree("out/trials/0001")  # the scripted run makes it anew
    search = Scripted(lambda number: falling(1.5), 2).search()
    assert [trial.state for trial in search.trials] == ["complete"] * 3


def test_few_combinations_are_tried_once_each() -> None:
    fixed = {name: value for name, value in FIXED.items() if name not in ("cell", "layers")}
    search = Scripted(lambda number: falling(2 + number), 100).search(**fixed)
    assert search.exhausted
    tried = [tuple(trial.options.values()) for trial in search.trials]
    assert sorted(tried) == [("gru", 1), ("gru", 2), ("lstm", 1), ("lstm", 2)]
    assert tried[0] == ("gru", 1)


def proposed(search: Search) -> list[dict[str, Any]]:
    return [trial.options for trial in search.trials]


def test_seeded_search_is_the_same_after_resume() -> None:
    play = lambda number: falling(2 + 0.1 * (number * 7 % 5))  # noqa: E731
    whole = Scripted(play, 12).search("whole", seed=3)
    Scripted(play, 5).search("parts", seed=3)
    parts = Scripted(play, 7).search("parts")
    assert proposed(parts) == proposed(whole)
    assert len({json.dumps(options) for options in proposed(whole)}) == 12
    assert proposed(Scripted(play, 3).search("other", seed=4))[1] != proposed(whole)[1]


@pytest.mark.parametrize("earlier", [{}, {"normalize_newlines": False}])
def test_a_search_that_kept_windows_line_ends_is_resumed_with_them(earlier: dict[str, Any]) -> None:
    scripted = Scripted(lambda number: falling(3), most=1)
    windows = TEXT.replace(" ", "\r\n", 40)

    def search(**options: Any) -> list[str]:
        with open_search(
            lambda format: format.text_of(windows),
            Path("out"),
            {"minutes": 10.0, **options},
            resume=True,
            control=RunControl(should_stop=lambda: len(scripted.options) >= scripted.most),
            speed=1.0,
            open_run=scripted.open_run,
        ) as search:
            list(search)
        return search.notes

    search(keep_newlines=True)
    with contextlib.closing(sqlite3.connect("out/study.db")) as database:
        where = "where key = 'settings'"
        (found,) = database.execute(f"select value_json from study_user_attributes {where}")
        settings = json.dumps(json.loads(found[0]) | {"given": earlier})
        database.execute(f"update study_user_attributes set value_json = ? {where}", [settings])
        database.commit()
    for scripted.most in (2, 3):
        assert search() == []
    assert [options["keep_newlines"] for options in scripted.options] == [True] * 3
    windows = windows[:-1]
    with pytest.raises(CharloomError, match="is not the text of the search"):
        search()


def test_trial_options_reach_the_run() -> None:
    script = Scripted(lambda number: falling(2.0), 6)
    search = script.search(dropout=0.3, clip=0.5)
    for trial, given in zip(search.trials, script.options, strict=True):
        assert trial.options.items() <= given.items()
        assert given["dropout"] == 0.3
        assert given["clip"] == 0.5
        assert given["refit"] == 0
        assert given["minutes"] == search.settings.trial_seconds / 60
        TrainingConfig.of(given)
        for name, range_ in search.settings.ranges.items():
            if "choices" in range_:
                assert given[name] in range_["choices"]
            else:
                assert range_["low"] * 0.99 <= given[name] <= range_["high"] * 1.01
    assert "dropout" not in search.settings.ranges


def test_importances_need_enough_trials() -> None:
    def play(number: int) -> list[float]:
        return [4.0, 2 + script.options[-1]["dropout"]]

    script = Scripted(play, 20)
    search = script.search()
    study = study_module.Study(search.folder / "study.db")
    found = study.importances(search.trials)
    assert found is not None
    assert sum(found.values()) == pytest.approx(1)
    assert set(found) == set(search.settings.ranges)
    assert study.importances(search.trials[:7]) is None


def test_optuna_logging_is_restored() -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Scripted(lambda number: falling(2.0), 3).search()
    assert optuna.logging.get_verbosity() == before
    assert logging.getLogger("optuna").handlers


@pytest.mark.parametrize("optimizer", ["adagrad", "rmsprop", "sgd"])
def test_optimizer_without_a_planned_rate_searches_around_its_default(optimizer: str) -> None:
    search = Scripted(lambda number: falling(2.0), 2).search(optimizer=optimizer)
    rate = TrainingConfig.of({"optimizer": optimizer}).learning_rate
    assert search.trials[0].options["learning_rate"] == rate
    assert search.trials[1].options["learning_rate"] != rate


@pytest.mark.parametrize("characters", [2_000, 700])
def test_a_short_text_s_window_is_not_searched(characters: int) -> None:
    text = text_from_string(TEXT[:characters])
    with open_search(lambda config: text, Path("out"), {}) as search:
        assert ("window" in search.settings.ranges) == (characters == 2_000)
