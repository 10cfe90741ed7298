"""Training options: their roles, defaults and choices."""

from dataclasses import fields
from typing import Any, get_args

import pytest

from charloom.engines.protocol import DEVICES, ENGINES
from charloom.errors import CharloomError
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
    assert SHAPE_OPTIONS == ("cell", "hidden_size", "layers", "norm")
    assert PER_RANK_OPTIONS == ("from_run", "threads", "rank_timeout")
    assert NOT_TUNED_OPTIONS == ("preset", "steps", "epochs", "refit")
    assert not set(TUNED_OPTIONS) & set(NOT_TUNED_OPTIONS)
    assert list(OPTIONS) == [field.name for field in fields(TrainingConfig)]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"no_mix": True, "mix_megabytes": 4.0}, "--mix-megabytes"),
        ({"preset": "classic", "mix_megabytes": 4.0}, "--mix-megabytes"),
        ({"split": "95/0/5", "refit": 0.2}, "--refit"),
        ({"split": "80/10/10", "validation": "a", "test": "b"}, "--split"),
        ({"bytes": True, "encoding": "cp1252"}, "--encoding"),
        ({"bytes": True, "encoding_errors": "replace"}, "--encoding-errors"),
        ({"bytes": True, "keep_newlines": True}, "--keep-newlines"),
        ({"raw": True, "keep_newlines": True}, "--keep-newlines"),
    ],
)
def test_an_option_that_does_nothing_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(CharloomError, match=rf"^{name} does nothing here, because .*: omit it$"):
        TrainingConfig.of(options)
    rest = {key: value for key, value in options.items() if f"--{key.replace('_', '-')}" != name}
    TrainingConfig.of(rest)
    # A default does not matter, so that all options of a run can be passed again.
    TrainingConfig.of(
        rest | {name[2:].replace("-", "_"): OPTIONS[name[2:].replace("-", "_")].default}
    )


def test_options_beside_which_another_one_works() -> None:
    TrainingConfig.of({"split": "95/0/5", "refit": 0.2, "validation": "a"})
    TrainingConfig.of({"split": "80/10/10", "validation": "a"})
    TrainingConfig.of({"schedule": "constant", "warmup": 0.1})
    TrainingConfig.of({"preset": "classic", "no_mix": False, "mix_megabytes": 4.0})
