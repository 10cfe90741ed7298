"""The n-gram model against a slow one in dictionaries, written straight from its definition."""

import math
from collections import Counter, defaultdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.ngrams import choosing
from charloom.ngrams import kneser_ney as ngram
from charloom.ngrams.choosing import choose_context, losses_by_context
from charloom.ngrams.kneser_ney import NGramModel

CLOSE = 1e-12


BEGINNING = -1  # what stands before the first character


small_texts = st.integers(1, 4).flatmap(
    lambda size: st.tuples(st.just(size), st.lists(st.integers(0, size - 1), max_size=40))
)


class SlowModel:
    """Interpolated modified Kneser-Ney, one dictionary look-up after the other."""

    def __init__(self, text: list[int], size: int):
        self.size = size
        self.raw: Counter[tuple[int, ...]] = Counter()
        before = defaultdict(set)
        for start in range(len(text)):
            for stop in range(start + 1, len(text) + 1):
                gram = tuple(text[start:stop])
                self.raw[gram] += 1
                before[gram].add(text[start - 1] if start else BEGINNING)
        self.continuation = Counter({gram: len(those) for gram, those in before.items()})

    def probability(self, history: tuple[int, ...], w: int, highest: bool = True) -> float:
        shorter = self.probability(history[1:], w, False) if history else 1 / self.size
        counts = self.raw if highest else self.continuation
        level = {gram: c for gram, c in counts.items() if len(gram) == len(history) + 1}
        after = [c for gram, c in level.items() if gram[:-1] == history]
        if not after:
            return shorter
        discounts = self.discounts(Counter(level.values()))
        count = level.get((*history, w), 0)
        weight = sum(discounts[min(c, 3)] for c in after) / sum(after)
        return (count - discounts[min(count, 3)]) / sum(after) + weight * shorter

    @staticmethod
    def discounts(n: Counter[int]) -> list[float]:
        result = [0.0]
        for i in (1, 2, 3):
            discount = i / 2
            if n[1] and n[i]:
                y = Fraction(n[1], n[1] + 2 * n[2])
                estimate = i - (i + 1) * y * n[i + 1] / n[i]
                if Fraction(i, 10) < estimate < i:
                    discount = float(estimate)
            result.append(discount)
        return result


def contexts(text: list[int], size: int, length: int) -> set[tuple[int, ...]]:
    """Every context of the text up to a length, and some that it lacks."""
    seen = {
        tuple(text[start : start + n])
        for n in range(length + 1)
        for start in range(len(text) + 1 - n)
    }
    return seen | {(*c[1:], size - 1) for c in seen if c} | {(size - 1, *c[1:]) for c in seen if c}


@given(small_texts, st.integers(0, 5))
def test_distributions_are_those_of_the_slow_model(sized_text, context):
    size, text = sized_text
    model = NGramModel.fit(np.array(text, np.int64), size, context)
    slow = SlowModel(text, size)
    for history in contexts(text, size, context):
        distribution = model.distribution(np.array(history, np.int64))
        assert distribution.shape == (size,)
        assert distribution.min() > 0
        assert abs(distribution.sum() - 1) < CLOSE
        expected = [slow.probability(history, w) for w in range(size)]
        np.testing.assert_allclose(distribution, expected, rtol=0, atol=CLOSE)


@given(
    small_texts,
    st.integers(0, 5),
    st.lists(st.integers(0, 3), max_size=20),
    st.none() | st.lists(st.integers(0, 3), max_size=8),
    st.none() | st.integers(1, 6),
)
def test_log_probabilities_are_those_of_the_slow_model(
    sized_text, context, scored, preceding, window
):
    _, text = sized_text
    slow = SlowModel(text, 4)
    model = NGramModel.fit(np.array(text, np.uint8), 4, context)
    result = model.log_probabilities(
        np.array(scored, np.uint8),
        preceding=None if preceding is None else np.array(preceding, np.uint8),
        window=window,
    )
    assert result.shape == (len(scored),)
    assert result.dtype == np.float64
    everything = (preceding or []) + scored
    lead = len(everything) - len(scored)
    for i, w in enumerate(scored):
        place = lead + i
        begin = max(place - context, 0)
        if window is not None:
            begin = max(begin, place - i % window - 1)
        expected = slow.probability(tuple(everything[begin:place]), w)
        assert abs(result[i] - math.log(expected)) < 1e-11


def test_a_text_worked_by_hand():
    # "aab", one character of context.
    # Continuation counts: a follows a and the beginning, 2; b follows a, 1. n1 = n2 = 1, n3 = 0,
    # Y = 1/3, D(1) = 1 - 2/3 = 1/3, D(2) falls back to 1; λ() = (1/3 + 1) / 3 = 4/9.
    # p(a) = (2 - 1)/3 + 4/9 · 1/2 = 5/9; p(b) = (1 - 1/3)/3 + 2/9 = 4/9.
    # Raw counts after a: a 1, b 1. n1 = 2, n2 = 0, D(1) falls back to 1/2; λ(a) = 1/2.
    # p(a|a) = 1/4 + 5/18 = 19/36. Nothing follows b, so p(·|b) = p(·).
    model = NGramModel.fit(np.array([0, 0, 1]), 2, 1)
    np.testing.assert_allclose(model.distribution(np.array([0])), [19 / 36, 17 / 36], rtol=1e-14)
    np.testing.assert_allclose(model.distribution(np.array([1])), [5 / 9, 4 / 9], rtol=1e-14)
    # With nothing before it, the raw counts 2 and 1 answer, here equal to the continuation counts.
    np.testing.assert_allclose(model.distribution(np.zeros(0, int)), [5 / 9, 4 / 9], rtol=1e-14)


def test_discounts_follow_chen_and_goodman():
    # n1 .. n4 = 4, 2, 1, 1: Y = 1/2; 1 - 2Y·2/4, 2 - 3Y·1/2, 3 - 4Y·1/1.
    count = np.array([1] * 4 + [2] * 2 + [3] + [4] + [9] * 5)
    np.testing.assert_allclose(ngram._discounts(count), [0, 0.5, 1.25, 1])


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        ([], [0, 0.5, 1, 1.5]),
        ([5, 6], [0, 0.5, 1, 1.5]),  # no n1: no Y
        ([1, 1, 3, 3], [0, 0.5, 1, 1.5]),  # n2 = n4 = 0 would take all of a count away
        ([1, 2, 2, 2, 3, 4, 4, 4], [0, 1 / 7, 2 - 3 / 7 / 3, 3 - 12 / 7]),
        ([1, 2, 2, 2, 2, 2, 3, 4], [0, 0.5, 2 - 3 / 11 / 5, 3 - 4 / 11]),  # D(1) would be 1 / 11
        ([1, 1, 1, 1, 1, 2, 3, 4, 4], [0, 5 / 7, 1, 1.5]),  # D(2) and D(3) below zero
    ],
)
def test_discounts_of_few_counts_fall_back(count, expected):
    np.testing.assert_allclose(ngram._discounts(np.array(count, int)), expected)


@pytest.mark.parametrize("text", [[], [0], [0, 1], [2, 2], [2] * 500])
@pytest.mark.parametrize("context", [0, 1, 6, 1000])
def test_tiny_and_constant_texts(text, context):
    ids = np.array(text, np.uint8)
    model = NGramModel.fit(ids, 3, context)
    scored = np.array([2, 2, 0, 1, 2])
    for window in (None, 1, 3):
        result = model.log_probabilities(scored, preceding=ids, window=window)
        assert np.isfinite(result).all()
        assert (result <= 0).all()
    assert abs(model.distribution(ids).sum() - 1) < CLOSE
    assert choose_context(ids, scored, 3).context in range(9)


def test_nothing_to_score():
    model = NGramModel.fit(np.array([0, 1, 0]), 2, 3)
    assert model.log_probabilities(np.zeros(0, np.uint8)).shape == (0,)
    assert model.log_probabilities(np.zeros(0, np.uint8), window=4).shape == (0,)


def test_a_vocabulary_of_one_is_certain():
    model = NGramModel.fit(np.zeros(10, int), 1, 3)
    np.testing.assert_allclose(model.log_probabilities(np.zeros(5, int)), 0, atol=CLOSE)


@given(
    st.lists(st.integers(0, 3), max_size=30),
    st.lists(st.integers(0, 3), max_size=10),
    st.integers(0, 9),
)
def test_ids_of_any_size_do_not_overflow(text, scored, context):
    size = 2**31 - 1
    spread = np.array([0, 1, 70_000, size - 1])
    model = NGramModel.fit(spread[text], size, context)
    slow = SlowModel(spread[text].tolist(), size)
    ids = spread[scored]
    result = model.log_probabilities(ids)
    for i, w in enumerate(ids.tolist()):
        history = tuple(ids[max(0, i - context) : i].tolist())
        assert abs(result[i] - math.log(slow.probability(history, w))) < 1e-11


@given(
    st.integers(2, 2**31),
    st.lists(st.integers(0, 2), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_places_are_sorted_by_what_follows(base, text, length):
    padded = np.array([1 if c == 2 else c * (base - 1) for c in text] + [0] * length)
    order = ngram._sorted_places(padded, len(text), base, length)
    assert sorted(order) == list(range(len(text)))
    following = [tuple(padded[place : place + length]) for place in order]
    assert following == sorted(following)


def random_text(length: int, size: int, seed: int) -> np.ndarray:
    """Ids that repeat every 50 characters, three in ten of them replaced by chance."""
    random = np.random.default_rng(seed)
    period = random.integers(0, size, 50)
    noise = random.random(length) < 0.3
    return np.where(noise, random.integers(0, size, length), period[np.arange(length) % 50])


@pytest.mark.parametrize("window", [None, 1, 5, 64])
def test_scoring_in_blocks_changes_nothing(window):
    ids = random_text(3000, 20, 0)
    model = NGramModel.fit(ids[:2000], 20, 4)
    whole = model.log_probabilities(ids[2000:], preceding=ids[:2000], window=window)
    losses = losses_by_context(ids[:2000], ids[2000:], 20, 4)
    blocks = model.log_probabilities(ids[2000:], preceding=ids[:2000], window=window, block_size=7)
    assert np.array_equal(blocks, whole)
    losses_of_blocks = losses_by_context(ids[:2000], ids[2000:], 20, 4, block_size=7)
    np.testing.assert_allclose(losses_of_blocks, losses, rtol=1e-12)


def test_scores_are_those_of_the_distributions():
    ids = random_text(600, 12, 1)
    model = NGramModel.fit(ids[:400], 12, 3)
    carried = model.log_probabilities(ids[400:], preceding=ids[:400])
    for i in range(200):
        distribution = model.distribution(ids[: 400 + i])
        assert abs(math.log(distribution[ids[400 + i]]) - carried[i]) < CLOSE


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_every_integer_type_gives_the_same(kind):
    ids = random_text(500, 30, 2)
    expected = NGramModel.fit(ids, 300, 4).log_probabilities(ids, preceding=ids)
    model = NGramModel.fit(ids.astype(kind), 300, 4)
    result = model.log_probabilities(ids.astype(kind), preceding=ids.astype(kind))
    assert np.array_equal(result, expected)


@pytest.mark.parametrize("size", [255, 256, 257, 65_535, 65_536, 65_537])
def test_the_last_id_is_one_like_the_others(size):
    ids = random_text(300, 5, 5)
    expected = NGramModel.fit(ids, size, 3).log_probabilities(ids)
    result = NGramModel.fit(size - 1 - ids, size, 3).log_probabilities(size - 1 - ids)
    np.testing.assert_allclose(result, expected, rtol=1e-12)


@given(small_texts, st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 6))
def test_losses_by_context_are_those_of_separate_models(sized_text, validation, longest):
    _, text = sized_text
    train, scored = np.array(text, np.uint8), np.array(validation, np.uint8)
    losses = losses_by_context(train, scored, 4, longest)
    expected = [
        -NGramModel.fit(train, 4, k).log_probabilities(scored, preceding=train).mean()
        for k in range(longest + 1)
    ]
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_the_best_context_is_chosen():
    # Each character is the sum of the two before it, mod 5, but for one in ten.
    random = np.random.default_rng(3)
    ids = [1, 2]
    for _ in range(4000):
        ids.append((ids[-1] + ids[-2]) % 5 if random.random() < 0.9 else int(random.integers(5)))
    text = np.array(ids)
    assert choose_context(text[:3000], text[3000:], 5).context == 2
    assert choose_context(text[:3000], text[3000:], 5, longest=1).context == int(
        np.argmin(losses_by_context(text[:3000], text[3000:], 5, 1))
    )
    # Nothing was counted: all contexts are equal, and the shortest wins.
    assert choose_context(text[:0], text, 5).context == 0


def test_choosing_reads_only_the_ends_that_meet(monkeypatch):
    ids = random_text(3000, 10, 4)
    seen = []
    monkeypatch.setattr(
        choosing,
        "losses_by_context",
        lambda train, validation, *_, **__: seen.append((train, validation)) or np.arange(3),
    )
    choose_context(ids[:2000], ids[2000:], 10, training_limit=1000, validation_limit=200)
    assert np.array_equal(seen[0][0], ids[1000:2000])
    assert np.array_equal(seen[0][1], ids[2000:2200])


@pytest.mark.parametrize(
    ("ids", "size", "context"),
    [
        ([0, 3], 3, 1),
        ([-1, 0], 3, 1),
        ([0.0, 1.0], 3, 1),
        ([[0, 1]], 3, 1),
        ([0, 1], 3, -1),
        ([], 0, 1),
        ([0], 2**31, 1),
    ],
)
def test_fit_refuses_what_makes_no_sense(ids, size, context):
    with pytest.raises(ValueError, match=r"ids|context|vocabulary_size"):
        NGramModel.fit(np.array(ids, None if ids else int), size, context)


def test_queries_refuse_what_makes_no_sense():
    model = NGramModel.fit(np.array([0, 1, 2]), 3, 2)
    with pytest.raises(ValueError, match="window"):
        model.log_probabilities(np.array([0]), window=0)
    with pytest.raises(ValueError, match="ids"):
        model.log_probabilities(np.array([3]))
    with pytest.raises(ValueError, match="ids"):
        model.log_probabilities(np.array([0]), preceding=np.array([-1]))
    with pytest.raises(ValueError, match="ids"):
        model.distribution(np.array([0, 7]))
    with pytest.raises(ValueError, match="empty"):
        choose_context(np.array([0, 1]), np.zeros(0, int), 3)


def test_tiny_shakespeare(shakespeare: Path):
    text = np.frombuffer(shakespeare.read_bytes(), np.uint8)
    characters, ids = np.unique(text, return_inverse=True)
    assert len(characters) == 65
    train, last = ids[:1_003_854], ids[1_003_854:]
    assert (
        choose_context(train, last, 65).context == 6
    )  # looks at what it scores: a test of speed only
    model = NGramModel.fit(train, 65, 6)
    carried = -model.log_probabilities(last, preceding=train)
    assert len(carried) == 111_540
    assert abs(carried.mean() - 1.5165) < 0.0005
    cold = -model.log_probabilities(last, preceding=train, window=64)
    assert abs(cold.mean() - 1.5424) < 0.0005
    assert np.array_equal(cold[5:64], carried[5:64])
    for place in (0, 1, 50_000):
        assert abs(model.distribution(last[:place]).sum() - 1) < CLOSE
