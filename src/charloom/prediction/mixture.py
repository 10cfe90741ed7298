"""The mixture of the network and an n-gram model, in the probability domain.

    p(w|h) = g p_network(w|h) + (1 - g) p_ngram(w|h),   g = σ(θ · f(h))

The two complement each other: the n-gram model remembers rare words exactly, the network remembers
distant text. The features f(h) indicate which one is more reliable in a context. Two of them are
the length and the frequency of the longest context that the n-gram model has seen. The others are
the entropy of each prediction, and the probability that each model gives to the other's best guess.
θ is fitted on the validation split. Compressors mix models in the same way (Mahoney, "Adaptive
weighing of context models for lossless data compression", 2005).

V is the number of characters in the vocabulary, K that of the n-gram model's characters of context.
N is the number of places in a text, F that of features, T that of time steps, B that of rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.restrictions import NO_RESTRICTIONS, Restrictions
from charloom.errors import CharloomError, plural
from charloom.ngrams.mixing import (
    RIDGE,
    RIDGE_OF_READERS,
    Features,
    Mixture,
    feature_count,
    features,
    fit_theta,
)
from charloom.ngrams.table import NGramPredictions, NGramTable
from charloom.prediction.rows import MixedState

if TYPE_CHECKING:  # imports that only a fit needs are inside functions
    from charloom.engines.protocol import Engine, Ids, Predictor
    from charloom.network.parameters import Float, ModelConfig
    from charloom.network.units import Clamp
    from charloom.ngrams.counts import Counts
    from charloom.prediction.mixed.inference import CompiledMixture
    from charloom.text.dataset import TextIds
    from charloom.text.extra_inputs import ExtraInputs

# Characters of context beyond the best number of the n-gram model alone. Its weakness there, long
# contexts seen once, is visible to the weight.
FURTHER = 1
FITTED_ON = 60_000  # characters, at most
FITTED_ON_ITSELF = 20_000  # characters of the training text, at most
ROW = 512  # characters of it that are read in a row
# A network has memorized a text if its loss there is below this share of the n-gram model's. Every
# place is predicted by an n-gram model that has not counted it.
MEMORIZED = 0.5
Integers = NDArray[np.integer]


def choose_ngram_context(
    train: Integers, validation: Integers, vocabulary_size: int, end_id: int | None = None
) -> tuple[int, float | None]:
    """Choose the number of characters of context of the n-gram model in a mixture.

    Args:
        train: ids of the training split.
        validation: ids of the validation split, which can be empty.
        vocabulary_size: V.
        end_id: the id of END in a collection, else None.

    Returns:
        The number K, and the n-gram model's own loss in nats per character of the validation
        split, None where that is empty.
    """
    from charloom.ngrams.choosing import choose_context_on_splits, counted_part

    choice = choose_context_on_splits(
        counted_part(train, end_id), validation, vocabulary_size, end_id
    )
    return FURTHER + choice.context, choice.loss if len(validation) else None


def fit_ngram_table(
    text: Integers,
    vocabulary_size: int,
    context: int,
    most_bytes: float,
    end_id: int | None = None,
) -> NGramTable:
    """Count a text and return its n-gram table.

    Args:
        text: ids, (N,). Of a long text only the end is counted, of a large collection an excerpt.
        vocabulary_size: V.
        context: characters of context, K.
        most_bytes: the size limit of the table, which can lose characters of context to it.
        end_id: the id of END in a collection, else None.
    """
    from charloom.ngrams.choosing import counted_part
    from charloom.ngrams.kneser_ney import NGramModel

    model = NGramModel.fit(counted_part(text, end_id), vocabulary_size, context, end_id)
    return NGramTable.of(model, most_bytes)


def fit_mixture(engine: Engine, table: NGramTable, ids: TextIds, before: int, rows: int) -> Mixture:
    """Fit the weights of a mixture on a text, or on a sample of the places of a long one.

    Args:
        engine: the network.
        table: the n-gram model.
        ids: the text's, (N,). Without any, both models weigh the same everywhere.
        before: the id of the character before the text.
        rows: rows side by side in which the network reads the text.
    """
    return Mixture(table, fit_theta(*_predictions(engine, table, ids, before, rows)))


@dataclass(frozen=True)
class PredictedText:
    """A text that counts have predicted, before they counted any of it.

    Attributes:
        ids: the text's, (N,).
        before: the id of the character before it.
        extra: the extra inputs of a network that reads the counts, of `before` and of ids,
            (N + 1, E); else None.
        predict: returns what the counts predict of the characters at places of the text, (n,).
    """

    ids: TextIds
    before: int
    extra: ExtraInputs | None
    predict: Callable[[NDArray[np.intp]], NGramPredictions]


def fit_predicted_mixture(
    engine: Engine, counts: Counts, text: PredictedText, rows: int, *, trained_on: bool
) -> Mixture | None:
    """Fit the weights of a mixture on a text that the counts predicted earlier.

    Args:
        engine: the network.
        counts: what the mixture consists of beside the network. They can know the text by now.
        text: the text.
        rows: rows side by side in which the network reads it.
        trained_on: whether the network was trained on it.

    Returns:
        None if the network has memorized the text, and does not read the counts.
    """
    every = _predictions_by(
        text.predict, counts.context, engine, text.ids, text.before, rows, extra=text.extra
    )
    if trained_on and not engine.config.extra_inputs and _has_memorized(every):
        return None
    ridge = RIDGE_OF_READERS if engine.config.extra_inputs else RIDGE
    return Mixture(counts, fit_theta(*every, ridge=ridge))


def fit_mixture_on_training_text(
    engine: Engine,
    ids: TextIds,
    context: int,
    most_bytes: float,
    end_id: int | None = None,
) -> Mixture | None:
    """Count a training text and fit the weights of the mixture on it, without any other text.

    The network has read the text, and the n-gram model must not seem to know it better. Every part
    that the weights are fitted on is therefore predicted by counts of the rest. The weights then
    lean on the network as far as it has learned the text.

    Args:
        engine: the network.
        ids: the training text's, (N,), N ≥ 2.
        context: characters of context of the n-gram model, K.
        most_bytes: the size limit of its table.
        end_id: the id of END in a collection, else None.

    Returns:
        None if the network has memorized the text. Counts would only disturb its samples.
    """
    from charloom.ngrams.choosing import counted_part
    from charloom.prediction.validation import WARM_UP

    counted = counted_part(ids, end_id)
    size = engine.config.vocabulary_size
    table = fit_ngram_table(counted, size, context, most_bytes, end_id)
    found = []
    for begin, end in _parts_to_fit_on(counted, end_id):
        rest = np.concatenate([counted[:begin], counted[end:]])
        counts = fit_ngram_table(rest, size, table.context, math.inf, end_id)
        # A document begins with a zero state. Elsewhere the network first reads some characters.
        first = begin if end_id is not None else max(0, begin - WARM_UP)
        before = int(counted[first - 1])
        text, rows = counted[first:end], max(1, (end - first) // ROW)
        found.append(_predictions(engine, counts, text, before, rows, begin - first))
    every = _joined(found, table.context)
    if _has_memorized(every):
        return None
    return Mixture(table, fit_theta(*every))


def _parts_to_fit_on(ids: Integers, end_id: int | None) -> list[tuple[int, int]]:
    """Return the parts of a training text, (N,), that are predicted by counts of the rest.

    These are the tenths of a short text, and the end of a long one. In a collection, they consist
    of whole documents, unless there is only one.
    """
    tenth = max(1, min(len(ids) // 10, FITTED_ON_ITSELF))
    if len(ids) > FITTED_ON_ITSELF:
        cuts = np.array([len(ids) - tenth, len(ids)])
    else:
        cuts = np.append(np.arange(0, len(ids) - tenth + 1, tenth), len(ids))
    if end_id is not None:
        from charloom.text.excerpt import document_ends

        begins = np.concatenate([[0], document_ends(ids, end_id)])
        if len(begins) > 2:
            cuts = np.unique(begins[np.searchsorted(begins[:-1], cuts[:-1])])
            cuts = np.append(cuts, len(ids))
    return [(int(a), int(b)) for a, b in itertools.pairwise(cuts) if a < b and b - a < len(ids)]


class _Predictions(NamedTuple):
    """The features at some places of a text, (N, F), and both probabilities of the character there.

    The probabilities have the shape (N,).
    """

    features: Features
    network: NDArray[np.float64]
    ngram: NDArray[np.float64]


def _predictions(
    engine: Engine, table: NGramTable, ids: TextIds, before: int, rows: int, first: int = 0
) -> _Predictions:
    """Predict a text, (N,), from its place `first` on, or a sample of the places of a long one."""
    contexts = contexts_before(np.concatenate([[before], ids]), table.context)
    return _predictions_by(
        lambda places: table.look_up(contexts[places]),
        table.context, engine, ids, before, rows, first,
    )  # fmt: skip


def _predictions_by(
    predict: Callable[[NDArray[np.intp]], NGramPredictions],
    context: int,
    engine: Engine,
    ids: TextIds,
    before: int,
    rows: int,
    first: int = 0,
    extra: ExtraInputs | None = None,
) -> _Predictions:
    """Predict a text, (N,), like `_predictions`, by the predictions of counts at any places."""
    from charloom.prediction.validation import blocks_in_rows

    x, of_network, of_ngram = [np.zeros((0, feature_count(context)))], [], []
    if len(ids):
        every = -(-len(ids) // FITTED_ON)
        for places, block in blocks_in_rows(engine, ids, before, rows, extra=extra):
            chosen = np.flatnonzero(places >= first)[::every]
            places, network = places[chosen], block[chosen]
            ngram = predict(places)
            x.append(features(network, ngram, context))
            targets = np.arange(len(places)), ids[places].astype(np.intp)
            of_network.append(np.exp(network[targets].astype(np.float64)))
            of_ngram.append(ngram.probabilities[targets].astype(np.float64))
    nothing = np.zeros(0)
    return _Predictions(
        np.concatenate(x),
        np.concatenate([*of_network, nothing]),
        np.concatenate([*of_ngram, nothing]),
    )


def _has_memorized(predictions: _Predictions) -> bool:
    """Return whether the network predicts a text so well that it must have memorized it."""
    of_network, of_ngram = np.log(predictions.network).sum(), np.log(predictions.ngram).sum()
    return bool(of_network > MEMORIZED * of_ngram)


def _joined(predictions: Sequence[_Predictions], context: int) -> _Predictions:
    nothing = _Predictions(np.zeros((0, feature_count(context))), np.zeros(0), np.zeros(0))
    parts = zip(nothing, *predictions, strict=True)
    return _Predictions(*(np.concatenate(part) for part in parts))


class MixedPredictor:
    """An engine and counts as one Predictor (see charloom.engines.protocol).

    A network with extra inputs reads the counts' probabilities of the next character beside each
    character. It cannot predict without them, so `network_only` omits the last mixing alone.

    Args:
        engine: the network, without extra inputs or with one for each character.
        mixture: the counts, and the weights of the mixture.
        network_only: whether the predictions are the network's, as it reads the counts.
    """

    def __init__(self, engine: Engine, mixture: Mixture, *, network_only: bool = False) -> None:
        self.engine = engine
        self.mixture = mixture
        self.network_only = network_only

    @property
    def config(self) -> ModelConfig:
        return self.engine.config

    @property
    def window_equals_steps(self) -> bool:
        return self.engine.window_equals_steps

    @property
    def takes_restrictions(self) -> bool:
        """Return whether `generate` takes restrictions of its rows."""
        return self._compiled is not None

    def zero_state(self, rows: int) -> MixedState:
        return MixedState(self.engine.zero_state(rows), self.mixture.counts.zero_state(rows))

    def _predict(
        self, ids: Ids, state: MixedState
    ) -> tuple[NGramPredictions, NDArray[Any], Float | None]:
        """Return the counts' predictions after ids (T, B), their state, and the extra inputs."""
        ngram, context = self.mixture.counts.predict(ids, state.context)
        return ngram, context, extra_inputs(self.config, ngram, *ids.shape)

    @cached_property
    def _compiled(self) -> CompiledMixture | None:
        """One kernel for both models. Without it, the methods below compute in NumPy."""
        if self.engine.name != "compiled":
            return None
        from charloom.prediction.mixed.inference import CompiledMixture

        return CompiledMixture.of(self.engine, self.mixture, self.network_only)

    def log_probabilities(self, inputs: Ids, state: MixedState) -> tuple[Float, MixedState]:
        if self._compiled is not None:
            return self._compiled.log_probabilities(inputs, state)
        ngram, context, extra = self._predict(inputs, state)
        network, after = self.engine.log_probabilities(inputs, state.network, extra=extra)
        if not self.network_only:
            rows = network.reshape(-1, network.shape[-1])
            network = self.mixture.mix(rows, ngram).reshape(network.shape)
        return network, MixedState(after, context)

    def read(self, inputs: Ids, state: MixedState) -> MixedState:
        if self._compiled is not None:
            return self._compiled.read(inputs, state)
        if self.config.extra_inputs:
            _, context, extra = self._predict(inputs, state)
            return MixedState(self.engine.read(inputs, state.network, extra=extra), context)
        context = self.mixture.counts.read(inputs, state.context)
        return MixedState(self.engine.read(inputs, state.network), context)

    def states(self, inputs: Ids, state: MixedState) -> tuple[Float, MixedState]:
        """Return the network's states after inputs (T, B), (T, S, L, B, H), and the last state."""
        _, context, extra = self._predict(inputs, state)
        found, after = self.engine.states(inputs, state.network, extra=extra)
        return found, MixedState(after, context)

    def step(
        self, ids: Ids, state: MixedState, clamps: Sequence[Clamp] = ()
    ) -> tuple[Float, MixedState]:
        """Advance each row by one id, as an engine does; a mixture's logits are log p."""
        if self._compiled is not None:
            return self._compiled.step(ids, state, clamps)
        ngram, context, extra = self._predict(ids[None], state)
        beside = None if extra is None else extra[0]
        logits, after = self.engine.step(ids, state.network, clamps, extra=beside)
        if not self.network_only:
            with np.errstate(all="ignore"):  # The largest weights can overflow.
                x = logits - logits.max(axis=1, keepdims=True)
                logits = self.mixture.mix(x - np.log(np.exp(x).sum(axis=1, keepdims=True)), ngram)
        return logits, MixedState(after, context)

    def generate(
        self,
        ids: Ids,
        state: MixedState,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
        clamps: Sequence[Clamp] = (),
        rules: Restrictions = NO_RESTRICTIONS,
    ) -> tuple[Ids, MixedState]:
        if self._compiled is not None:
            return self._compiled.generate(ids, state, settings, uniforms, clamps, rules)
        if rules is not NO_RESTRICTIONS:
            raise ValueError("only a compiled predictor takes restrictions")
        sampled = np.empty(uniforms.shape, np.intp)
        for t, row in enumerate(uniforms):
            logits, state = self.step(ids, state, clamps)
            ids = sampled[t] = choose(logits, settings, row)
        return sampled, state


def extra_inputs(
    config: ModelConfig, ngram: NGramPredictions | None, steps: int, rows: int
) -> Float | None:
    """Return the extra inputs of a network that reads counts, (T, B, E), else None.

    Args:
        config: the network's.
        ngram: the counts' predictions after ids (T, B), which a network that reads them requires.
        steps: T.
        rows: B.
    """
    if not config.extra_inputs:
        return None
    assert ngram is not None
    p = ngram.probabilities.reshape(steps, rows, config.extra_inputs)
    return p.astype(config.dtype, copy=False)


def contexts_before(ids: Integers, context: int) -> NDArray[np.int32]:
    """Return the `context` ids before each id but the first, (N - 1, K), -1 before the text."""
    padded = np.concatenate([np.full(context, -1, np.int32), ids.astype(np.int32)])
    return np.lib.stride_tricks.sliding_window_view(padded, context)[1 : len(ids)]


def network_of(engine: Engine, mixture: Mixture | None) -> Predictor:
    """Return the predictor of a network alone, with the counts that it reads, if it reads any.

    Raises:
        CharloomError: if the network reads counts that do not exist or do not fit it.
    """
    extra = engine.config.extra_inputs
    if not extra:
        return engine
    if mixture is None or extra != mixture.counts.vocabulary_size:
        raise CharloomError(
            f"the network reads {plural(extra, 'extra input')}, and the model has no context mixer "
            "that predicts them: use the model's file from before it was exported"
        )
    return MixedPredictor(engine, mixture, network_only=True)
