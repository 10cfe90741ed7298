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
from collections.abc import Iterable, Iterator, Mapping
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
from charloom.prediction.mixture import FITTED_ON, fit_ngram_table
from charloom.prediction.scoring import Scores, Total, regrouped
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
MOST_CONTEXTS = 1_000_000  # of recent counts, of all lengths
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


class RecentCounts:
    """Counts of the scored text, on top of a table's probabilities:

        p_k(w|h) = (c(hw) - D [c(hw) > 0] + (τ_k + D n(h)) p_{k-1}(w|h')) / (c(h) + τ_k)

    for every k in `prior`, which holds τ_k, from the shortest to K. n(h) is the number of distinct
    characters seen after h. This is hierarchical Pitman-Yor smoothing (Teh 2006) with constants.

    A context consists of the visible characters, at most K. In a collection it begins with the last
    END, and no h is longer.

    Of a long text, the contexts that have not occurred for the longest time are forgotten, because
    each takes some 400 bytes.
    """

    def __init__(self, context: int, prior: Mapping[int, float] = PRIOR) -> None:
        self._prior = prior
        self._lengths = [k for k in prior if k <= context]
        # By length, those of the present generation of contexts and of the one before it.
        self._counts: dict[int, dict[bytes, dict[int, int]]] = {k: {} for k in self._lengths}
        self._earlier: dict[int, dict[bytes, dict[int, int]]] = {k: {} for k in self._lengths}

    def _seen(self, context: NDArray[np.int32], k: int) -> dict[int, int] | None:
        """Return the counts after the last k characters, which then belong to the present."""
        h = context[len(context) - k :].tobytes()
        found = self._counts[k].get(h)
        if found is None and (found := self._earlier[k].pop(h, None)) is not None:
            self._counts[k][h] = found
        return found

    def refine(self, probabilities: NDArray[np.float32], context: NDArray[np.int32]) -> None:
        """Update the probabilities after a context, (V,), in place, by the counts after it."""
        for k in self._lengths:
            if k > len(context):
                return
            seen = self._seen(context, k)
            if seen is None:
                return  # Longer contexts were not seen either.
            whole = sum(seen.values()) + self._prior[k]
            probabilities *= (self._prior[k] + DISCOUNT * len(seen)) / whole
            for w, times in seen.items():
                probabilities[w] += (times - DISCOUNT) / whole

    def add(self, context: NDArray[np.int32], w: int) -> None:
        """Count a character after its context."""
        for k in self._lengths:
            if k > len(context):
                break
            seen = self._seen(context, k)
            if seen is None:
                seen = self._counts[k][context[len(context) - k :].tobytes()] = {}
            seen[w] = seen.get(w, 0) + 1
        if sum(map(len, self._counts.values())) > MOST_CONTEXTS // 2:
            self._earlier, self._counts = self._counts, {k: {} for k in self._lengths}


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
        table = mixture.counts
        ngram = fit_ngram_table(known, table.vocabulary_size, table.context, np.inf, end_id)
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
        self.mixing = None
        if adaptation.mixture is not None:
            self.mixing = _AdaptiveMixture(
                adaptation.mixture, adaptation, before, likeliest, engine.config.end_id
            )

    def score(
        self, blocks: Iterable[TextIds], on_progress: OnProgress | None, total: int | None
    ) -> Iterator[AdaptiveScores]:
        """Score a text as `score_adaptively` does."""
        learner = self._learner
        state = learner.zero_state(1)
        done = 0
        for ids in regrouped(blocks, WINDOW):
            for begin in range(0, len(ids), WINDOW):
                targets = ids[begin : begin + WINDOW].astype(np.intp)
                inputs = np.concatenate([[self._last], targets[:-1]])[:, None]
                self._last = int(targets[-1])
                learner.parameters_changed()
                block, after = learner.log_probabilities(inputs, state)
                network = block[:, 0]
                mixed = None if self.mixing is None else self.mixing.score(targets, network)
                yield AdaptiveScores(mixed, Scores.of(network, targets, self._likeliest))
                # A window whose gradient is not finite is skipped.
                with contextlib.suppress(NonFiniteGradientError):
                    learner.train_step(inputs, targets[:, None], state, self._optimizer)
                state = after
                done += len(targets)
                if on_progress is not None:
                    on_progress("scoring", done, total)


class _AdaptiveMixture:
    """A mixture whose n-gram model and weights adapt to a text."""

    def __init__(
        self,
        mixture: Mixture,
        adaptation: Adaptation,
        before: int,
        likeliest: int,
        end_id: int | None,
    ) -> None:
        self.mixture = mixture
        self._fitted_on = adaptation.evidence
        self._refit_interval = adaptation.refit_interval
        self._likeliest, self._end_id = likeliest, end_id
        context = mixture.counts.context
        self._read = np.full(context, -1, np.int32)  # (K,) the ids before the next one
        self._read[context - 1 :] = before
        self._visible = 1 if end_id is not None else context  # of them, without a limit
        self._recent = RecentCounts(context, adaptation.prior)
        self._done = 0
        # A ring buffer, so that of a long text the newest places are kept.
        columns = feature_count(context)
        self._evidence = Evidence(
            np.empty((FITTED_ON, columns)), np.empty(FITTED_ON), np.empty(FITTED_ON)
        )

    @property
    def evidence(self) -> Evidence:
        """The data of the newest places."""
        filled = min(self._done, FITTED_ON)
        return Evidence(*(values[:filled] for values in self._evidence))

    def score(self, targets: NDArray[np.intp], network: Float) -> Scores:
        """Score the next ids of the text, (n,), with the network's log p there, (n, V)."""
        contexts, context = self._contexts(targets), self.mixture.counts.context
        ngram = self.mixture.counts.look_up(contexts)
        for row, w in enumerate(targets.tolist()):
            visible = contexts[row, context - min(self._visible, context) :]
            self._recent.refine(ngram.probabilities[row], visible)
            self._recent.add(visible, w)
            if self._end_id is not None:
                self._visible = 1 if w == self._end_id else self._visible + 1
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

    def _contexts(self, targets: NDArray[np.intp]) -> NDArray[np.int32]:
        """Return the last K ids before each of the next ids, (n, K), and add these."""
        context = len(self._read)
        read = np.concatenate([self._read, targets.astype(np.int32)])
        self._read = read[len(targets) :]
        if not context:
            return np.zeros((len(targets), 0), np.int32)
        return np.lib.stride_tricks.sliding_window_view(read, context)[: len(targets)]

    def _refit(self, fitted_on: Evidence) -> None:
        """Fit the weights to the newest data, and to older ones where there are few."""
        seen = self.evidence
        older = slice(max(0, len(fitted_on.x) + len(seen.x) - FITTED_ON), None)
        known = (
            np.concatenate([old[older], new]) for old, new in zip(fitted_on, seen, strict=True)
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
