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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.protocol import Engine, Ids
from charloom.network.parameters import Float, ModelConfig, State
from charloom.network.units import Clamp
from charloom.ngrams.kneser_ney import (
    LONGEST_CONTEXT,
    TRAINING_AT_MOST,
    NGramModel,
    context_from_parts,
)
from charloom.ngrams.mixing import Mixture, feature_count, features, fit_theta
from charloom.ngrams.table import NGramTable
from charloom.prediction.scoring import blocks_in_rows
from charloom.text.dataset import Ids as TextIds

# Characters of context beyond those that the counts alone are best with: what stands in the way
# there, a long context seen once, the weight can tell.
FURTHER = 1
FITTED_ON = 60_000  # characters, at most
Integers = NDArray[np.integer]


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
    def window_equals_steps(self) -> bool:
        return self.engine.window_equals_steps

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
