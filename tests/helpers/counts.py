"""Predictors with counts of both kinds, which a network with random weights reads or does not."""

from typing import Any

import numpy as np

from charloom.context_mixing.mixer import ContextMixer
from charloom.engines.backend import Backend
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.ngrams.counts import Counts
from charloom.prediction.mixture import (
    MixedPredictor,
    PredictedText,
    fit_ngram_table,
    fit_predicted_mixture,
)
from charloom.text.extra_inputs import ExtraInputs
from charloom.text.vocabulary import Vocabulary

# The counts, whether the network reads them, and whether its predictions are mixed with theirs.
KINDS = {
    "table": ("table", False, True),
    "table-read": ("table", True, True),
    "mixer": ("mixer", False, True),
    "mixer-read": ("mixer", True, True),
    "mixer-read-alone": ("mixer", True, False),
}


def counts_of(kind: str, vocabulary: Vocabulary, ids: Any, context: int = 3) -> Counts:
    """Return a table or a mixer that has learned ids, (N,)."""
    if kind == "table":
        return fit_ngram_table(ids, len(vocabulary), context, 1e6, vocabulary.end_id)
    frequencies = np.bincount(ids, minlength=len(vocabulary))
    mixer = ContextMixer.empty(vocabulary, frequencies, len(ids))
    mixer.learn(ids)
    return mixer


def predictor_with_counts(
    kind: str, vocabulary: Vocabulary, ids: Any, engine: str = "auto", **config: Any
) -> MixedPredictor:
    """Return a predictor of one of the KINDS, whose counts have learned most of ids, (N,)."""
    of, reads, mixes = KINDS[kind]
    cut = len(ids) * 3 // 4
    size = len(vocabulary)
    counts = counts_of(of, vocabulary, ids[:cut])
    parameters = initialize(
        ModelConfig(
            **{"cell": "gru", "hidden_size": 8, "layers": 1} | config,
            vocabulary_size=size,
            end_id=vocabulary.end_id,
            extra_inputs=size if reads else 0,
        ),
        seed=1,
    )
    parameters.flat[:] *= 2
    network = Backend(engine, threads=1).open(parameters)
    text = np.append(ids[cut - 1], ids[cut:])[:, None]
    found, _ = counts.predict(text, counts.zero_state(1))
    extra = ExtraInputs(found.probabilities) if reads else None
    predicted = PredictedText(ids[cut:], int(ids[cut - 1]), extra, found.at)
    mixture = fit_predicted_mixture(network, counts, predicted, 2, trained_on=False)
    assert mixture is not None
    return MixedPredictor(network, mixture, network_only=not mixes)
