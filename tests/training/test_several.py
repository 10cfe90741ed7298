"""Several steps in one call of the engine: the same bytes as single ones, wherever calls end."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import charloom
from charloom.engines.backend import Backend
from charloom.network.initialization import initialize
from charloom.network.optimizers import OPTIMIZERS, AdaGrad, NonFiniteGradientError, Optimizer
from charloom.network.parameters import ModelConfig
from charloom.runs.opening import open_run
from charloom.runs.run import RunControl
from charloom.text.batches import Windows
from charloom.text.source import text_from_string
from charloom.training.options import TrainingConfig
from charloom.training.schedule import Schedule
from charloom.training.state import TrainingState
from helpers.faults import content_of
from helpers.texts import RANDOM_SENTENCES

OPTIONS: dict[str, Any] = {
    "classic": {"preset": "classic", "hidden_size": 8, "steps": 450},
    "gru": {
        "cell": "gru", "hidden_size": 8, "batch_size": 2, "window": 8, "steps": 420, "warmup": 0.1,
        "refit": 0.4, "clip": 0.0,
    },
}  # fmt: skip


def opened(folder: Path, options: dict[str, Any], **control: Any) -> Any:
    return open_run(
        lambda _: text_from_string(RANDOM_SENTENCES),
        folder,
        {"validate_every": 35, "keep": "best", "threads": 1, "no_mix": True, **options},
        resume=True,
        control=RunControl(**control),
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_runs_are_the_same_to_the_byte_and_resume_between_any_calls(
    tmp_path: Path, name: str
) -> None:
    single = list(opened(tmp_path / "single", OPTIONS[name]))
    several = list(opened(tmp_path / "several", OPTIONS[name], every_step=False))
    assert len(several) < 0.7 * len(single)
    steps = [e.step for e in several if e.kind in ("step", "report")]
    reports = [e.step for e in single if e.kind == "report"]
    assert [e.step for e in several if e.kind == "report"] == reports
    assert steps == sorted(set(steps))
    looks = count()
    run = opened(tmp_path / "stopped", OPTIONS[name], every_step=False,
                 should_stop=lambda: next(looks) == 60)  # fmt: skip
    list(run)
    assert run.interrupted
    assert 0 < run.state.step < OPTIONS[name]["steps"]
    list(opened(tmp_path / "stopped", {}, every_step=False))
    expected = content_of(tmp_path / "single")
    assert content_of(tmp_path / "several") == expected
    assert content_of(tmp_path / "stopped") == expected


def test_every_step_is_reported_to_a_caller_who_asks(tmp_path: Path) -> None:
    seen: list[int] = []
    options = {"out": tmp_path / "run", "no_mix": True, **OPTIONS["classic"]}
    charloom.train(
        [RANDOM_SENTENCES], progress=lambda p: seen.append(p.step), split="90/10/0", **options
    )
    assert sorted(set(seen)) == list(range(451))


@given(
    st.integers(1, 900), st.integers(1, 70), st.integers(1, 300) | st.none(),
    st.sampled_from([0.0, 0.3, 0.5]), st.integers(0, 899),
)  # fmt: skip
@settings(max_examples=60)
def test_nothing_is_due_inside_a_call(
    total: int, epoch: int, validate_every: int | None, refit: float, step: int
) -> None:
    config = TrainingConfig.of({"steps": total, "validate_every": validate_every, "refit": refit})
    state = TrainingState(step=min(step, total - 1), validated_step=min(step, total - 1))
    schedule = Schedule(config, total, epoch, state, lambda: 0.0, lambda _: 0.0)
    several, rates = schedule.steps_until_due(40), schedule.learning_rates(40)
    assert 1 <= several <= 40
    for index in range(several):
        assert schedule.learning_rate() == rates[index]
        if index:
            assert not schedule.report_is_due()
            assert not schedule.validation_is_due()
            assert not schedule.refit_is_due()
            assert schedule.done() < 1
        if schedule.refit_is_due():
            return
        state.step += 1


def windows(several: int, fresh: Callable[[int], bool]) -> Windows:
    ids = np.random.default_rng(several).integers(0, 30, (several, 2, 6, 2))
    return Windows(ids[:, 0], ids[:, 1], np.array([fresh(i) for i in range(several)]))


def cut(passed: Windows, here: slice) -> Windows:
    return Windows(passed.inputs[here], passed.targets[here], passed.fresh[here])


def optimizers() -> Iterator[Any]:
    for name, kind in OPTIMIZERS.items():
        yield pytest.param(lambda kind=kind: kind(0.05, None), id=name)
    yield pytest.param(lambda: OPTIMIZERS["adamw"](0.05, 0.3), id="adamw, clipped")
    yield pytest.param(lambda: AdaGrad(0.05, epsilon_inside=True), id="adagrad, inside")


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("make", list(optimizers()))
def test_several_windows_are_trained_on_as_single_ones(
    cell: Any, make: Callable[[], Optimizer]
) -> None:
    passed = windows(9, lambda index: index % 4 == 3)
    rates = [0.01 * (1 + index) for index in range(9)]
    results = []
    for at_once in (1, 9):
        config = ModelConfig(cell, 19, 2, 30)
        engine: Any = Backend("compiled", 1).open(initialize(config, seed=2))
        optimizer, state = make(), config.zero_state(2) + np.float32(0.1)
        losses: list[float] = []
        norms: list[float] = []
        while len(losses) < 9:
            here = slice(len(losses), len(losses) + at_once)
            part = cut(passed, here)
            loss, norm, state = engine.train_windows(part, state, optimizer, rates[here])
            losses += loss
            norms += norm
        slots = [slot.tobytes() for slot in optimizer.slots.values()]
        weights = engine.parameters.flat.tobytes()
        results.append((losses, norms, state.tobytes(), weights, slots, optimizer.step_count))
    assert len(losses) == len(norms) == 9
    assert results[0] == results[1]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_one_step_of_several_windows_trains_on_the_first(dropout: float) -> None:
    config, passed = ModelConfig("rnn", 19, 2, 30, dropout), windows(3, bool)
    rates = [0.05] if dropout == 0 else [0.05] * 3  # masks differ: one step at a time
    results = []
    for part in (passed, cut(passed, slice(0, 1))):
        engine: Any = Backend("compiled", 1).open(initialize(config, seed=2))
        optimizer = AdaGrad(0.05)
        loss, norm, state = engine.train_windows(part, config.zero_state(2), optimizer, rates)
        results.append((loss, norm, state.tobytes(), engine.parameters.flat.tobytes()))
    assert len(results[0][0]) == 1
    assert results[0] == results[1]


def test_a_step_that_is_not_finite_ends_the_call_before_it() -> None:
    config = ModelConfig("rnn", 19, 1, 30)
    engine: Any = Backend("compiled", 1).open(initialize(config, seed=2))
    optimizer, state = AdaGrad(0.05), config.zero_state(2)
    rates = [0.05, 0.05, 1e38, 0.05, 0.05, 0.05]
    losses, norms, state = engine.train_windows(windows(6, bool), state, optimizer, rates)
    assert np.isfinite([*losses, *norms]).all()
    assert optimizer.step_count == len(losses) == 3
    before = engine.parameters.flat.copy()
    with pytest.raises(NonFiniteGradientError):
        engine.train_windows(windows(6, bool), state, optimizer, rates)
    assert (engine.parameters.flat == before).all()


@pytest.mark.parametrize(("hidden", "size"), [(100, 65), (8, 17), (16, 3), (19, 30), (42, 90)])
def test_the_notebook_s_weights_stay_packed_from_window_to_window(hidden: int, size: int) -> None:
    steps = 12
    ids = np.random.default_rng(hidden).integers(0, size, (steps, 2, 7, 1))
    passed = Windows(ids[:, 0], ids[:, 1], np.arange(steps) % 5 == 0)
    results = []
    for at_once in (1, steps):
        config = ModelConfig("rnn", hidden, 1, size)
        engine: Any = Backend("compiled", 1).open(initialize(config, seed=2), classic=True)
        engine.parameters["rnn.weight_ih_l0"][0] = -0.0
        optimizer = AdaGrad(0.1, epsilon=1e-8, epsilon_inside=True)
        state = config.zero_state(1)
        losses: list[float] = []
        norms: list[float] = []
        for first in range(0, steps, at_once):
            part = cut(passed, slice(first, first + at_once))
            loss, norm, state = engine.train_windows(part, state, optimizer, [0.1] * at_once)
            losses += loss
            norms += norm
        weights = engine.parameters.flat.tobytes(), optimizer.slots["squares"].tobytes()
        results.append((losses, norms, state.tobytes(), *weights))
    assert len(losses) == steps
    assert results[0] == results[1]
