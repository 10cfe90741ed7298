"""The longest shared stretch, and what follows a stretch, against looking at all there are."""

import sys
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charloom.evaluation.evaluation import find_overlap
from charloom.text.overlap import Overlap, TrainingIndex, longest_overlap

texts = st.lists(st.integers(0, 3), min_size=1, max_size=60).map(bytes)


def by_trying(training: bytes, text: bytes) -> Overlap:
    for length in range(min(len(training), len(text)), 0, -1):
        for place in range(len(text) - length + 1):
            found = training.find(text[place : place + length])
            if found >= 0:
                return Overlap(length, place, found)
    return Overlap(0, 0, 0)


@given(texts, texts)
def test_longest_overlap_is_longest_and_first(training: bytes, text: bytes) -> None:
    ids = np.frombuffer(training, np.uint8), np.frombuffer(text, np.uint8)
    assert longest_overlap(*ids) == by_trying(training, text)


def test_a_planted_stretch_is_found_whole() -> None:
    generator = np.random.default_rng(0)
    training, text = generator.integers(0, 50, 20_000), generator.integers(50, 99, 3_000)
    text[700:1953] = training[11_000:12_253]
    assert longest_overlap(training, text) == Overlap(1253, 700, 11_000)


def test_a_stretch_does_not_reach_from_one_text_into_the_other() -> None:
    training, text = np.frombuffer(b"xyab", np.uint8), np.frombuffer(b"cdyabc", np.uint8)
    assert longest_overlap(training, text) == Overlap(3, 2, 1)


# Vocabularies of one, two and four bytes an id, and those that one more id would be too many for.
sizes = st.sampled_from([4, 255, 256, 257, 65_535, 65_536, 70_000])


def spread(ids: list[int], size: int) -> list[int]:
    """Ids from 0 to 3 as ids of a vocabulary of that size: its first, its last and some between, so
    that the order of bytes matters. -1 stays."""
    places = [0, 1 % size, size // 2, size - 1]
    return [id_ if id_ < 0 else places[id_] for id_ in ids]


def stands(stretch: list[int], training: list[int]) -> bool:
    return any(
        training[place : place + len(stretch)] == stretch
        for place in range(len(training) - len(stretch) + 1)
    )


few = st.lists(st.integers(0, 3), max_size=40)


others = st.lists(st.integers(-1, 3), max_size=40)  # -1: a character that the model never saw


@given(few, others, st.integers(0, 45), sizes)
@example([], [0, 1], 0, 4)
@example([2], [2, 2], 1, 256)
@example([0, 1, 2, 3], [3, 0, 1, 2, 3, 0], 3, 4)  # as far as the training text's end
@example([0, 1, 0, 1, 2], [0, 1, 0, 1, 2], 5, 4)  # nothing ends where it should
def test_the_longest_stretch_that_ends_from_a_place_on(
    training: list[int], text: list[int], begin: int, size: int
) -> None:
    training, text = spread(training, size), spread(text, size)
    index = TrainingIndex(np.array(training, dtype=np.uint32), size)
    found = index.longest(np.array(text, dtype=np.int64), begin)
    there = [
        (start - end, start)
        for end in range(begin + 1, len(text) + 1)
        for start in range(end)
        if stands(text[start:end], training)
    ]
    if not there:
        assert found == Overlap(0, 0, 0)
        return
    length, place = -min(there)[0], min(there)[1]
    assert found[:2] == (length, place)
    stretch = text[place : place + length]
    firsts = [p for p in range(len(training)) if training[p : p + length] == stretch]
    assert found.training_place == firsts[0]
    assert index.ids.tolist() == training


@given(few, others, sizes)
@example([], [0], 4)
@example([1], [1], 256)
@example([1, 2, 1, 2], [1, 2], 4)  # once with a follower, once at the end
def test_what_follows_a_stretch(training: list[int], stretch: list[int], size: int) -> None:
    training = spread(training, size)
    index = TrainingIndex(np.array(training, dtype=np.uint32), size)
    for length in range(len(stretch) + 1):
        end = spread(stretch[len(stretch) - length :], size)
        expected = {
            training[place + length]
            for place in range(len(training) - length)
            if training[place : place + length] == end
        }
        assert set(np.flatnonzero(index.followers(np.array(end, dtype=np.int64)))) == expected


def test_whole_leaked_text_is_found_in_linear_time() -> None:
    training = np.random.default_rng(0).integers(0, 80, 1_000_000).astype(np.uint8)
    for text in (training[-100_000:], np.repeat(training[:20_000], 2)):
        began = time.process_time()
        found = longest_overlap(training, text)
        assert time.process_time() - began < 5  # not the hours of a quadratic search
        assert text[found.place :][: found.length].tolist() == (
            training[found.training_place :][: found.length].tolist()
        )
    assert longest_overlap(training, training[-100_000:]) == Overlap(100_000, 0, 900_000)


def test_the_same_character_all_along() -> None:
    training, text = np.zeros(200_000, np.uint8), np.zeros(100_000, np.uint8)
    assert longest_overlap(training, text) == Overlap(100_000, 0, 0)


def test_without_pydivsufsort_overlap_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.zeros(9, np.uint8)
    assert find_overlap(ids, ids) == Overlap(9, 0, 0)
    monkeypatch.setitem(sys.modules, "pydivsufsort", None)  # as where it is not installed
    assert find_overlap(ids, ids) is None


def test_a_text_that_is_too_long_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charloom.evaluation.evaluation.LONGEST_TO_INDEX", 17)
    assert find_overlap(np.zeros(8, np.uint8), np.zeros(9, np.uint8)) is not None
    assert find_overlap(np.zeros(9, np.uint8), np.zeros(9, np.uint8)) is None
