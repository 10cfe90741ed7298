"""Training options: their roles, defaults and choices."""

from dataclasses import fields
from typing import get_args

import pytest

from charloom.engines.protocol import DEVICES, ENGINES
from charloom.network.choices import Cell, OptimizerName
from charloom.network.optimizers import OPTIMIZERS
from charloom.network.parameters import GATES, STATES
from charloom.schema import find_mismatch
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
