"""Texts are read in a format: a book, or documents of files, folders, lines and tables."""

import gzip
from pathlib import Path

import pytest

from charloom.errors import CharloomError
from charloom.text.corpora import open_text
from charloom.text.format import TextFormat, open_texts
from charloom.text.source import Text, text_from_string
from helpers.documents import documents_of

BOOK = TextFormat()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {
        "b.txt": b"second",
        "a.md": b"\xef\xbb\xbffirst\n",
        "sub/c": b"third",
        "sub/d.txt.gz": gzip.compress(b"fourth"),
        "empty.txt": b"",
        ".hidden": b"hidden",
        ".git/config": b"hidden",
        "picture.PNG": b"\x89PNG",
        "binary": b"\x7fELF\0\0",
        "all.tar.gz": b"",
        "run/resume.safetensors": b"",
        "run/metrics.jsonl": b"{}",
    }.items():
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "texts"


def test_a_folder_is_a_collection_of_its_text_files(folder: Path) -> None:
    text = open_texts([str(folder)], BOOK)
    assert (text.name, text.origin, text.ends) == ("texts", str(folder), True)
    assert list(text.documents()) == ["first\n", "second", "third", "fourth"]
    (said,) = text.notes
    assert "3 skipped" in said
    assert "1 of .png" in said
    assert list(open_texts(text.origin.split("\0"), BOOK).documents()) == list(text.documents())


def test_several_texts_are_a_collection_and_their_origins_open_it_again(folder: Path) -> None:
    text = open_texts([folder / "b.txt", str(folder / "sub")], BOOK)
    assert text.name == "b-and-1-more"
    assert list(text.documents()) == ["second", "third", "fourth"]
    assert list(open_texts(text.origin.split("\0"), BOOK).documents()) == list(text.documents())
    assert open_texts([text_from_string("a"), folder / "b.txt"], BOOK).origin == ""


def test_a_single_text_is_a_book_unless_the_model_has_documents(folder: Path) -> None:
    book = open_texts([folder / "b.txt"], BOOK)
    assert not book.ends
    assert book.read() == "second"
    one = open_texts([folder / "b.txt"], TextFormat(collection=True))
    assert one.ends
    assert list(one.documents()) == ["second"]


def test_models_without_ends_of_documents_read_one_book(folder: Path) -> None:
    joined = TextFormat.of_training({"lines": True}, as_bytes=False, collection=False)
    text = open_texts([folder / "b.txt", folder / "sub/c"], joined)
    assert not text.ends
    assert text.read() == "second\nthird"
    assert open_texts(["unicode-names"], joined).read() == open_text("unicode-names").read()
    with pytest.raises(CharloomError, match="cannot be read as a book"):
        open_texts([open_texts([folder], BOOK)], joined)


def test_lines_of_several_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfanna\r\nbo")
    (tmp_path / "b.txt").write_bytes(b"cy\n")
    text = open_texts([tmp_path / "a.txt", tmp_path / "b.txt"], TextFormat(lines=True))
    assert list(text.documents()) == ["anna", "bo", "cy"]
    assert text.lines
    as_bytes = open_texts([tmp_path / "a.txt"], TextFormat(lines=True, as_bytes=True))
    assert list(as_bytes.documents()) == ["anna", "bo"]


def test_unicode_names_are_documents_when_they_are_named() -> None:
    text = open_texts(["unicode-names"], BOOK)
    assert text.ends
    assert text.lines
    names = list(text.documents())
    assert names[:2] == ["SPACE", "EXCLAMATION MARK"]
    assert names == open_text("unicode-names").read().splitlines()


def test_a_separator_that_never_occurs_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo")
    format = TextFormat(separator="@@")
    with pytest.raises(CharloomError, match=r"--separator '@@' does not occur .*a.txt"):
        open_texts([tmp_path / "a.txt"], format).read()
    (tmp_path / "dos.txt").write_bytes(b"one\r\n\r\ntwo")
    with pytest.raises(CharloomError, match=r"'\\n\\n' does not occur .*--keep-newlines"):
        open_texts([tmp_path / "dos.txt"], TextFormat(separator=r"\n\n", keep_newlines=True)).read()
    # A text to score can be one document.
    assert documents_of("one", format) == ["one"]
    assert documents_of("one@@two", format) == ["one", "two"]


def test_a_table_needs_the_name_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a,b\n1,2\n")
    with pytest.raises(CharloomError, match="not a table"):
        open_texts([tmp_path / "a.txt"], TextFormat(column="a"))
    with pytest.raises(CharloomError, match="no tables"):
        open_texts([tmp_path], TextFormat(column="a"))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert list(open_texts([tmp_path], TextFormat(column="b")).documents()) == ["2"]


def test_documents_of_strings() -> None:
    assert documents_of("a\nb\n", BOOK) == ["a\nb\n"]
    assert documents_of("a\r\n\r\nb", TextFormat(lines=True)) == ["a", "b"]
    assert documents_of("", TextFormat(lines=True)) == []
    given = text_from_string("x\ny")
    assert list(open_texts([given], TextFormat(lines=True)).documents()) == ["x", "y"]
    documents = open_texts([given], TextFormat(lines=True))
    assert open_texts([documents], BOOK).read() == documents.read()


@pytest.mark.parametrize(
    "cuts",
    [
        {"lines": True, "separator": "x"},
        {"lines": True, "column": "x"},
        {"separator": "x", "column": "x"},
    ],
)
def test_options_for_documents_exclude_each_other(cuts: dict[str, object]) -> None:
    with pytest.raises(CharloomError, match="cannot be combined"):
        TextFormat.of_training(cuts, as_bytes=False, collection=None)


def test_folders_without_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CharloomError, match="has no files"):
        open_texts([tmp_path], BOOK)
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(CharloomError, match=r"no text files, but 1 of \.jpg"):
        open_texts([tmp_path], BOOK)
    assert open_texts([tmp_path], TextFormat(as_bytes=True)).ends


def test_texts_of_bytes_and_of_characters_are_not_mixed() -> None:
    texts: list[Text] = [text_from_string("a"), text_from_string("b", as_bytes=True)]
    with pytest.raises(CharloomError, match="cannot join"):
        open_texts(texts, BOOK)
