"""A text becomes ids and three parts."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.errors import CharloomError
from charloom.text.corpora import open_text
from charloom.text.dataset import OtherTextError, Split, encode_text, load_dataset, scan
from charloom.text.source import Text, text_from_string
from charloom.text.vocabulary import Vocabulary


def test_the_published_split_of_tiny_shakespeare(shakespeare: Path) -> None:
    data = load_dataset(open_text(shakespeare), Split.parse("90/10/0"))
    assert (len(data.train), len(data.validation), len(data.test)) == (1_003_854, 111_540, 0)
    assert len(data.vocabulary) == 65
    assert data.sha256 == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def test_the_book_by_its_path_is_read_as_it_is_with_raw(austen: Path) -> None:
    data = load_dataset(open_text(austen, raw=True), Split())
    assert len(data.ids) == 704_190
    assert len(data.vocabulary) == 86
    assert data.sha256 == hashlib.sha256(austen.read_bytes()).hexdigest()


@given(
    st.integers(0, 10_000),
    st.tuples(st.integers(1, 98), st.integers(0, 98)).filter(lambda p: sum(p) <= 100),
)
def test_parts_follow_one_another_at_the_floors(length: int, percent: tuple[int, int]) -> None:
    first, second = percent
    split = Split(first, second, 100 - first - second)
    a, b = split.boundaries(length)
    assert a == length * first // 100
    assert b == length * (first + second) // 100
    assert Split.parse(str(split)) == split


@pytest.mark.parametrize(
    "text",
    ["", "90", "90/5", "90/5/6", "0/50/50", "-10/60/50", "a/b/c", "nan/5/5", "90/5/5/0", "inf/0/0"],
)
def test_a_split_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(CharloomError, match="--split"):
        Split.parse(text)


@pytest.mark.parametrize(
    ("text", "said"), [("", "empty"), ("a", "one character"), ("aaaaa", "one distinct character")]
)
def test_texts_with_nothing_to_learn_are_refused(text: str, said: str) -> None:
    with pytest.raises(CharloomError, match=said):
        load_dataset(text_from_string(text), Split())


def test_a_long_text_lies_in_a_mapped_file(tmp_path: Path) -> None:
    text = "häuser und bäume, " * 50
    vocabulary = Vocabulary.of(text)
    opened = text_from_string(text)
    ids = encode_text(opened, len(text), vocabulary, folder=tmp_path, in_memory=10)
    assert isinstance(ids, np.memmap)
    assert vocabulary.decode(ids) == text
    assert list(tmp_path.iterdir()) == []  # the file has no name that could be left behind


def test_a_vocabulary_that_comes_first_keeps_its_ids() -> None:
    base = Vocabulary(("z", "a"))
    data = load_dataset(text_from_string("abcabc"), Split(), base=base)
    assert data.vocabulary.characters == ("z", "a", "b", "c")


def test_bytes_and_characters_do_not_mix() -> None:
    with pytest.raises(CharloomError, match="--bytes"):
        load_dataset(text_from_string("ab"), Split(), base=Vocabulary(("a",), as_bytes=True))


def test_another_text_is_refused() -> None:
    digest = scan(text_from_string("abc")).sha256
    load_dataset(text_from_string("abc"), Split(), sha256=digest)
    with pytest.raises(OtherTextError, match="is not the one"):
        load_dataset(text_from_string("abd"), Split(), sha256=digest)


def test_a_text_that_changes_between_its_readings_is_refused() -> None:
    readings = iter(["abcd", "abcda"])
    text = Text("changing", "", False, lambda: iter([next(readings)]))
    with pytest.raises(CharloomError, match="changed"):
        load_dataset(text, Split())
