"""A stream of text is cut into documents: lines, texts between separators, whole files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.errors import CharloomError
from charloom.text import documents
from charloom.text.documents import Cut, separated, unescape
from charloom.text.source import Text, text_from_string
from charloom.text.vocabulary import END

SIZES = (1, 2, 3, 1000)  # characters of a piece


def cut_documents(cut: Cut, text: str, size: int) -> list[str]:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    found = Text("text", "", False, lambda: cut(pieces), ends=True)
    whole = found.read()
    assert END + END not in whole
    assert not whole.startswith(END)
    assert not whole or whole.endswith(END)
    return list(found.documents())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("anna\nbo\n", ["anna", "bo"]),
        ("anna\nbo", ["anna", "bo"]),
        ("\n\nanna\n\n\nbo\n\n", ["anna", "bo"]),
        ("anna\r\nbo\r\n\r\n", ["anna", "bo"]),
        ("an\rna\r\r\nbo\r", ["an\rna", "bo"]),
        (" \n\t\n", [" ", "\t"]),
        ("\n\r\n", []),
        ("", []),
    ],
)
def test_lines(text: str, expected: list[str], size: int) -> None:
    assert cut_documents(documents.lines, text, size) == expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("separator", "text", "expected"),
    [
        ("%%\n", "a\n%%\nb\n%%\n", ["a\n", "b\n"]),
        ("%%\n", "a\n%%\n%%\nb\n%%", ["a\n", "b\n"]),
        ("\n%%\n", "a\n%%\nb\n", ["a", "b"]),
        ("%%", "%%a%%%b%", ["a", "%b%"]),
        ("aa", "aaaxaaa", ["ax", "a"]),
        ("\n\n", "a\nb\n\nc\n\n\n\nd\n", ["a\nb", "c", "d"]),
        ("\n\n", "\n\n\n", []),
        ("\n\n\n", "\na\n\nb\n\n\n\nc", ["a\n\nb", "c"]),
        ("|", "||", []),
        ("|", "a", ["a"]),
        ("\r\n\r\n", "a\r\nb\r\n\r\nc", ["a\r\nb", "c"]),
    ],
)
def test_separators(separator: str, text: str, expected: list[str], size: int) -> None:
    assert cut_documents(separated(separator), text, size) == expected


@given(
    st.lists(st.text(st.sampled_from("ab\r\n% "), max_size=8), max_size=8),
    st.integers(1, 9),
)
def test_lines_are_those_of_a_simple_definition(parts: list[str], size: int) -> None:
    text = "".join(parts)
    expected = [line.rstrip("\r") for line in text.split("\n") if line.rstrip("\r")]
    assert cut_documents(documents.lines, text, size) == expected


@given(
    st.text(st.sampled_from("ab%\n"), max_size=40),
    st.sampled_from(["%", "%%", "a%", "ab", "aba", "%a%"]),
    st.integers(1, 9),
)
def test_separators_cut_as_split_does(text: str, separator: str, size: int) -> None:
    expected = [document for document in text.split(separator) if document]
    assert cut_documents(separated(separator), text, size) == expected


@given(st.text(st.sampled_from("ab\n"), max_size=40), st.integers(1, 3), st.integers(1, 9))
def test_separators_of_line_breaks_also_match_more_of_them(
    text: str, count: int, size: int
) -> None:
    found = cut_documents(separated("\n" * count), text, size)
    expected = [document.strip("\n") for document in text.strip("\n").split("\n" * count)]
    assert found == [document for document in expected if document]


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1)),
    st.integers(1, 50),
)
def test_documents_come_back_from_lines(lines: list[str], size: int) -> None:
    text = "".join(line + "\n" for line in lines)
    assert cut_documents(documents.lines, text, size) == lines


def test_a_whole_text_is_one_document_and_an_empty_one_is_none() -> None:
    assert cut_documents(documents.whole, "a\n\nb\n", 2) == ["a\n\nb\n"]
    assert cut_documents(documents.whole, "", 2) == []


def test_a_long_line_is_not_held_in_memory() -> None:
    pieces = ("x" * 1000 for _ in range(1000))
    cut = documents.lines(pieces)
    assert len(next(cut)) == 1000  # it is passed on before the next piece is read
    assert next(pieces)


@pytest.mark.parametrize(
    ("escaped", "expected"),
    [
        (r"\n\n", "\n\n"),
        (r"%%\n", "%%\n"),
        ("\n", "\n"),
        (r"\t\r\\n\x41\u00e9", "\t\r\\nAé"),
        ("---", "---"),
    ],
)
def test_escapes(escaped: str, expected: str) -> None:
    assert unescape(escaped) == expected


@pytest.mark.parametrize("wrong", ["", "\\", r"\q", r"\x4", r"\ud800", r"\U00110000"])
def test_unknown_escapes_are_refused(wrong: str) -> None:
    with pytest.raises(CharloomError, match="--separator"):
        unescape(wrong)


def test_a_text_without_ends_is_one_document() -> None:
    assert list(text_from_string("a\nb", block_size=1).documents()) == ["a\nb"]
