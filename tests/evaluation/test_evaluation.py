"""The metrics of an evaluation, and its confidence interval."""

import math

import numpy as np
import pytest

from charloom.errors import CharloomError
from charloom.evaluation import intervals
from charloom.evaluation.evaluation import evaluation_of
from charloom.evaluation.intervals import Interval, IntervalSums, confidence_interval
from charloom.evaluation.scored_text import ScoredText
from charloom.prediction.scoring import Protocol, Scores
from charloom.prediction.unseen import UnseenCharacters
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


def interval_of_documents(log_p: np.ndarray, lengths: np.ndarray) -> Interval | None:
    ends = np.zeros(len(log_p), dtype=bool)
    ends[np.cumsum(lengths) - 1] = True
    whole, cut = (IntervalSums(len(log_p), len(lengths)) for _ in range(2))
    whole.add(log_p, ends)
    for begin in range(0, len(log_p), 997):
        cut.add(log_p[begin : begin + 997], ends[begin : begin + 997])
    assert cut.interval() == (whole.interval() and pytest.approx(whole.interval(), rel=1e-12))
    return whole.interval()


@pytest.mark.parametrize("size", [1, 60, 999, 10_000])
def test_stretches_of_a_text_give_the_same_sums(size: int) -> None:
    log_p = -np.random.default_rng(4).exponential(1.0, 9_999)
    sums = IntervalSums(len(log_p))
    for begin in range(0, len(log_p), size):
        part = log_p[begin : begin + size]
        sums.add(part, np.zeros(len(part), dtype=bool))
    assert sums.interval() == confidence_interval(log_p)


def test_blocks_of_a_long_text_begin_at_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    log_p = -np.random.default_rng(5).exponential(1.0, 60_003)
    exact = confidence_interval(log_p)
    assert exact is not None
    monkeypatch.setattr(intervals, "MOST_CELLS", 1_000)  # of 61 characters each
    sums = IntervalSums(len(log_p))
    sums.add(log_p, np.zeros(len(log_p), dtype=bool))
    found = sums.interval()
    assert found == pytest.approx(exact, rel=1e-3)
    assert len(sums._log_p) <= 1_000


def test_interval_of_documents_is_that_of_their_means() -> None:
    generator = np.random.default_rng(2)
    lengths = generator.integers(2, 12, 2_000)
    hard = generator.exponential(1.5, 2_000)  # of each document as a whole
    log_p = -np.repeat(hard, lengths)
    low, high = interval_of_documents(log_p, lengths) or (0.0, 0.0)
    mean = -log_p.mean()
    assert low < mean < high
    # The delta method for a ratio of means.
    residual = lengths * (hard - mean)
    textbook = 2 * 1.96 * residual.std() / lengths.mean() / math.sqrt(2_000)
    assert high - low == pytest.approx(textbook, rel=0.1)
    grouped = interval_of_documents(np.tile(log_p, 10), np.tile(lengths, 10)) or (0.0, 0.0)
    assert grouped[1] - grouped[0] == pytest.approx(textbook / math.sqrt(10), rel=0.15)


def test_few_documents_are_sampled_in_blocks() -> None:
    log_p = -np.random.default_rng(3).exponential(1.0, 4_000)
    assert interval_of_documents(log_p, np.full(4, 1_000)) == confidence_interval(log_p)
    assert interval_of_documents(-np.ones(6), np.array([3, 3])) is None


def test_folded_characters_are_charged() -> None:
    unseen = UnseenCharacters(0.01, 1_000_000)
    vocabulary = Vocabulary(tuple("ab"))
    ids = np.zeros(400, np.uint8)
    scores = Scores.empty(400)
    scores.log_probabilities[:] = -0.5
    scores.guessed[:] = True
    text = ScoredText("x", ids, 0, folded=100, unseen=unseen)
    found = evaluation_of(scores, text, Protocol(), vocabulary)
    cost = -math.log(0.01 / 1_000_000)
    assert found.nats_per_character == pytest.approx((400 * 0.5 + 100 * cost) / 500)
    assert (found.characters, found.unknown_characters, found.accuracy) == (500, 100, 0.8)
    low, high = found.interval or (0.0, 0.0)
    assert low == pytest.approx(found.nats_per_character) == pytest.approx(high)
