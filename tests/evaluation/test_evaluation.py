"""The metrics of an evaluation, and its confidence interval."""

import math

import numpy as np
import pytest

from charloom.errors import CharloomError
from charloom.evaluation.evaluation import confidence_interval, evaluation_of
from charloom.evaluation.scored_text import ScoredText
from charloom.prediction.scoring import Protocol, Scores
from charloom.text.vocabulary import Vocabulary


def test_numbers_that_overflow_are_refused() -> None:
    scores = Scores.empty(2)
    scores.log_probabilities[:] = -1, -np.inf
    with pytest.raises(CharloomError, match="overflow"):
        evaluation_of(
            scores, ScoredText("x", np.zeros(2, np.uint8), 0), Protocol(), Vocabulary(tuple("ab"))
        )


def test_interval_width_follows_block_variance() -> None:
    generator = np.random.default_rng(1)
    alike = -generator.exponential(1.5, 40_000)
    low, high = confidence_interval(alike) or (0.0, 0.0)
    assert low < -alike.mean() < high
    # Of independent values the interval is that of the textbook.
    textbook = 2 * 1.96 * alike.std() / math.sqrt(len(alike))
    assert high - low == pytest.approx(textbook, rel=0.15)
    # What is hard comes in stretches of 500: there are fewer independent values.
    stretches = alike - np.repeat(generator.exponential(1.5, 80), 500)
    wide = confidence_interval(stretches) or (0.0, 0.0)
    textbook = 2 * 1.96 * stretches.reshape(80, 500).mean(axis=1).std() / math.sqrt(80)
    assert wide[1] - wide[0] == pytest.approx(textbook, rel=0.3)
    assert confidence_interval(stretches) == wide  # the same every time


def test_a_short_text_has_no_interval() -> None:
    assert confidence_interval(-np.ones(199)) is None
    assert confidence_interval(-np.ones(200)) == (1, 1)
