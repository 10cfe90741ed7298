"""Typed text, read as the training text of a model; and characters of the model as text."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.errors import CharloomError
from charloom.text.format import TextFormat
from charloom.text.typed import ShownText, as_read, as_shown, compose, compose_pieces
from charloom.text.unknown import look_alike
from charloom.text.vocabulary import END, UnknownCharacterError, Vocabulary

PLAIN = TextFormat()
BYTES = TextFormat(as_bytes=True, keep_newlines=True, keep_mark=True)
FRENCH = Vocabulary.of("le café est à l’été\n")
ALL_BYTES = Vocabulary.of("".join(map(chr, range(256))) + END, as_bytes=True)
texts = st.text(st.characters(exclude_categories=["Cs"]))
accented = st.text("aeé\u0301\u0323\u0302 \u1ec7\u00e2한ᄒ\u1161\u11ab🦉x\n")


@given(st.text("ab\r\n\ufeff"))
def test_line_ends_and_marks_are_read_as_in_a_file(typed: str) -> None:
    expected = typed.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    assert as_read(typed, PLAIN, Vocabulary.of("ab\n")) == expected
    kept = TextFormat(keep_newlines=True, keep_mark=True)
    assert as_read(typed, kept, Vocabulary.of("ab\n\r\ufeff")) == typed


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_canonically_equivalent_characters_are_read_as_the_model_knows_them(form: str) -> None:
    other = "NFD" if form == "NFC" else "NFC"
    for code in (*range(0xC0, 0x250), *range(0x370, 0x500), *range(0x1E00, 0x2000), 0x3050, 0xAC01):
        character = unicodedata.normalize(form, chr(code))
        typed = unicodedata.normalize(other, character)
        vocabulary = Vocabulary.of(f"{character} ")
        assert compose(f" {typed}{typed} ", vocabulary) == f" {character}{character} "


def test_a_known_text_is_not_changed() -> None:
    both = Vocabulary.of("e\u0301é")
    assert compose("e\u0301é", both) == "e\u0301é"
    # Vietnamese in an old encoding: the vowel with its circumflex, then its tone.
    assert compose("\u1ec7", Vocabulary.of("ê\u0323")) == "ê\u0323"
    # Compatible characters are other characters.
    for typed in ("’", "\u00a0", "…", "ﬁ", "Ａ"):
        assert compose(typed, Vocabulary.of("'. fiA")) == typed


@given(accented, st.lists(st.integers(0, 30)))
def test_pieces_are_composed_like_a_whole_text(text: str, cuts: list[int]) -> None:
    vocabulary = Vocabulary.of("aeé한 \n")
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(places)]
    composed = "".join(compose_pieces(iter(pieces), vocabulary))
    assert composed == compose(text, vocabulary)
    assert unicodedata.normalize("NFC", composed) == unicodedata.normalize("NFC", text)
    assert compose(composed, vocabulary) == composed


@given(texts)
def test_a_model_of_bytes_reads_utf_8_and_shows_it(text: str) -> None:
    characters = as_read(text, BYTES, ALL_BYTES)
    assert characters.encode("latin-1") == text.encode()
    assert as_shown(characters, ALL_BYTES) == text
    assert as_read(text.encode(), BYTES, ALL_BYTES) == characters


@given(st.binary(), st.lists(st.integers(0, 30)))
def test_bytes_in_pieces_are_shown_like_a_whole_text(data: bytes, cuts: list[int]) -> None:
    characters = as_read(data, BYTES, ALL_BYTES)
    shown, decoder = "", ShownText(ALL_BYTES)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for begin, end in pairwise(places):
        shown += decoder.add(characters[begin:end])
    assert shown + decoder.rest() == as_shown(characters, ALL_BYTES)
    assert as_shown(characters, ALL_BYTES) == data.decode("utf-8", "backslashreplace")


def test_invalid_bytes_and_ends_are_shown() -> None:
    assert as_shown(f"caf\xc3{END}\xc3\xa9{END}", ALL_BYTES) == r"caf\xc3<end>é<end>"
    assert as_shown("\xa9 caf\xc3", ALL_BYTES, begins=False, ends=False) == " caf"
    assert as_shown(f"é{END}", FRENCH) == "é<end>"


def test_what_is_no_text_is_refused() -> None:
    for typed in ("a\ud800", f"a{END}"):
        for vocabulary, format in ((FRENCH, PLAIN), (ALL_BYTES, BYTES)):
            with pytest.raises(CharloomError, match="half of a surrogate pair"):
                as_read(typed, format, vocabulary)
            assert as_read(typed, format, vocabulary, skip_unknown=True) == "a"
    with pytest.raises(CharloomError, match="byte 0xE9 at character 3 is not UTF-8"):
        as_read("caf\udce9", PLAIN, FRENCH)
    assert as_read("caf\udce9", BYTES, ALL_BYTES) == "caf\xe9"
    with pytest.raises(CharloomError, match=r"not UTF-8 .byte 0xE9 at byte offset 3"):
        as_read(b"caf\xe9", PLAIN, FRENCH)
    assert as_read(b"caf\xe9", TextFormat(encoding="cp1252"), FRENCH) == "café"
    assert as_read("café".encode(), TextFormat(encoding="cp1252"), FRENCH) == "café"
    assert as_read(b"caf\xe9", TextFormat(encoding_errors="replace"), FRENCH) == "caf\ufffd"
    with pytest.raises(CharloomError, match="neither UTF-8 nor utf-16, the encoding of the"):
        as_read(b"caf\xe9\xff", TextFormat(encoding="utf-16"), FRENCH)
    with pytest.raises(CharloomError, match="None is not a text: pass a str"):
        as_read(None, PLAIN, FRENCH)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("typed", "known", "instead"),
    [
        ("’", "'", "'"),
        ("'", "’`", "’"),
        ("“", '"', '"'),
        ("\u00a0", " ", " "),
        ("…", ".", "..."),
        ("—", "-", "-"),
        ("-", "–", "–"),
        ("Ａ", "A", "A"),
        ("Ａ", "a", "a"),
        ("É", "é", "é"),
        ("é", "É", "É"),
        ("É", "e", "e"),
        ("ñ", "n", "n"),
        ("ﬁ", "fi", "fi"),
        ("日", "月", None),
        ("が", "か", None),
        ("\n", " ", None),
        ("x", "", None),
    ],
)
def test_a_known_character_that_looks_like_an_unknown_one(
    typed: str, known: str, instead: str | None
) -> None:
    assert look_alike(typed, frozenset(known)) == instead


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("l'", "'\"'\"' .U.0027 APOSTROPHE. at position 1: write '’' .U.2019. instead, remove"),
        ("É", "'É' .U.00C9 LATIN .* ACUTE. at position 0: write 'é' .U.00E9. instead, remove"),
        ("nn", "'n' .U.006E LATIN SMALL LETTER N. at position 0 and 1 more after it: remove it"),
        ("i\u0302", "'i' .U.0069"),
        ("st\u0302", "'◌\u0302' .U.0302 COMBINING CIRCUMFLEX ACCENT. at position 2: remove"),
        (
            "e\u0302",
            "'◌\u0302' .U.0302 COMBINING CIRCUMFLEX ACCENT. of 'ê' at .* write 'e' instead",
        ),
        ("\n\x07", r"'\\x07' .U.0007. at position 1"),
    ],
)
def test_messages_name_an_unknown_character(typed: str, message: str) -> None:
    with pytest.raises(UnknownCharacterError, match=message.replace("'\"'\"'", '"\'"')):
        FRENCH.encode(as_read(typed, PLAIN, FRENCH))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("lÉ", "byte 0x89 of 'É' .U.00C9 .*. at byte 2: write 'é' .U.00E9. instead, remove it"),
        ("B", "byte 0x42 of 'B' .U.0042 .* at byte 0: remove it"),
        (b"a\xff", "byte 0xFF at byte 1: remove it"),
    ],
)
def test_messages_name_an_unknown_byte(typed: str | bytes, message: str) -> None:
    vocabulary = Vocabulary.of("le café\n".encode().decode("latin-1"), as_bytes=True)
    with pytest.raises(UnknownCharacterError, match=message):
        vocabulary.encode(as_read(typed, BYTES, vocabulary))


def test_names_of_characters_and_bytes() -> None:
    assert Vocabulary.of(f"é\n{END}").names == ("\n", "é", "<end>")
    assert Vocabulary.of(f"\xc3\xa9a{END}", as_bytes=True).names == ("a", r"\xa9", r"\xc3", "<end>")
