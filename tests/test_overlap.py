"""The longest shared stretch, against looking for every stretch there is."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charloom.overlap import Overlap, longest_overlap

texts = st.lists(st.integers(0, 3), min_size=1, max_size=60).map(bytes)


def by_trying(training: bytes, text: bytes) -> Overlap:
    for length in range(min(len(training), len(text)), 0, -1):
        for place in range(len(text) - length + 1):
            found = training.find(text[place : place + length])
            if found >= 0:
                return Overlap(length, place, found)
    return Overlap(0, 0, 0)


@given(texts, texts)
def test_it_is_the_longest_and_the_first(training: bytes, text: bytes) -> None:
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
