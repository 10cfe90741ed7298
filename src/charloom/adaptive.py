"""The adaptive protocol: a network that goes on learning from what it has been scored on.

Dynamic evaluation (Krause et al., "Dynamic evaluation of neural sequence models", 2018): each
window's characters are scored, all of them before any step is taken from it; then the weights take
a step

    θ ← θ - rate · g / (√m + ε)

where g is the gradient of the window's loss and m the mean of its square over the training text.
The counts of a mixture stay as they are (see docs/log.md: little is gained by counting on). What is
learned is forgotten afterwards.

N: characters of the text; V: characters in the vocabulary; P: parameters in all.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.dataset import Ids
from charloom.engines import Engine, open_engine
from charloom.mixture import Mixture, contexts_before, count, features, fit_theta
from charloom.model import Parameters
from charloom.optimizers import NonFiniteGradientError, RMSProp
from charloom.scoring import Report, Scores

WINDOW = 20  # characters between two steps
EPSILON = 1e-4
RATES = (1.5e-4, 3e-4, 6e-4, 1.2e-3, 2.4e-3)
DEFAULT_RATE = 6e-4
MEASURED = 400  # windows of the training text from which m comes
CHOSEN_ON = 30_000  # characters at most, the end of what was held against the training


class AdaptiveScores(NamedTuple):
    """Of the mixture, where there is one, and of the network alone."""

    mixture: Scores | None
    network: Scores


@dataclass(frozen=True)
class Adaptation:
    """How a network learns from what it is scored on. mean_squares: (P,)."""

    rate: float
    mean_squares: NDArray[np.floating]
    mixture: Mixture | None


class _Trial(NamedTuple):
    scores: AdaptiveScores
    x: NDArray[np.float64]  # (N, F) features
    counts: NDArray[np.float64]  # (N,) what the counts gave to what came


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
    learned = np.concatenate([learned, watched[: len(watched) - len(ids)]])
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
    if mixture is not None and best is not None:
        of_network = np.exp(best.scores.network.log_probabilities)
        theta = fit_theta(best.x, of_network, best.counts)
        chosen = replace(chosen, mixture=replace(mixture, theta=theta))
    return chosen


def score_adaptively(
    engine: Engine, ids: Ids, before: int, adaptation: Adaptation, report: Report | None = None
) -> AdaptiveScores:
    """Scores ids, (N,), each exactly once; `before` is the id of the character before them. The
    engine's own parameters stay as they are."""
    return _try(engine, ids, before, adaptation, report).scores


def _try(
    engine: Engine, ids: Ids, before: int, adaptation: Adaptation, report: Report | None
) -> _Trial:
    learner = _copy(engine)
    optimizer = RMSProp(adaptation.rate, decay=1.0, epsilon=EPSILON)  # m stays what it is
    optimizer.prepare(learner.parameters.flat)
    optimizer.slots["mean_square"][:] = adaptation.mean_squares
    mixture = adaptation.mixture
    text = np.concatenate([[before], ids]).astype(np.intp)
    contexts = None if mixture is None else contexts_before(text, mixture.table.context)
    log_p = np.empty((2, len(ids)))  # of the mixture, of the network
    guessed = np.empty((2, len(ids)), dtype=bool)
    x, of_counts = [], np.empty(len(ids))
    state = learner.zero_state(1)
    for begin in range(0, len(ids), WINDOW):
        window = text[begin : begin + WINDOW + 1, None]
        inputs, targets = window[:-1], window[1:]
        places, came = slice(begin, begin + len(targets)), targets[:, 0]
        learner.parameters_changed()
        block, after = learner.log_probabilities(inputs, state)
        network = block[:, 0]
        log_p[1, places] = network[np.arange(len(came)), came]
        guessed[1, places] = network.argmax(axis=1) == came
        if mixture is not None and contexts is not None:
            counts = mixture.table.ask(contexts[places])
            mixed = mixture.mix(network, counts)
            log_p[0, places] = mixed[np.arange(len(came)), came]
            guessed[0, places] = mixed.argmax(axis=1) == came
            x.append(features(network, counts, mixture.table.context))
            of_counts[places] = counts.probabilities[np.arange(len(came)), came]
        # Where a gradient is not finite, nothing is to be learned.
        with contextlib.suppress(NonFiniteGradientError):
            learner.train_step(inputs, targets, state, optimizer)
        state = after
        if report is not None:
            report(begin + len(came), len(ids))
    scores = [Scores(log_p[i], guessed[i]) for i in range(2)]
    return _Trial(
        AdaptiveScores(None if mixture is None else scores[0], scores[1]),
        np.concatenate(x) if x else np.zeros((0, 0)),
        of_counts,
    )


def _copy(engine: Engine) -> Engine:
    """An engine like this one on parameters of its own, that drops nothing."""
    parameters = Parameters(replace(engine.config, dropout=0.0, weight_drop=0.0))
    parameters.flat[:] = engine.parameters.flat
    return open_engine(engine.name, parameters, threads=engine.threads)


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
