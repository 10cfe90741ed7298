"""The network and the counts together: a mixture in the probability domain.

    p(w|h) = g p_network(w|h) + (1 - g) p_counts(w|h),   g = σ(θ · f(h))

Each knows something the other does not: counts remember rare words exactly, the network what came
long ago. How far each is to be trusted here, f(h) tells: how long a context the counts have seen,
and how often; how sure each is of its guess, and what each makes of the other's. θ is fitted on the
validation part. Compressors mix so (Mahoney, "Adaptive weighing of context models for lossless data
compression", 2005).

V: characters in the vocabulary; K: characters of context of the counts; N: places in a text;
F: features; T: time steps; B: rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.dataset import Ids as TextIds
from charloom.decoding import SamplingSettings, choose
from charloom.engines import Engine, Ids
from charloom.model import Float, ModelConfig, State
from charloom.ngram import TRAINING_AT_MOST, NGramModel, context_from_parts
from charloom.ngram_table import Answers, NGramTable
from charloom.scoring import LONGEST_CONTEXT, blocks_in_rows
from charloom.units import Clamp

# Characters of context beyond those that the counts alone are best with: what stands in the way
# there, a long context seen once, the weight can tell.
FURTHER = 1
ROUNDS, HALVINGS = 50, 12  # of fitting, and of a step in it, at most
ENOUGH = 1e-6  # nats that a round must gain for another one
FITTED_ON = 60_000  # characters, at most
# Neither counts for nothing: on a text unlike any other each can give a character no probability.
LEAST_WEIGHT = 1e-12
RIDGE = 3.0  # holds θ near zero where there is little to fit it on

Features = NDArray[np.float64]
Integers = NDArray[np.integer]


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


def context_of_counts(
    train: Integers, validation: Integers, vocabulary_size: int
) -> tuple[int, float | None]:
    """The number of characters of context, chosen on the validation part; and the nats per
    character that the counts alone reach there, None where there is no such part."""
    train = train[-TRAINING_AT_MOST:]
    context, _, loss = context_from_parts(train, validation, vocabulary_size, LONGEST_CONTEXT)
    return FURTHER + context, loss if len(validation) else None


def count(text: Integers, vocabulary_size: int, context: int, most_bytes: float) -> NGramTable:
    """The counts of a text's ids, (N,), of a long one's end, in at most that many bytes."""
    model = NGramModel.fit(text[-TRAINING_AT_MOST:], vocabulary_size, context)
    return NGramTable.of(model, most_bytes)


def fit_mixture(engine: Engine, table: NGramTable, ids: TextIds, before: int, rows: int) -> Mixture:
    """The mixture whose weights fit a part's ids best, (N,), read in that many rows, of a long part
    a sample of its places. Without any, network and counts weigh the same everywhere."""
    x, of_network, of_counts = [np.zeros((0, feature_count(table.context)))], [], []
    if len(ids):
        contexts = contexts_before(np.concatenate([[before], ids]), table.context)
        every = -(-len(ids) // FITTED_ON)
        for places, block in blocks_in_rows(engine, ids, before, rows):
            places, network = places[::every], block[::every]
            counts = table.ask(contexts[places])
            x.append(features(network, counts, table.context))
            came = np.arange(len(places)), ids[places].astype(np.intp)
            of_network.append(np.exp(network[came].astype(np.float64)))
            of_counts.append(counts.probabilities[came].astype(np.float64))
    theta = fit_theta(
        np.concatenate(x),
        np.concatenate([*of_network, np.zeros(0)]),
        np.concatenate([*of_counts, np.zeros(0)]),
    )
    return Mixture(table, theta)


class MixedState(NamedTuple):
    """The network's state, and for each row the last K ids read, (B, K), -1 before the first."""

    network: State
    context: NDArray[np.int32]


def rows_of(state: Any, rows: Sequence[int]) -> Any:
    """The state of some rows of a predictor's, in that order; a row may come more than once."""
    if isinstance(state, MixedState):
        return MixedState(rows_of(state.network, rows), state.context[list(rows)])
    return np.take(state, rows, axis=2)


def join_states(states: Sequence[Any]) -> Any:
    """The rows of several states of one predictor, side by side."""
    if isinstance(states[0], MixedState):
        networks, contexts = zip(*states, strict=True)
        return MixedState(join_states(networks), np.concatenate(contexts))
    return np.concatenate(states, axis=2)


def state_bytes(state: Any) -> int:
    """The memory that a predictor's state takes."""
    arrays = state if isinstance(state, MixedState) else [state]
    return sum(array.nbytes for array in arrays)


class MixedPredictor:
    """An engine with counts: what charloom.engines calls a Predictor."""

    def __init__(self, engine: Engine, mixture: Mixture) -> None:
        self.engine = engine
        self.mixture = mixture

    @property
    def config(self) -> ModelConfig:
        return self.engine.config

    @property
    def windows_are_exact(self) -> bool:
        return self.engine.windows_are_exact

    def zero_state(self, rows: int) -> MixedState:
        context = np.full((rows, self.mixture.table.context), -1, np.int32)
        return MixedState(self.engine.zero_state(rows), context)

    def log_probabilities(self, inputs: Ids, state: MixedState) -> tuple[Float, MixedState]:
        network, after = self.engine.log_probabilities(inputs, state.network)
        steps, rows, size = network.shape
        read = np.concatenate([state.context, inputs.T.astype(np.int32)], axis=1)  # (B, K + T)
        context = np.lib.stride_tricks.sliding_window_view(read, state.context.shape[1] + 1, axis=1)
        asked = context[:, :, 1:].transpose(1, 0, 2).reshape(steps * rows, -1)  # (T·B, K)
        counts = self.mixture.table.ask(asked)
        mixed = self.mixture.mix(network.reshape(steps * rows, size), counts)
        return mixed.reshape(network.shape), MixedState(after, read[:, steps:])

    def read(self, inputs: Ids, state: MixedState) -> MixedState:
        read = np.concatenate([state.context, inputs.T.astype(np.int32)], axis=1)  # (B, K + T)
        return MixedState(self.engine.read(inputs, state.network), read[:, len(inputs) :])

    def step(
        self, ids: Ids, state: MixedState, clamps: Sequence[Clamp] = ()
    ) -> tuple[Float, MixedState]:
        """As an engine's: the logits are log p."""
        logits, after = self.engine.step(ids, state.network, clamps)
        context = np.concatenate([state.context, ids[:, None].astype(np.int32)], axis=1)[:, 1:]
        with np.errstate(all="ignore"):  # weights as large as numbers go
            x = logits - logits.max(axis=1, keepdims=True)
            network = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
            mixed = self.mixture.mix(network, self.mixture.table.ask(context))
        return mixed, MixedState(after, context)

    def generate(
        self,
        ids: Ids,
        state: MixedState,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
        clamps: Sequence[Clamp] = (),
    ) -> tuple[Ids, MixedState]:
        drawn = np.empty(uniforms.shape, np.intp)
        for count, row in enumerate(uniforms):
            logits, state = self.step(ids, state, clamps)
            ids = drawn[count] = choose(logits, settings, row)
        return drawn, state


def contexts_before(ids: Integers, context: int) -> NDArray[np.int32]:
    """For each id but the first the `context` ids before it, (N - 1, K), -1 where there are
    none."""
    padded = np.concatenate([np.full(context, -1, np.int32), ids.astype(np.int32)])
    return np.lib.stride_tricks.sliding_window_view(padded, context)[1 : len(ids)]
