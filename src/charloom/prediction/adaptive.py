"""The adaptive protocol: a model that goes on learning from what it has been scored on.

Dynamic evaluation (Krause et al., "Dynamic evaluation of neural sequence models", 2018): each
window's characters are scored, all of them before any step is taken from it; then the network's
weights take a step

    θ ← θ - rate · g / (√m + ε)

where g is the gradient of the window's loss and m the mean of its square over the training text. A
mixture's counts go on counting, character by character, and now and then its weights are fitted
again. What is learned is forgotten afterwards.

N: characters of the text; V: characters in the vocabulary; P: parameters in all; F: features; K:
characters of context of the counts.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.engines.backend import Backend
from charloom.engines.protocol import Engine
from charloom.network.optimizers import NonFiniteGradientError, RMSProp
from charloom.network.parameters import Float, Parameters
from charloom.ngrams.kneser_ney import TRAINING_AT_MOST
from charloom.ngrams.mixing import Mixture, feature_count, fit_theta
from charloom.prediction.mixture import FITTED_ON, contexts_before, count
from charloom.prediction.scoring import Report, Scores
from charloom.text.dataset import Ids

WINDOW = 20  # characters between two steps
EPSILON = 1e-4
RATES = (1.5e-4, 3e-4, 6e-4, 1.2e-3, 2.4e-3)
DEFAULT_RATE = 6e-4
MEASURED = 400  # windows of the training text from which m comes
REFITTED = 4_000  # characters after which a mixture's weights are fitted again
# How counts of what was scored weigh against the probabilities before: by characters of context,
# as much as so many characters; and what is taken from each count.
PRIOR = {4: 10.0, 5: 5.0, 6: 2.0, 7: 1.0, 8: 1.0}
DISCOUNT = 0.5
CHOSEN_ON = 30_000  # characters at most, the end of what was held against the training


class AdaptiveScores(NamedTuple):
    """Of the mixture, where there is one, and of the network alone."""

    mixture: Scores | None
    network: Scores


class Evidence(NamedTuple):
    """What a mixture's weights are fitted on."""

    x: NDArray[np.float64]  # (N, F) features
    network: NDArray[np.float64]  # (N,) what each gave to what came
    counts: NDArray[np.float64]


@dataclass(frozen=True)
class Adaptation:
    """How a model learns from what it is scored on. mean_squares: (P,)."""

    rate: float
    mean_squares: NDArray[np.floating]
    mixture: Mixture | None
    evidence: Evidence | None = None  # what the mixture's weights were fitted on


class _Trial(NamedTuple):
    scores: AdaptiveScores
    evidence: Evidence | None


class RecentCounts:
    """Counts of what was scored, on top of a table's probabilities:

        p_k(w|h) = (c(hw) - D [c(hw) > 0] + (τ_k + D n(h)) p_{k-1}(w|h')) / (c(h) + τ_k)

    for k characters of context from the shortest in PRIOR on; n(h): how many characters were seen
    after h (hierarchical Pitman-Yor smoothing, Teh 2006, with fixed numbers).
    """

    def __init__(self, context: int) -> None:
        self._counts: dict[int, dict[bytes, dict[int, int]]] = {
            k: {} for k in PRIOR if k <= context
        }

    def refine(self, probabilities: NDArray[np.float32], context: NDArray[np.int32]) -> None:
        """Changes what follows a context, (V,), by what was counted after it."""
        for k, counts in self._counts.items():
            seen = counts.get(context[len(context) - k :].tobytes())
            if seen is None:
                return  # nor was anything longer
            whole = sum(seen.values()) + PRIOR[k]
            probabilities *= (PRIOR[k] + DISCOUNT * len(seen)) / whole
            for w, times in seen.items():
                probabilities[w] += (times - DISCOUNT) / whole

    def add(self, context: NDArray[np.int32], w: int) -> None:
        """Counts a character after its context, (K,)."""
        for k, counts in self._counts.items():
            seen = counts.setdefault(context[len(context) - k :].tobytes(), {})
            seen[w] = seen.get(w, 0) + 1


def choose_adaptation(
    engine: Engine,
    mixture: Mixture | None,
    learned: Ids,
    watched: Ids,
    report: Report | None = None,
) -> Adaptation:
    """The rate, and a mixture's weights, that are best on the end of the text `watched`, which
    follows the text `learned` and was not learned from. Where it is empty, a rate that usually
    fits. The mixture's counts may know it: for the choice they are taken from `learned` alone."""
    chosen = Adaptation(DEFAULT_RATE, _mean_squares(engine, learned), mixture)
    ids = watched[-CHOSEN_ON:]
    if not len(ids):
        return chosen
    learned = np.concatenate([learned[-TRAINING_AT_MOST:], watched[: len(watched) - len(ids)]])
    trying = chosen
    if mixture is not None:
        table = mixture.table
        counts = count(learned, table.vocabulary_size, table.context, np.inf)
        trying = replace(chosen, mixture=replace(mixture, table=counts))
    least, best = np.inf, None
    for number, rate in enumerate(RATES):

        def done(characters: int, of: int, number: int = number) -> None:
            if report is not None:
                report(number * of + characters, len(RATES) * of + 1)

        trial = _try(engine, ids, int(learned[-1]), replace(trying, rate=rate), done)
        loss = trial.scores.network.nats_per_character
        if loss < least:
            least, best, chosen = loss, trial, replace(chosen, rate=rate)
        elif loss > least:
            break  # larger ones are worse still
    if mixture is not None and best is not None and best.evidence is not None:
        fitted = replace(mixture, theta=fit_theta(*best.evidence))
        chosen = replace(chosen, mixture=fitted, evidence=best.evidence)
    return chosen


def score_adaptively(
    engine: Engine,
    ids: Ids,
    before: int,
    adaptation: Adaptation,
    report: Report | None = None,
    likeliest: int = 0,
) -> AdaptiveScores:
    """Scores ids, (N,), each exactly once; `before` is the id of the character before them. The
    engine's own parameters stay as they are."""
    return _try(engine, ids, before, adaptation, report, likeliest).scores


def _try(
    engine: Engine,
    ids: Ids,
    before: int,
    adaptation: Adaptation,
    report: Report | None,
    likeliest: int = 0,
) -> _Trial:
    learner = _copy(engine)
    optimizer = RMSProp(adaptation.rate, decay=1.0, epsilon=EPSILON)  # m stays what it is
    optimizer.prepare(learner.parameters.flat)
    optimizer.slots["mean_square"][:] = adaptation.mean_squares
    mixing = None
    if adaptation.mixture is not None:
        mixing = _Mixing(adaptation.mixture, adaptation.evidence, ids, before, likeliest)
    text = np.concatenate([[before], ids]).astype(np.intp)
    alone = Scores.empty(len(ids), likeliest)
    state = learner.zero_state(1)
    for begin in range(0, len(ids), WINDOW):
        window = text[begin : begin + WINDOW + 1, None]
        inputs, targets = window[:-1], window[1:]
        places, came = np.arange(begin, begin + len(targets)), targets[:, 0]
        learner.parameters_changed()
        block, after = learner.log_probabilities(inputs, state)
        network = block[:, 0]
        alone.put(places, network, came)
        if mixing is not None:
            mixing.score(places, network)
        # Where a gradient is not finite, nothing is to be learned.
        with contextlib.suppress(NonFiniteGradientError):
            learner.train_step(inputs, targets, state, optimizer)
        state = after
        if report is not None:
            report(begin + len(came), len(ids))
    if mixing is None:
        return _Trial(AdaptiveScores(None, alone), None)
    return _Trial(AdaptiveScores(mixing.scores, alone), mixing.evidence)


class _Mixing:
    """A mixture that goes on learning, over the ids of a text, (N,)."""

    def __init__(
        self, mixture: Mixture, evidence: Evidence | None, ids: Ids, before: int, likeliest: int
    ) -> None:
        self.mixture = mixture
        self._fitted_on = evidence
        self._ids = ids.astype(np.intp)
        self._contexts = contexts_before(np.concatenate([[before], ids]), mixture.table.context)
        self._recent = RecentCounts(mixture.table.context)
        self.scores = Scores.empty(len(ids), likeliest)
        # Of a long text the newest places are kept, in no order.
        kept = min(len(ids), FITTED_ON)
        columns = feature_count(mixture.table.context)
        self.evidence = Evidence(np.empty((kept, columns)), np.empty(kept), np.empty(kept))

    def score(self, places: NDArray[np.intp], network: Float) -> None:
        """Scores the places, with what the network says of them, log p (n, V)."""
        counts = self.mixture.table.ask(self._contexts[places])
        came = self._ids[places]
        for row, w in enumerate(came.tolist()):
            context = self._contexts[places[row]]
            self._recent.refine(counts.probabilities[row], context)
            self._recent.add(context, w)
        rows = np.arange(len(came))
        x = self.mixture.features(network, counts)
        mixed = self.mixture.mix(network, counts, x)
        self.scores.put(places, mixed, came)
        seen = self.evidence
        to = places % len(seen.x)
        seen.x[to] = x
        seen.network[to] = np.exp(network[rows, came].astype(np.float64))
        seen.counts[to] = counts.probabilities[rows, came]
        done = int(places[-1]) + 1
        if self._fitted_on is not None and done // REFITTED > int(places[0]) // REFITTED:
            filled = min(done, len(seen.x))
            older = slice(max(0, len(self._fitted_on.x) + filled - FITTED_ON), None)
            known = (
                np.concatenate([old[older], new[:filled]])
                for old, new in zip(self._fitted_on, seen, strict=True)
            )
            self.mixture = replace(self.mixture, theta=fit_theta(*known))


def _copy(engine: Engine) -> Engine:
    """An engine like this one on parameters of its own, that drops nothing."""
    parameters = Parameters(replace(engine.config, dropout=0.0, weight_drop=0.0))
    parameters.flat[:] = engine.parameters.flat
    return Backend.of(engine).open(parameters)


def _mean_squares(engine: Engine, text: Ids) -> NDArray[np.floating]:
    """The mean square of the gradient of windows of a text, (P,)."""
    learner = _copy(engine)
    total = np.zeros(len(learner.parameters.flat))
    length = min(WINDOW, len(text) - 1)
    places = np.unique(np.linspace(0, len(text) - 1 - length, MEASURED).astype(int))
    for place in places:
        window = text[place : place + length + 1, None].astype(np.intp)
        learner.loss_and_gradients(window[:-1], window[1:], learner.zero_state(1))
        total += np.square(learner.gradients.flat, dtype=np.float64)
    return np.asarray(total / len(places), dtype=engine.config.dtype)
