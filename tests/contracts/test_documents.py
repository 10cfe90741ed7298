"""The end of a document in every engine: before it is read, the row's state becomes zero.

Windows are written as rows of characters: # is the end of a document, . is any other character.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.protocol import ENGINES, Engine
from charloom.network.gradient_check import check_gradients
from charloom.network.optimizers import Adam
from charloom.network.parameters import ModelConfig, Parameters
from charloom.network.units import Clamp, Unit
from helpers.engines import loss_of, make, window

CELLS = ("rnn", "lstm", "gru")
END = 3  # in the middle of the vocabulary
# First place and last place, two in a row, ends only, none, and a different place in each row.
WINDOW = ("#....#", ".##...", "######", "......", "....#.", "#.#.#.", ".....#")
DRAWINGS = [WINDOW, ("..##.#",), ("#",), (".", "#"), ("####", "####")]

every_engine = pytest.mark.parametrize("name", [name for name in ENGINES if name != "auto"])
every_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.fixture
def several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads even where they do not pay."""
    pytest.importorskip("numba", reason="the compiled engine needs Numba")
    monkeypatch.setattr("charloom.engines.compiled.engine.LEAST_FOR_ROWS", 0)
    monkeypatch.setattr("charloom.engines.compiled.engine.LEAST_FOR_UNITS", 0)


def draw(drawing: Sequence[str], engine: Engine) -> tuple[Any, Any, Any]:
    """Return inputs with these ends, (T, B), targets, and a state that is not zero."""
    marks = np.array([list(row) for row in drawing]).T == "#"
    inputs, targets, state = window(engine, *marks.shape)
    inputs[inputs == END] = 0
    inputs[marks] = END
    return inputs, targets, state


def book(engine: Engine, name: str) -> Engine:
    """Return an engine with the same parameters, but without an end of a document."""
    config = ModelConfig(**{**engine.config.as_dict(), "end_id": None})
    return Backend(name).open(Parameters(config, engine.parameters.flat.copy()), seed=6)


def documents(inputs: Any, row: int) -> list[tuple[int, int]]:
    """Return where the documents of a row start and end; the first can have started before."""
    starts = {0, *np.flatnonzero(inputs[:, row] == END).tolist()}
    return list(pairwise([*sorted(starts), len(inputs)]))


@every_engine
@every_cell
@pytest.mark.parametrize(
    ("drawing", "dropout"),
    [(WINDOW, 0.4), *((drawing, 0.0) for drawing in DRAWINGS)],
    ids=lambda value: str(value).replace(", ", "/"),
)
def test_gradients_equal_central_differences(
    name: str, cell: str, drawing: Sequence[str], dropout: float
) -> None:
    engine = make(name, cell, dropout=dropout, end_id=END, threads=1)
    check_every_gradient(engine, drawing)


@pytest.mark.parametrize("name", ["pytorch"])
@every_cell
def test_torch_compile_has_the_same_gradients(warm_compiler: None, name: str, cell: str) -> None:
    engine = make(name, cell, dropout=0.4, end_id=END, threads=1, compile=True)
    check_every_gradient(engine, WINDOW)


def check_every_gradient(engine: Engine, drawing: Sequence[str]) -> None:
    dropout = engine.config.dropout
    inputs, targets, state = draw(drawing, engine)

    loss = loss_of(engine, inputs, targets, state, dropout_step=3)
    # Entries of each tensor: PyTorch takes a second for a few hundred losses.
    most = None if drawing == WINDOW and engine.name != "pytorch" else 25
    errors = check_gradients(loss, engine.parameters, engine.gradients, most=most)
    assert len(errors) == 10
    for tensor, gradient in engine.gradients.items():
        # Where every input is an end, no state is ever read, and differences are of rounding only.
        if "weight_hh" in tensor and set("".join(drawing)) == {"#"}:
            assert not gradient.any()
        else:
            assert gradient.any() or dropout
            assert errors[tensor] <= 1e-7, errors


@every_engine
@every_cell
@pytest.mark.parametrize("drawing", DRAWINGS, ids="/".join)
def test_documents_are_read_as_if_each_were_alone(
    name: str, cell: str, drawing: Sequence[str]
) -> None:
    """A book's engine reads each document by itself, from the zero state."""
    engine = make(name, cell, end_id=END)
    inputs, targets, state = draw(drawing, engine)
    alone = book(engine, name)
    log_p, end = engine.log_probabilities(inputs, state)
    states, other_end = engine.states(inputs, state)
    loss, third_end = engine.loss_and_gradients(inputs, targets, state)
    expected_loss, expected_gradient = 0.0, np.zeros_like(engine.gradients.flat)
    for row in range(inputs.shape[1]):
        for first, last in documents(inputs, row):
            own = inputs[first:last, row : row + 1]
            before = state[:, :, row : row + 1]
            if own[0, 0] == END:
                before = np.zeros_like(before)
            expected, after = alone.log_probabilities(own, before)
            np.testing.assert_allclose(log_p[first:last, row], expected[:, 0], atol=1e-12)
            of_document, _ = alone.states(own, before)
            np.testing.assert_allclose(
                states[first:last, :, :, row], of_document[:, :, :, 0], atol=1e-12
            )
            part, _ = alone.loss_and_gradients(own, targets[first:last, row : row + 1], before)
            expected_loss += part * (last - first) / inputs.size
            expected_gradient += alone.gradients.flat * ((last - first) / inputs.size)
        for found in (end, other_end, third_end):
            np.testing.assert_allclose(found[:, :, row], after[:, :, 0], atol=1e-12)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    np.testing.assert_allclose(engine.gradients.flat, expected_gradient, atol=1e-12)


@every_engine
@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_state_after_an_end_is_a_constant(name: str, cell: str, dtype: str) -> None:
    engine = make(name, cell, dtype=dtype, end_id=END)
    expected, after = engine.step(np.array([END]), engine.zero_state(1))
    _, _, state = window(engine, 1, 9)
    state[:, :, 3] = np.inf
    ids = np.full(9, END)
    logits, found = engine.step(ids, state)
    for row in range(9):
        assert logits[row].tobytes() == expected[0].tobytes()
        assert np.ascontiguousarray(found[:, :, row : row + 1]).tobytes() == after.tobytes()
    assert engine.read(ids[None], state).tobytes() == found.tobytes()
    _, of_window = engine.log_probabilities(ids[None], state)
    np.testing.assert_allclose(of_window, found, atol=1e-6 if dtype == "float32" else 1e-14)


@every_engine
@every_cell
def test_no_method_changes_the_state_that_it_receives(name: str, cell: str) -> None:
    engine = make(name, cell, end_id=END)
    inputs, targets, state = draw(WINDOW, engine)
    before = state.copy()
    engine.log_probabilities(inputs, state)
    engine.loss_and_gradients(inputs, targets, state)
    engine.read(inputs, state)
    engine.states(inputs, state)
    engine.step(inputs[0], state)
    engine.generate(inputs[0], state, SamplingSettings(), np.full((3, len(WINDOW)), 0.5))
    assert state.tobytes() == before.tobytes()


@every_engine
@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_windows_equal_steps(name: str, cell: str, dtype: str) -> None:
    engine = make(name, cell, dtype=dtype, hidden_size=40, end_id=END)
    engine.parameters.flat[:] *= 0.5  # with larger weights rnn is chaotic, and rounding grows
    engine.parameters_changed()
    # The compiled engine reads in pieces of 256 characters, and decodes 32 positions of 4 rows.
    rows = ("#..", "######....##.", "...#", ".........")
    length = 270 if engine.window_equals_steps else 40
    inputs, _, start = draw([(row * length)[:length] for row in rows], engine)
    stepped, all_logits = start, []
    for ids in inputs:
        logits, stepped = engine.step(ids, stepped)
        all_logits.append(logits - logits.max(axis=1, keepdims=True))
    assert engine.read(inputs, start).tobytes() == stepped.tobytes()
    found = np.stack(all_logits)
    found -= np.log(np.exp(found).sum(axis=2, keepdims=True))
    log_p, end = engine.log_probabilities(inputs, start)
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(log_p, found, atol=tolerance)
    np.testing.assert_allclose(end, stepped, atol=tolerance)
    if engine.window_equals_steps:
        assert end.tobytes() == stepped.tobytes()
    for cut in (1, 12, 13, 32, 39):
        first, middle = engine.log_probabilities(inputs[:cut], start)
        second, last = engine.log_probabilities(inputs[cut:], middle)
        np.testing.assert_allclose(np.concatenate([first, second]), log_p, atol=tolerance)
        np.testing.assert_allclose(last, end, atol=tolerance)


@every_engine
@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden_size", [5, 64])
def test_row_is_independent_of_its_batch_to_the_byte(
    name: str, cell: str, dtype: str, hidden_size: int
) -> None:
    engine = make(name, cell, dtype=dtype, hidden_size=hidden_size, vocabulary_size=70, end_id=END)
    generator = np.random.default_rng(1)
    inputs, _, state = window(engine, 4, 33)
    inputs[generator.random(inputs.shape) < 0.4] = END
    logits, after = engine.step(inputs[0], state)
    read = engine.read(inputs, state)
    for size in (1, 2, 3, 8, 32):
        rows = generator.permutation(33)[:size]
        some, some_after = engine.step(inputs[0, rows], state[:, :, rows])
        assert some.tobytes() == logits[rows].tobytes()
        assert some_after.tobytes() == np.ascontiguousarray(after[:, :, rows]).tobytes()
        some_read = engine.read(inputs[:, rows], state[:, :, rows])
        assert some_read.tobytes() == np.ascontiguousarray(read[:, :, rows]).tobytes()


@every_engine
@every_cell
def test_generate_reads_the_ends_that_it_draws(name: str, cell: str) -> None:
    engine = make(name, cell, dtype="float32", end_id=END)
    engine.parameters["decoder.bias"][END] += 2
    engine.parameters_changed()
    inputs, _, state = window(engine, 1, 4)
    uniforms = np.random.default_rng(2).random((30, 4))
    settings = SamplingSettings(0.9, top_k=6, top_p=0.95)
    clamps = [Clamp(Unit(int(cell == "lstm"), 0, 2), 0.7), Clamp(Unit(0, 1, 1), -0.4)]
    drawn, _ = engine.generate(inputs[0], state, settings, uniforms)
    assert 10 < (drawn[:-1] == END).sum() < 100
    for held in ([], clamps):
        drawn, end = engine.generate(inputs[0], state, settings, uniforms, held)
        ids, stepped = inputs[0], state
        for t in range(30):
            logits, stepped = engine.step(ids, stepped, held)
            ids = choose(logits, settings, uniforms[t])
            assert (drawn[t] == ids).all()
        assert end.tobytes() == stepped.tobytes()


@pytest.mark.parametrize("name", [name for name in ENGINES if name not in ("auto", "reference")])
@every_cell
def test_units_are_held_through_an_end(name: str, cell: str) -> None:
    ours, theirs = make(name, cell, end_id=END), make("reference", cell, end_id=END)
    clamps = [Clamp(Unit(int(cell == "lstm"), 0, 2), 0.7), Clamp(Unit(0, 1, 1), -0.4)]
    inputs, _, state = draw(WINDOW, ours)
    for ids in inputs:
        logits, after = ours.step(ids, state, clamps)
        expected, state = theirs.step(ids, state, clamps)
        np.testing.assert_allclose(logits, expected, atol=1e-12)
        np.testing.assert_allclose(after, state, atol=1e-12)
        assert (state[int(cell == "lstm"), 0, :, 2] == 0.7).all()


@every_engine
@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_an_end_in_it_a_window_has_the_bytes_of_a_book(
    name: str, cell: str, dtype: str
) -> None:
    engine = make(name, cell, dtype=dtype, dropout=0.3, end_id=END)
    plain = book(engine, name)
    inputs, targets, state = draw(["." * 9] * 5, engine)
    one, other = Adam(0.01, 1.0), Adam(0.01, 1.0)
    for _ in range(2):
        assert plain.log_probabilities(inputs, state)[0].tobytes() == (
            engine.log_probabilities(inputs, state)[0].tobytes()
        )
        found = engine.train_step(inputs, targets, state, one)
        expected = plain.train_step(inputs, targets, state, other)
        assert found[:2] == expected[:2]
        assert found[2].tobytes() == expected[2].tobytes()
        assert engine.parameters.flat.tobytes() == plain.parameters.flat.tobytes()
        for each in (engine, plain):
            each.parameters_changed()


@pytest.mark.usefixtures("several_threads")
@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_compiled_engine_s_threads_agree(cell: str, dtype: str) -> None:
    inferred, trained = [], []
    for threads in (1, 2, 3, 2):
        engine = make(
            "compiled", cell, dtype=dtype, hidden_size=67, dropout=0.2, end_id=END, threads=threads
        )
        inputs, targets, state = draw([row * 3 for row in WINDOW], engine)
        uniforms = np.random.default_rng(2).random((20, len(WINDOW)))
        results = [
            *engine.log_probabilities(inputs, state),
            *engine.states(inputs, state),
            *engine.generate(inputs[0], state, SamplingSettings(), uniforms),
            engine.read(inputs, state),
        ]
        inferred.append([result.tobytes() for result in results])
        loss, after = engine.loss_and_gradients(inputs, targets, state, dropout_step=1)
        trained.append((loss, after, engine.gradients.flat.copy()))
    assert inferred[0] == inferred[1] == inferred[2] == inferred[3]
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    for loss, after, gradient in trained[1:]:
        assert loss == pytest.approx(trained[0][0], rel=tolerance)
        np.testing.assert_allclose(after, trained[0][1], atol=tolerance)
        np.testing.assert_allclose(gradient, trained[0][2], atol=tolerance)
    assert trained[1][2].tobytes() == trained[3][2].tobytes()
