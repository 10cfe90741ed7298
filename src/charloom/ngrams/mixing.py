"""The weight of the network in its mixture with an n-gram model: its features, and the Newton fit.

N is the number of places in a text, V that of characters in the vocabulary, F that of features. K
is the number of characters of context of the n-gram model.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.network.parameters import Float
from charloom.ngrams.counts import Counts
from charloom.ngrams.table import NGramPredictions

ROUNDS, HALVINGS = 50, 12  # at most, of Newton steps and of a step's halvings
ENOUGH = 1e-6  # nats a character that a step must gain for another one
# Neither weight is ever 0, because on an unusual text each model can give a character p = 0.
LEAST_WEIGHT = 1e-12
# Keeps θ, except for the constant, near zero where there is little text to fit it on. Networks that
# read the counts differ little from them, and weights that fit one part of a text hardly fit
# another.
RIDGE, RIDGE_OF_READERS = 3.0, 100.0
_limiting = threading.Lock()

Features = NDArray[np.float64]


def feature_count(context: int) -> int:
    """Return F for K characters of context."""
    return 2 * (context + 1) + 11


def features(network: Float, ngram: NGramPredictions, context: int) -> Features:
    """Return the features of the weight, (N, F).

    Args:
        network: the network's log p, (N, V).
        ngram: the n-gram model's predictions for the same N contexts.
        context: the n-gram model's characters of context, K.
    """
    p_network, log_ngram = np.exp(network), np.log(ngram.probabilities)
    rows = np.arange(len(network))
    # Nats: the entropy of each, its surprisal at its own best guess, and at the other's.
    h_network = -np.einsum("nv,nv->n", p_network, network)
    h_ngram = -np.einsum("nv,nv->n", ngram.probabilities, log_ngram)
    guess, other = network.argmax(axis=1), log_ngram.argmax(axis=1)
    s_network, s_ngram = -network[rows, guess], -log_ngram[rows, other]
    seen = np.eye(context + 1)[ngram.length]  # (N, K + 1)
    rarity = -np.log(ngram.weight)  # 0 where the context was hardly seen
    columns = (
        np.ones(len(network)),
        h_network,
        h_ngram,
        s_network,
        s_ngram,
        h_network * h_ngram / 3,
        h_network**2 / 3,
        h_ngram**2 / 3,
        s_network * s_ngram,
        -log_ngram[rows, guess] / 3,
        -network[rows, other] / 3,
    )
    return np.concatenate([np.stack(columns, axis=1), seen, seen * rarity[:, None] / 3], axis=1)


@dataclass(frozen=True)
class Mixture:
    """Counts, and the parameters θ, (F,), of the network's weight beside them."""

    counts: Counts
    theta: NDArray[np.float64]

    def features(self, network: Float, ngram: NGramPredictions) -> Features:
        """Return the features of the weight, (N, F), from the network's log p (N, V)."""
        return features(network, ngram, self.counts.context)

    def weight(self, x: Features) -> NDArray[np.float64]:
        """Return the weight of the network, g (N,), from the features (N, F)."""
        # Summed row by row, so that a row's bytes do not depend on the number of rows.
        g = _sigmoid((x * self.theta).sum(axis=1))
        return np.clip(g, LEAST_WEIGHT, 1 - LEAST_WEIGHT)

    def mix(self, network: Float, ngram: NGramPredictions, x: Features | None = None) -> Float:
        """Return the mixture's log p, (N, V).

        Args:
            network: the network's log p, (N, V).
            ngram: the n-gram model's predictions for the same N contexts.
            x: the features, (N, F), if they are known already.
        """
        g = self.weight(self.features(network, ngram) if x is None else x)
        rest = (1 - g)[:, None].astype(network.dtype)  # 1 - g in float64, before g is rounded
        g = g[:, None].astype(network.dtype)
        return np.asarray(np.log(g * np.exp(network) + rest * ngram.probabilities))


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5)


@functools.cache
def _blas() -> Any:
    """Return the controller of NumPy's BLAS, which takes milliseconds to find."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute NumPy's products in one thread. The limit is the process's, hence the lock."""
    with _limiting, _blas().limit(limits=1):
        yield


@_one_thread()
def fit_theta(
    x: Features,
    network: NDArray[np.float64],
    ngram: NDArray[np.float64],
    start: NDArray[np.float64] | None = None,
    begin: NDArray[np.float64] | None = None,
    ridge: float = RIDGE,
) -> NDArray[np.float64]:
    """Fit θ, (F,), by Newton's method on the log-likelihood less a ridge penalty.

    Let a and b be the probabilities of the character at a place, and r = g·a / (g·a + (1 - g)·b).
    Its log-likelihood log(g·a + (1 - g)·b) has the slope r - g in the logit of g, and the
    curvature r (1 - r) - g (1 - g). Where this exceeds -0.05 g (1 - g), that value replaces it, so
    that every step ascends.

    The products have few columns, so one thread is as fast as two on idle cores. On busy ones, two
    take up to a hundred times as long, because they wait for each other in every product.

    Args:
        x: features, (N, F).
        network: the network's probability of each character of the text, a (N,).
        ngram: the n-gram model's, b (N,).
        start: the θ without a penalty, (F,); zeros by default.
        begin: the θ before the first step, (F,); `start` by default. A nearer one saves steps.
        ridge: the factor of the penalty.
    """
    penalty = np.full(x.shape[1], ridge)
    penalty[0] = 1e-6  # the constant
    start = np.zeros(x.shape[1]) if start is None else start
    theta = start if begin is None else begin
    if not len(x):
        return theta

    def objective(theta: NDArray[np.float64]) -> tuple[float, Features, Features]:
        g = _sigmoid(x @ theta)
        mixed = g * network + (1 - g) * ngram
        return float(np.log(mixed).sum() - penalty @ (theta - start) ** 2 / 2), g, mixed

    before, g, mixed = objective(theta)
    for _ in range(ROUNDS):
        r = g * network / mixed
        curvature = np.maximum(g * (1 - g) - r * (1 - r), 0.05 * g * (1 - g))
        slope = x.T @ (r - g) - penalty * (theta - start)
        step = np.linalg.solve((x * curvature[:, None]).T @ x + np.diag(penalty), slope)
        for _ in range(HALVINGS):
            now, g, mixed = objective(theta + step)
            if now > before:
                break
            step = step / 2
        else:
            break
        theta = theta + step
        if now < before + ENOUGH * len(x):
            break
        before = now
    # Rounded, so that the order of a sum does not change the bytes of a file.
    return np.asarray(np.round(theta, 5))
