"""Types as schemas: what fits, what does not, and how a mismatch is described."""

import math
import subprocess
import sys
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args

import msgspec
import numpy as np
import pytest
from msgspec import Meta

from charloom.engines.protocol import DEVICES, ENGINES
from charloom.network.choices import Cell, OptimizerName
from charloom.network.optimizers import OPTIMIZERS
from charloom.network.parameters import GATES, STATES
from charloom.schema import Count, Finite, find_mismatch, find_wrong_field
from charloom.training.options import (
    COMPUTE_OPTIONS,
    NOT_TUNED_OPTIONS,
    OPTIONS,
    PER_RANK_OPTIONS,
    PRESETS,
    SHAPE_OPTIONS,
    STOP_OPTIONS,
    TUNED_OPTIONS,
    Preset,
    TrainingConfig,
)
from charloom.training.position import compute_options, find_wrong_entry
from charloom.training.state import TrainingState

Size = Annotated[int, Meta(ge=1, le=65_536)]
Rate = Annotated[float, Meta(ge=0, lt=1)]
Time = Annotated[float, Meta(gt=0, le=1e7)]


@dataclass
class Inner:
    size: Size = 1
    names: list[str] | None = None


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    sizes: dict[str, Size] = {}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, Size),
        (65_536, Size),
        (None, Size | None),
        (0, Rate),
        (0.999, Rate),
        (np.float64(0.5), Rate),
        (1e7, Time),
        (5, Time),
        ("cpu", Literal["cpu", "cuda"]),
        (True, bool),
        (10**15 - 1, Count),
        (-1e308, Finite),
        ({"inner": {}}, Outer),
        ({"inner": {"size": 3, "names": ["a"], "later": 1}, "sizes": {"a": 1}}, Outer),
    ],
)
def test_a_value_that_fits_has_no_mismatch(value: Any, kind: Any) -> None:
    assert find_mismatch(value, kind) is None


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (0, Size, "a whole number from 1 to 65,536"),
        (10**400, Size, "a whole number from 1 to 65,536"),
        (1.0, Size, "a whole number from 1 to 65,536"),
        (True, Size, "a whole number from 1 to 65,536"),
        ("1", Size, "a whole number from 1 to 65,536"),
        (None, Size, "a whole number from 1 to 65,536"),
        (1, Rate, "a number of at least 0 and below 1"),
        (math.nan, Rate, "a number of at least 0 and below 1"),
        (True, Rate, "a number of at least 0 and below 1"),
        ("0.5", Rate, "a number of at least 0 and below 1"),
        (0, Time, "a number above 0 and at most 10,000,000"),
        (math.inf, Time, "a number above 0 and at most 10,000,000"),
        (10**400, Time | None, "a number above 0 and at most 10,000,000"),
        (math.nan, Finite, "a finite number"),
        (-math.inf, Finite | None, "a finite number"),
        (-1, Count, "a whole number of at least 0 and below 1,000,000,000,000,000"),
        ("tpu", Literal["cpu", "cuda"], "one of cpu, cuda"),
        (["cpu"], Literal["cpu", "cuda"], "one of cpu, cuda"),
        ("gpt2", Literal["charloom"], "'charloom'"),
        (1, bool, "true or false"),
        (1, str, "a string"),
        ({}, list[str], "a list"),
        ([], dict[str, Any], "an object"),
        ([], Outer, "an object"),
    ],
)
def test_a_mismatch_names_the_expected_values(value: Any, kind: Any, expected: str) -> None:
    mismatch = find_mismatch(value, kind)
    assert mismatch is not None
    assert mismatch.expected == expected


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({}, "inner is missing"),
        ({"inner": {}, "mood\n": 1}, "unknown entry mood\\n"),
        ({"inner": {}, "a` - at `$.b": 1}, "object contains unknown field `a`"),
        ({"inner": 3}, "inner is 3, not an object"),
        ({"inner": {"size": "big"}}, "inner.size is 'big', not a whole number from 1 to 65,536"),
        ({"inner": {"size": 0}}, "inner.size is 0, not a whole number from 1 to 65,536"),
        ({"inner": {"names": ["a", 2]}}, "inner.names[1] is 2, not a string"),
        ({"inner": {}, "sizes": {"a": 0}}, "expected `int` >= 1"),
    ],
)
def test_a_mismatch_within_an_object_names_its_place(value: Any, problem: str) -> None:
    mismatch = find_mismatch(value, Outer)
    assert mismatch is not None
    assert mismatch.problem == problem


def test_the_wrong_field_of_an_instance_is_found() -> None:
    assert find_wrong_field(Inner(2)) is None
    mismatch = find_wrong_field(Inner(65_537))
    assert mismatch is not None
    assert mismatch.problem == "size is 65537, not a whole number from 1 to 65,536"


def test_choices_have_an_implementation_each() -> None:
    assert tuple(OPTIMIZERS) == get_args(OptimizerName)
    assert tuple(PRESETS) == get_args(Preset)
    assert tuple(GATES) == tuple(STATES) == get_args(Cell)
    assert OPTIONS["engine"].choices == ENGINES
    assert OPTIONS["device"].choices == DEVICES


@pytest.mark.parametrize("name", OPTIONS)
def test_defaults_and_presets_fit_their_types(name: str) -> None:
    for preset in ({name: OPTIONS[name].default}, *PRESETS.values()):
        if name in preset:
            assert find_mismatch(preset[name], OPTIONS[name].kind) is None


def test_roles_of_options() -> None:
    """Files of earlier runs depend on the first three."""
    assert STOP_OPTIONS == ("steps", "epochs", "minutes")
    assert COMPUTE_OPTIONS == ("engine", "threads", "device", "bf16", "compile", "rank_timeout")
    assert SHAPE_OPTIONS == ("cell", "hidden_size", "layers")
    assert PER_RANK_OPTIONS == ("from_run", "threads", "rank_timeout")
    assert NOT_TUNED_OPTIONS == ("preset", "steps", "epochs", "refit")
    assert not set(TUNED_OPTIONS) & set(NOT_TUNED_OPTIONS)
    assert list(OPTIONS) == [field.name for field in fields(TrainingConfig)]


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


def test_help_loads_no_numpy() -> None:
    code = (
        "import sys\nfrom charloom.cli.main import main\n"
        "try: main(['train', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'safetensors', 'rich', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--hidden-size" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
