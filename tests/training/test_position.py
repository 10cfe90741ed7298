"""A run's position in its resume file: what is checked when it is read."""

import math
from dataclasses import fields
from typing import Any

import pytest

from charloom.training.position import compute_options, find_wrong_entry
from charloom.training.state import TrainingState


def position(**entries: Any) -> dict[str, Any]:
    found = {"state": {}, "ends": {}, "metrics_lines": 0, "samples_bytes": 0}
    return found | {"engine": "reference", "threads": 1} | entries


def test_a_position_from_before_an_option_existed_has_its_default() -> None:
    assert find_wrong_entry(position()) is None
    assert compute_options(position(bf16=True)) == {
        "engine": "reference",
        "threads": 1,
        "device": "cpu",
        "bf16": True,
        "compile": False,
        "rank_timeout": 300.0,
    }


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"state": {"mood": 1}}, "state: unknown entry mood"),
        ({"state": {"step": -4}}, "state.step is -4, not a whole number of at least 0"),
        ({"state": {"hidden": None}}, "state: unknown entry hidden"),
        ({"state": {"best_loss": math.nan}}, "state.best_loss is nan, not a finite number"),
        ({"state": {"recent_steps": True}}, "state.recent_steps is True, not a whole number"),
        ({"ends": {"seed": 1}}, "ends: unknown entry seed"),
        ({"ends": {"steps": 0}}, "ends.steps is 0, not a whole number from 1 to"),
        ({"metrics_lines": 1.0}, "metrics_lines is 1.0, not a whole number"),
        ({"threads": "all"}, "threads is 'all', not a whole number"),
        ({"engine": "jax"}, "engine is 'jax', not one of auto, compiled"),
        ({"ranks": 0}, "ranks is 0, not a whole number of at least 1"),
    ],
)
def test_a_position_with_a_wrong_entry_is_described(entries: Any, problem: str) -> None:
    mismatch = find_wrong_entry(position(**entries))
    assert mismatch is not None
    assert mismatch.problem.startswith(problem)


def test_every_field_of_a_state_but_the_tensor_is_in_a_position() -> None:
    state = {f.name: getattr(TrainingState(), f.name) for f in fields(TrainingState)}
    del state["hidden"]
    assert find_wrong_entry(position(state=state)) is None
