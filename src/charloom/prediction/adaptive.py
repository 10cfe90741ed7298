"""The adaptive protocol, known as dynamic evaluation: each window is scored, then trained on.

Krause et al., "Dynamic evaluation of neural sequence models" (2018). All characters of a window are
scored before the network takes a step on it,

    θ ← θ - rate · g / (√m + ε)

where g is the gradient of the window's loss and m the mean of its square over the training text. In
a mixture, the counts keep counting after every character, and the weights are fitted again at
intervals. All changes are discarded after the text.

N is the number of characters of the text, V that of the vocabulary, P that of all parameters of
the network. F is the number of features, K that of the n-gram model's characters of context.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.engines.backend import Backend
from charloom.engines.protocol import Engine
from charloom.network.optimizers import NonFiniteGradientError, RMSProp
from charloom.network.parameters import Float, Parameters, State
from charloom.ngrams.choosing import counted_part
from charloom.ngrams.counts import Counts
from charloom.ngrams.mixing import Mixture, feature_count, fit_theta
from charloom.ngrams.table import NGramPredictions, NGramTable
from charloom.prediction.following import PRIOR, follower_of
from charloom.prediction.mixture import FITTED_ON, extra_inputs, fit_ngram_table
from charloom.prediction.scoring import NUMBERS_AT_ONCE, Scores, Total, regrouped
from charloom.prediction.validation import WARM_UP
from charloom.progress import OnProgress
from charloom.text.dataset import TextIds
from charloom.text.excerpt import excerpt

WINDOW = 20  # characters between two steps
EPSILON = 1e-4
RATES = (1.5e-4, 3e-4, 6e-4, 1.2e-3, 2.4e-3)
DEFAULT_RATE = 6e-4
READING_RATE = 3e-4  # of a network that reads a context mixer, whose predictions adapt too
MEASURED = 400  # windows of the training text from which m is computed
REFIT_INTERVAL = 4_000  # characters between two fits of a mixture's weights
FOLLOWED_AT_ONCE = 4_000  # characters that the counts follow ahead of the network
CHOSEN_ON = 30_000  # characters at most, from the end of the held-out text


class AdaptiveScores(NamedTuple):
    """The scores of the mixture, None for a model without one, and of the network alone."""

    mixture: Scores | None
    network: Scores


class Evidence(NamedTuple):
    """The data that the weights of a mixture are fitted on.

    Without any, the weights are fitted to new data alone, and the penalty of those of the mixture
    is zero.
    """

    x: NDArray[np.float64]  # (N, F) features
    network: NDArray[np.float64]  # (N,) the network's probability of each character
    ngram: NDArray[np.float64]  # (N,) the n-gram model's


@dataclass(frozen=True)
class Adaptation:
    """The settings by which a model adapts to the text that it is scored on.

    Attributes:
        rate: the learning rate of the network.
        mean_squares: m, the mean square of each parameter's gradient, (P,).
        mixture: the counts and their weights, or None.
        evidence: the data that these weights were fitted on, to which new data are added. Without
            it, the weights stay as they are.
        prior: the weight of the probabilities before the recent counts, by characters of context.
            The n-gram model does not adapt without any.
        refit_interval: characters between two fits of the weights.
        network_only: whether only the network predicts, which reads the mixture's counts.
    """

    rate: float
    mean_squares: NDArray[np.floating]
    mixture: Mixture | None
    evidence: Evidence | None = None
    prior: Mapping[int, float] = field(default_factory=lambda: PRIOR)
    refit_interval: int = REFIT_INTERVAL
    network_only: bool = False


def choose_adaptation(
    engine: Engine,
    mixture: Mixture | None,
    fitted: TextIds,
    held_out: TextIds,
    on_progress: OnProgress | None = None,
    *,
    prior: Mapping[int, float] = PRIOR,
    network_only: bool = False,
) -> Adaptation:
    """Choose the learning rate and a mixture's weights on the end of the held-out text.

    The n-gram model of the mixture can know the held-out text. For the choice it is replaced by one
    that is counted on the text before it. Of a collection, an excerpt of the held-out text is read,
    and that model is counted on `fitted` alone.

    A context mixer can know that text too, and learning the training text again would take long.
    The weights then begin with those of the mixture, and the rate of a network that reads its
    predictions is a constant.

    Args:
        engine: the network.
        mixture: the counts and their weights, or None.
        fitted: the text that the network was trained on.
        held_out: the text after it, which the network was not trained on. If it is empty, the
            default rate is taken and the weights are kept.
        on_progress: called with the stage "adapting", the characters scored and their total.
        prior, network_only: those of the adaptation.
    """
    counts = None if mixture is None else mixture.counts
    learns = counts is not None and not isinstance(counts, NGramTable)
    reads_mixer = learns and engine.config.extra_inputs > 0
    chosen = Adaptation(
        READING_RATE if reads_mixer else DEFAULT_RATE,
        _mean_squares(engine, fitted, counts),
        mixture,
        prior=prior,
        network_only=network_only,
    )
    if counts is not None and learns:
        chosen = replace(chosen, evidence=_no_evidence(counts.context))
    end_id = engine.config.end_id
    ids = held_out[-CHOSEN_ON:] if end_id is None else excerpt(held_out, CHOSEN_ON, end_id)
    if not len(ids) or reads_mixer:
        return chosen
    known = counted_part(fitted, end_id)
    if end_id is None:
        known = np.concatenate([known, held_out[: len(held_out) - len(ids)]])
    candidate = chosen
    if learns:
        candidate = replace(chosen, mixture=None)
    elif mixture is not None:
        size, context = mixture.counts.vocabulary_size, mixture.counts.context
        ngram = fit_ngram_table(known, size, context, np.inf, end_id)
        candidate = replace(chosen, mixture=replace(mixture, counts=ngram))
    least, best = np.inf, None
    for number, rate in enumerate(RATES):

        def report(stage: str, done: int, total: int | None, number: int = number) -> None:
            if on_progress is not None:
                on_progress("adapting", number * len(ids) + done, len(RATES) * len(ids) + 1)

        trial = _AdaptiveScorer(engine, int(known[-1]), replace(candidate, rate=rate))
        total = Total()
        for scores in trial.score([ids], report, len(ids)):
            total.add(scores.network.log_probabilities)
        loss = -total.value / len(ids)
        if loss < least:
            least, best, chosen = loss, trial, replace(chosen, rate=rate)
        elif loss > least:
            break  # because larger rates are even worse
    if mixture is not None and best is not None and best.mixing is not None:
        evidence = best.mixing.evidence
        refitted = replace(mixture, theta=fit_theta(*evidence))
        chosen = replace(chosen, mixture=refitted, evidence=evidence)
    return chosen


def score_adaptively(
    engine: Engine,
    blocks: Iterable[TextIds],
    before: int,
    adaptation: Adaptation,
    on_progress: OnProgress | None = None,
    likeliest: int = 0,
    *,
    total: int | None = None,
) -> Iterator[AdaptiveScores]:
    """Score a text, each id exactly once, and yield the scores of consecutive stretches.

    The engine's own parameters do not change.

    Args:
        engine: the network, of which a copy is trained.
        blocks: consecutive ids of the text.
        before: the id of the character before the text.
        adaptation: as `choose_adaptation` returns it.
        on_progress: called with the stage "scoring", the characters scored and `total`.
        likeliest: the number of guesses to keep at each place.
        total: the length of the text, if it is known.
    """
    return _AdaptiveScorer(engine, before, adaptation, likeliest).score(blocks, on_progress, total)


class _AdaptiveScorer:
    """A copy of a network, and its mixture, that are trained on a text while it is scored."""

    def __init__(
        self, engine: Engine, before: int, adaptation: Adaptation, likeliest: int = 0
    ) -> None:
        self._learner = _copy(engine)
        # With this decay, m is fixed.
        self._optimizer = RMSProp(adaptation.rate, decay=1.0, epsilon=EPSILON)
        self._optimizer.prepare(self._learner.parameters.flat)
        self._optimizer.slots["mean_square"][:] = adaptation.mean_squares
        self._last, self._likeliest = before, likeliest
        self._counts = self.mixing = None
        mixture, end_id = adaptation.mixture, engine.config.end_id
        if mixture is not None:
            self._counts = follower_of(mixture.counts, before, end_id, adaptation.prior)
            if not adaptation.network_only:
                self.mixing = _AdaptiveMixture(mixture, adaptation, likeliest)

    def score(
        self, blocks: Iterable[TextIds], on_progress: OnProgress | None, total: int | None
    ) -> Iterator[AdaptiveScores]:
        """Score a text as `score_adaptively` does."""
        state = self._learner.zero_state(1)
        done = 0
        for ids in regrouped(blocks, WINDOW):
            for piece, ngram in self._followed(ids):
                for begin in range(0, len(piece), WINDOW):
                    window = slice(begin, begin + WINDOW)
                    found = None if ngram is None else ngram.at(window)
                    scores, state = self._score_window(piece[window], found, state)
                    yield scores
                    done += len(scores.network)
                    if on_progress is not None:
                        on_progress("scoring", done, total)

    def _followed(self, ids: TextIds) -> Iterator[tuple[NDArray[np.intp], NGramPredictions | None]]:
        """Yield the pieces of a text, and what the counts predict of each.

        A thread follows the next piece while the network reads one.
        """
        whole = NUMBERS_AT_ONCE // self._learner.config.vocabulary_size
        size = max(1, min(FOLLOWED_AT_ONCE, whole) // WINDOW) * WINDOW
        pieces = (ids[start : start + size].astype(np.intp) for start in range(0, len(ids), size))
        if self._counts is None:
            yield from ((piece, None) for piece in pieces)
            return
        with ThreadPoolExecutor(1) as pool:
            waiting: deque[tuple[NDArray[np.intp], Future[NGramPredictions]]] = deque()
            for piece in pieces:
                waiting.append((piece, pool.submit(self._counts.follow, piece)))
                if len(waiting) > 1:
                    known, found = waiting.popleft()
                    yield known, found.result()
            for known, found in waiting:
                yield known, found.result()

    def _score_window(
        self, targets: NDArray[np.intp], ngram: NGramPredictions | None, state: State
    ) -> tuple[AdaptiveScores, State]:
        """Score the next ids of the text, (n,), and train the network on them.

        Args:
            targets: the ids.
            ngram: the counts' predictions of them, if there are any.
            state: the network's state before the character before them.
        """
        learner = self._learner
        inputs = np.concatenate([[self._last], targets[:-1]])[:, None]
        self._last = int(targets[-1])
        extra = extra_inputs(learner.config, ngram, *inputs.shape)
        learner.parameters_changed()
        block, after = learner.log_probabilities(inputs, state, extra=extra)
        network = block[:, 0]
        mixed = None
        if self.mixing is not None and ngram is not None:
            mixed = self.mixing.score(targets, network, ngram)
        scores = AdaptiveScores(mixed, Scores.of(network, targets, self._likeliest))
        # A window whose gradient is not finite is skipped.
        with contextlib.suppress(NonFiniteGradientError):
            learner.train_step(inputs, targets[:, None], state, self._optimizer, extra=extra)
        return scores, after


class _AdaptiveMixture:
    """A mixture whose weights adapt to a text."""

    def __init__(self, mixture: Mixture, adaptation: Adaptation, likeliest: int) -> None:
        self.mixture = mixture
        self._fitted_on, self._start = adaptation.evidence, None
        if self._fitted_on is not None and not len(self._fitted_on.x):
            self._start = mixture.theta
        self._refit_interval = adaptation.refit_interval
        self._likeliest = likeliest
        self._done = 0
        # A ring buffer, so that of a long text the newest places are kept.
        columns = feature_count(mixture.counts.context)
        self._evidence = Evidence(
            np.empty((FITTED_ON, columns)), np.empty(FITTED_ON), np.empty(FITTED_ON)
        )

    @property
    def evidence(self) -> Evidence:
        """The data of the newest places."""
        filled = min(self._done, FITTED_ON)
        return Evidence(*(values[:filled] for values in self._evidence))

    def score(self, targets: NDArray[np.intp], network: Float, ngram: NGramPredictions) -> Scores:
        """Score the next ids of the text, (n,).

        Args:
            targets: the ids.
            network: the network's log p there, (n, V).
            ngram: the counts' predictions of them.
        """
        rows = np.arange(len(targets))
        x = self.mixture.features(network, ngram)
        scores = Scores.of(self.mixture.mix(network, ngram, x), targets, self._likeliest)
        to = (self._done + rows) % FITTED_ON
        self._evidence.x[to] = x
        self._evidence.network[to] = np.exp(network[rows, targets].astype(np.float64))
        self._evidence.ngram[to] = ngram.probabilities[rows, targets]
        begun, self._done = self._done, self._done + len(targets)
        interval = self._refit_interval
        if self._fitted_on is not None and self._done // interval > begun // interval:
            self._refit(self._fitted_on)
        return scores

    def _refit(self, fitted_on: Evidence) -> None:
        """Fit the weights to the newest data, and to older ones where there are few."""
        seen = self.evidence
        older = slice(max(0, len(fitted_on.x) + len(seen.x) - FITTED_ON), None)
        known = (
            np.concatenate([old[older], new]) for old, new in zip(fitted_on, seen, strict=True)
        )
        theta = fit_theta(*Evidence(*known), self._start, self.mixture.theta)
        self.mixture = replace(self.mixture, theta=theta)


def _no_evidence(context: int) -> Evidence:
    return Evidence(np.empty((0, feature_count(context))), np.empty(0), np.empty(0))


def _copy(engine: Engine) -> Engine:
    """Return an engine like this one on a copy of its parameters, without dropout."""
    parameters = Parameters(replace(engine.config, dropout=0.0, weight_drop=0.0))
    parameters.flat[:] = engine.parameters.flat
    return Backend.of(engine).open(parameters)


def _mean_squares(
    engine: Engine, text: TextIds, counts: Counts | None = None
) -> NDArray[np.floating]:
    """Return the mean square of each parameter's gradient over windows of a text, (P,).

    Args:
        engine: the network.
        text: ids, (N,).
        counts: the counts whose predictions a network with extra inputs reads.
    """
    learner = _copy(engine)
    total = np.zeros(len(learner.parameters.flat))
    length = min(WINDOW, len(text) - 1)
    places = np.unique(np.linspace(0, len(text) - 1 - length, MEASURED).astype(int))
    for place in places:
        window = text[place : place + length + 1, None].astype(np.intp)
        ngram = None
        if counts is not None and engine.config.extra_inputs:
            before = text[max(0, place - WARM_UP) : place, None].astype(np.intp)
            ngram, _ = counts.predict(window[:-1], counts.read(before, counts.zero_state(1)))
        extra = extra_inputs(engine.config, ngram, length, 1)
        learner.loss_and_gradients(window[:-1], window[1:], learner.zero_state(1), extra=extra)
        total += np.square(learner.gradients.flat, dtype=np.float64)
    return np.asarray(total / len(places), dtype=engine.config.dtype)
