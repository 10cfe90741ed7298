"""The system on one page. Each mistake of the notebook that it mends has a test that sees it."""

import ast
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from charloom import scratch
from charloom.scratch import (
    RNN,
    AdaGrad,
    OneHot,
    cross_entropy,
    cross_entropy_derivative,
    derivative_of,
    softmax,
    train,
    train_data_generator,
    vocabulary,
)

VERSE = (
    "How doth the little crocodile\nImprove his shining tail,\n"
    "And pour the waters of the Nile\nOn every golden scale!\n"
)
NAMES = ("U", "W", "V", "b_s", "b_y")


def one_hot(indexes: Any, vocab_size: int) -> np.ndarray:
    return np.eye(vocab_size)[np.asarray(indexes)]


def lively_network(activation_function: Callable = np.tanh, seed: int = 1, **more: Any) -> RNN:
    """A small network with large weights and biases, so that no gradient is near zero."""
    rnn = RNN(5, activation_function=activation_function, hidden_size=4, seq_length=6, **more)
    random = np.random.default_rng(seed)
    rnn.set_parameters(
        {name: random.standard_normal(param.shape) * 0.7 for name, param in rnn.params.items()}
    )
    return rnn


def window(T: int = 6, seed: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs (T, 5), targets (T,), and a state that is not zero (4, 1)."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, 5, size=T + 1)
    return one_hot(ids[:-1], 5), ids[1:], random.uniform(-0.9, 0.9, size=(4, 1))


def measured_gradients(rnn: RNN, x: Any, y: Any, s_initial: Any, h: float = 1e-4) -> dict:
    """Every parameter's gradient by fourth-order central differences of the loss."""
    gradients = {}
    for name, param in rnn.params.items():
        gradient = np.zeros_like(param)
        for place in np.ndindex(param.shape):
            kept, loss = param[place], {}
            for k in (-2, -1, 1, 2):
                param[place] = kept + k * h
                loss[k] = rnn.forward(x, y, s_initial)[0]
            param[place] = kept
            gradient[place] = (8 * (loss[1] - loss[-1]) - (loss[2] - loss[-2])) / (12 * h)
        gradients[name] = gradient
    return gradients


def by_name(backpropagated: tuple) -> dict[str, np.ndarray]:
    dU, dW, dV, db_s, db_y, _ = backpropagated
    return {"U": dU, "W": dW, "V": dV, "b_s": db_s, "b_y": db_y}


def assert_same_gradients(analytic: dict, numeric: dict) -> None:
    for name in NAMES:
        a, n = analytic[name], numeric[name]
        assert a.shape == n.shape, name
        size = np.linalg.norm(a) + np.linalg.norm(n)
        assert size > 1e-3, f"d{name} is too small to tell"
        assert np.linalg.norm(a - n) / size <= 1e-7, name


def run_scratch(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "charloom.scratch", *arguments],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


# --- Gradients ------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, Callable] = {
    "tanh": np.tanh,
    "sine": np.sin,
    "softsign": lambda a: a / (1 + np.abs(a)),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "relu": lambda a: np.maximum(a, 0),
    "leaky relu": lambda a: np.where(a > 0, a, 0.1 * a),
    "identity": lambda a: a,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("T", [3, 6])
def test_gradients_are_right_whatever_the_activation(activation: str, T: int) -> None:
    rnn = lively_network(ACTIVATIONS[activation])
    x, y, s_initial = window(T)
    _, states, _, probabilities = rnn.forward(x, y, s_initial)
    *_, last_state = backpropagated = rnn.backpropagate_loss(probabilities, x, y)
    assert_same_gradients(by_name(backpropagated), measured_gradients(rnn, x, y, s_initial))
    np.testing.assert_array_equal(last_state, states[T - 1])


def test_a_derivative_that_is_given_is_the_one_used() -> None:
    rnn = lively_network(np.sin, activation_derivative=np.cos)
    measured = lively_network(np.sin)
    x, y, s_initial = window()
    gradients = [
        by_name(network.backpropagate_loss(network.forward(x, y, s_initial)[3], x, y))
        for network in (rnn, measured)
    ]
    assert_same_gradients(*gradients)
    rnn.activation_derivative = np.zeros_like
    dU, dW, *_ = rnn.backpropagate_loss(rnn.forward(x, y, s_initial)[3], x, y)
    assert not dU.any()
    assert not dW.any()


def test_the_derivative_follows_an_activation_changed_later() -> None:
    rnn = lively_network(np.tanh)
    rnn.activation_function = np.sin
    x, y, s_initial = window()
    analytic = by_name(rnn.backpropagate_loss(rnn.forward(x, y, s_initial)[3], x, y))
    assert_same_gradients(analytic, measured_gradients(rnn, x, y, s_initial))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_derivatives_without_a_formula_are_measured(scale: float) -> None:
    a = scale * np.linspace(-2, 2, 40).reshape(-1, 1)
    np.testing.assert_allclose(
        derivative_of(lambda a: np.tanh(a))(a), derivative_of(np.tanh)(a), rtol=1e-8, atol=1e-9
    )
    np.testing.assert_allclose(derivative_of(np.square)(a), 2 * a, rtol=1e-8, atol=1e-9)


def test_another_loss_with_its_derivative() -> None:
    """Squared error of the probabilities, with one-hot targets."""

    def loss(p: np.ndarray, y: np.ndarray) -> float:
        return float(np.sum((p[:, 0] - y) ** 2))

    def derivative(p: np.ndarray, y: np.ndarray) -> np.ndarray:
        dp = 2 * (p - y.reshape(-1, 1))
        return p * (dp - np.sum(dp * p))

    rnn = lively_network(loss_function=loss, loss_function_derivative=derivative)
    x, y, s_initial = window()
    y = one_hot(y, 5)
    analytic = by_name(rnn.backpropagate_loss(rnn.forward(x, y, s_initial)[3], x, y))
    assert_same_gradients(analytic, measured_gradients(rnn, x, y, s_initial))


def test_the_logits_gradient_is_the_one_measured() -> None:
    z = np.random.default_rng(5).standard_normal((7, 1))
    measured = np.zeros_like(z)
    h = 1e-4
    for place in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[place] = h
        loss = {k: cross_entropy(softmax(z + k * step), 3) for k in (-2, -1, 1, 2)}
        measured[place] = (8 * (loss[1] - loss[-1]) - (loss[2] - loss[-2])) / (12 * h)
    np.testing.assert_allclose(cross_entropy_derivative(softmax(z), 3), measured, rtol=1e-8)


# --- Softmax and the loss -------------------------------------------------------------------------


@settings(deadline=None)
@given(arrays(float, st.tuples(st.integers(1, 9), st.just(1)), elements=st.floats(-1e300, 1e300)))
def test_softmax_of_any_finite_column(logits: np.ndarray) -> None:
    kept = logits.copy()
    p = softmax(logits)
    assert p.shape == logits.shape
    assert np.isfinite(p).all()
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1)
    assert np.argmax(logits) in np.flatnonzero(p == p.max())
    np.testing.assert_array_equal(logits, kept)


def test_softmax_of_large_logits() -> None:
    p = softmax(np.array([[1e4], [1e4], [-1e4], [9999.0]]))
    two_and_a_bit = 2 + np.exp(-1)
    expected = [[1 / two_and_a_bit], [1 / two_and_a_bit], [0], [np.exp(-1) / two_and_a_bit]]
    np.testing.assert_allclose(p, expected, rtol=1e-14)


def test_softmax_treats_each_column_alone() -> None:
    columns = np.array([[1.0, 2e4], [3.0, 0.0], [2.0, 2e4]])
    for k in range(2):
        np.testing.assert_array_equal(softmax(columns)[:, [k]], softmax(columns[:, [k]]))
    np.testing.assert_array_equal(softmax([1, 3, 2]), softmax(columns[:, 0]))


def test_cross_entropy_is_in_nats_and_always_finite() -> None:
    p = np.array([[0.25], [0.75], [0.0]])
    assert cross_entropy(p, 0) == pytest.approx(np.log(4))
    assert isinstance(cross_entropy(p, 0), float)
    assert cross_entropy(p, 2) == pytest.approx(708.396, abs=1e-3)
    assert np.isnan(cross_entropy(np.full((3, 1), np.nan), 1))


@pytest.mark.parametrize("index", [-1, 3])
def test_cross_entropy_refuses_a_character_that_does_not_exist(index: int) -> None:
    with pytest.raises(IndexError, match=str(index)):
        cross_entropy(np.full((3, 1), 1 / 3), index)


def test_the_loss_stays_finite_when_the_network_is_certain_and_wrong() -> None:
    rnn = RNN(3, hidden_size=2)
    rnn.b_y[:] = [[1e4], [0], [-1e4]]
    x, y = one_hot([0, 1], 3), [1, 2]
    loss, _, _, probabilities = rnn.forward(x, y)
    assert loss == pytest.approx(2 * 708.396, abs=1e-2)
    for gradient in rnn.backpropagate_loss(probabilities, x, y):
        assert np.isfinite(gradient).all()


def test_the_derivative_leaves_its_input_alone() -> None:
    p = np.array([[0.2], [0.5], [0.3]])
    np.testing.assert_allclose(cross_entropy_derivative(p, 1), [[0.2], [-0.5], [0.3]])
    np.testing.assert_array_equal(p, [[0.2], [0.5], [0.3]])


# --- The network: what belongs to a call, and what to the model -----------------------------------


def test_parameters_have_their_own_names_and_shapes() -> None:
    rnn = RNN(7, hidden_size=3)
    params = rnn.params
    assert tuple(params) == NAMES
    assert all(params[name] is getattr(rnn, name) for name in NAMES)
    assert [params[name].shape for name in NAMES] == [(3, 7), (3, 3), (7, 3), (3, 1), (7, 1)]
    assert {param.dtype for param in params.values()} == {np.dtype(np.float64)}


def test_setting_parameters_copies_them() -> None:
    first, second = lively_network(seed=1), lively_network(seed=2)
    second.set_parameters(first.params)
    kept = {name: param.copy() for name, param in first.params.items()}
    for name, param in second.params.items():
        np.testing.assert_array_equal(param, kept[name])
        param += 1
        np.testing.assert_array_equal(first.params[name], kept[name])


def test_setting_parameters_keeps_the_optimizer_attached() -> None:
    rnn = lively_network()
    adagrad = AdaGrad(0.1, rnn.params)
    rnn.set_parameters({name: np.full(param.shape, 9.0) for name, param in rnn.params.items()})
    rnn.set_parameters(adagrad.update({n: np.ones(p.shape) for n, p in rnn.params.items()}))
    for param in rnn.params.values():
        np.testing.assert_allclose(param, 8.9, rtol=1e-9)


def test_parameters_that_do_not_fit_are_refused_before_anything_changes() -> None:
    rnn = lively_network()
    kept = {name: param.copy() for name, param in rnn.params.items()}
    new = {name: param + 1 for name, param in kept.items()}
    with pytest.raises(ValueError, match=r"missing \['b_y'\], unknown \['bias'\]"):
        rnn.set_parameters({**{n: p for n, p in new.items() if n != "b_y"}, "bias": new["b_y"]})
    with pytest.raises(ValueError, match=r"b_y must be \(5, 1\), not \(5,\)"):
        rnn.set_parameters({**new, "b_y": new["b_y"].ravel()})
    for name, param in rnn.params.items():
        np.testing.assert_array_equal(param, kept[name])


def test_forward_gives_states_logits_and_probabilities_by_step() -> None:
    rnn = lively_network()
    x, y, s_initial = window()
    loss, states, logits, probabilities = rnn.forward(x, y, s_initial)
    assert set(states) == {-1, *range(6)}
    assert set(logits) == set(probabilities) == set(range(6))
    np.testing.assert_array_equal(states[-1], s_initial)
    expected_loss = 0.0
    for t in range(6):
        a = rnn.U @ x[t][:, None] + rnn.W @ states[t - 1] + rnn.b_s
        np.testing.assert_allclose(states[t], np.tanh(a), rtol=1e-12)
        np.testing.assert_allclose(logits[t], rnn.V @ states[t] + rnn.b_y, rtol=1e-12)
        np.testing.assert_allclose(probabilities[t], softmax(logits[t]), rtol=1e-12)
        expected_loss -= np.log(probabilities[t][y[t], 0])
    assert loss == pytest.approx(expected_loss, rel=1e-12)


def test_a_state_carried_on_is_the_same_as_never_stopping() -> None:
    rnn = lively_network()
    x, y, s_initial = window(6)
    whole, states, _, _ = rnn.forward(x, y, s_initial)
    first, _, _, probabilities = rnn.forward(x[:2], y[:2], s_initial)
    *_, last_state = rnn.backpropagate_loss(probabilities, x[:2], y[:2])
    second, later, _, _ = rnn.forward(x[2:], y[2:], last_state)
    assert first + second == pytest.approx(whole, rel=1e-12)
    np.testing.assert_array_equal(later[3], states[5])


@pytest.mark.parametrize("T", [0, 1, 2, 5, 6, 9])
def test_windows_of_any_length(T: int) -> None:
    rnn = lively_network()  # its seq_length is 6
    x, y, s_initial = window(T)
    loss, states, _, probabilities = rnn.forward(x, y, s_initial)
    *gradients, last_state = rnn.backpropagate_loss(probabilities, x, y)
    assert len(states) == T + 1
    assert (loss > 0) == (T > 0)
    assert all(gradient.any() == (T > 0) for gradient in gradients)
    np.testing.assert_array_equal(last_state, states[T - 1])


def test_two_calls_share_nothing() -> None:
    rnn = lively_network()
    x1, y1, s1 = window(6, seed=3)
    x2, y2, s2 = window(4, seed=4)
    _, states1, logits1, p1 = rnn.forward(x1, y1, s1)
    kept = [{t: a.copy() for t, a in d.items()} for d in (states1, logits1, p1)]
    expected = rnn.backpropagate_loss(p1, x1, y1)

    _, states2, logits2, p2 = rnn.forward(x2, y2, s2)
    rnn.backpropagate_loss(p2, x2, y2)[-1][:] = 7
    s1[:] = 7
    for dictionary in (states2, logits2, p2):
        for array in dictionary.values():
            array[:] = 7
        dictionary.clear()

    for dictionary, before in zip((states1, logits1, p1), kept, strict=True):
        assert dictionary.keys() == before.keys()
        for t, array in dictionary.items():
            np.testing.assert_array_equal(array, before[t])
    again = rnn.backpropagate_loss(p1, x1, y1)
    rnn.backpropagate_loss(p1, x1, y1)[-1][:] = 7
    states1.clear()  # the probabilities bring their own
    once_more = rnn.backpropagate_loss(p1, x1, y1)
    for a, b, c in zip(expected, again, once_more, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_the_backward_pass_may_be_given_the_states() -> None:
    rnn = lively_network()
    x, y, s_initial = window()
    _, states, _, probabilities = rnn.forward(x, y, s_initial)
    expected = rnn.backpropagate_loss(probabilities, x, y)
    rnn.forward(*window(6, seed=9))
    for a, b in zip(
        expected, rnn.backpropagate_loss(dict(probabilities), x, y, states), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="states"):
        rnn.backpropagate_loss(dict(probabilities), x, y)


def test_a_loss_derivative_that_changes_its_input_does_no_harm() -> None:
    def careless(p: np.ndarray, y: int) -> np.ndarray:
        p[y] -= 1
        return p

    rnn, careful = lively_network(loss_function_derivative=careless), lively_network()
    x, y, s_initial = window()
    _, _, _, probabilities = rnn.forward(x, y, s_initial)
    expected = careful.backpropagate_loss(careful.forward(x, y, s_initial)[3], x, y)
    for _ in range(2):
        for a, b in zip(expected, rnn.backpropagate_loss(probabilities, x, y), strict=True):
            np.testing.assert_array_equal(a, b)


def test_inputs_may_be_any_array_like() -> None:
    rnn = lively_network()
    x, y, s_initial = window()
    expected = rnn.forward(x, y, s_initial)[0]
    for xs in (x.astype(bool), x.astype(np.uint8).tolist(), tuple(map(tuple, x))):
        assert rnn.forward(xs, y.tolist(), s_initial.ravel().tolist())[0] == expected


@pytest.mark.parametrize(
    ("x", "y", "s_initial"),
    [
        (np.eye(5)[:4], [0, 1, 2], None),
        (np.eye(5)[:3], [0, 1, 2, 3], None),
        (np.eye(5)[:3], 1, None),
        (np.eye(4), [0, 1, 2, 3], None),
        ([0, 1, 2], [0, 1, 2], None),
        (np.eye(5), [0, 1, 2, 3, 4], np.zeros((5, 1))),
    ],
)
def test_forward_refuses_what_does_not_fit(x: Any, y: Any, s_initial: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        lively_network().forward(x, y, s_initial)


def test_the_backward_pass_refuses_another_windows_probabilities() -> None:
    rnn = lively_network()
    x, y, _ = window(6)
    probabilities = rnn.forward(x, y)[3]
    with pytest.raises(ValueError, match="6 predictions and 6 states for 5 inputs"):
        rnn.backpropagate_loss(probabilities, x[:5], y[:5])


# --- Chance ---------------------------------------------------------------------------------------


def test_a_seed_decides_the_weights_and_the_samples() -> None:
    first, second, other = RNN(6, seed=3), RNN(6, seed=3), RNN(6, seed=4)
    for name in NAMES:
        np.testing.assert_array_equal(first.params[name], second.params[name])
    assert not np.array_equal(first.U, other.U)
    samples = [rnn.sample(0, 50) for rnn in (first, second, other)]
    assert samples[0] == samples[1]
    assert samples[0] != samples[2]
    assert first.sample(0, 50) != samples[0]  # it goes on drawing
    for name in ("U", "W", "V"):
        assert first.params[name].std() == pytest.approx(0.01, rel=0.1)


def test_sampling_reads_what_it_drew() -> None:
    """A network made to say the next character of the alphabet, round and round."""
    rnn = RNN(5, hidden_size=5)
    successor = np.roll(np.eye(5), 1, axis=0)
    rnn.set_parameters(
        {
            "U": 50 * np.eye(5),
            "W": np.zeros((5, 5)),
            "V": 50 * successor,
            "b_s": np.zeros((5, 1)),
            "b_y": np.zeros((5, 1)),
        }
    )
    sampled = rnn.sample(2, 8)
    assert sampled == [3, 4, 0, 1, 2, 3, 4, 0]
    assert all(type(index) is int for index in sampled)


def test_sampling_follows_the_probabilities() -> None:
    rnn = RNN(3, hidden_size=2)
    for name in ("U", "W", "V"):
        rnn.params[name][:] = 0
    rnn.b_y[:, 0] = np.log([0.6, 0.3, 0.1])
    counts = np.bincount(rnn.sample(0, 2000), minlength=3)
    np.testing.assert_allclose(counts / 2000, [0.6, 0.3, 0.1], atol=0.04)


@pytest.mark.parametrize(("seed", "n"), [(-1, 5), (4, 5), (0, -1)])
def test_sampling_refuses_what_does_not_exist(seed: int, n: int) -> None:
    with pytest.raises(ValueError, match=r"seed must be in 0\.\.3"):
        RNN(4).sample(seed, n)


def test_sampling_nothing() -> None:
    assert RNN(4).sample(3, 0) == []


# --- The text -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text())
def test_the_vocabulary_is_sorted_and_reversible(text: str) -> None:
    char_to_indexes, indexes_to_char = vocabulary(text)
    assert list(char_to_indexes) == sorted(set(text))
    assert "".join(indexes_to_char[char_to_indexes[ch]] for ch in text) == text


def test_no_run_orders_the_characters_or_trains_differently(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_bytes(VERSE.encode())
    program = (
        "import sys; from charloom.scratch import *; text = open(sys.argv[1]).read()\n"
        "tables = vocabulary(text); print(tables)\n"
        "data = OneHot([tables[0][ch] for ch in text], len(tables[0]))\n"
        "rnn = RNN(len(tables[0]), seed=5); print(list(train(rnn, data, n_epochs=2))[-1])\n"
        "print(rnn.sample(0, 40))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program, str(book)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert b"smooth_loss" in outputs.pop()


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), max_size=12), st.integers(-2, 14), st.integers(-2, 14))
def test_one_hot_slices_equal_the_whole_array(indexes: list[int], start: int, end: int) -> None:
    rows = OneHot(indexes, 5)
    whole = one_hot(np.array(indexes, dtype=int), 5)
    assert len(rows) == len(whole)
    assert rows[start:end].dtype == np.float64
    np.testing.assert_array_equal(rows[start:end], whole[start:end])


def test_training_never_builds_the_whole_one_hot_array(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    book = tmp_path / "book.txt"
    alphabet = "".join(map(chr, range(32, 122)))
    book.write_text(alphabet * 2500, encoding="utf-8")  # one-hot: 162 MB
    tracemalloc.start()
    try:
        assert scratch.main([str(book), "--steps", "2"]) == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30e6
    assert "vocabulary size: 90" in capsys.readouterr().out


@settings(deadline=None)
@given(st.integers(1, 40), st.data())
def test_windows_hold_each_input_with_the_character_after_it(N: int, draw: st.DataObject) -> None:
    step = draw.draw(st.integers(1, N))
    chunk_size = draw.draw(st.integers(1, 45))
    ids = np.random.default_rng(N).integers(0, 6, size=N)
    whole = one_hot(ids, 6)
    windows = list(train_data_generator(whole, step, chunk_size))
    assert len(windows) == len(range(0, N - 1, step))
    for k, (x, y) in enumerate(windows):
        places = np.arange(k * step, min(k * step + chunk_size, N - 1))
        np.testing.assert_array_equal(x, whole[places])
        np.testing.assert_array_equal(y, ids[places + 1])
    for kind in (whole, OneHot(ids, 6)):
        with_rows = list(train_data_generator(kind, step, chunk_size, one_hot_targets=True))
        assert len(with_rows) == len(windows)
        for (x, y), (x_rows, y_rows) in zip(windows, with_rows, strict=True):
            np.testing.assert_array_equal(x_rows, x)
            np.testing.assert_array_equal(y_rows, one_hot(y, 6))


def test_every_window_of_a_text_passes_through_the_network() -> None:
    rnn = lively_network()
    data = one_hot(np.random.default_rng(0).integers(0, 5, size=20), 5)
    lengths = []
    for x, y in train_data_generator(data, step=2, chunk_size=6):
        _, _, _, probabilities = rnn.forward(x, y)
        rnn.backpropagate_loss(probabilities, x, y)
        lengths.append(len(x))
    assert lengths == [6] * 7 + [5, 3, 1]


@pytest.mark.parametrize(
    ("N", "step", "chunk_size"),
    [(8, 0, 3), (8, -1, 3), (8, 9, 3), (8, 1, 0), (8, 1, -4), (0, 1, 3), (0, 0, 3)],
)
def test_windows_that_would_never_end_are_refused_at_the_call(
    N: int, step: int, chunk_size: int
) -> None:
    with pytest.raises(ValueError, match="must be"):
        train_data_generator(np.zeros((N, 3)), step, chunk_size)


def test_one_character_has_nothing_to_predict() -> None:
    assert list(train_data_generator(np.eye(3)[:1])) == []


# --- Learning -------------------------------------------------------------------------------------


def test_adagrad_takes_exactly_its_steps_in_place() -> None:
    random = np.random.default_rng(0)
    params = {"a": random.standard_normal((3, 2)), "b": random.standard_normal((2, 1))}
    expected = {name: param.copy() for name, param in params.items()}
    G = {name: np.zeros_like(param) for name, param in params.items()}
    adagrad = AdaGrad(0.1, params)
    for _ in range(3):
        grads = {name: random.standard_normal(param.shape) for name, param in params.items()}
        kept = {name: g.copy() for name, g in grads.items()}
        updated = adagrad.update(grads)
        assert updated.keys() == params.keys()
        for name, g in kept.items():
            G[name] += g * g
            expected[name] -= 0.1 * g / np.sqrt(G[name] + 1e-8)
            assert updated[name] is params[name]
            np.testing.assert_array_equal(params[name], expected[name])
            np.testing.assert_array_equal(grads[name], g)


def test_adagrad_returns_the_hidden_bias_under_its_name() -> None:
    rnn = lively_network()
    rnn_params = rnn.params
    updated = AdaGrad(0.1, rnn.params).update({n: np.ones(p.shape) for n, p in rnn.params.items()})
    assert all(updated[name] is rnn_params[name] for name in NAMES)


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"a": np.ones(2)}, r"missing \['b'\], unknown \[\]"),
        ({"a": np.ones(2), "c": np.ones(3)}, r"missing \['b'\], unknown \['c'\]"),
        ({"a": np.ones(2), "b": np.ones(3), "c": np.ones(3)}, r"missing \[\], unknown \['c'\]"),
        ({"a": np.ones(2), "b": np.ones(1)}, r"b must be \(3,\), not \(1,\)"),
    ],
)
def test_adagrad_refuses_other_names_and_changes_nothing(grads: dict, message: str) -> None:
    params = {"a": np.zeros(2), "b": np.zeros(3)}
    with pytest.raises(ValueError, match=message):
        AdaGrad(0.1, params).update(grads)
    assert not params["a"].any()
    assert not params["b"].any()


def test_adagrad_counts_more_than_256_parameters() -> None:
    """Up to there, CPython's equal integers are also the same object."""
    params = {f"p{k}": np.zeros(1) for k in range(300)}
    AdaGrad(0.1, params).update({f"p{k}": np.ones(1) for k in range(300)})
    assert all(param[0] < -0.09 for param in params.values())


def verse_network(seed: int = 0) -> tuple[RNN, OneHot]:
    char_to_indexes, _ = vocabulary(VERSE)
    data = OneHot([char_to_indexes[ch] for ch in VERSE], len(char_to_indexes))
    return RNN(len(char_to_indexes), hidden_size=32, seed=seed), data


def test_training_reports_its_smoothed_loss_and_its_epochs() -> None:
    rnn, data = verse_network()
    first, *rest = train(rnn, data, n_epochs=3)
    per_epoch = len(range(0, len(VERSE) - 1, 10))
    assert [p.epoch for p in rest] == [1 + k // per_epoch for k in range(3 * per_epoch)]
    assert [p.windows for p in rest] == list(range(1, 3 * per_epoch + 1))
    smoothed = 25 * np.log(rnn.vocab_size)
    assert first == (1, 0, 0, smoothed, smoothed)
    for p in rest:
        smoothed = 0.999 * smoothed + 0.001 * p.loss
        assert p.smooth_loss == pytest.approx(smoothed, rel=1e-12)
    windows = train_data_generator(data, 10, 25)
    assert rest[-1].characters == 3 * sum(len(x) for x, _ in windows)


def test_training_learns_and_the_same_seed_learns_the_same() -> None:
    runs = []
    for seed in (0, 0, 1):
        rnn, data = verse_network(seed)
        runs.append((list(train(rnn, data, n_epochs=30)), rnn))
    (progress, rnn), (same, twin), (other, _) = runs
    assert progress == same
    assert progress[-1] != other[-1]
    for name in NAMES:
        np.testing.assert_array_equal(rnn.params[name], twin.params[name])
    assert rnn.sample(0, 30) == twin.sample(0, 30)
    assert progress[-1].smooth_loss < 0.9 * progress[0].smooth_loss
    last_epoch = [p.loss for p in progress if p.epoch == 30]
    assert np.mean(last_epoch) < 0.5 * progress[0].loss


def test_training_gives_each_parameter_its_own_gradient() -> None:
    """One window and one AdaGrad step: each parameter moves by what its gradient says."""
    rnn, data = verse_network()
    twin, _ = verse_network()
    x, y = next(train_data_generator(data, 10, 25))
    gradients = by_name(twin.backpropagate_loss(twin.forward(x, y)[3], x, y))
    progress = train(rnn, data)
    next(progress)
    next(progress)
    for name, g in gradients.items():
        moved = twin.params[name] - 0.1 * g / np.sqrt(g * g + 1e-8)
        np.testing.assert_allclose(rnn.params[name], moved, rtol=1e-12, err_msg=name)


# --- The command ----------------------------------------------------------------------------------


def test_the_command_on_pride_and_prejudice(austen: Path) -> None:
    done = run_scratch(str(austen), "--steps", "300")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.split("\n")
    assert lines[0] == "704,190 characters; vocabulary size: 86"
    assert lines[1] == "epoch 1, 0 windows: smoothed loss 111.36 nats (4.45 a character)"
    (last,) = (line for line in lines if "300 windows" in line)
    assert "characters/s" in last
    assert float(last.split("smoothed loss ")[1].split()[0]) < 107
    assert lines.count("----") == 4  # around two samples


def test_the_command_is_reproducible_and_stops_after_its_epochs(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_bytes(VERSE.encode())

    def printed(seed: str) -> list[str]:
        done = run_scratch(str(book), "--epochs", "2", "--seed", seed)
        assert (done.returncode, done.stderr) == (0, "")
        return [line.split(" a character)")[0] for line in done.stdout.split("\n")]

    assert printed("3") == printed("3") != printed("4")
    windows = 2 * len(range(0, len(VERSE) - 1, 10))
    assert any(line.startswith(f"epoch 2, {windows} windows") for line in printed("3"))


def test_the_book_is_read_as_utf_8_and_as_it_is(tmp_path: Path) -> None:
    """In a locale that knows only ASCII, with a byte order mark and two kinds of line ends."""
    book = tmp_path / "book.txt"
    book.write_bytes("\ufeff“Né,”\r\nsaid\n".encode() * 3)
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run_scratch(str(book), "--steps", "1", **ascii_locale, PYTHONIOENCODING="ascii:strict")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("39 characters; vocabulary size: 12\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is too short: it has 0 characters, and 26 are needed"),
        (b"twenty-five characters...", "is too short: it has 25 characters, and 26 are needed"),
        (b"thirty characters, then a byte: \xff", "is not UTF-8: invalid start byte at byte 32"),
    ],
)
def test_a_file_that_will_not_do_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture, content: bytes | None, message: str
) -> None:
    book = tmp_path / "book.txt"
    if content is not None:
        book.write_bytes(content)
    assert scratch.main([str(book)]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"python -m charloom.scratch: {book} {message}\n")


def test_a_folder_is_no_book_and_the_status_reaches_the_shell(tmp_path: Path) -> None:
    done = run_scratch(str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr


def test_26_characters_are_enough(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    book = tmp_path / "book.txt"
    book.write_bytes(b"abcdefghijklmnopqrstuvwxyz")
    assert scratch.main([str(book), "--epochs", "1"]) == 0
    assert "epoch 1, 3 windows: smoothed loss 81." in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--epochs", "--steps", "--seed"])
@pytest.mark.parametrize("value", ["-1", "many"])
def test_options_that_make_no_sense(option: str, value: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        scratch.main(["book.txt", option, value])
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def start_scratch(tmp_path: Path) -> subprocess.Popen:
    book = tmp_path / "book.txt"
    book.write_bytes(VERSE.encode() * 500)
    return subprocess.Popen(
        [sys.executable, "-m", "charloom.scratch", str(book), "--epochs", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_ctrl_c_ends_quietly_with_130(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits "ignored"
    try:
        process = start_scratch(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")


@pytest.mark.skipif(os.name == "nt", reason="Windows reports a closed pipe in another way")
def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    with start_scratch(tmp_path) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=30) == 141
    assert err == b""


def test_the_page_imports_numpy_and_nothing_of_the_package() -> None:
    imported = set()
    for node in ast.walk(ast.parse(Path(scratch.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])
    assert imported - sys.stdlib_module_names == {"numpy"}
