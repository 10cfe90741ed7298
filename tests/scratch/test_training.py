"""Learning on one page: AdaGrad and the loop."""

import numpy as np
import pytest

from charloom.scratch import RNN, AdaGrad, OneHot, train, train_data_generator, vocabulary
from helpers.scratch import NAMES, VERSE, by_name, lively_network

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
