"""Corpora by their names: the embedded ones, and those that lie on this machine."""

import hashlib
import re
import sys
from pathlib import Path

import pytest

from charloom.errors import CharloomError
from charloom.text import corpora, downloading
from charloom.text.corpora import list_corpora, open_text
from charloom.text.dataset import Split, load_dataset, scan
from charloom.text.overlap import longest_overlap
from helpers.corpora import BOOK, EMBEDDED, INNER, refusal, write

# --- Embedded corpora ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_corpus_is_the_same_at_every_reading(name):
    text = open_text(name)
    assert (text.name, text.origin) == (name, name)
    first = scan(text).sha256
    assert scan(open_text(name, raw=True)).sha256 == first
    whole = text.read()
    assert hashlib.sha256(whole.encode()).hexdigest() == first
    assert whole.endswith("\n")
    assert not whole.startswith(("\n", "\ufeff"))
    assert not whole.endswith("\n\n")
    assert sum(map(len, text.chunks(100_003))) == len(whole)


def test_python_docs_holds_every_topic_in_order():
    from pydoc_data.topics import topics

    text = open_text("python-docs").read()
    assert text == "\n\n".join(topics[name].strip("\n") for name in sorted(topics)) + "\n"


def test_python_help_is_python_docs_with_each_paragraph_once_and_without_tables():
    def paragraphs(name):
        return [" ".join(part.split()) for part in open_text(name).read().split("\n\n")]

    every = dict.fromkeys(filter(None, paragraphs("python-docs")))
    prose = [part for part in every if not part.startswith(("+--", "+=="))]
    assert paragraphs("python-help") == prose
    assert 5 < len(every) - len(prose) < 50


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_held_out_splits_of_python_help_share_no_long_stretch_with_the_training_split(split):
    dataset = load_dataset(open_text("python-help"), Split())
    overlap = longest_overlap(dataset.train, getattr(dataset, split))
    assert 10 < overlap.length < 250  # of python-docs 3,275


@pytest.mark.parametrize("name", ["python-docs", "python-help"])
def test_the_documentation_in_a_python_without_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(CharloomError, match="python-stdlib or unicode-names"):
        open_text(name)


def library(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_python_stdlib_takes_the_library_and_nothing_else(tmp_path, monkeypatch):
    excluded = "site-packages dist-packages test tests idlelib/idle_test __pycache__ config-3.11-x"
    folder = library(
        tmp_path / "lib",
        {
            "b.py": b"b = 1\r\n\n\n",
            "a/z.py": "é = 2".encode(),
            "a/__init__.py": b"",
            "a.py": b"\xef\xbb\xbfa = 1\n",
            "latin.py": b"# \xe9\n",
            "notes.txt": b"no\n",
            "_sysconfigdata__linux.py": b"no\n",
            **{f"{name}/no.py": b"no\n" for name in excluded.split()},
        },
    )
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(folder))
    assert open_text("python-stdlib").read() == "é = 2\n\na = 1\n\nb = 1\n"
    assert open_text("python-stdlib", as_bytes=True).read() == "Ã© = 2\n\na = 1\n\nb = 1\n"


def test_python_stdlib_in_a_python_without_source(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "python.zip"))
    with pytest.raises(CharloomError, match="python-help or unicode-names"):
        open_text("python-stdlib")


def test_python_stdlib_is_the_real_one():
    text = open_text("python-stdlib").read()
    assert "class JSONDecoder" in text
    assert "class IdleConfParserTest" not in text  # idlelib/idle_test
    assert len(text) > 5_000_000


def test_unicode_names_are_one_a_line_without_the_algorithmic_ones():
    import unicodedata

    lines = open_text("unicode-names").read().split("\n")
    assert lines[:2] == ["SPACE", "EXCLAMATION MARK"]
    assert lines.pop() == ""
    assert "LATIN SMALL LETTER E WITH ACUTE" in lines
    assert "HANGUL LETTER KIYEOK" in lines
    assert "VARIATION SELECTOR-17" in lines
    algorithmic = re.compile(
        "HANGUL SYLLABLE |(CJK (UNIFIED|COMPATIBILITY)|TANGUT) IDEOGRAPH-"
        "|(NUSHU|KHITAN SMALL SCRIPT) CHARACTER-"
    )
    assert not any(algorithmic.match(line) for line in lines)
    code_points = [ord(unicodedata.lookup(line)) for line in lines[::50]]
    assert code_points == sorted(code_points)


# --- Corpora on this machine ---------------------------------------------------------------------


def test_the_named_book_loses_header_and_license(austen, monkeypatch):
    monkeypatch.setenv("CHARLOOM_CORPORA", str(austen.parent))
    text = open_text("pride-and-prejudice")
    assert (text.name, text.origin) == ("pride-and-prejudice", "pride-and-prejudice")
    book = text.read()
    assert book.startswith("Produced by Anonymous Volunteers\n")
    assert book.endswith("had been the means of uniting them.\n")
    assert "Gutenberg" not in book
    assert book in austen.read_text(encoding="utf-8")
    assert open_text("pride-and-prejudice", raw=True).read() == open_text(austen, raw=True).read()
    as_bytes = open_text("pride-and-prejudice", as_bytes=True).read()
    assert as_bytes.encode("latin-1").decode() == book


def test_tiny_shakespeare(shakespeare, monkeypatch):
    monkeypatch.setenv("CHARLOOM_CORPORA", str(shakespeare.parent))
    text = open_text("tiny-shakespeare")
    assert (len(text.read()), len(set(text.read()))) == (1_115_394, 65)
    assert scan(text).sha256 == corpora.CORPORA["tiny-shakespeare"].sha256


@pytest.mark.parametrize(
    ("text", "book"),
    [
        (BOOK, INNER),
        (BOOK.replace("\n", "\r\n"), INNER.replace("\n", "\r\n")),
        (BOOK.removeprefix("\ufeff").replace("*** ", "***"), INNER),
        (BOOK.replace("End of the Project Gutenberg EBook", "End of Project Gutenberg's"), INNER),
        (BOOK.replace("End of the Project Gutenberg EBook of a Book\n", ""), INNER),
        (BOOK[BOOK.index("***") :], INNER),
    ],
)
def test_what_surrounds_a_book(tmp_path, monkeypatch, text, book):
    monkeypatch.setenv("CHARLOOM_CORPORA", str(tmp_path))
    write(tmp_path / "1342-0.txt", text.encode())
    assert open_text("pride-and-prejudice").read() == INNER
    assert open_text("pride-and-prejudice", raw=True).read() == text
    kept = open_text("pride-and-prejudice", keep_newlines=True).read()
    assert kept == book


@pytest.mark.parametrize(
    "text", ["", "a\n", BOOK.replace("*** START OF", ""), BOOK[: BOOK.index("*** END")]]
)
def test_a_book_without_its_marks(tmp_path, monkeypatch, text):
    monkeypatch.setenv("CHARLOOM_CORPORA", str(tmp_path))
    write(tmp_path / "1342-0.txt", text.encode())
    message = refusal("pride-and-prejudice")
    assert "`*** START OF` and `*** END OF`" in message
    assert "--raw" in message
    assert open_text("pride-and-prejudice", raw=True).read() == text


def test_another_text_under_the_name_of_tiny_shakespeare(tmp_path, monkeypatch):
    monkeypatch.setenv("CHARLOOM_CORPORA", str(tmp_path))
    path = write(tmp_path / "tiny-shakespeare.txt", b"First Citizen:\r\n")
    message = refusal("tiny-shakespeare")
    assert f"{str(path)!r} (in the folder CHARLOOM_CORPORA) is not tiny-shakespeare" in message


def test_the_list_of_corpora(tmp_path, cache, monkeypatch):
    found = {corpus.name: corpus for corpus in list_corpora()}
    assert list(found) == [*EMBEDDED, "pride-and-prejudice", "tiny-shakespeare"]
    assert {found[name].place for name in EMBEDDED} == {"embedded"}
    assert found["tiny-shakespeare"].place == "not downloaded yet"
    assert all(corpus.license and corpus.description for corpus in found.values())
    assert not any("\n" in corpus.description for corpus in found.values())

    cache.mkdir()
    write(cache / "1342-0.txt", b"a")
    monkeypatch.setenv("CHARLOOM_CORPORA", str(tmp_path))
    write(tmp_path / "tiny-shakespeare.txt", b"a")
    places = {corpus.name: corpus.place for corpus in list_corpora()}
    assert places["pride-and-prejudice"] == str(cache / "1342-0.txt")
    assert places["tiny-shakespeare"] == str(tmp_path / "tiny-shakespeare.txt")


def test_the_real_cache_folder_is_the_users(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "charloom" in downloading.cache_folder().parts
    if sys.platform == "linux":
        assert downloading.cache_folder() == tmp_path / "charloom"
    assert list(tmp_path.glob("*/*")) == []  # asking makes nothing
