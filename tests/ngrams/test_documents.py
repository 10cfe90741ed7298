"""The n-gram model of a collection against its definition in dictionaries, document by document."""

import math
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.ngrams.choosing import choose_context, choose_context_on_splits, losses_by_context
from charloom.ngrams.kneser_ney import NGramModel
from charloom.ngrams.table import NGramTable
from charloom.prediction.mixture import contexts_before

CLOSE = 1e-12

Document = list[int]


def visible_lengths(ids: np.ndarray, context: int, end: int) -> np.ndarray:
    """The number of visible ids in each context: from the last END on, or the first id."""
    places = np.arange(len(ids))
    first = np.maximum.accumulate(np.where(ids == end, places, 0))
    return np.minimum(places[1:] - first[:-1], context)


@st.composite
def collections(draw: st.DrawFn) -> tuple[int, int, list[Document]]:
    """Return a vocabulary's size, the id of END in it and documents of the other ids."""
    size = draw(st.integers(1, 4))
    end = draw(st.integers(0, size - 1))
    others = [w for w in range(size) if w != end]
    document = st.lists(st.sampled_from(others), max_size=8) if others else st.just([])
    return size, end, draw(st.lists(document, max_size=8))


def stream(documents: list[Document], end: int) -> Document:
    return [w for document in documents for w in (*document, end)]


class SlowCollection:
    """Interpolated modified Kneser-Ney of documents, written straight from its definition.

    Each document is read by itself, between two ENDs of which only the second is predicted.
    """

    def __init__(self, ids: Document, size: int, end: int) -> None:
        self.size, self.end = size, end
        self.raw: Counter[tuple[int, ...]] = Counter()
        before = defaultdict(set)
        for document in self.documents(ids):
            for last in range(1, len(document)):
                for first in range(last + 1):
                    gram = tuple(document[first : last + 1])
                    self.raw[gram] += 1
                    if first:
                        before[gram].add(document[first - 1])
        self.adjusted = Counter(
            {
                gram: self.raw[gram] if gram[0] == end and len(gram) > 1 else len(before[gram])
                for gram in self.raw
            }
        )

    def documents(self, ids: Document) -> list[Document]:
        """Return each document between two ENDs, of which the last one can lack the second."""
        found = [[self.end]]
        for w in ids:
            found[-1].append(w)
            if w == self.end:
                found.append([self.end])
        return found

    def visible(self, ids: Document) -> tuple[int, ...]:
        """Return the ids of the document that `ids` end in, with the END before it."""
        return tuple(self.documents(ids)[-1])

    def probability(self, history: tuple[int, ...], w: int, highest: bool) -> float:
        shorter = self.probability(history[1:], w, False) if history else 1 / self.size
        counts = self.raw if highest else self.adjusted
        level = {gram: c for gram, c in counts.items() if len(gram) == len(history) + 1}
        after = [c for gram, c in level.items() if gram[:-1] == history]
        if not after:
            return shorter
        discounts = self.discounts(Counter(level.values()))
        count = level.get((*history, w), 0)
        weight = sum(discounts[min(c, 3)] for c in after) / sum(after)
        return (count - discounts[min(count, 3)]) / sum(after) + weight * shorter

    def known(self, visible: tuple[int, ...], length: int) -> bool:
        """Return whether a character follows the last `length` visible ids in the text."""
        history = visible[len(visible) - length :]
        return any(gram[:-1] == history for gram in self.raw)

    def after(self, ids: Document, w: int, context: int) -> float:
        """p(w) in a model with K = context, after everything that `ids` are."""
        visible = self.visible(ids)
        history = visible[max(0, len(visible) - context) :]
        return self.probability(history, w, len(history) == context)

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


def fitted(ids: Document, size: int, context: int, end: int) -> NGramModel:
    return NGramModel.fit(np.array(ids, np.int64), size, context, end)


@given(collections(), st.integers(0, 5), st.integers(0, 3))
def test_distributions_are_those_of_the_documents(
    collection: tuple[int, int, list[Document]], context: int, missing: int
) -> None:
    size, end, documents = collection
    ids = stream(documents, end)
    ids = ids[: max(0, len(ids) - missing)]  # the last document need not have ended
    model = fitted(ids, size, context, end)
    slow = SlowCollection(ids, size, end)
    histories = [ids[:place] for place in range(len(ids) + 1)]
    histories += [[*history[:-1], size - 1] for history in histories if history]
    for history in histories:
        distribution = model.distribution(np.array(history, np.int64))
        assert distribution.min() > 0
        assert abs(distribution.sum() - 1) < CLOSE
        expected = [slow.after(history, w, context) for w in range(size)]
        np.testing.assert_allclose(distribution, expected, rtol=0, atol=CLOSE)


@given(
    collections(),
    st.integers(0, 5),
    st.lists(st.integers(0, 3), max_size=20),
    st.none() | st.lists(st.integers(0, 3), max_size=8),
    st.none() | st.integers(1, 6),
)
def test_log_probabilities_are_those_of_the_documents(
    collection: tuple[int, int, list[Document]],
    context: int,
    scored: Document,
    preceding: Document | None,
    window: int | None,
) -> None:
    _, end, documents = collection
    ids = stream(documents, end)
    slow = SlowCollection(ids, 4, end)
    result = fitted(ids, 4, context, end).log_probabilities(
        np.array(scored, np.uint8),
        preceding=None if preceding is None else np.array(preceding, np.uint8),
        window=window,
    )
    assert result.shape == (len(scored),)
    everything = (preceding or []) + scored
    for i, w in enumerate(scored):
        before = everything[: len(everything) - len(scored) + i]
        expected = slow.after(before, w, context)
        if window is not None:
            seen = slow.visible(before)
            seen = seen[max(0, len(seen) - min(context, i % window + 1)) :]
            # Without END in it, a longer context can exist but is not visible.
            highest = len(seen) == context or seen[:1] != (end,)
            expected = slow.probability(seen, w, highest)
        assert abs(result[i] - math.log(expected)) < 1e-11


@given(
    collections(),
    st.lists(st.integers(0, 3), min_size=1, max_size=20),
    st.integers(0, 6),
    st.integers(1, 30),
)
def test_losses_by_context_are_those_of_separate_models(
    collection: tuple[int, int, list[Document]], scored: Document, longest: int, block_size: int
) -> None:
    _, end, documents = collection
    train = np.array(stream(documents, end), np.uint8)
    validation = np.array(scored, np.uint8)
    losses = losses_by_context(train, validation, 4, longest, end_id=end, block_size=block_size)
    expected = [
        -NGramModel.fit(train, 4, k, end).log_probabilities(validation, preceding=train).mean()
        for k in range(longest + 1)
    ]
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_two_documents_worked_by_hand() -> None:
    # "ab" and "a", END = 2: END a b END a END, one character of context.
    # Predecessors: of a END, of b a, of END b and a: 1, 1, 2. n1 = 2, n2 = 1, Y = 1/2.
    # D(1) = 1 - 1/2 = 1/2, D(2) falls back to 1. λ() = (1/2 + 1/2 + 1) / 4 = 1/2.
    # p(a) = p(b) = (1 - 1/2)/4 + 1/6 = 7/24; p(END) = 1/4 + 1/6 = 10/24.
    # Raw counts: END a 2, ab 1, b END 1, a END 1. So n1 = 3, n2 = 1, Y = 3/5; D(1) = 1 - 2/5 = 3/5,
    # D(2) falls back to 1. λ(END) = 1/2, p(a|END) = 1/2 + 7/48 = 31/48.
    model = fitted([0, 1, 2, 0, 2], 3, 1, 2)
    after_end = model.distribution(np.array([2]))
    np.testing.assert_allclose(after_end, [31 / 48, 7 / 48, 10 / 48], rtol=1e-14)
    np.testing.assert_array_equal(model.distribution(np.zeros(0, int)), after_end)
    # λ(a) = 3/5: p(b|a) = (1 - 3/5)/2 + 3/5 · 7/24.
    np.testing.assert_allclose(
        model.distribution(np.array([1, 0])),
        [3 / 5 * 7 / 24, 1 / 5 + 3 / 5 * 7 / 24, 1 / 5 + 3 / 5 * 10 / 24],
        rtol=1e-14,
    )


@pytest.mark.parametrize("context", [0, 1, 4, 9, 1000])
def test_what_comes_before_a_document_changes_nothing(context: int) -> None:
    random = np.random.default_rng(4)
    documents = [random.integers(0, 5, random.integers(0, 9)).tolist() for _ in range(60)]
    model = fitted(stream(documents, 5), 6, context, 5)
    whole = model.log_probabilities(np.array(stream(documents, 5)))
    alone = [model.log_probabilities(np.array([*document, 5])) for document in documents]
    np.testing.assert_array_equal(whole, np.concatenate(alone))
    last = np.array([*stream(documents[:9], 5), 1, 2])
    np.testing.assert_array_equal(model.distribution(last), model.distribution(last[-2:]))
    # Nor does the order in which the documents were counted.
    backward = fitted(stream(documents[::-1], 5), 6, context, 5)
    again = backward.log_probabilities(np.array(stream(documents, 5)))
    np.testing.assert_allclose(again, whole, rtol=1e-12)


@pytest.mark.parametrize("ids", [[], [2], [2, 2, 2], [0], [0, 2], [0, 0, 0, 0]])
@pytest.mark.parametrize("context", [0, 1, 3, 100])
def test_the_smallest_collections(ids: Document, context: int) -> None:
    model = fitted(ids, 3, context, 2)
    for preceding in (None, np.zeros(0, int), np.array(ids, int)):
        for window in (None, 1, 2):
            result = model.log_probabilities(
                np.array([0, 2, 2, 1, 2]), preceding=preceding, window=window
            )
            assert np.isfinite(result).all()
    assert abs(model.distribution(np.array(ids, int)).sum() - 1) < CLOSE
    chosen = choose_context(np.array(ids, int), np.array([0, 2]), 3, end_id=2)
    assert chosen.context in range(9)
    assert choose_context_on_splits(np.array(ids, int), None, 3, 2).context in range(9)


def test_an_end_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="ids"):
        fitted([0, 1], 2, 1, 2)


@given(collections(), st.integers(0, 5))
def test_the_table_predicts_what_the_model_predicts(
    collection: tuple[int, int, list[Document]], context: int
) -> None:
    """END need not cut the contexts that are looked up, nor is it needed before a document."""
    size, end, documents = collection
    ids = stream(documents, end)
    model = fitted(ids, size, context, end)
    table = NGramTable.of(model)
    text = np.array([end, *ids, *stream(documents[::-1], end), size - 1, 0])
    whole = contexts_before(text, context)
    cut = whole.copy()
    for row, visible in zip(cut, visible_lengths(text, context, end), strict=True):
        row[: context - visible] = -1
    predictions = table.look_up(whole)
    for one, other in zip(predictions, table.look_up(cut), strict=True):
        np.testing.assert_array_equal(one, other)
    object.__setattr__(table, "_kernel", None)
    for one, other in zip(predictions, table.look_up(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    expected = np.array([model.distribution(text[1:place]) for place in range(1, len(text))])
    np.testing.assert_allclose(predictions.probabilities, expected, rtol=1e-5, atol=1e-7)
    slow = SlowCollection(ids, size, end)
    for row, length in enumerate(predictions.length):
        visible = slow.visible(text[1 : row + 1].tolist())
        known = [n for n in range(min(len(visible), context) + 1) if slow.known(visible, n)]
        assert length == max(known, default=0)


def test_a_table_of_documents_keeps_to_its_size() -> None:
    random = np.random.default_rng(4)
    documents = [random.integers(0, 5, random.integers(0, 9)).tolist() for _ in range(300)]
    ids = stream(documents, 5)
    largest = NGramTable.of(fitted(ids, 6, 4, 5))
    smaller = NGramTable.of(fitted(ids, 6, 4, 5), largest.nbytes - 100)
    assert smaller.nbytes < largest.nbytes
    own = NGramTable.of(fitted(ids, 6, smaller.context, 5))  # raw counts on its highest level
    np.testing.assert_array_equal(smaller.probabilities, own.probabilities)
