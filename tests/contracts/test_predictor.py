"""Every predictor, an engine alone or mixed with counts: steps, windows, rows and samples agree."""

from typing import Any

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.protocol import Predictor
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.prediction.rows import join_states, put_rows, rows_of, state_bytes
from charloom.text.vocabulary import Vocabulary
from helpers.counts import KINDS, predictor_with_counts

VOCABULARY = Vocabulary(tuple("\n abcdefg"))
SIZE = len(VOCABULARY)
IDS = np.random.default_rng(3).choice(SIZE, 4_000, p=np.arange(9, 0, -1) / 45).astype(np.uint8)
IDS[2000:3000] = IDS[:1000]
INPUTS = IDS[100:160].reshape(20, 3).astype(np.intp)


@pytest.fixture(
    scope="module",
    params=[(kind, engine) for kind in ("network", *KINDS) for engine in ("auto", "reference")],
    ids="-".join,
)
def predictor(request: pytest.FixtureRequest) -> Predictor:
    kind, engine = request.param
    if kind == "network":
        return Backend(engine).open(initialize(ModelConfig("gru", 8, 1, SIZE), seed=1))
    return predictor_with_counts(kind, VOCABULARY, IDS, engine)


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


def test_states_are_those_of_steps(predictor: Predictor) -> None:
    states, end = predictor.states(INPUTS, predictor.zero_state(3))
    state = predictor.zero_state(3)
    for ids, found in zip(INPUTS, states, strict=True):
        _, state = predictor.step(ids, state)
        np.testing.assert_allclose(found, parts(state)[0], atol=1e-6)
    np.testing.assert_array_equal(parts(end)[1], parts(state)[1])


def test_pieces_of_a_window_continue_each_other(predictor: Predictor) -> None:
    whole, end = predictor.log_probabilities(INPUTS, predictor.zero_state(3))
    first, state = predictor.log_probabilities(INPUTS[:7], predictor.zero_state(3))
    second, state = predictor.log_probabilities(INPUTS[7:], state)
    np.testing.assert_allclose(np.concatenate([first, second]), whole, atol=2e-5)
    np.testing.assert_array_equal(parts(state)[1], parts(end)[1])
    nothing = predictor.read(INPUTS[:0], state)
    np.testing.assert_array_equal(parts(nothing)[1], parts(state)[1])


def test_rows_are_joined_and_put(predictor: Predictor) -> None:
    _, state = step_by_step(predictor)
    joined = join_states([rows_of(state, [2]), rows_of(state, [0, 1])])
    put_rows(joined, [1], predictor.zero_state(1))
    logits, _ = predictor.step(INPUTS[0][[2, 0, 1]], joined)
    expected, _ = predictor.step(INPUTS[0], state)
    fresh, _ = predictor.step(INPUTS[0][:1], predictor.zero_state(1))
    np.testing.assert_array_equal(logits, [expected[2], fresh[0], expected[1]])
    assert state_bytes(state) == 3 * state_bytes(predictor.zero_state(1))


def test_no_method_changes_the_state_it_is_given(predictor: Predictor) -> None:
    _, state = step_by_step(predictor)
    before = [np.copy(part) for part in parts(state)]
    predictor.step(INPUTS[0], state)
    predictor.read(INPUTS, state)
    predictor.log_probabilities(INPUTS, state)
    predictor.states(INPUTS, state)
    predictor.generate(INPUTS[0], state, SamplingSettings(), np.full((4, 3), 0.5))
    for found, expected in zip(parts(state), before, strict=True):
        np.testing.assert_array_equal(found, expected)
