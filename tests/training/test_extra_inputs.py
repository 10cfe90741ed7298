"""Training with extra inputs: the right numbers beside the right characters, in every text."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.engines.process_group import Order
from charloom.network.initialization import initialize
from charloom.network.parameters import Parameters
from charloom.prediction.validation import blocks_in_rows
from charloom.text.dataset import Dataset, Split, load_dataset
from charloom.text.extra_inputs import ExtraInputs
from charloom.text.source import text_from_string
from charloom.training import setup
from charloom.training.loop import follow_steps, train_steps
from charloom.training.options import TrainingConfig
from charloom.training.setup import make_optimizer, model_config
from charloom.training.state import Progress, TrainingState
from helpers.documents import dataset_of

LETTERS = "abcd"


def next_characters(ids: Any, size: int) -> ExtraInputs:
    """Return extra inputs that give the next id away, one-hot in uint8."""
    rows = np.zeros((len(ids), size), np.uint8)
    rows[np.arange(len(ids)), np.roll(ids, -1)] = 255
    return ExtraInputs(rows, lambda found: found / np.float32(255))


def random_letters(count: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list(LETTERS), count))


def book() -> Dataset:
    return load_dataset(text_from_string(random_letters(6_000)), Split.parse("50/40/10"))


def collection() -> Dataset:
    parts = [
        [random_letters(5 + n % 4, n) for n in range(start, start + 400)] for start in (0, 400)
    ]
    return dataset_of(*parts)


def begin(dataset: Dataset, **options: Any) -> tuple[Any, TrainingConfig]:
    """Return an engine with extra inputs, and the options of its training."""
    config = TrainingConfig.of(
        {
            "hidden_size": 16,
            "batch_size": 8,
            "window": 16,
            "threads": 1,
            "learning_rate": 0.02,
            "validate_every": 50,
            **options,
        }
    )
    size = len(dataset.vocabulary)
    parameters = initialize(model_config(config, dataset.vocabulary, size), config.seed)
    return Backend("auto", threads=1).open(parameters, seed=config.seed), config


def train(engine: Any, dataset: Dataset, config: TrainingConfig) -> list[Progress]:
    return list(train_steps(engine, make_optimizer(config), dataset, config, TrainingState()))


def with_extra(dataset: Dataset) -> Dataset:
    return replace(dataset, extra=next_characters(dataset.ids, len(dataset.vocabulary)))


def test_a_random_book_is_predicted_by_extra_inputs_of_its_next_characters() -> None:
    """Numbers of a neighbor would be worthless, in training, validation or after the refit."""
    dataset = with_extra(book())
    engine, config = begin(dataset, steps=150, refit=0.4)
    events = train(engine, dataset, config)
    validations = [e.validation.nats_per_character for e in events if e.validation is not None]
    assert validations[0] == pytest.approx(np.log(len(LETTERS)), rel=0.3)
    assert max(validations[-2:]) < 0.1
    assert all(e.sample is None for e in events)


@pytest.mark.parametrize("limit", [10**6, 1_500])
def test_random_documents_are_predicted_too(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a document's first letter is unknown, because other documents follow an END."""
    monkeypatch.setattr(setup, "VALIDATED_AT_ONCE", limit)
    dataset = with_extra(collection())
    engine, config = begin(dataset, steps=150)
    events = train(engine, dataset, config)
    *_, last = (e.validation for e in events if e.validation is not None)
    assert last.characters == (3_000 if limit > 3_000 else 1_497)
    # The first of 7.5 characters has log 4 = 1.39 nats.
    assert last.nats_per_character < 0.3


def test_a_run_resumes_exactly() -> None:
    dataset = with_extra(book())
    engine, config = begin(dataset, steps=12, validate_every=100)
    optimizer, state = make_optimizer(config), TrainingState()
    running = train_steps(engine, optimizer, dataset, config, state)
    while state.step < 5:
        next(running)
    copy = Parameters(engine.config, engine.parameters.flat.copy())
    again = Backend("auto", threads=1).open(copy, seed=config.seed)
    other, later = deepcopy(optimizer), deepcopy(state)
    list(running)
    list(train_steps(again, other, dataset, config, later))
    assert later.step == state.step == 12
    assert copy.flat.tobytes() == engine.parameters.flat.tobytes()


def test_a_rank_reads_the_extra_inputs_of_its_rows() -> None:
    dataset = book()
    dataset = replace(dataset, extra=ExtraInputs(dataset.ids[:, None]))
    engine, config = begin(dataset, steps=2, dtype="float64")
    read = []

    def train_step(inputs: Any, targets: Any, state: Any, optimizer: Any, *, extra: Any) -> Any:
        assert (extra[..., 0] == inputs).all()
        read.append((extra.shape, extra.dtype))
        return 1.0, 1.0, state

    orders = iter([Order("step", 0.1), Order("step", 0.1), Order("end", 0.0)])
    group: Any = SimpleNamespace(
        rows=slice(2, 5), split=lambda rows: None, receive_order=lambda: next(orders)
    )
    engine.train_step = train_step
    follow_steps(engine, make_optimizer(config), dataset, config, TrainingState(), group)
    assert read == [((16, 3, 1), np.dtype(np.float64))] * 2


@pytest.mark.parametrize(("rows", "at_once"), [(1, 10**6), (3, 10**6), (3, 2_000)])
def test_every_place_is_validated_with_its_own_extra_inputs(rows: int, at_once: int) -> None:
    ids = np.random.default_rng(1).integers(0, 4, 500)
    extra = ExtraInputs(np.append(9, ids)[:, None])  # that of `before` first
    engine, _ = begin(book())

    def read(inputs: Any, state: Any, *, extra: Any) -> Any:
        assert (extra[..., 0] == inputs).all()
        return extra, state

    found = np.full(500, -1.0)
    for places, block in blocks_in_rows(
        engine, ids, 9, rows, read=read, extra=extra, numbers_at_once=at_once
    ):
        found[places] = block[:, 0]
    assert found.tolist() == [9, *ids[:-1].tolist()]
