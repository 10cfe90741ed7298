"""The workloads of a network with counts: sampling, scoring and adaptive scores.

charloom computes the network and the counts in one kernel. The peer computes the network in PyTorch
and the same mixture in NumPy. Both look the counts up in the same compiled tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import weights
from benchmarks.workloads import KNESER_NEY, Workload
from charloom.context_mixing.mixer import ContextMixer
from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings
from charloom.ngrams.counts import Counts
from charloom.ngrams.mixing import Mixture, feature_count
from charloom.prediction.adaptive import Adaptation, score_adaptively
from charloom.prediction.mixture import MixedPredictor, fit_ngram_table
from charloom.text.vocabulary import Vocabulary


class Job:
    """A running workload, which each call of `sample`, `score` or `adapt` continues.

    The network has random weights, so that the counts decide almost alone.
    """

    device = "cpu"

    def __init__(
        self,
        workload: Workload,
        ids: NDArray[np.unsignedinteger],
        characters: Sequence[str],
        threads: int,
        engine: str,
    ) -> None:
        self.workload = workload
        self.ids = ids.astype(np.intp)
        size, counted = len(characters), self.ids[: workload.counted]
        counts: Counts
        if workload.counts == KNESER_NEY:
            counts = fit_ngram_table(counted, size, 7, 24e6)
        else:
            frequencies = np.bincount(counted, minlength=size)
            vocabulary = Vocabulary(tuple(characters))
            mixer = ContextMixer.empty(vocabulary, frequencies, len(counted), text=counted)
            mixer.learn(counted)
            counts = mixer
        theta = np.zeros(feature_count(counts.context))
        theta[0] = -6
        self.engine = Backend(engine, threads).open(weights(workload, size))
        self.mixture = Mixture(counts, theta)
        self.predictor = MixedPredictor(self.engine, self.mixture)
        self.state = self.predictor.zero_state(workload.rows)
        self.zeros = self.predictor.zero_state(1)
        self.generator = np.random.default_rng(0)
        self.last = np.zeros(workload.rows, dtype=np.intp)

    def sample(self, temperature: float = 1.0) -> NDArray[np.intp]:
        """Sample one call's characters, (T, B)."""
        uniforms = self.generator.random((self.workload.window, self.workload.rows))
        drawn, self.state = self.predictor.generate(
            self.last, self.state, SamplingSettings(temperature), uniforms
        )
        self.last = drawn[-1]
        return drawn

    def score(self) -> float:
        """Return the mean of −log p over one call's characters, in nats per character."""
        block = self.ids[: self.workload.window + 1]
        log_p, _ = self.predictor.log_probabilities(block[:-1, None], self.zeros)
        return -float(np.take_along_axis(log_p[:, 0], block[1:, None], axis=1).mean())

    def adapt(self) -> float:
        """Return the same mean, of a model that learns every window after its score."""
        means = np.full(len(self.engine.parameters.flat), 1e-4, self.engine.config.dtype)
        adaptation = Adaptation(3e-4, means, self.mixture)
        text = self.ids[: self.workload.window]
        mixtures = (s.mixture for s in score_adaptively(self.engine, [text], 0, adaptation))
        found = [scores.log_probabilities for scores in mixtures if scores is not None]
        return -float(np.concatenate(found).mean())
