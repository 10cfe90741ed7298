"""Characters to ids and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.errors import CharloomError
from charloom.text.vocabulary import UnknownCharacterError, Vocabulary

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(texts)
def test_encoding_round_trip(text: str) -> None:
    vocabulary = Vocabulary.of(text)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert ids.dtype == vocabulary.id_type
    assert sorted(set(text)) == list(vocabulary.characters)


@given(st.binary(min_size=1))
def test_byte_encoding_round_trip(data: bytes) -> None:
    text = data.decode("latin-1")
    vocabulary = Vocabulary.of(text, as_bytes=True)
    assert vocabulary.decode(vocabulary.encode(text)).encode("latin-1") == data


@given(texts, texts)
def test_growing_appends_and_keeps_old_ids(old: str, new: str) -> None:
    before = Vocabulary.of(old)
    after = before.grown(new)
    assert after.characters[: len(before)] == before.characters
    assert set(after.characters) == set(old) | set(new)
    assert after.decode(after.encode(old + new)) == old + new


def test_an_unknown_character_is_named_with_its_position() -> None:
    vocabulary = Vocabulary.of("abc")
    with pytest.raises(
        UnknownCharacterError, match=r"'é' \(U\+00E9 LATIN SMALL .*position 12"
    ) as e:
        vocabulary.encode("abécé", position=10)
    assert "2 more" not in str(e.value)
    assert "1 more" in str(e.value)
    assert "--skip-unknown" in str(e.value)
    # Above the table's end, and in a text of ASCII alone.
    for text, place in (("ab\U0001f600", 2), ("aXb", 1)):
        with pytest.raises(UnknownCharacterError, match=f"position {place}"):
            vocabulary.encode(text)


def test_known_characters_alone_can_be_taken() -> None:
    ids, skipped = Vocabulary.of("abc").encode_known("a\U0001f600bXc")
    assert Vocabulary.of("abc").decode(ids) == "abc"
    assert skipped == 2


@pytest.mark.parametrize(("size", "dtype"), [(2, "u1"), (256, "u1"), (257, "u2"), (70_000, "u4")])
def test_ids_take_the_smallest_type(size: int, dtype: str) -> None:
    text = "".join(chr(0x20 + i + (0x1000 if i > 0xD000 else 0)) for i in range(size))
    vocabulary = Vocabulary.of(text)
    assert vocabulary.id_type == np.dtype(dtype)
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_what_comes_before_a_text_is_a_newline_or_the_first_character() -> None:
    assert Vocabulary.of("b\na").start_id == 0
    assert Vocabulary.of("\tb\n").start_id == 1
    assert Vocabulary.of("ba").start_id == 0


@pytest.mark.parametrize("characters", [(), ("a", "a"), ("ab",)])
def test_nonsense_is_refused(characters: tuple[str, ...]) -> None:
    with pytest.raises(CharloomError):
        Vocabulary(characters)


def test_a_byte_is_at_most_255() -> None:
    with pytest.raises(CharloomError, match="255"):
        Vocabulary(("a", "Ā"), as_bytes=True)
