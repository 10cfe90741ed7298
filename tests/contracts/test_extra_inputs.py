"""Extra inputs in every engine: E numbers that the first layer reads beside each character."""

from typing import Any

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import ENGINES, Engine
from charloom.network.gradient_check import check_gradients
from charloom.network.parameters import ModelConfig, Parameters
from helpers.engines import loss_of, make, probabilities, window

CELLS = ("rnn", "lstm", "gru")
END = 3

every_engine = pytest.mark.parametrize("name", [name for name in ENGINES if name != "auto"])
every_cell = pytest.mark.parametrize("cell", CELLS)


def read_window(
    engine: Engine, steps: int, rows: int
) -> tuple[tuple[Any, Any], Any, dict[str, Any]]:
    """Return inputs and targets with ends of documents, if the model has them, state and extra."""
    inputs, targets, state = window(engine, steps, rows)
    end_id = engine.config.end_id
    if end_id is not None:
        inputs[np.random.default_rng(1).random(inputs.shape) < 0.25] = end_id
    return (inputs, targets), state, probabilities(engine, steps, rows)


@every_engine
@every_cell
@pytest.mark.parametrize(
    ("layers", "dropout", "end_id", "count"), [(1, 0.0, None, 9), (2, 0.4, END, 1)]
)
def test_gradients_equal_central_differences(
    name: str, cell: str, layers: int, dropout: float, end_id: int | None, count: int
) -> None:
    engine = make(
        name, cell, layers=layers, dropout=dropout, end_id=end_id, extra_inputs=count, threads=1
    )
    ids, state, extra = read_window(engine, 4, 3)

    loss = loss_of(engine, *ids, state, dropout_step=3, **extra)
    most = 12 if engine.name == "pytorch" else 40  # entries of each tensor
    errors = check_gradients(loss, engine.parameters, engine.gradients, most=most)
    assert len(errors) == 4 * layers + 2
    assert max(errors.values()) <= 1e-7, errors
    assert engine.gradients["rnn.weight_ih_l0"].shape[1] == 7 + count
    assert engine.gradients["rnn.weight_ih_l0"][:, 7:].any()


def book(engine: Engine, name: str) -> Engine:
    """Return an engine with the same parameters that reads no extra inputs."""
    config = ModelConfig(**{**engine.config.as_dict(), "extra_inputs": 0})
    parameters = Parameters(config)
    for tensor, values in parameters.items():
        values[...] = engine.parameters[tensor][tuple(map(slice, values.shape))]
    return Backend(name).open(parameters)


@every_engine
@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zeros_change_nothing_and_a_one_reads_its_column(name: str, cell: str, dtype: str) -> None:
    """The definition: W[:, id] + W[:, V:] e, without a word about e being probabilities."""
    engine = make(name, cell, dtype=dtype, end_id=END, extra_inputs=5)
    (inputs, _), state, extra = read_window(engine, 6, 3)
    zeros = {"extra": np.zeros_like(extra["extra"])}
    without = book(engine, name)
    first = {"extra": zeros["extra"][0]}
    for found, expected in (
        (engine.step(inputs[0], state, **first), without.step(inputs[0], state)),
        (engine.states(inputs, state, **zeros), without.states(inputs, state)),
        (
            engine.log_probabilities(inputs, state, **zeros),
            without.log_probabilities(inputs, state),
        ),
    ):
        np.testing.assert_allclose(
            found[0], expected[0], rtol=1e-6 if dtype == "float32" else 1e-13
        )
    # The second extra input equals one more character with this column.
    extra["extra"][...] = 0
    extra["extra"][2, 1, 1] = 1
    changed = without.parameters["rnn.weight_ih_l0"]
    changed[:, inputs[2, 1]] += engine.parameters["rnn.weight_ih_l0"][:, 7 + 1]
    without.parameters_changed()
    row = inputs[2:3, 1:2], state[:, :, 1:2]
    expected, _ = without.log_probabilities(*row)
    found, _ = engine.log_probabilities(*row, extra=extra["extra"][2:3, 1:2])
    np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype == "float32" else 1e-12)


@every_engine
@every_cell
def test_the_state_after_an_end_depends_on_its_extra_inputs_alone(name: str, cell: str) -> None:
    engine = make(name, cell, end_id=END, extra_inputs=5)
    _, _, state = window(engine, 1, 2)
    ids, extra = np.full(2, END), probabilities(engine, 2)["extra"]
    logits, after = engine.step(ids, state, extra=extra)
    expected, other = engine.step(ids, engine.zero_state(2), extra=extra)
    assert (logits.tobytes(), after.tobytes()) == (expected.tobytes(), other.tobytes())
    assert np.abs(logits[0] - logits[1]).min() > 1e-6
    _, end = engine.log_probabilities(ids[None], state, extra=extra[None])
    np.testing.assert_allclose(end, after, atol=1e-13)


@every_engine
@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_windows_equal_steps(name: str, cell: str, dtype: str) -> None:
    engine = make(name, cell, dtype=dtype, hidden_size=40, end_id=END, threads=1, extra_inputs=19)
    engine.parameters.flat[:] *= 0.5  # with larger weights rnn is chaotic, and rounding grows
    engine.parameters_changed()
    # The compiled engine reads in pieces of 256 characters, and decodes 32 positions of 4 rows.
    (inputs, _), start, extra = read_window(engine, 270 if engine.window_equals_steps else 40, 4)
    e = extra["extra"]
    stepped, all_logits, all_states = start, [], []
    for ids, numbers in zip(inputs, e, strict=True):
        logits, stepped = engine.step(ids, stepped, extra=numbers)
        all_logits.append(logits - logits.max(axis=1, keepdims=True))
        all_states.append(stepped)
    assert engine.read(inputs, start, extra=e).tobytes() == stepped.tobytes()
    found = np.stack(all_logits)
    found -= np.log(np.exp(found).sum(axis=2, keepdims=True))
    log_p, end = engine.log_probabilities(inputs, start, extra=e)
    states, other_end = engine.states(inputs, start, extra=e)
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(log_p, found, atol=tolerance)
    np.testing.assert_allclose(states, np.stack(all_states), atol=tolerance)
    np.testing.assert_allclose(end, stepped, atol=tolerance)
    if engine.window_equals_steps:
        assert end.tobytes() == other_end.tobytes() == stepped.tobytes()
    # A row alone: the same bytes from `step` and `read`, with a view of the extra inputs.
    row = slice(2, 3)
    alone = engine.read(inputs[:, row], start[:, :, row], extra=e[:, row])
    assert alone.tobytes() == np.ascontiguousarray(stepped[:, :, row]).tobytes()


@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_compiled_engine_s_threads_agree(
    cell: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba", reason="the compiled engine needs Numba")
    monkeypatch.setattr("charloom.engines.compiled.engine.LEAST_FOR_ROWS", 0)
    monkeypatch.setattr("charloom.engines.compiled.engine.LEAST_FOR_UNITS", 0)
    inferred, trained = [], []
    for threads in (1, 2, 3, 2):
        engine = make(
            "compiled", cell, dtype=dtype, hidden_size=67, dropout=0.2, end_id=END,
            threads=threads, extra_inputs=21,
        )  # fmt: skip
        ids, state, extra = read_window(engine, 18, 7)
        results = [
            *engine.log_probabilities(ids[0], state, **extra),
            *engine.states(ids[0], state, **extra),
        ]
        inferred.append([result.tobytes() for result in results])
        loss, _ = engine.loss_and_gradients(*ids, state, dropout_step=1, **extra)
        trained.append((loss, engine.gradients.flat.copy()))
    assert inferred[0] == inferred[1] == inferred[2] == inferred[3]
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    for loss, gradient in trained[1:]:
        assert loss == pytest.approx(trained[0][0], rel=tolerance)
        np.testing.assert_allclose(gradient, trained[0][1], atol=tolerance)
    assert trained[1][1].tobytes() == trained[3][1].tobytes()


@every_engine
def test_extra_inputs_that_do_not_fit_are_refused(name: str) -> None:
    engine, plain = make(name, "gru", extra_inputs=4), make(name, "gru")
    (inputs, targets), state, extra = read_window(engine, 5, 3)
    right = extra["extra"]
    wrong: list[Any] = [None, right[:4], right[:, :2], right[..., :3], right.astype(np.float32)]
    for model, values in [
        *((engine, one) for one in wrong),
        (plain, right),
        (plain, right[..., :0]),
    ]:
        for read in (model.log_probabilities, model.read, model.states):
            with pytest.raises(ValueError, match="extra inputs are"):
                read(inputs, state, extra=values)
        with pytest.raises(ValueError, match="extra inputs are"):
            model.loss_and_gradients(inputs, targets, state, extra=values)
        with pytest.raises(ValueError, match="extra inputs are"):
            model.step(inputs[0], state, extra=values)
    with pytest.raises(ValueError, match="cannot generate"):
        engine.generate(inputs[0], state, SamplingSettings(), np.full((2, 3), 0.5))
