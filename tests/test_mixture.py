"""The mixture: its weights, its fitting, and that it scores and samples as it should."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from charloom.engines import open_engine
from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.protocol import Engine
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.ngrams.mixing import Mixture, feature_count, features, fit_theta
from charloom.prediction.mixture import (
    MixedPredictor,
    choose_ngram_context,
    contexts_before,
    fit_mixture,
    fit_ngram_table,
)
from charloom.prediction.scoring import Protocol, score_ids

SIZE = 9
TEXT = np.random.default_rng(3).choice(SIZE, 4_000, p=np.arange(9, 0, -1) / 45).astype(np.uint8)
TEXT[2000:3000] = TEXT[:1000]


@pytest.fixture(params=["auto", "reference"])
def engine(request: pytest.FixtureRequest) -> Engine:
    parameters = initialize(ModelConfig("gru", 8, 1, SIZE), seed=1)
    return open_engine(request.param, parameters)


def predictor(engine: Engine) -> MixedPredictor:
    table = fit_ngram_table(TEXT[:3000], SIZE, 3, 1e6)
    return MixedPredictor(engine, fit_mixture(engine, table, TEXT[3000:], int(TEXT[2999]), 2))


def test_it_is_a_distribution_between_its_parts(engine: Engine) -> None:
    mixed = predictor(engine)
    inputs = TEXT[:40].reshape(20, 2).astype(np.intp)
    log_p, _ = mixed.log_probabilities(inputs, mixed.zero_state(2))
    network, _ = engine.log_probabilities(inputs, engine.zero_state(2))
    np.testing.assert_allclose(np.exp(log_p).sum(axis=2), 1, atol=1e-5)
    for row in range(2):
        contexts = contexts_before(np.append(inputs[:, row], 0), 3)
        counts = mixed.mixture.table.look_up(contexts).probabilities
        low, high = (
            np.minimum(np.exp(network[:, row]), counts),
            np.maximum(np.exp(network[:, row]), counts),
        )
        p = np.exp(log_p[:, row])
        assert ((low - 1e-6 <= p) & (p <= high + 1e-6)).all()


def test_steps_windows_and_rows_agree(engine: Engine) -> None:
    mixed = predictor(engine)
    inputs = TEXT[100:160].reshape(20, 3).astype(np.intp)
    whole, end = mixed.log_probabilities(inputs, mixed.zero_state(3))
    state, rows = mixed.zero_state(3), []
    for ids in inputs:
        logits, state = mixed.step(ids, state)
        rows.append(logits)
    np.testing.assert_allclose(np.stack(rows), whole, atol=2e-5)
    np.testing.assert_allclose(state.network, end.network, atol=1e-6)
    np.testing.assert_array_equal(state.context, end.context)
    # A row's bytes do not depend on its companions.
    alone = mixed.zero_state(1)
    for t, ids in enumerate(inputs):
        logits, alone = mixed.step(ids[1:2], alone)
        np.testing.assert_array_equal(logits[0], rows[t][1])


def test_generate_is_step_and_choose(engine: Engine) -> None:
    mixed = predictor(engine)
    uniforms = np.random.default_rng(4).random((30, 2))
    settings = SamplingSettings(temperature=0.8, top_p=0.9)
    drawn, end = mixed.generate(np.array([1, 2]), mixed.zero_state(2), settings, uniforms)
    ids, state = np.array([1, 2]), mixed.zero_state(2)
    for row, uniform in zip(drawn, uniforms, strict=True):
        logits, state = mixed.step(ids, state)
        ids = choose(logits, settings, uniform)
        np.testing.assert_array_equal(row, ids)
    np.testing.assert_array_equal(end.context, state.context)


@pytest.mark.parametrize("protocol", [Protocol(), Protocol(16)])
def test_scoring_resets_the_counts_context_with_the_state(
    engine: Engine, protocol: Protocol
) -> None:
    mixed = predictor(engine)
    ids = TEXT[3000:3100]
    scores = score_ids(mixed, ids, 5, protocol).log_probabilities
    window = protocol.window or len(ids)
    for begin in range(0, len(ids), window):
        state = mixed.zero_state(1)
        for i in range(begin, min(begin + window, len(ids))):
            logits, state = mixed.step(np.array([5 if i == 0 else int(ids[i - 1])]), state)
            assert scores[i] == pytest.approx(logits[0, ids[i]], abs=2e-5)


def test_the_context_is_all_that_was_read_and_no_more() -> None:
    contexts = contexts_before(np.array([7, 8, 9, 10]), 3)
    assert contexts.tolist() == [[-1, -1, 7], [-1, 7, 8], [7, 8, 9]]
    assert contexts_before(np.array([7, 8]), 0).shape == (1, 0)


def synthetic(good: float, seed: int = 0) -> tuple[Any, Any, Any]:
    """Features, and what two predictors gave to 4,000 characters; where the first feature after the
    constant is positive the first one is `good` times as good, elsewhere the second."""
    generator = np.random.default_rng(seed)
    x = np.column_stack([np.ones(4_000), generator.standard_normal((4_000, 3))])
    base = generator.uniform(0.05, 0.5, 4_000)
    first = np.where(x[:, 1] > 0, base * good, base / good)
    return x, np.minimum(first, 1), base


def test_the_fit_finds_where_each_is_better() -> None:
    x, network, counts = synthetic(1.8)
    theta = fit_theta(x, network, counts)
    g = 1 / (1 + np.exp(-(x @ theta)))
    assert theta[1] > 1
    assert g[x[:, 1] > 1].mean() > 0.9
    assert g[x[:, 1] < -1].mean() < 0.1
    mixed = -np.log(g * network + (1 - g) * counts).mean()
    for weight in np.linspace(0, 1, 21):
        assert mixed < -np.log(weight * network + (1 - weight) * counts).mean() - 0.05


def test_a_predictor_that_knows_nothing_gets_no_weight() -> None:
    generator = np.random.default_rng(1)
    x = np.column_stack([np.ones(3_000), generator.standard_normal((3_000, 2))])
    theta = fit_theta(x, np.full(3_000, 1e-3), generator.uniform(0.2, 0.9, 3_000))
    assert (x @ theta).max() < -4


def test_with_nothing_to_fit_on_both_weigh_the_same(engine: Engine) -> None:
    table = fit_ngram_table(TEXT, SIZE, 2, 1e6)
    mixture = fit_mixture(engine, table, TEXT[:0], 0, 1)
    assert not mixture.theta.any()
    network = np.log(np.full((1, SIZE), 1 / SIZE, np.float32))
    counts = table.look_up(np.array([[1, 2]], np.int32))
    assert mixture.weight(mixture.features(network, counts)) == 0.5


def test_probabilities_of_zero_do_no_harm() -> None:
    table = fit_ngram_table(TEXT, SIZE, 2, 1e6)
    mixture = Mixture(table, np.ones(feature_count(2)) * 0.1)
    network = np.full((1, SIZE), -200.0, np.float32)  # e^-200 is 0 in float32
    network[0, 3] = 0
    counts = table.look_up(np.array([[1, 2]], np.int32))
    assert np.isfinite(features(network, counts, 2)).all()
    assert np.isfinite(mixture.mix(network, counts)).all()


def test_neither_part_is_ever_left_out(engine: Engine) -> None:
    mixed = predictor(engine).mixture
    contexts = contexts_before(TEXT[:6], 3)[:5]
    sure = np.full((5, SIZE), -900.0, np.float32)  # of one character, and wrong
    sure[:, 0] = 0
    for side in (-1e4, 1e4):
        theta = np.zeros_like(mixed.theta)
        theta[0] = side
        mixture = replace(mixed, theta=theta)
        log_p = mixture.mix(sure, mixture.table.look_up(contexts))
        assert np.isfinite(log_p).all()


def test_the_context_is_chosen_on_the_validation_part() -> None:
    # Each character is drawn by the one before it: one tells all there is, and one more is taken.
    generator = np.random.default_rng(7)
    following = np.array(
        [[3, 1, 4], [0, 2, 5], [1, 3, 6], [2, 0, 5], [6, 1, 0], [4, 3, 1], [5, 2, 0]]
    )
    text = np.zeros(6_000, np.uint8)
    for i in range(1, len(text)):
        text[i] = following[text[i - 1], generator.integers(3)]
    context, nats = choose_ngram_context(text[:5_000], text[5_000:], 7)
    assert context == 2
    assert nats == pytest.approx(np.log(3), abs=0.02)
