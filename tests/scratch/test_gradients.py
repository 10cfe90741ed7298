"""The gradients, softmax and the loss of the system on one page, measured."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from charloom.scratch import RNN, cross_entropy, cross_entropy_derivative, derivative_of, softmax
from helpers.scratch import (
    assert_same_gradients,
    by_name,
    lively_network,
    measured_gradients,
    one_hot,
    window,
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
