"""The network on one page: what belongs to a call, and what to the model."""

from typing import Any

import numpy as np
import pytest

from charloom.scratch import RNN, AdaGrad, softmax
from helpers.scratch import NAMES, lively_network, window

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
