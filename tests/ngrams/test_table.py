"""The compact table against the model that it is made from, compiled and in NumPy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charloom.errors import CharloomError
from charloom.ngrams.kneser_ney import NGramModel
from charloom.ngrams.table import LOOK_UP, NGramTable
from charloom.text.corpora import open_text
from charloom.text.dataset import Split, load_dataset

IDS = np.random.default_rng(1).choice(5, 3_000, p=[0.5, 0.2, 0.15, 0.1, 0.05]).astype(np.uint8)


IDS[1000:1400] = IDS[200:600]


def table(context: int = 4, **settings: Any) -> NGramTable:
    return NGramTable.of(NGramModel.fit(IDS, 5, context), **settings)


def in_numpy(asked: NGramTable) -> NGramTable:
    """Return the table as it is where Numba is missing."""
    without = replace(asked)
    object.__setattr__(without, "_kernel", None)
    return without


def test_a_broken_numba_leaves_the_table_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise CharloomError("the kernel for counting needs Numba")

    monkeypatch.setattr(LOOK_UP, "require_compiler", lambda: None)  # another kernel is kept
    monkeypatch.setattr(LOOK_UP, "compiled", broken)
    found, contexts = table(2), some_contexts(2)
    for one, other in zip(found.look_up(contexts), in_numpy(found).look_up(contexts), strict=True):
        np.testing.assert_array_equal(one, other)


def some_contexts(context: int, count: int = 300, size: int = 5) -> np.ndarray:
    contexts = np.random.default_rng(2).integers(0, size, (count, context)).astype(np.int32)
    for row in range(count):
        contexts[row, : row % (context + 1)] = -1  # at the beginning of a text
    return contexts


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 5))
def test_it_says_what_the_model_says(text: list[int], context: int) -> None:
    model = NGramModel.fit(np.array(text, dtype=np.uint8), 4, context)
    contexts = some_contexts(context, 30, 4)[:, :]
    contexts[contexts < 0] = 0  # whole ones: in shorter ones the model uses other counts
    answers = NGramTable.of(model).look_up(contexts)
    expected = np.array([model.distribution(row) for row in contexts])
    np.testing.assert_allclose(answers.probabilities, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("most_bytes", [float("inf"), 4000.0, 1.0])
@pytest.mark.parametrize("context", [0, 1, 4])
def test_compiled_and_plain_agree_and_add_up_to_one(context: int, most_bytes: float) -> None:
    asked = table(context, most_bytes=most_bytes)
    contexts = some_contexts(asked.context)
    compiled = asked.look_up(contexts)
    for one, other in zip(compiled, in_numpy(asked).look_up(contexts), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(compiled.probabilities.sum(axis=1), 1, atol=1e-5)
    assert compiled.probabilities.min() > 0


@pytest.mark.parametrize("context", [0, 1, 4])
def test_a_state_is_as_good_as_its_text(context: int) -> None:
    asked, ids = table(context), np.random.default_rng(4).integers(0, 5, (12, 3))
    expected, end = asked.predict(ids, asked.zero_state(3))
    padded = np.concatenate([np.full((context, 3), -1), ids]).T
    windows = np.lib.stride_tricks.sliding_window_view(padded, context + 1, axis=1)
    contexts = windows[:, :, 1:].transpose(1, 0, 2).reshape(36, context).astype(np.int32)
    for one, other in zip(expected, asked.look_up(contexts), strict=True):
        np.testing.assert_array_equal(one, other)
    for one in (asked, in_numpy(asked)):
        state = one.read(ids[:5], one.zero_state(3))
        found, state = one.predict(ids[5:], state)
        for values, whole in zip(found, expected, strict=True):
            np.testing.assert_array_equal(values, whole[15:])
        np.testing.assert_array_equal(state, end)
        np.testing.assert_array_equal(one.predict(ids[:0], state)[1], state)


def test_without_numba_numpy_answers() -> None:
    asked = table()
    expected = asked.look_up(some_contexts(4))
    in_blocks = in_numpy(asked).look_up(some_contexts(4), at_once=100)
    for one, other in zip(in_blocks, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_length_and_the_weight_are_those_of_the_longest_context_seen() -> None:
    asked = NGramTable.of(NGramModel.fit(np.array([0, 1, 0, 1, 2], np.uint8), 4, 3))
    contexts = np.array([[-1, -1, -1], [3, 0, 1], [0, 1, 0], [1, 2, 3], [0, 1, 2]], np.int32)
    answers = asked.look_up(contexts)
    assert answers.length.tolist() == [0, 2, 3, 0, 0]  # nothing was seen to follow 2 or 3
    assert answers.weight[0] == answers.weight[3] == asked.weights[0]


def test_it_keeps_to_its_size_and_is_the_best_that_fits(shakespeare: Path) -> None:
    data = load_dataset(open_text(shakespeare), Split.parse("85/5/10"))
    size = len(data.vocabulary)
    model = NGramModel.fit(data.train, size, 6)
    ids = data.validation.astype(np.int32)
    contexts = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(ids, 6)[:-1])
    losses = {}
    for most in (float("inf"), 8e6, 4e6, 1.5e6, 1e5):
        fitting = NGramTable.of(model, most)
        assert fitting.nbytes <= most
        asked = contexts[:, 6 - fitting.context :]
        p = fitting.look_up(np.ascontiguousarray(asked)).probabilities
        losses[fitting.context] = -np.log(p[np.arange(len(ids) - 6), ids[6:]]).mean()
        # As if the model had been made for so many characters.
        own = NGramModel.fit(data.train, size, fitting.context).log_probabilities(data.validation)
        assert losses[fitting.context] == pytest.approx(-own[6:].mean(), abs=1e-5)
    assert list(losses) == [6, 5, 4, 2]
    assert losses[6] == pytest.approx(1.526, abs=0.002)


def test_a_table_that_is_none_is_refused() -> None:
    good = table()
    first = good.first.copy()
    first[1:3] = first[2:0:-1]
    other = good.characters.copy()
    other[:2] = other[1::-1]
    backward = good.first.copy()
    for changes in (
        {"first": first},
        {"first": good.first[:-1]},
        {"first": good.first + 1},
        {"characters": other},
        {"characters": good.characters[:-1]},
        {"vocabulary_size": 3},
        {"context": 99},
        {"context": -1},
        {"probabilities": good.probabilities * np.float32(np.nan)},
        {"probabilities": -good.probabilities},
        {"weights": good.weights * 0},
        {"weights": good.weights[:-1]},
    ):
        with pytest.raises(ValueError, match=r"its|outside the vocabulary"):
            replace(good, **changes)  # type: ignore[arg-type]
    backward[1:-1] = 0  # the last node has all the children, and is one of them
    with pytest.raises(ValueError, match=r"after its children|order"):
        replace(good, first=backward)
