"""A small network of `charloom.scratch`, and its gradients measured."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from charloom.scratch import RNN

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
        timeout=100,
    )
