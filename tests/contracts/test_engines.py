"""Every engine on every cell: gradients, states, steps, sampling. One suite holds them all.

T ≥ 3, L = 2, B = 3, a non-zero state, float64: ‖a − n‖ / (‖a‖ + ‖n‖) ≤ 1e-7 for every tensor.
"""

import numpy as np
import pytest

from charloom import scratch
from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.protocol import ENGINES, Engine
from charloom.network.gradient_check import check_gradients
from charloom.network.initialization import initialize_classic
from charloom.network.optimizers import SGD, AdaGrad, NonFiniteGradientError
from charloom.network.parameters import ModelConfig
from helpers.engines import loss_of, make, window

CELLS = ("rnn", "lstm", "gru")


every_engine = pytest.mark.parametrize("name", [name for name in ENGINES if name != "auto"])


every_cell = pytest.mark.parametrize("cell", CELLS)


@every_engine
@every_cell
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("steps", "rows"), [(4, 3), (3, 1), (1, 2)])
def test_gradients_equal_central_differences(
    name: str, cell: str, dropout: float, steps: int, rows: int
) -> None:
    check_every_gradient(make(name, cell, dropout=dropout), steps, rows)


@pytest.mark.parametrize("name", ["pytorch"])
@every_cell
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_torch_compile_has_the_same_gradients(
    warm_compiler: None, name: str, cell: str, dropout: float
) -> None:
    check_every_gradient(make(name, cell, dropout=dropout, threads=1, compile=True), 4, 3)


def check_every_gradient(engine: Engine, steps: int, rows: int) -> None:
    inputs, targets, state = window(engine, steps, rows)

    loss = loss_of(engine, inputs, targets, state, dropout_step=3)
    errors = check_gradients(loss, engine.parameters, engine.gradients)
    assert len(errors) == 10
    assert max(errors.values()) <= 1e-7, errors
    assert all(gradient.any() for gradient in engine.gradients.values())


@every_engine
def test_gradient_check_detects_a_planted_error(name: str) -> None:
    engine = make(name, "lstm")
    inputs, targets, state = window(engine, 4, 3)

    def loss() -> float:
        return engine.loss_and_gradients(inputs, targets, state)[0]

    loss()
    engine.gradients["rnn.weight_hh_l0"][0, 0] += 1e-6
    errors = check_gradients(loss, engine.parameters, dict(engine.gradients))
    assert errors["rnn.weight_hh_l0"] > 1e-7
    assert errors["rnn.weight_hh_l1"] <= 1e-7


@every_engine
@every_cell
def test_windows_can_be_split_anywhere(name: str, cell: str) -> None:
    engine = make(name, cell)
    inputs, _, state = window(engine, 6, 3)
    before = state.copy()
    whole, end = engine.log_probabilities(inputs, state)
    assert (state == before).all()
    first, middle = engine.log_probabilities(inputs[:2], state)
    second, last = engine.log_probabilities(inputs[2:], middle)
    np.testing.assert_allclose(np.concatenate([first, second]), whole, rtol=1e-12)
    np.testing.assert_allclose(last, end, rtol=1e-12)
    np.testing.assert_allclose(np.exp(whole).sum(axis=2), 1, rtol=1e-12)


@every_engine
@every_cell
def test_the_loss_is_the_mean_of_the_targets_log_probabilities(name: str, cell: str) -> None:
    engine = make(name, cell)
    inputs, targets, state = window(engine, 6, 3)
    loss, end = engine.loss_and_gradients(inputs, targets, state)
    log_p, other_end = engine.log_probabilities(inputs, state)
    expected = -np.take_along_axis(log_p, targets[..., None], axis=2).mean()
    assert loss == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(end, other_end, rtol=1e-12)


@every_engine
@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden_size", [5, 64])
def test_row_is_independent_of_its_batch_to_the_byte(
    name: str, cell: str, dtype: str, hidden_size: int
) -> None:
    engine = make(name, cell, dtype=dtype, hidden_size=hidden_size, vocabulary_size=70)
    inputs, _, state = window(engine, 1, 33)
    ids = inputs[0]
    logits, after = engine.step(ids, state)
    assert logits.dtype == after.dtype == np.dtype(dtype)
    generator = np.random.default_rng(1)
    for size in (1, 2, 3, 8, 32):
        rows = generator.permutation(33)[:size]
        some, some_after = engine.step(ids[rows], state[:, :, rows])
        assert some.tobytes() == logits[rows].tobytes()
        assert some_after.tobytes() == np.ascontiguousarray(after[:, :, rows]).tobytes()
    # It is the same arithmetic as a window's, to rounding.
    expected, _ = engine.log_probabilities(inputs, state)
    found = logits - logits.max(axis=1, keepdims=True)
    found -= np.log(np.exp(found).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected[0], atol=1e-4 if dtype == "float32" else 1e-12)


@every_engine
@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_read_equals_steps(name: str, cell: str, dtype: str) -> None:
    engine = make(name, cell, dtype=dtype, hidden_size=40)
    inputs, _, start = window(engine, 300, 3)
    stepped = start
    for ids in inputs:
        _, stepped = engine.step(ids, stepped)
    assert engine.read(inputs, start).tobytes() == stepped.tobytes()
    alone = engine.read(inputs[:, 1:2], start[:, :, 1:2])
    assert alone.tobytes() == np.ascontiguousarray(stepped[:, :, 1:2]).tobytes()
    assert engine.read(inputs[:0], start).tobytes() == start.tobytes()
    if engine.window_equals_steps:
        _, scored = engine.log_probabilities(inputs, start)
        assert scored.tobytes() == stepped.tobytes()


@every_engine
@every_cell
def test_generate_equals_step_and_choose(name: str, cell: str) -> None:
    engine = make(name, cell, dtype="float32")
    inputs, _, state = window(engine, 1, 4)
    uniforms = np.random.default_rng(2).random((20, 4))
    settings = SamplingSettings(0.9, top_k=6, top_p=0.95)
    drawn, end = engine.generate(inputs[0], state, settings, uniforms)
    ids = inputs[0]
    for t in range(20):
        logits, state = engine.step(ids, state)
        ids = choose(logits, settings, uniforms[t])
        assert (drawn[t] == ids).all()
    assert end.tobytes() == state.tobytes()


@every_engine
def test_dropout_applies_only_in_training(name: str) -> None:
    plain, dropping = make(name, "lstm"), make(name, "lstm", dropout=0.5)
    inputs, targets, state = window(plain, 4, 3)
    same, _ = dropping.loss_and_gradients(inputs, targets, state)
    assert same == plain.loss_and_gradients(inputs, targets, state)[0]
    one, _ = dropping.loss_and_gradients(inputs, targets, state, dropout_step=0)
    again, _ = dropping.loss_and_gradients(inputs, targets, state, dropout_step=0)
    other, _ = dropping.loss_and_gradients(inputs, targets, state, dropout_step=1)
    assert one == again
    assert len({same, one, other}) == 3
    # A training step draws the mask of the optimizer's step count.
    loss, _, _ = dropping.train_step(inputs, targets, state, SGD(1e-9))
    assert loss == one


@every_engine
def test_non_finite_step_is_not_taken(name: str) -> None:
    engine = make(name, "rnn")
    inputs, targets, state = window(engine, 4, 3)
    engine.parameters["decoder.bias"][0] = np.inf
    before = engine.parameters.flat.copy()
    with pytest.raises(NonFiniteGradientError):
        engine.train_step(inputs, targets, state, SGD(0.1))
    assert (engine.parameters.flat == before).all()


def as_scratch(engine: Engine) -> scratch.RNN:
    """The notebook's model with an engine's parameters, whose two hidden biases sum to its one."""
    p = engine.parameters
    model = scratch.RNN(engine.config.vocabulary_size, hidden_size=engine.config.hidden_size)
    model.set_parameters(
        {
            "U": p["rnn.weight_ih_l0"].copy(),
            "W": p["rnn.weight_hh_l0"].copy(),
            "V": p["decoder.weight"].copy(),
            "b_s": (p["rnn.bias_ih_l0"] + p["rnn.bias_hh_l0"])[:, None].copy(),
            "b_y": p["decoder.bias"][:, None].copy(),
        }
    )
    return model


@every_engine
def test_the_notebook_s_model_gives_the_same_loss_and_gradients(name: str) -> None:
    engine = make(name, "rnn", layers=1, hidden_size=11, vocabulary_size=9)
    inputs, targets, state = window(engine, 25, 1)
    loss, end = engine.loss_and_gradients(inputs, targets, state)
    model = as_scratch(engine)
    x = np.eye(9)[inputs[:, 0]]
    total, states, _, p = model.forward(x, targets[:, 0], state[0, 0].T)
    assert loss * 25 == pytest.approx(total, rel=1e-12)
    np.testing.assert_allclose(end[0, 0], states[24].T, rtol=1e-12, atol=1e-12)
    dU, dW, dV, db_s, db_y, _ = model.backpropagate_loss(p, x, targets[:, 0])
    for tensor, expected in {
        "rnn.weight_ih_l0": dU,
        "rnn.weight_hh_l0": dW,
        "rnn.bias_ih_l0": db_s[:, 0],
        "rnn.bias_hh_l0": db_s[:, 0],
        "decoder.weight": dV,
        "decoder.bias": db_y[:, 0],
    }.items():
        found = engine.gradients[tensor] * 25
        assert np.linalg.norm(found - expected) <= 1e-12 * np.linalg.norm(expected)


@every_engine
def test_classic_training_is_the_notebook_s_for_200_steps(name: str) -> None:
    config = ModelConfig("rnn", 20, 1, 8, dtype="float64")
    engine = Backend(name).open(initialize_classic(config, seed=1), classic=True)
    model = as_scratch(engine)
    ids = np.random.default_rng(3).integers(0, 8, 2_030)
    ours = AdaGrad(0.1, epsilon=1e-8, epsilon_inside=True)
    theirs = scratch.AdaGrad(0.1, model.params)
    for step in range(200):
        block = ids[step * 10 : step * 10 + 26]
        loss, _, _ = engine.train_step(
            block[:-1, None], block[1:, None], config.zero_state(1), ours
        )
        x = np.eye(8)[block[:-1]]
        total, _, _, p = model.forward(x, block[1:])
        names = ("U", "W", "V", "b_s", "b_y")
        gradients = dict(zip(names, model.backpropagate_loss(p, x, block[1:])[:5], strict=True))
        model.set_parameters(theirs.update(gradients))
        assert loss * 25 == pytest.approx(total, rel=1e-10)
    trained = as_scratch(engine).params
    for key, values in model.params.items():
        assert np.linalg.norm(trained[key] - values) <= 1e-10 * np.linalg.norm(values)
    assert not engine.parameters["rnn.bias_hh_l0"].any()
