"""Protocols held to their definitions by brute force, one character at a time."""

import bz2
import lzma
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charloom.engines import open_engine
from charloom.engines.protocol import Engine
from charloom.errors import CharloomError
from charloom.evaluation import baselines as baselines_module
from charloom.evaluation.baselines import baselines
from charloom.evaluation.evaluation import confidence_interval, evaluation_of
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.prediction import scoring
from charloom.prediction.scoring import Protocol, Scores, Validation, score_ids, validate
from charloom.text.corpora import open_text
from charloom.text.dataset import Split, load_dataset
from charloom.text.vocabulary import Vocabulary


@pytest.fixture(params=["rnn", "lstm", "gru"])
def engine(request: pytest.FixtureRequest) -> Engine:
    config = ModelConfig(request.param, 6, 2, 9, dtype="float64")
    parameters = initialize(config, seed=1)
    parameters.flat[:] += np.random.default_rng(2).normal(0, 0.4, parameters.flat.shape)
    return open_engine("auto", parameters)


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
        warm = scoring.WARM_UP if row else 0
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
    e = evaluation_of(scores, vocabulary, ids, Protocol(), text="text")
    nats = -one_by_one(engine, ids, 0, set()).mean()
    text = vocabulary.decode(ids)
    assert e.nats_per_character == pytest.approx(nats)
    assert e.bits_per_character == pytest.approx(nats / math.log(2))
    assert e.bits_per_byte == pytest.approx(nats / math.log(2) * 200 / len(text.encode()))
    assert e.perplexity == pytest.approx(math.exp(nats))
    assert e.characters == 200
    as_bytes = Vocabulary(tuple("abcdefgé\xff"), as_bytes=True)
    e = evaluation_of(scores, as_bytes, ids, Protocol(), text="text")
    assert e.bits_per_byte == e.bits_per_character


def test_numbers_that_overflow_are_refused() -> None:
    scores = Scores.empty(2)
    scores.log_probabilities[:] = -1, -np.inf
    with pytest.raises(CharloomError, match="overflow"):
        evaluation_of(scores, Vocabulary(tuple("ab")), IDS[:2], Protocol(), text="x")


def test_the_interval_is_as_wide_as_blocks_differ() -> None:
    generator = np.random.default_rng(1)
    alike = -generator.exponential(1.5, 40_000)
    low, high = confidence_interval(alike) or (0.0, 0.0)
    assert low < -alike.mean() < high
    # Of independent values the interval is that of the textbook.
    textbook = 2 * 1.96 * alike.std() / math.sqrt(len(alike))
    assert high - low == pytest.approx(textbook, rel=0.15)
    # What is hard comes in stretches of 500: there are fewer independent values.
    stretches = alike - np.repeat(generator.exponential(1.5, 80), 500)
    wide = confidence_interval(stretches) or (0.0, 0.0)
    textbook = 2 * 1.96 * stretches.reshape(80, 500).mean(axis=1).std() / math.sqrt(80)
    assert wide[1] - wide[0] == pytest.approx(textbook, rel=0.3)
    assert confidence_interval(stretches) == wide  # the same every time


def test_a_short_text_has_no_interval() -> None:
    assert confidence_interval(-np.ones(199)) is None
    assert confidence_interval(-np.ones(200)) == (1, 1)


@pytest.mark.parametrize("name", ["carried", "adaptive", "cold-1", "cold-256"])
def test_protocols_are_named(name: str) -> None:
    assert str(Protocol.parse(name)) == name


@pytest.mark.parametrize("name", ["", "cold", "cold-", "cold-0", "cold--3", "cold-x", "Carried"])
def test_unknown_protocols_are_refused(name: str) -> None:
    with pytest.raises(CharloomError, match="protocol"):
        Protocol.parse(name)


def test_baselines_by_hand() -> None:
    vocabulary = Vocabulary(tuple("abc"))
    train = vocabulary.encode("abab" * 100 + "b")
    part = vocabulary.encode("abac")
    found = baselines(vocabulary, part, Protocol(), before=1, train=train)
    assert found["uniform"].bits_per_character == pytest.approx(math.log2(3))
    # 200 a's, 201 b's and no c, one added to each.
    p = np.array([201, 202, 201, 1]) / 404
    assert found["unigram"].bits_per_character == pytest.approx(-np.log2(p).mean())
    text = "abab" * 100 + "b"

    def xz(data: str) -> int:
        return len(lzma.compress(data.encode(), preset=9 | lzma.PRESET_EXTREME))

    assert found["xz"].bits_per_character == (xz(text + "abac") - xz(text)) * 8 / 4
    added = len(bz2.compress((text + "abac").encode())) - len(bz2.compress(text.encode()))
    assert found["bzip2"].bits_per_character == added * 8 / 4
    assert [found[name].protocol for name in ("xz", "bzip2", "ngram")] == [
        "adaptive",
        "adaptive",
        "carried",
    ]


def test_without_the_training_text_the_reason_stands_in_its_place() -> None:
    vocabulary = Vocabulary(tuple("abc"))
    found = baselines(vocabulary, vocabulary.encode("abc"), Protocol(7), reason="it is gone")
    assert found["uniform"].bits_per_character is not None
    for name in ("unigram", "ngram", "xz", "bzip2"):
        assert found[name].bits_per_character is None
        assert found[name].reason == "it is gone"
    assert found["ngram"].protocol == "cold-7"


def test_a_text_too_long_to_count_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines_module, "LONGEST_FOR_BASELINES", 10)
    vocabulary = Vocabulary(tuple("abc"))
    ids = vocabulary.encode("abcabc")
    found = baselines(vocabulary, ids, Protocol(), train=ids)
    assert "longer than 10" in (found["xz"].reason or "")


@pytest.mark.parametrize("train", ["a", "ab", "abc"])
def test_the_shortest_texts_have_baselines(train: str) -> None:
    vocabulary = Vocabulary(tuple("abc"))
    found = baselines(
        vocabulary, vocabulary.encode("c"), Protocol(), train=vocabulary.encode(train)
    )
    assert all(b.bits_per_character is not None for b in found.values())


def test_the_n_gram_model_on_tiny_shakespeare(shakespeare: Path) -> None:
    """The order is chosen on the end of the training part; then 1.52 nats on the rest, carried."""
    data = load_dataset(open_text(shakespeare), Split.parse("90/10/0"))
    before = int(data.train[-1])
    found = baselines(data.vocabulary, data.validation, Protocol(), before=before, train=data.train)
    bits = found["ngram"].bits_per_character
    assert bits is not None
    assert bits * math.log(2) <= 1.52
    assert "6 characters of context" in found["ngram"].note
