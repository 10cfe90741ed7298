"""Networks with normalized products: the contracts of engines, with `norm` = "rms"."""

import numpy as np
import pytest

from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.protocol import ENGINES
from charloom.engines.reference_normalization import normalize_backward, normalize_forward
from charloom.network.gradient_check import check_gradients
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.network.units import Clamp, Unit
from helpers.engines import loss_of, make, probabilities, window

every_engine = pytest.mark.parametrize("name", [name for name in ENGINES if name != "auto"])
every_cell = pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])


@every_engine
@every_cell
@pytest.mark.parametrize(
    ("dropout", "end_id", "extra_inputs"), [(0.0, None, 0), (0.3, 2, 0), (0.0, None, 4)]
)
def test_gradients_equal_central_differences(
    name: str, cell: str, dropout: float, end_id: int | None, extra_inputs: int
) -> None:
    engine = make(name, cell, dropout=dropout, end_id=end_id, extra_inputs=extra_inputs, norm="rms")
    inputs, targets, state = window(engine, 6, 3)
    beside = probabilities(engine, 6, 3) if extra_inputs else {}

    loss = loss_of(engine, inputs, targets, state, dropout_step=3, **beside)
    # Roots of small numbers bend more than other functions, hence the smaller step.
    # PyTorch's layers take one time step after another, so that a check of all would take seconds.
    most = 20 if name == "pytorch" else None
    errors = check_gradients(loss, engine.parameters, engine.gradients, step=2e-4, most=most)
    assert len(errors) == 14
    assert max(errors.values()) <= 1e-7, errors
    assert all(gradient.any() for gradient in engine.gradients.values())


@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("hidden_size", "layers"), [(20, 2), (37, 1)])
def test_the_compiled_engine_computes_what_the_reference_does(
    cell: str, dtype: str, threads: int, hidden_size: int, layers: int
) -> None:
    options = {
        "dtype": dtype, "hidden_size": hidden_size, "layers": layers, "dropout": 0.3, "end_id": 0,
        "extra_inputs": 3, "norm": "rms",
    }  # fmt: skip
    reference = make("reference", cell, **options)  # type: ignore[arg-type]
    compiled = make("compiled", cell, threads=threads, **options)  # type: ignore[arg-type]
    inputs, targets, state = window(reference, 9, 5)
    beside = probabilities(reference, 9, 5)
    exact = 1e-12 if dtype == "float64" else 2e-5
    for engine in (reference, compiled):
        engine.loss_and_gradients(inputs, targets, state, dropout_step=1, **beside)
    for tensor, expected in reference.gradients.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(compiled.gradients[tensor], expected, atol=exact * scale)
    expected, end = reference.log_probabilities(inputs, state, **beside)
    found, other_end = compiled.log_probabilities(inputs, state, **beside)
    np.testing.assert_allclose(found, expected, atol=exact)
    np.testing.assert_allclose(other_end, end, atol=exact)


@every_engine
@every_cell
def test_rows_windows_and_steps_fit_together(name: str, cell: str) -> None:
    engine = make(name, cell, dtype="float32", hidden_size=21, end_id=3, norm="rms")
    inputs, _, state = window(engine, 40, 4)
    stepped = state
    for ids in inputs:
        logits, stepped = engine.step(ids, stepped)
    read = engine.read(inputs, state)
    assert read.tobytes() == stepped.tobytes()
    alone = engine.read(inputs[:, 1:2], state[:, :, 1:2])
    assert alone.tobytes() == np.ascontiguousarray(read[:, :, 1:2]).tobytes()
    log_p, scored = engine.log_probabilities(inputs, state)
    if engine.window_equals_steps:
        assert scored.tobytes() == stepped.tobytes()
    np.testing.assert_allclose(scored, stepped, atol=1e-5)
    most = logits.max(axis=1, keepdims=True)
    normalized = logits - most - np.log(np.exp(logits - most).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(normalized, log_p[-1], atol=1e-5)


@every_engine
def test_sampling_and_held_units(name: str) -> None:
    engine = make(name, "lstm", dtype="float32", norm="rms")
    inputs, _, state = window(engine, 1, 3)
    uniforms = np.random.default_rng(2).random((9, 3))
    settings = SamplingSettings(0.9)
    clamps = (Clamp(Unit(0, 0, 1), 0.5), Clamp(Unit(1, 1, 2), -0.8))
    drawn, end = engine.generate(inputs[0], state, settings, uniforms, clamps)
    ids = inputs[0]
    for t in range(9):
        logits, state = engine.step(ids, state, clamps)
        ids = choose(logits, settings, uniforms[t])
        assert (drawn[t] == ids).all()
    assert end.tobytes() == state.tobytes()
    expected, _ = make("reference", "lstm", dtype="float32", norm="rms").step(
        inputs[0], window(engine, 1, 3)[2], clamps
    )
    found, _ = engine.step(inputs[0], window(engine, 1, 3)[2], clamps)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_derivation_of_the_root_mean_square() -> None:
    generator = np.random.default_rng(0)
    x, weights = generator.normal(size=(2, 12)), generator.normal(size=(2, 12))

    def loss() -> float:
        return float((normalize_forward(x, 3)[0] * weights).sum())

    y, factors = normalize_forward(x, 3)
    assert np.square(y.reshape(2, 3, 4)).mean(axis=2) == pytest.approx(1, abs=0.02)
    errors = check_gradients(loss, {"x": x}, {"x": normalize_backward(weights, y, factors)})
    assert errors["x"] < 1e-9


def test_the_size_of_a_weight_does_not_matter() -> None:
    config = ModelConfig("gru", 16, 1, 9, dtype="float64", norm="rms")
    parameters = initialize(config, 1)
    engine = make("reference", "gru", hidden_size=16, layers=1, vocabulary_size=9, norm="rms")
    engine.parameters.flat[:] = parameters.flat
    inputs, _, state = window(engine, 5, 2)
    before, _ = engine.log_probabilities(inputs, state)
    engine.parameters["rnn.weight_hh_l0"][...] *= 3
    after, _ = engine.log_probabilities(inputs, state)
    np.testing.assert_allclose(after, before, atol=0.02)
    assert not np.array_equal(after, before)  # because of ε
