"""Protocols held to their definitions by brute force, one character at a time."""

import math
from typing import Any

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.engines.protocol import Engine
from charloom.errors import CharloomError
from charloom.evaluation.evaluation import evaluation_of
from charloom.evaluation.scored_text import ScoredText
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.prediction.scoring import Protocol, score_ids
from charloom.prediction.validation import WARM_UP, Validation, validate
from charloom.text.vocabulary import Vocabulary


@pytest.fixture(params=["rnn", "lstm", "gru"])
def engine(request: pytest.FixtureRequest) -> Engine:
    config = ModelConfig(request.param, 6, 2, 9, dtype="float64")
    parameters = initialize(config, seed=1)
    parameters.flat[:] += np.random.default_rng(2).normal(0, 0.4, parameters.flat.shape)
    return Backend("auto").open(parameters)


IDS = np.random.default_rng(3).integers(0, 9, 1500).astype(np.uint8)


def one_by_one(engine: Engine, ids: Any, before: int, resets: set[int]) -> np.ndarray:
    """Each character's log-probability by single steps; the state is zero at `resets`."""
    log_p = np.empty(len(ids))
    state = engine.config.zero_state(1)
    for i, target in enumerate(ids):
        if i in resets:
            state = engine.config.zero_state(1)
        logits, state = engine.step(np.array([before if i == 0 else int(ids[i - 1])]), state)
        log_p[i] = logits[0, target] - np.log(np.exp(logits[0]).sum())
    return log_p


@pytest.mark.parametrize("at_once", [1 << 22, 2000, 9])
def test_carried(engine: Engine, at_once: int) -> None:
    ids = IDS[:100]
    scores = score_ids(engine, ids, 4, Protocol(), numbers_at_once=at_once)
    expected = one_by_one(engine, ids, 4, set())
    np.testing.assert_allclose(scores.log_probabilities, expected, rtol=1e-10)
    assert scores.nats_per_character == pytest.approx(-expected.mean())


@pytest.mark.parametrize("at_once", [1 << 22, 4000, 9])
@pytest.mark.parametrize("window", [1, 7, 50, 100, 1000])
def test_cold(engine: Engine, window: int, at_once: int) -> None:
    ids = IDS[:100]
    scores = score_ids(engine, ids, 4, Protocol(window), numbers_at_once=at_once)
    expected = one_by_one(engine, ids, 4, set(range(0, 100, window)))
    np.testing.assert_allclose(scores.log_probabilities, expected, rtol=1e-10)


def test_the_top_guess_is_counted(engine: Engine) -> None:
    ids = IDS[:100]
    log_p, _ = engine.log_probabilities(
        np.concatenate([[4], ids[:-1]]).astype(int)[:, None], engine.config.zero_state(1)
    )
    guessed = log_p[:, 0].argmax(axis=1) == ids
    for protocol in (Protocol(), Protocol(100)):
        assert (score_ids(engine, ids, 4, protocol).guessed == guessed).all()
    assert 0 < guessed.sum() < 100


@pytest.mark.parametrize("at_once", [1 << 22, 20_000, 9])
@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("length", [1500, 1498, 1025])
def test_validation_in_rows(engine: Engine, rows: int, length: int, at_once: int) -> None:
    ids = IDS[:length]
    running = validate(engine, ids, 4, rows, numbers_at_once=at_once)
    while True:
        try:
            scored = next(running)
        except StopIteration as end:
            validation: Validation = end.value
            break
    assert scored == validation.characters == length
    expected = []
    begin = 0
    for row in range(rows):
        end_ = begin + length // rows + (row < length % rows)
        warm = WARM_UP if row else 0
        log_p = one_by_one(
            engine, ids[begin - warm : end_], 4 if row == 0 else int(ids[begin - warm - 1]), set()
        )
        expected.append(log_p[warm:])
        begin = end_
    assert begin == length
    assert validation.nats_per_character == pytest.approx(
        -np.concatenate(expected).mean(), rel=1e-10
    )
    assert validation.protocol == ("carried" if rows == 1 else f"carried-{rows}-rows")


def test_the_figures_are_those_of_their_names(engine: Engine) -> None:
    vocabulary = Vocabulary(tuple("abcdefgé☃"))
    ids = IDS[:200]
    scores = score_ids(engine, ids, 0, Protocol())
    e = evaluation_of(scores, ScoredText("text", ids, 0), Protocol(), vocabulary)
    nats = -one_by_one(engine, ids, 0, set()).mean()
    text = vocabulary.decode(ids)
    assert e.nats_per_character == pytest.approx(nats)
    assert e.bits_per_character == pytest.approx(nats / math.log(2))
    assert e.bits_per_byte == pytest.approx(nats / math.log(2) * 200 / len(text.encode()))
    assert e.perplexity == pytest.approx(math.exp(nats))
    assert e.characters == 200
    as_bytes = Vocabulary(tuple("abcdefgé\xff"), as_bytes=True)
    e = evaluation_of(scores, ScoredText("text", ids, 0), Protocol(), as_bytes)
    assert e.bits_per_byte == e.bits_per_character


@pytest.mark.parametrize("name", ["carried", "adaptive", "cold-1", "cold-256"])
def test_protocols_are_named(name: str) -> None:
    assert str(Protocol.parse(name)) == name


@pytest.mark.parametrize("name", ["", "cold", "cold-", "cold-0", "cold--3", "cold-x", "Carried"])
def test_unknown_protocols_are_refused(name: str) -> None:
    with pytest.raises(CharloomError, match="protocol"):
        Protocol.parse(name)
