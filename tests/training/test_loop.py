"""The training generator: what it yields, when, and that it learns."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.errors import CharloomError
from charloom.network.initialization import initialize
from charloom.text.dataset import Dataset, Split, load_dataset
from charloom.text.source import text_from_string
from charloom.training.loop import train_steps
from charloom.training.options import PRESETS, TrainingConfig
from charloom.training.setup import make_batches, make_optimizer, model_config, reset_rows
from charloom.training.state import DivergedError, Progress, TrainingState
from helpers.texts import RANDOM_SENTENCES


def start(
    text: str = RANDOM_SENTENCES, elapsed: Callable[[], float] | None = None, **options: Any
) -> tuple[Any, TrainingState]:
    """Training of a small model, not yet begun, and its state."""
    config = TrainingConfig.of({"hidden_size": 16, "batch_size": 4, "window": 16, **options})
    dataset = load_dataset(text_from_string(text), Split.parse(config.split))
    return train(config, dataset, elapsed)


def train(
    config: TrainingConfig, dataset: Dataset, elapsed: Callable[[], float] | None = None
) -> tuple[Any, TrainingState]:
    parameters = initialize(model_config(config, dataset.vocabulary), config.seed)
    engine = Backend("auto").open(parameters, seed=config.seed, classic=config.classic)
    state = TrainingState()
    events = train_steps(engine, make_optimizer(config), dataset, config, state, elapsed)
    return events, state


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("optimizer", ["adagrad", "rmsprop", "adam", "adamw", "sgd"])
def test_every_cell_learns_with_every_optimizer(cell: str, optimizer: str) -> None:
    events, state = start(cell=cell, optimizer=optimizer, steps=250)
    validations = [e.validation for e in events if e.kind == "validation"]
    first, last = (v.nats_per_character for v in (validations[0], validations[-1]))
    size = len(set(RANDOM_SENTENCES))
    assert first == pytest.approx(math.log(size), rel=0.1)
    assert last < 0.75 * first
    assert state.best_loss == min(v.nats_per_character for v in validations)


def test_two_layers_with_dropout_learn_in_float64() -> None:
    events, state = start(layers=2, dropout=0.2, dtype="float64", steps=400)
    *_, last = events
    assert last.smoothed_loss < 2.3
    assert state.best_loss is not None
    assert state.best_loss < 2.2


def test_events_come_in_order() -> None:
    events, state = start(steps=40, validate_every=10)
    seen = list(events)
    validations = [e for e in seen if e.kind == "validation"]
    assert [e.step for e in validations] == [0, 10, 20, 30, 40]
    assert [e.step for e in seen if e.kind == "report"] == list(range(1, 41))
    assert seen[0].kind == "validating"
    assert seen[-1] is validations[-1]
    assert state.step == 40
    assert all(e.sample for e in validations)
    assert len({e.sample for e in validations}) == 5
    assert all(e.validation.protocol == "carried" for e in validations)
    assert [e.done for e in validations] == [0, 0.25, 0.5, 0.75, 1]


def test_reports_hold_the_mean_loss_since_the_last() -> None:
    events, _ = start(steps=300, validate_every=1000)
    reports = [e for e in events if e.kind == "report"]
    assert [e.step for e in reports] == list(range(3, 301, 3))
    single, _ = start(steps=300, validate_every=1000)
    smoothed = math.log(len(set(RANDOM_SENTENCES)))
    losses: list[float] = []
    for event in single:
        if event.kind in ("step", "report"):
            # The step's own loss, from how the smoothed one moved.
            losses.append((event.smoothed_loss - 0.99 * smoothed) / 0.01)
            smoothed = event.smoothed_loss
            if event.kind == "report":
                assert event.loss == pytest.approx(np.mean(losses[-3:]), rel=1e-6)


def test_epochs_end_a_run() -> None:
    config = TrainingConfig.of({"hidden_size": 8, "batch_size": 4, "window": 16, "epochs": 1.5})
    dataset = load_dataset(text_from_string(RANDOM_SENTENCES), Split())
    events, state = train(config, dataset)
    *_, last = events
    assert state.step == math.ceil(1.5 * make_batches(config, dataset).steps_per_epoch)
    assert last.epoch == pytest.approx(1.5, abs=0.01)


def test_minutes_end_a_run_by_the_clock() -> None:
    now = [0.0]

    def tick() -> float:
        now[0] += 0.01
        return now[0]

    events, _ = start(minutes=0.5, elapsed=tick)
    seen: list[Progress] = list(events)
    assert seen[-1].kind == "validation"
    assert 28 <= now[0] <= 30.5  # every look at this clock takes time
    validations = [e.elapsed for e in seen if e.kind == "validation"]
    assert 10 <= len(validations) <= 22
    rates = [e.learning_rate for e in seen if e.learning_rate is not None]
    assert rates[-1] < 0.01 * max(rates)


def test_what_comes_before_the_training_does_not_shorten_its_schedule() -> None:
    now = [20.0]  # seconds of 30 that something else took

    def tick() -> float:
        now[0] += 0.01
        return now[0]

    events, state = start(minutes=0.5, elapsed=tick, warmup=0.1)
    seen: list[Progress] = list(events)
    assert 28 <= now[0] <= 30.5
    assert 20 < state.began < 20.1
    rates = [e.learning_rate for e in seen if e.learning_rate is not None]
    assert rates[0] < 0.2 * max(rates)
    assert rates.index(max(rates)) < len(rates) / 5
    middle = next(e.done for e in seen if e.elapsed >= 25)
    assert 0.45 < middle < 0.55


@pytest.mark.parametrize("preset", ["tiny", "small", "medium", "large"])
def test_presets_of_a_size_choose_nothing_by_the_clock(preset: str) -> None:
    config = TrainingConfig.of({"preset": preset, "minutes": 1.0})
    assert not config.is_to_be_planned
    assert config.cell == "gru"
    assert config.learning_rate == PRESETS[preset]["learning_rate"]
    sizes = [PRESETS[name]["hidden_size"] for name in ("tiny", "small", "medium", "large")]
    assert sizes == sorted(sizes)
    # An option that is given counts for more.
    assert TrainingConfig.of({"preset": preset, "hidden_size": 7}).hidden_size == 7


def test_earliest_end_wins() -> None:
    events, state = start(steps=5, epochs=100)
    assert sum(1 for e in events if e.kind in ("step", "report")) == state.step == 5


def test_without_a_validation_part_the_last_weights_are_the_best() -> None:
    events, state = start(steps=20, split="100/0/0", validate_every=10)
    validations = [e for e in events if e.kind == "validation"]
    assert [e.best for e in validations] == [True] * 3
    assert all(e.validation is None for e in validations)
    assert state.best_step == 20
    assert state.best_loss is None


def test_training_is_deterministic_given_a_seed() -> None:
    def run(seed: int) -> list[dict[str, Any]]:
        events, _ = start(steps=20, dropout=0.3, seed=seed)
        return [asdict(replace(e, elapsed=0)) for e in events]

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    events, state = start(steps=500, learning_rate=1e6, clip=0.0)
    with pytest.raises(DivergedError, match=r"NaN or infinite at step \d+.*--learning-rate"):
        for _ in events:
            pass
    assert state.step < 500


def test_classic_is_the_notebook_s() -> None:
    config = TrainingConfig.of({"preset": "classic"})
    assert (config.cell, config.hidden_size, config.window) == ("rnn", 100, 25)
    optimizer: Any = make_optimizer(config)
    assert (optimizer.learning_rate, optimizer.clip) == (0.1, None)
    assert (optimizer.epsilon, optimizer.epsilon_inside) == (1e-8, True)
    dataset = load_dataset(text_from_string(RANDOM_SENTENCES), Split())
    batches: Any = make_batches(config, dataset)
    assert (batches.window, batches.stride, batches.rows) == (25, 10, 1)
    events, _ = start(preset="classic", batch_size=1, window=25, steps=300)
    *_, last = events
    # The smoothed loss starts at that of guessing and follows at a thousandth a step.
    assert last.smoothed_loss < math.log(len(set(RANDOM_SENTENCES)))


def test_parts_that_are_too_short_are_refused() -> None:
    with pytest.raises(CharloomError, match="the validation split has 5 characters, less than one"):
        next(start(text="abcde" * 20)[0])
    with pytest.raises(CharloomError, match="the training split has 1 of"):
        next(start(text="ab", split="50/0/50")[0])


def test_options_come_from_the_preset_unless_they_are_given() -> None:
    assert TrainingConfig.of({}).minutes == 3
    assert TrainingConfig.of({"steps": 7}).minutes is None
    assert TrainingConfig.of({"optimizer": "sgd"}).learning_rate == 0.5
    assert TrainingConfig.of({"preset": "classic", "hidden_size": 7}).hidden_size == 7
    with pytest.raises(CharloomError, match="no option --hiden-size"):
        TrainingConfig.of({"hiden_size": 7})
    with pytest.raises(CharloomError, match="--batch-size"):
        TrainingConfig.of({"preset": "classic", "batch_size": 2})


def states_before_steps(**options: Any) -> np.ndarray:
    """The state before each step of a run, (W, S, L, B, H)."""
    config = TrainingConfig.of(
        {"hidden_size": 8, "batch_size": 4, "window": 64, "steps": 60, "cell": "lstm", **options}
    )
    dataset = load_dataset(text_from_string(RANDOM_SENTENCES), Split())
    parameters = initialize(model_config(config, dataset.vocabulary), config.seed)
    engine, before = Backend("reference").open(parameters, seed=config.seed), []
    take = engine.train_step

    def noted(inputs: Any, targets: Any, state: Any, *rest: Any, **more: Any) -> Any:
        before.append(state)
        return take(inputs, targets, state, *rest, **more)

    engine.train_step = noted  # type: ignore[method-assign]
    for _ in train_steps(engine, make_optimizer(config), dataset, config, TrainingState()):
        pass
    return np.array(before)


def test_rows_begin_at_a_zero_state_as_often_as_set() -> None:
    carried = states_before_steps()
    per_epoch = next(step for step in range(1, 60) if not carried[step].any())
    begins = np.arange(60) % per_epoch == 0
    assert per_epoch > 4
    assert (carried[~begins].any(axis=(1, 2, 4))).all()
    some = states_before_steps(reset_state=0.3)
    zero = ~some[~begins].any(axis=(1, 2, 4))  # (W, B)
    assert not some[begins].any()
    assert 0.2 < zero.mean() < 0.4
    assert set(zero.sum(axis=1)) >= {0, 1, 2}  # row by row, not all of a batch
    assert len(set(zero.sum(axis=0))) > 1
    np.testing.assert_array_equal(some, states_before_steps(reset_state=0.3))
    assert not states_before_steps(reset_state=1.0).any()


def test_other_seeds_reset_other_rows() -> None:
    one, other = (TrainingConfig.of({"reset_state": 0.5, "seed": seed}) for seed in (0, 1))
    rows = [[reset_rows(c, step, 16).tolist() for step in range(8)] for c in (one, other)]
    assert rows[0] != rows[1]
    assert len({tuple(row) for row in rows[0]}) == 8
