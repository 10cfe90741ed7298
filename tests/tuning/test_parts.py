"""The parts of a search, each by itself: trial, settings, space, folder, page."""

import itertools
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from charloom.errors import CharloomError
from charloom.pages import live
from charloom.pages.live import LivePage
from charloom.pages.page import write_page
from charloom.storage.folders import RunFolder
from charloom.text.source import text_from_string
from charloom.training.options import TrainingConfig
from charloom.tuning.folder import SearchFolder
from charloom.tuning.settings import SearchOptions, Settings, Trial, best_trial
from charloom.tuning.space import Range, untried_combinations
from charloom.tuning.study import Curve
from charloom.tuning.trial import TrialResult, TrialTask, run_trial
from helpers.searches import TEXT, Scripted, falling

# --- A trial --------------------------------------------------------------------------------------


def task(
    number: int = 0, curve: Curve | None = None, loss_to_beat: float | None = None
) -> TrialTask:
    folder = Path(f"trials/{number:04d}")
    prepared: Any = None  # scripted runs read no text
    return TrialTask(prepared, folder, {"minutes": 1.0}, 1.0, curve or [], loss_to_beat)


def result_of(training: Generator[Any, None, TrialResult]) -> TrialResult:
    while True:
        try:
            next(training)
        except StopIteration as end:
            result: TrialResult = end.value
            return result


def trained(
    losses: list[float], prune: Callable[[Curve, int], bool] = lambda *_: False, **of_task: Any
) -> TrialResult:
    script = Scripted(lambda number: losses, 1)
    return result_of(run_trial(task(**of_task), prune, lambda: False, script.open_run))


@pytest.mark.usefixtures("here")
def test_complete_trial_has_the_best_loss() -> None:
    found = trained([4.0, 2.0, 3.0])
    assert found == TrialResult(
        [[0.0, 4.0, 0.0], [0.5, 2.0, 0.5], [1.0, 3.0, 1.0]], 2, 2.0, None, False
    )


@pytest.mark.usefixtures("here")
def test_pruned_trial_ends_early_without_a_loss() -> None:
    found = trained(falling(2.0), lambda curve, step: step == 5)
    assert (len(found.curve), found.steps, found.loss, found.reason) == (6, 5, None, None)


@pytest.mark.usefixtures("here")
def test_trial_is_not_pruned_by_its_last_validation() -> None:
    assert trained([4.0, 2.0], lambda curve, step: step == 1).loss == 2.0


@pytest.mark.usefixtures("here")
def test_failed_trial_has_a_reason_and_its_curve() -> None:
    found = trained([4.0, float("nan")])
    assert found.reason == "the loss became NaN or infinite at step 1"
    assert (found.loss, found.steps, len(found.curve)) == (None, 1, 1)


@pytest.mark.usefixtures("here")
def test_resumed_trial_drops_the_validations_that_are_repeated() -> None:
    earlier = [[0.0, 4.0, 0.0], [0.25, 3.5, 1.0], [0.75, 9.0, 2.0]]
    script = Scripted(lambda number: [3.0], 1)
    curves: list[Curve] = []

    def keep(curve: Curve, step: int) -> bool:
        curves.append(curve)
        return False

    result_of(run_trial(task(curve=earlier), keep, lambda: False, script.open_run))
    assert curves == [[[0.0, 3.0, 0.0]]]


@pytest.mark.parametrize(
    ("loss_to_beat", "loss", "expected"),
    [(None, 2.0, True), (None, None, False), (2.0, 1.9, True), (2.0, 2.0, False)],
)
def test_only_an_improvement_is_worth_a_mixture(
    loss_to_beat: float | None, loss: float | None, expected: bool
) -> None:
    assert task(loss_to_beat=loss_to_beat).improves(loss) == expected


# --- Settings and space ---------------------------------------------------------------------------

SETTINGS = Settings(
    {"name": "text", "sha256": "0" * 64, "characters": 10},
    {"seed": 1},
    30.0,
    1.5,
    90.0,
    1.0,
    {"cell": "gru", "hidden_size": 16},
    {"cell": {"choices": ["gru", "lstm"]}},
)


def trial(number: int, state: str, loss: float | None) -> Trial:
    return Trial(number, state, {}, loss, [], None, None, None)


def test_settings_are_stored_under_the_names_of_earlier_versions() -> None:
    stored = SETTINGS.to_stored()
    assert list(stored) == [
        *("text", "given", "minutes", "trial_minutes", "trial_seconds", "speed", "planned"),
        "ranges",
    ]
    assert Settings.from_stored(stored) == SETTINGS


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"minutes": -1.0}, "minutes is -1"),
        ({"ranges": {}}, "ranges"),
        ({"given": {"clip": "much"}}, "--clip"),
        ({"more": 1}, "more"),
    ],
)
def test_invalid_stored_settings_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Settings.from_stored(SETTINGS.to_stored() | change)


def test_trials_never_refit() -> None:
    options = SETTINGS.trial_options(trial(0, "running", None))
    assert options["refit"] == 0
    assert options["minutes"] == 1.5


def test_trials_learn_no_counts_unless_they_are_set() -> None:
    assert SETTINGS.trial_options(trial(0, "running", None))["counts"] == "kneser-ney"
    given = {"counts": "context-mixing", "no_mix": False}
    settings = replace(SETTINGS, options=SETTINGS.options | given)
    assert settings.trial_options(trial(0, "running", None))["counts"] == "context-mixing"


@pytest.mark.parametrize(
    ("minutes", "trial_minutes", "expected"),
    [
        (None, None, (30.0, 1.5)),
        (1.0, None, (1.0, 0.25)),
        (0.1, None, (0.1, 0.1)),
        (60, 2, (60, 2)),
    ],
)
def test_default_times(
    minutes: float | None, trial_minutes: float | None, expected: tuple[float, float]
) -> None:
    assert SearchOptions.of({"minutes": minutes}, trial_minutes).times() == expected


def test_best_trial_is_complete_and_the_first_of_equals() -> None:
    trials = [
        trial(0, "pruned", 1.0),
        trial(1, "complete", 2.0),
        trial(2, "complete", 2.0),
        trial(3, "failed", None),
    ]
    assert best_trial(trials) == trials[1]
    assert best_trial(trials[:1]) is None


def test_untried_combinations_of_a_small_space() -> None:
    ranges: dict[str, Range] = {
        "cell": {"choices": ["gru", "lstm"]},
        "dropout": {"low": 0.1, "high": 0.3, "step": 0.1},
    }
    tried = [{"cell": "gru", "dropout": 0.2}]
    untried = untried_combinations(ranges, tried)
    assert untried is not None
    assert len(untried) == 5
    assert tried[0] not in untried
    assert {"cell": "lstm", "dropout": 0.3} in untried


@pytest.mark.parametrize(
    "range_", [{"low": 1, "high": 21, "step": 1}, {"low": 0.1, "high": 0.2, "log": True}]
)
def test_large_space_is_not_enumerated(range_: Range) -> None:
    assert untried_combinations({"option": range_}, []) is None


# --- Folder and page ------------------------------------------------------------------------------


def test_folder_is_locked_until_the_end_of_with(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    with SearchFolder(folder):
        with pytest.raises(CharloomError, match="another charloom is searching"):
            SearchFolder(folder).open()
        with pytest.raises(CharloomError, match="another charloom is training"):
            RunFolder(folder).open()
    assert not folder.exists()  # because no search began


def test_failure_before_a_search_begins_leaves_nothing(tmp_path: Path) -> None:
    from charloom.tuning.opening import open_search

    def open_text(config: TrainingConfig) -> Any:
        return text_from_string(TEXT)

    opening = open_search(open_text, tmp_path / "out", {"split": "95/0/5"}, speed=1.0)
    with pytest.raises(CharloomError, match="validation split"), opening:
        pass
    assert not (tmp_path / "out").exists()


def test_live_page_notifies_once_and_continues(tmp_path: Path) -> None:
    notes: list[str] = []
    page = LivePage(notes.append, "the search continues")
    for _ in range(2):
        page.update(lambda: write_page(tmp_path / "missing" / "page.html", "<p>"), now=True)
    assert len(notes) == 1
    assert notes[0].endswith("; the search continues")


def test_live_page_rests_between_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    written: list[float] = []

    def write() -> None:
        written.append(clock[0])
        clock[0] += 0.5

    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    page = LivePage(lambda note: None, "the search continues")
    for _ in range(100):
        page.update(write)
        clock[0] += 1
    assert [after - before for before, after in itertools.pairwise(written)] == [25.5] * 3
    page.update(write, now=True)
    assert written[-1] == clock[0] - 0.5
