"""Clipping and schedules; the optimizers' arithmetic is held to PyTorch's in contracts/."""

import math

import numpy as np
import pytest

from charloom.errors import CharloomError
from charloom.network.optimizers import (
    OPTIMIZERS,
    NonFiniteGradientError,
    clip_by_global_norm,
    learning_rate_factor,
)


def test_clipping_scales_the_whole_gradient() -> None:
    gradient = np.array([3.0, 4.0])
    assert clip_by_global_norm(gradient, 1.0) == 5
    np.testing.assert_allclose(gradient, [0.6, 0.8])
    assert clip_by_global_norm(gradient, 2.0) == pytest.approx(1)
    np.testing.assert_allclose(gradient, [0.6, 0.8])
    assert clip_by_global_norm(np.array([30.0]), None) == 30


def test_a_norm_whose_square_overflows_is_still_clipped() -> None:
    gradient = np.full(4, 1e30, "float32")
    with np.errstate(over="ignore"):
        assert clip_by_global_norm(gradient, 1.0) == pytest.approx(2e30)
    np.testing.assert_allclose(gradient, 0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_that_is_not_finite_changes_nothing(name: str, bad: float) -> None:
    optimizer = OPTIMIZERS[name](0.1, 1.0)
    parameters = np.ones(3)
    optimizer.update(parameters, np.ones(3))
    before = parameters.copy()
    slots = {k: v.copy() for k, v in optimizer.slots.items()}
    with pytest.raises(NonFiniteGradientError):
        optimizer.update(parameters, np.array([1.0, bad, 1.0]))
    assert (parameters == before).all()
    assert all((optimizer.slots[k] == v).all() for k, v in slots.items())
    assert optimizer.step_count == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_minimizes_a_quadratic(name: str) -> None:
    optimizer = OPTIMIZERS[name](0.05)
    x = np.array([1.0, -2.0])
    for _ in range(2000):
        optimizer.update(x, 2 * x)
    assert np.abs(x).max() < 0.05


def test_schedules_warm_up_and_decay() -> None:
    def f(schedule: str, progress: float) -> float:
        return learning_rate_factor(schedule, 0.1, progress)

    for schedule in ("constant", "linear", "cosine"):
        assert 0 < f(schedule, 0.0) <= 0.01
        assert f(schedule, 0.05) == pytest.approx(0.5)
        assert f(schedule, 0.1) == pytest.approx(1)
    assert f("constant", 0.9) == 1
    assert f("linear", 0.55) == pytest.approx(0.5)
    assert f("cosine", 0.55) == pytest.approx(0.5)
    assert f("cosine", 0.325) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert f("linear", 1) == f("cosine", 1) == 0
    assert learning_rate_factor("cosine", 0, 0) == 1
    assert learning_rate_factor("linear", 1, 1) in (0, 1)
    with pytest.raises(CharloomError, match="schedule"):
        f("steps", 0.5)
