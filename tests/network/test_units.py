"""Units by name, every state of a text, and units that are held while sampling."""

import numpy as np
import pytest

import charloom
from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import ENGINES, Engine
from charloom.errors import CharloomError
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.network.units import Unit, parse_clamps, parse_unit, unit_name

CELLS = ("rnn", "lstm", "gru")


every_engine = pytest.mark.parametrize("name", [name for name in ENGINES if name != "auto"])


every_cell = pytest.mark.parametrize("cell", CELLS)


def make(name: str, cell: str, hidden_size: int = 70, dtype: str = "float64") -> Engine:
    config = ModelConfig(cell, hidden_size, 2, 7, dtype=dtype)
    parameters = initialize(config, seed=4)
    parameters.flat[:] += np.random.default_rng(5).normal(0, 0.3, parameters.flat.shape)
    return Backend(name).open(parameters)


def some(engine: Engine, steps: int, rows: int):  # type: ignore[no-untyped-def]
    """Ids (T, B), and a state that is not zero."""
    generator = np.random.default_rng(7)
    ids = generator.integers(0, engine.config.vocabulary_size, (steps, rows))
    state = generator.normal(0, 0.5, engine.config.zero_state(rows).shape)
    return ids, state.astype(engine.config.dtype)


def held(cell: str, config: ModelConfig):  # type: ignore[no-untyped-def]
    cells = {"c1.2": 3.0, "c0.0": -0.3} if cell == "lstm" else {}
    return parse_clamps({"h0.1": 0.5, "h1.4": -1.0, **cells}, config)


@every_engine
@every_cell
@pytest.mark.parametrize("rows", [1, 3])
def test_states_are_those_of_steps(name: str, cell: str, rows: int) -> None:
    engine = make(name, cell)
    ids, state = some(engine, 6, rows)
    states, last = engine.states(ids, state)
    for t in range(6):
        _, state = engine.step(ids[t], state)
        np.testing.assert_allclose(states[t], state, rtol=1e-12, atol=1e-12)
    assert (states[-1] == last).all()


@every_engine
@every_cell
def test_engines_hold_alike(name: str, cell: str) -> None:
    engines = [make("reference", cell), make(name, cell)]
    ids, state = some(engines[0], 1, 3)
    clamps = held(cell, engines[0].config)
    (a, after_a), (b, after_b) = (engine.step(ids[0], state, clamps) for engine in engines)
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(after_a, after_b, rtol=1e-11, atol=1e-12)


@every_engine
@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_held_unit_has_its_value_and_is_felt_at_once(name: str, cell: str, dtype: str) -> None:
    engine = make(name, cell, dtype=dtype)
    ids, state = some(engine, 1, 3)
    free, free_after = engine.step(ids[0], state)
    logits, after = engine.step(ids[0], state, parse_clamps({"h1.4": -1.0}, engine.config))
    assert (after[0, 1, :, 4] == -1).all()
    others = np.delete(after, 4, axis=3)
    assert (others == np.delete(free_after, 4, axis=3)).all()
    # The decoder adds its weight times what the unit was moved by.
    moved = (after - free_after)[0, 1, :, 4][:, None] * engine.parameters["decoder.weight"][:, 4]
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(logits - free, moved, rtol=tolerance, atol=tolerance)
    # A unit of the layer below is felt in the layer above in the same step.
    _, below = engine.step(ids[0], state, parse_clamps({"h0.1": 1.0}, engine.config))
    assert (below[0, 1] != free_after[0, 1]).any(axis=1).all()


@every_engine
def test_a_held_cell_state_moves_the_hidden_one(name: str) -> None:
    engine = make(name, "lstm")
    ids, state = some(engine, 1, 3)
    _, free = engine.step(ids[0], state)
    _, after = engine.step(ids[0], state, parse_clamps({"c1.2": 3.0}, engine.config))
    assert (after[1, 1, :, 2] == 3).all()
    o = free[0, 1, :, 2] / np.tanh(free[1, 1, :, 2])
    np.testing.assert_allclose(after[0, 1, :, 2], o * np.tanh(3.0), rtol=1e-9)


@every_engine
@every_cell
def test_generating_holds_as_stepping_does(name: str, cell: str) -> None:
    from charloom.engines.decoding import choose

    engine = make(name, cell)
    ids, state = some(engine, 1, 2)
    clamps = held(cell, engine.config)
    uniforms = np.random.default_rng(3).random((20, 2))
    settings = SamplingSettings(0.9)
    drawn, last = engine.generate(ids[0], state, settings, uniforms, clamps)
    now = ids[0]
    for t in range(20):
        logits, state = engine.step(now, state, clamps)
        now = choose(logits, settings, uniforms[t])
        assert (drawn[t] == now).all()
    assert (last == state).all()
    free, _ = engine.generate(ids[0], state, settings, uniforms)
    assert (free != drawn).any()


def test_names() -> None:
    one, two = ModelConfig("gru", 20, 1, 7), ModelConfig("lstm", 20, 2, 7)
    assert parse_unit("h17", one) == parse_unit(" h0.17", one) == Unit(0, 0, 17)
    assert parse_unit("c1.3", two) == Unit(1, 1, 3)
    for config in (one, two):
        for unit in (Unit(0, 0, 17), Unit(0, config.layers - 1, 3)):
            assert parse_unit(unit_name(unit, config), config) == unit


@pytest.mark.parametrize(
    ("clamp", "said"),
    [
        ("h20=1", "there is no unit h20: they go from h0 to h19"),
        ("h1.3=1", "there is no unit h1.3"),
        ("c3=1", "only an lstm has a cell state"),
        ("x3=1", "is not a unit"),
        ("h٣=1", "is not a unit"),
        ("h-1=1", "is not a unit"),
        ("h3", "pass a unit and its value, like h17=0.9"),
        ("h3=", "pass a unit and its value"),
        ("h3=much", "pass a unit and its value"),
        ("h3=1.01", "out of range: pass a number from -1 to 1"),
        ("h3=nan", "out of range"),
        ("h3=-inf", "out of range"),
    ],
)
def test_what_cannot_be_held(clamp: str, said: str) -> None:
    config = ModelConfig("gru", 20, 1, 7)
    with pytest.raises(CharloomError, match=said):
        parse_clamps([clamp], config)


def test_a_unit_is_held_once() -> None:
    config = ModelConfig("lstm", 20, 1, 7)
    for clamps in (["h3=1", "h3=0"], ["h3=1", "h0.3=0"]):
        with pytest.raises(CharloomError, match="held twice"):
            parse_clamps(clamps, config)
    with pytest.raises(CharloomError, match="from -100 to 100"):
        parse_clamps(["c3=101"], config)
    assert parse_clamps(["h3=1", "c3=100"], config)[0].unit == Unit(1, 0, 3)  # cells come first


def test_a_model_samples_with_a_unit_held() -> None:
    model = charloom.train("abcd efgh\n" * 400, steps=30, hidden_size=16, seed=1, no_mix=True)
    free = model.sample(length=60, seed=3)
    assert model.sample(length=60, seed=3, clamp={}) == free
    texts = {model.sample(length=60, seed=3, clamp={f"h{unit}": 1.0}) for unit in range(16)}
    assert len(texts - {free}) > 8
    assert model.sample(length=60, seed=3, clamp="h1=0.5") == model.sample(
        length=60, seed=3, clamp={"h1": 0.5}
    )
    for value in ("0.5", None, True):
        with pytest.raises(CharloomError, match="pass a number"):
            model.sample(clamp={"h1": value})
    for most in ("3", 1.5, 0):
        with pytest.raises(CharloomError, match="max_overlap is"):
            model.sample(max_overlap=most)
    with pytest.raises(CharloomError, match="there is no unit h16"):
        model.sample(clamp={"h16": 1.0})
