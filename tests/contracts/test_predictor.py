"""Every predictor, an engine alone or mixed with counts: steps, windows, rows and samples agree."""

from typing import Any

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.protocol import Predictor
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.prediction.mixture import MixedPredictor, fit_mixture, fit_ngram_table

SIZE = 9
IDS = np.random.default_rng(3).choice(SIZE, 4_000, p=np.arange(9, 0, -1) / 45).astype(np.uint8)
IDS[2000:3000] = IDS[:1000]
INPUTS = IDS[100:160].reshape(20, 3).astype(np.intp)


@pytest.fixture(
    params=[(kind, engine) for kind in ("network", "mixture") for engine in ("auto", "reference")],
    ids="-".join,
)
def predictor(request: pytest.FixtureRequest) -> Predictor:
    kind, engine = request.param
    network = Backend(engine).open(initialize(ModelConfig("gru", 8, 1, SIZE), seed=1))
    if kind == "network":
        return network
    table = fit_ngram_table(IDS[:3000], SIZE, 3, 1e6)
    return MixedPredictor(network, fit_mixture(network, table, IDS[3000:], int(IDS[2999]), 2))


def log_softmax(logits: Any) -> Any:
    """A mixture's logits are log-probabilities, which this leaves as they are."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def parts(state: Any) -> tuple[Any, Any]:
    """The network's state, and the context of the counts, if there are any."""
    return getattr(state, "network", state), getattr(state, "context", np.zeros(0))


def step_by_step(predictor: Predictor) -> tuple[Any, Any]:
    state, rows = predictor.zero_state(3), []
    for ids in INPUTS:
        logits, state = predictor.step(ids, state)
        rows.append(logits)
    return np.stack(rows), state


def test_windows_equal_steps(predictor: Predictor) -> None:
    logits, state = step_by_step(predictor)
    whole, end = predictor.log_probabilities(INPUTS, predictor.zero_state(3))
    np.testing.assert_allclose(log_softmax(logits), whole, atol=2e-5)
    np.testing.assert_allclose(parts(state)[0], parts(end)[0], atol=1e-6)
    np.testing.assert_array_equal(parts(state)[1], parts(end)[1])


def test_read_leaves_the_state_of_steps_to_the_byte(predictor: Predictor) -> None:
    _, state = step_by_step(predictor)
    read = predictor.read(INPUTS, predictor.zero_state(3))
    for found, expected in zip(parts(read), parts(state), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_row_is_independent_of_its_batch_to_the_byte(predictor: Predictor) -> None:
    together, _ = step_by_step(predictor)
    state = predictor.zero_state(1)
    for ids, expected in zip(INPUTS, together, strict=True):
        logits, state = predictor.step(ids[1:2], state)
        np.testing.assert_array_equal(logits[0], expected[1])


def test_generate_equals_step_and_choose(predictor: Predictor) -> None:
    uniforms = np.random.default_rng(4).random((30, 2))
    settings = SamplingSettings(temperature=0.8, top_p=0.9)
    drawn, end = predictor.generate(np.array([1, 2]), predictor.zero_state(2), settings, uniforms)
    ids, state = np.array([1, 2]), predictor.zero_state(2)
    for row, uniform in zip(drawn, uniforms, strict=True):
        logits, state = predictor.step(ids, state)
        ids = choose(logits, settings, uniform)
        np.testing.assert_array_equal(row, ids)
    np.testing.assert_array_equal(parts(end)[1], parts(state)[1])


def test_no_method_changes_the_state_it_is_given(predictor: Predictor) -> None:
    _, state = step_by_step(predictor)
    before = [np.copy(part) for part in parts(state)]
    predictor.step(INPUTS[0], state)
    predictor.read(INPUTS, state)
    predictor.log_probabilities(INPUTS, state)
    predictor.generate(INPUTS[0], state, SamplingSettings(), np.full((4, 3), 0.5))
    for found, expected in zip(parts(state), before, strict=True):
        np.testing.assert_array_equal(found, expected)
