"""Weights of network and n-gram model: features of a context, and the Newton fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charloom.network.parameters import Float
from charloom.ngrams.table import Answers, NGramTable

ROUNDS, HALVINGS = 50, 12  # of fitting, and of a step in it, at most
ENOUGH = 1e-6  # nats that a round must gain for another one
# Neither counts for nothing: on a text unlike any other each can give a character no probability.
LEAST_WEIGHT = 1e-12
RIDGE = 3.0  # holds θ near zero where there is little to fit it on

Features = NDArray[np.float64]


def feature_count(context: int) -> int:
    return 2 * (context + 1) + 11


def features(network: Float, counts: Answers, context: int) -> Features:
    """What the weight depends on, (N, F), from log p_network (N, V) and what the counts say."""
    p_network, log_counts = np.exp(network), np.log(counts.probabilities)
    rows = np.arange(len(network))
    # Nats: the entropy of each, its surprisal at its own best guess, and at the other's.
    h_network = -np.einsum("nv,nv->n", p_network, network)
    h_counts = -np.einsum("nv,nv->n", counts.probabilities, log_counts)
    guess, other = network.argmax(axis=1), log_counts.argmax(axis=1)
    s_network, s_counts = -network[rows, guess], -log_counts[rows, other]
    seen = np.eye(context + 1)[counts.length]  # (N, K + 1)
    rarity = -np.log(counts.weight)  # 0 where the context was hardly seen
    columns = (
        np.ones(len(network)),
        h_network,
        h_counts,
        s_network,
        s_counts,
        h_network * h_counts / 3,
        h_network**2 / 3,
        h_counts**2 / 3,
        s_network * s_counts,
        -log_counts[rows, guess] / 3,
        -network[rows, other] / 3,
    )
    return np.concatenate([np.stack(columns, axis=1), seen, seen * rarity[:, None] / 3], axis=1)


@dataclass(frozen=True)
class Mixture:
    """Counts, and θ, (F,)."""

    table: NGramTable
    theta: NDArray[np.float64]

    def features(self, network: Float, counts: Answers) -> Features:
        """What the weight depends on, (N, F)."""
        return features(network, counts, self.table.context)

    def weight(self, x: Features) -> NDArray[np.float64]:
        """g, (N,): what the network counts for, from the features (N, F)."""
        # Added up row by row, so that a row's bytes do not depend on how many there are.
        g = _sigmoid((x * self.theta).sum(axis=1))
        return np.clip(g, LEAST_WEIGHT, 1 - LEAST_WEIGHT)

    def mix(self, network: Float, counts: Answers, x: Features | None = None) -> Float:
        """log p, (N, V), from log p_network (N, V); x: the features, where they are known."""
        g = self.weight(self.features(network, counts) if x is None else x)
        rest = (1 - g)[:, None].astype(network.dtype)  # before it is rounded to nothing
        g = g[:, None].astype(network.dtype)
        return np.asarray(np.log(g * np.exp(network) + rest * counts.probabilities))


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5)


def fit_theta(
    x: Features, network: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """θ, (F,), from features (N, F) and the probabilities, (N,), that each gave to what came.

    Newton's method on the log-likelihood, less a ridge, with the negative curvature left out:
    a place's log-likelihood log(g·a + (1 - g)·b) has, by its logit, the slope r - g and the
    curvature r (1 - r) - g (1 - g), r = g·a / (g·a + (1 - g)·b).
    """
    ridge = np.full(x.shape[1], RIDGE)
    ridge[0] = 1e-6  # the constant
    theta = np.zeros(x.shape[1])
    if not len(x):
        return theta

    def reached(theta: NDArray[np.float64]) -> tuple[float, Features, Features]:
        g = _sigmoid(x @ theta)
        mixed = g * network + (1 - g) * counts
        return float(np.log(mixed).sum() - ridge @ theta**2 / 2), g, mixed

    before, g, mixed = reached(theta)
    for _ in range(ROUNDS):
        r = g * network / mixed
        curvature = np.maximum(g * (1 - g) - r * (1 - r), 0.05 * g * (1 - g))
        slope = x.T @ (r - g) - ridge * theta
        step = np.linalg.solve((x * curvature[:, None]).T @ x + np.diag(ridge), slope)
        for _ in range(HALVINGS):
            now, g, mixed = reached(theta + step)
            if now > before:
                break
            step = step / 2
        else:
            break
        theta = theta + step
        if now < before + ENOUGH * len(x):
            break
        before = now
    # What the order of a sum decides does not belong into a file.
    return np.asarray(np.round(theta, 5))
