"""The adaptive protocol, known as dynamic evaluation: each window is scored, then trained on.

Krause et al., "Dynamic evaluation of neural sequence models" (2018). All characters of a window are
scored before the network takes a step on it,

    θ ← θ - rate · g / (√m + ε)

where g is the gradient of the window's loss and m the mean of its square over the training text. In
a mixture, the n-gram model keeps counting after every character, and the weights are fitted again
at intervals. All changes are discarded after the text.

N is the number of characters of the text, V that of the vocabulary, P that of all parameters of
the network. F is the number of features, K that of the n-gram model's characters of context.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.engines.backend import Backend
from charloom.engines.protocol import Engine
from charloom.network.optimizers import NonFiniteGradientError, RMSProp
from charloom.network.parameters import Float, Parameters
from charloom.ngrams.choosing import counted_part
from charloom.ngrams.mixing import Mixture, feature_count, fit_theta
from charloom.prediction.mixture import (
    FITTED_ON,
    contexts_before,
    fit_ngram_table,
    visible_lengths,
)
from charloom.prediction.scoring import Scores
from charloom.progress import OnProgress
from charloom.text.dataset import TextIds
from charloom.text.excerpt import excerpt

WINDOW = 20  # characters between two steps
EPSILON = 1e-4
RATES = (1.5e-4, 3e-4, 6e-4, 1.2e-3, 2.4e-3)
DEFAULT_RATE = 6e-4
MEASURED = 400  # windows of the training text from which m is computed
REFIT_INTERVAL = 4_000  # characters between two fits of a mixture's weights
# The weight of the probabilities before the recent counts, in characters, by characters of context.
PRIOR: Mapping[int, float] = {4: 10.0, 5: 5.0, 6: 2.0, 7: 1.0, 8: 1.0}
DISCOUNT = 0.5  # subtracted from each recent count
CHOSEN_ON = 30_000  # characters at most, from the end of the held-out text


class AdaptiveScores(NamedTuple):
    """The scores of the mixture, None for a model without one, and of the network alone."""

    mixture: Scores | None
    network: Scores


class Evidence(NamedTuple):
    """The data that the weights of a mixture are fitted on."""

    x: NDArray[np.float64]  # (N, F) features
    network: NDArray[np.float64]  # (N,) the network's probability of each character
    ngram: NDArray[np.float64]  # (N,) the n-gram model's


@dataclass(frozen=True)
class Adaptation:
    """The settings by which a model adapts to the text that it is scored on.

    Attributes:
        rate: the learning rate of the network.
        mean_squares: m, the mean square of each parameter's gradient, (P,).
        mixture: the n-gram model and its weights, or None.
        evidence: the data that these weights were fitted on, to which new data are added. Without
            it, the weights stay as they are.
        prior: the weight of the probabilities before the recent counts, by characters of context.
            The n-gram model does not adapt without any.
        refit_interval: characters between two fits of the weights.
    """

    rate: float
    mean_squares: NDArray[np.floating]
    mixture: Mixture | None
    evidence: Evidence | None = None
    prior: Mapping[int, float] = field(default_factory=lambda: PRIOR)
    refit_interval: int = REFIT_INTERVAL


class _Trial(NamedTuple):
    scores: AdaptiveScores
    evidence: Evidence | None


class RecentCounts:
    """Counts of the scored text, on top of a table's probabilities:

        p_k(w|h) = (c(hw) - D [c(hw) > 0] + (τ_k + D n(h)) p_{k-1}(w|h')) / (c(h) + τ_k)

    for every k in `prior`, which holds τ_k, from the shortest to K. n(h) is the number of distinct
    characters seen after h. This is hierarchical Pitman-Yor smoothing (Teh 2006) with constants.

    A context consists of the visible characters, at most K. In a collection it begins with the last
    END, and no h is longer.
    """

    def __init__(self, context: int, prior: Mapping[int, float] = PRIOR) -> None:
        self._prior = prior
        self._counts: dict[int, dict[bytes, dict[int, int]]] = {
            k: {} for k in prior if k <= context
        }

    def refine(self, probabilities: NDArray[np.float32], context: NDArray[np.int32]) -> None:
        """Update the probabilities after a context, (V,), in place, by the counts after it."""
        for k, counts in self._counts.items():
            if k > len(context):
                return
            seen = counts.get(context[len(context) - k :].tobytes())
            if seen is None:
                return  # Longer contexts were not seen either.
            whole = sum(seen.values()) + self._prior[k]
            probabilities *= (self._prior[k] + DISCOUNT * len(seen)) / whole
            for w, times in seen.items():
                probabilities[w] += (times - DISCOUNT) / whole

    def add(self, context: NDArray[np.int32], w: int) -> None:
        """Count a character after its context."""
        for k, counts in self._counts.items():
            if k > len(context):
                return
            seen = counts.setdefault(context[len(context) - k :].tobytes(), {})
            seen[w] = seen.get(w, 0) + 1


def choose_adaptation(
    engine: Engine,
    mixture: Mixture | None,
    fitted: TextIds,
    held_out: TextIds,
    on_progress: OnProgress | None = None,
    *,
    prior: Mapping[int, float] = PRIOR,
) -> Adaptation:
    """Choose the learning rate and a mixture's weights on the end of the held-out text.

    The n-gram model of the mixture can know the held-out text. For the choice it is replaced by one
    that is counted on the text before it. Of a collection, an excerpt of the held-out text is read,
    and that model is counted on `fitted` alone.

    Args:
        engine: the network.
        mixture: the n-gram model and its weights, or None.
        fitted: the text that the network was trained on.
        held_out: the text after it, which the network was not trained on. If it is empty, the
            default rate is taken and the weights are kept.
        on_progress: called with the stage "adapting", the characters scored and their total.
        prior: the `prior` of the adaptation.
    """
    chosen = Adaptation(DEFAULT_RATE, _mean_squares(engine, fitted), mixture, prior=prior)
    end_id = engine.config.end_id
    ids = held_out[-CHOSEN_ON:] if end_id is None else excerpt(held_out, CHOSEN_ON, end_id)
    if not len(ids):
        return chosen
    known = counted_part(fitted, end_id)
    if end_id is None:
        known = np.concatenate([known, held_out[: len(held_out) - len(ids)]])
    candidate = chosen
    if mixture is not None:
        table = mixture.table
        ngram = fit_ngram_table(known, table.vocabulary_size, table.context, np.inf, end_id)
        candidate = replace(chosen, mixture=replace(mixture, table=ngram))
    least, best = np.inf, None
    for number, rate in enumerate(RATES):

        def report(stage: str, done: int, total: int | None, number: int = number) -> None:
            if on_progress is not None:
                on_progress("adapting", number * len(ids) + done, len(RATES) * len(ids) + 1)

        trial = _score(engine, ids, int(known[-1]), replace(candidate, rate=rate), report)
        loss = trial.scores.network.nats_per_character
        if loss < least:
            least, best, chosen = loss, trial, replace(chosen, rate=rate)
        elif loss > least:
            break  # because larger rates are even worse
    if mixture is not None and best is not None and best.evidence is not None:
        refitted = replace(mixture, theta=fit_theta(*best.evidence))
        chosen = replace(chosen, mixture=refitted, evidence=best.evidence)
    return chosen


def score_adaptively(
    engine: Engine,
    ids: TextIds,
    before: int,
    adaptation: Adaptation,
    on_progress: OnProgress | None = None,
    likeliest: int = 0,
) -> AdaptiveScores:
    """Score ids, (N,), each exactly once. The engine's own parameters do not change.

    Args:
        engine: the network, of which a copy is trained.
        ids: the text's.
        before: the id of the character before the text.
        adaptation: as `choose_adaptation` returns it.
        on_progress: called with the stage "scoring", the characters scored and N.
        likeliest: the number of guesses to keep at each place.
    """
    return _score(engine, ids, before, adaptation, on_progress, likeliest).scores


def _score(
    engine: Engine,
    ids: TextIds,
    before: int,
    adaptation: Adaptation,
    on_progress: OnProgress | None,
    likeliest: int = 0,
) -> _Trial:
    """Score ids as `score_adaptively` does, and return the evidence for a mixture's weights too."""
    learner = _copy(engine)
    optimizer = RMSProp(adaptation.rate, decay=1.0, epsilon=EPSILON)  # With this decay, m is fixed.
    optimizer.prepare(learner.parameters.flat)
    optimizer.slots["mean_square"][:] = adaptation.mean_squares
    mixing = None
    if adaptation.mixture is not None:
        mixing = _AdaptiveMixture(
            adaptation.mixture, adaptation, ids, before, likeliest, engine.config.end_id
        )
    text = np.concatenate([[before], ids]).astype(np.intp)
    alone = Scores.empty(len(ids), likeliest)
    state = learner.zero_state(1)
    for begin in range(0, len(ids), WINDOW):
        window = text[begin : begin + WINDOW + 1, None]
        inputs, targets = window[:-1], window[1:]
        places = np.arange(begin, begin + len(targets))
        learner.parameters_changed()
        block, after = learner.log_probabilities(inputs, state)
        network = block[:, 0]
        alone.put(places, network, targets[:, 0])
        if mixing is not None:
            mixing.score(places, network)
        # A window whose gradient is not finite is skipped.
        with contextlib.suppress(NonFiniteGradientError):
            learner.train_step(inputs, targets, state, optimizer)
        state = after
        if on_progress is not None:
            on_progress("scoring", begin + len(targets), len(ids))
    if mixing is None:
        return _Trial(AdaptiveScores(None, alone), None)
    return _Trial(AdaptiveScores(mixing.scores, alone), mixing.evidence)


class _AdaptiveMixture:
    """A mixture whose n-gram model and weights adapt to the ids of a text, (N,)."""

    def __init__(
        self,
        mixture: Mixture,
        adaptation: Adaptation,
        ids: TextIds,
        before: int,
        likeliest: int,
        end_id: int | None,
    ) -> None:
        self.mixture = mixture
        self._fitted_on = adaptation.evidence
        self._refit_interval = adaptation.refit_interval
        self._ids = ids.astype(np.intp)
        text = np.concatenate([[before], ids])
        self._contexts = contexts_before(text, mixture.table.context)
        self._visible = visible_lengths(text, mixture.table.context, end_id)
        self._recent = RecentCounts(mixture.table.context, adaptation.prior)
        self.scores = Scores.empty(len(ids), likeliest)
        # A ring buffer, so that of a long text the newest places are kept.
        kept = min(len(ids), FITTED_ON)
        columns = feature_count(mixture.table.context)
        self.evidence = Evidence(np.empty((kept, columns)), np.empty(kept), np.empty(kept))

    def score(self, places: NDArray[np.intp], network: Float) -> None:
        """Score the next n places, (n,), with the network's log p there, (n, V)."""
        ngram = self.mixture.table.look_up(self._contexts[places])
        targets = self._ids[places]
        for row, w in enumerate(targets.tolist()):
            context = self._contexts[places[row]]
            context = context[len(context) - self._visible[places[row]] :]
            self._recent.refine(ngram.probabilities[row], context)
            self._recent.add(context, w)
        rows = np.arange(len(targets))
        x = self.mixture.features(network, ngram)
        mixed = self.mixture.mix(network, ngram, x)
        self.scores.put(places, mixed, targets)
        seen = self.evidence
        to = places % len(seen.x)
        seen.x[to] = x
        seen.network[to] = np.exp(network[rows, targets].astype(np.float64))
        seen.ngram[to] = ngram.probabilities[rows, targets]
        done, interval = int(places[-1]) + 1, self._refit_interval
        if self._fitted_on is not None and done // interval > int(places[0]) // interval:
            filled = min(done, len(seen.x))
            older = slice(max(0, len(self._fitted_on.x) + filled - FITTED_ON), None)
            known = (
                np.concatenate([old[older], new[:filled]])
                for old, new in zip(self._fitted_on, seen, strict=True)
            )
            self.mixture = replace(self.mixture, theta=fit_theta(*known))


def _copy(engine: Engine) -> Engine:
    """Return an engine like this one on a copy of its parameters, without dropout."""
    parameters = Parameters(replace(engine.config, dropout=0.0, weight_drop=0.0))
    parameters.flat[:] = engine.parameters.flat
    return Backend.of(engine).open(parameters)


def _mean_squares(engine: Engine, text: TextIds) -> NDArray[np.floating]:
    """Return the mean square of each parameter's gradient over windows of a text, (P,)."""
    learner = _copy(engine)
    total = np.zeros(len(learner.parameters.flat))
    length = min(WINDOW, len(text) - 1)
    places = np.unique(np.linspace(0, len(text) - 1 - length, MEASURED).astype(int))
    for place in places:
        window = text[place : place + length + 1, None].astype(np.intp)
        learner.loss_and_gradients(window[:-1], window[1:], learner.zero_state(1))
        total += np.square(learner.gradients.flat, dtype=np.float64)
    return np.asarray(total / len(places), dtype=engine.config.dtype)
