"""Short texts: what is chosen for them, and when the first validations come."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from charloom.text.dataset import Dataset, Split, load_dataset
from charloom.text.source import text_from_string
from charloom.training.options import TrainingConfig
from charloom.training.planner import plan
from charloom.training.schedule import Schedule
from charloom.training.short import SHORT_TEXT, adapt_to_short_text
from charloom.training.state import TrainingState
from helpers.documents import collection, shuffled_names
from helpers.texts import wheel_barrows


def adapted(
    text: str | Sequence[str], **options: Any
) -> tuple[TrainingConfig, str] | tuple[None, None]:
    config = TrainingConfig.of(options)
    source = text_from_string(text) if isinstance(text, str) else collection(text)
    dataset = load_dataset(source, Split.parse(config.split))
    return adapt_to_short_text(config, dataset, options) or (None, None)


def characters(count: int) -> str:
    return (wheel_barrows(count // 3 + 1) + " ")[:count]


@pytest.mark.parametrize("count", [200, 857, 2_000, SHORT_TEXT - 1])
def test_a_planned_run_trains_on_all_of_a_short_text(count: int) -> None:
    config, note = adapted(characters(count))
    assert config is not None
    assert config.split == "100/0/0"
    assert note == (
        f"the text is short ({count:,} characters): the model trains on all of it and memorizes "
        "much of it, and no part is left to test on; --split 90/5/5 keeps one"
    )


@pytest.mark.parametrize(
    ("count", "split", "keep"),
    [(300, "100/0/0", "best"), (1_200, "100/0/0", "best"), (2_000, "90/5/5", "last")],
)
def test_a_run_by_steps_is_validated_where_a_window_fits(count: int, split: str, keep: str) -> None:
    for options in ({"steps": 9}, {"epochs": 2.0}, {"preset": "small", "minutes": 1.0}):
        config, _ = adapted(characters(count), **options)
        assert config is not None
        assert (config.split, config.keep) == (split, keep)
        assert replace(config, split="90/5/5", keep="best") == TrainingConfig.of(options)


@pytest.mark.parametrize(
    "options",
    [
        {"split": "90/5/5"},
        {"split": "80/10/10", "steps": 9},
        {"keep": "best"},
        {"keep": "last", "steps": 9},
        {"refit": 0.5},
        {"validation": "another.txt"},
        {"test": "another.txt"},
    ],
)
def test_what_the_user_decides_stays(options: dict[str, Any]) -> None:
    assert adapted(characters(1_000), **options) == (None, None)


def test_a_long_text_is_as_before() -> None:
    assert adapted(characters(SHORT_TEXT)) == (None, None)
    assert adapted(characters(SHORT_TEXT), steps=9) == (None, None)


def test_a_short_list_is_a_short_text() -> None:
    names = shuffled_names()
    for count in (20, 50, 200):
        config, _ = adapted(names[:count])
        assert config is not None
        assert config.split == "100/0/0"
        config, _ = adapted(names[:count], steps=9)  # documents need no window
        assert config is not None
        assert (config.split, config.keep) == ("90/5/5", "last")


def whole(text: str | Sequence[str]) -> Dataset:
    source = text_from_string(text) if isinstance(text, str) else collection(text)
    return load_dataset(source, Split(100, 0, 0))


def test_a_short_text_is_memorized_by_a_small_network() -> None:
    for count in (200, 857, 2_000, SHORT_TEXT - 1):
        choice = plan(600, 1.0, whole(characters(count)), {})
        assert choice.options["epochs"] == round(40 + count / 12, 1)
        assert choice.options["hidden_size"] == 112
        assert choice.options["weight_drop"] == 0.18
        # The state is carried through some windows of every row.
        row = count / choice.options["batch_size"]
        assert row >= min(count, 4 * choice.options["window"])
    # Fewer passes drop less, because they memorize less.
    fewer = plan(1.0, 1.0, whole(characters(SHORT_TEXT - 1)), {})
    assert "epochs" not in fewer.options
    assert 0 < fewer.options["weight_drop"] < choice.options["weight_drop"]
    assert plan(600, 1.0, whole(characters(SHORT_TEXT)), {}).options["hidden_size"] > 200


def test_of_a_short_text_with_a_validation_split_the_plan_is_that_of_a_long_one() -> None:
    text = load_dataset(text_from_string(characters(2_000)), Split())
    assert plan(600, 1.0, text, {}).options["hidden_size"] > 112


def test_short_documents_are_read_in_a_wide_batch() -> None:
    names = shuffled_names()[:200]
    options = plan(600, 1.0, whole(names), {}).options
    assert (options["epochs"], options["batch_size"]) == (200, 16)
    sentences = [" ".join(names[i : i + 8]) for i in range(0, 200, 8)]
    assert plan(600, 1.0, whole(sentences), {}).options["batch_size"] < 16


def validated(steps: int, steps_per_epoch: int, **options: Any) -> list[int]:
    state = TrainingState()
    config = TrainingConfig.of({"steps": steps, **options})
    schedule = Schedule(config, steps, steps_per_epoch, state, lambda: 0.0, lambda _: 0.0)
    found = []
    for state.step in range(steps + 1):
        if schedule.validation_is_due():
            found.append(state.step)
            state.validated_step = state.step
    return found


def test_the_first_validations_come_after_doubled_passes() -> None:
    twentieths = list(range(0, 2_001, 100))
    assert validated(2_000, 1) == [0, 1, 2, 4, 8, 16, 32, 64, *twentieths[1:]]
    assert validated(2_000, 7) == [0, 7, 14, 28, 56, *twentieths[1:]]
    assert validated(2_000, 99) == [0, 99, *twentieths[1:]]
    for steps_per_epoch in (100, 101, 150, 5_000):  # the first twentieth comes first
        assert validated(2_000, steps_per_epoch) == twentieths
    assert validated(2_000, 1, validate_every=500) == [0, 500, 1_000, 1_500, 2_000]


def test_by_the_clock_they_end_where_the_twentieths_begin() -> None:
    now, state = [0.0], TrainingState()
    config = TrainingConfig.of({"minutes": 1.0})
    schedule = Schedule(config, None, 4, state, lambda: now[0], lambda _: 0.0)
    found = []
    for state.step in range(700):
        if schedule.validation_is_due():
            found.append(state.step)
            state.validated_step = state.step
            schedule.note_validation(now[0])
        now[0] += 1 / 64
    # A twentieth of the minute is 192 steps.
    assert found == [0, 4, 8, 16, 32, 64, 128, 256, 448, 640]


def test_a_resumed_run_has_the_same_validations() -> None:
    state = TrainingState(step=20, validated_step=16)
    config = TrainingConfig.of({"steps": 2_000})
    schedule = Schedule(config, 2_000, 1, state, lambda: 0.0, lambda _: 0.0)
    found = []
    for state.step in range(20, 150):
        if schedule.validation_is_due():
            found.append(state.step)
            state.validated_step = state.step
    assert found == [32, 64, 100]
