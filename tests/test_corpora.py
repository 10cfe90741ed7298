"""Names and paths to text: every way in, every mistake a user can make, and no real network."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charloom.errors import CharloomError
from charloom.text import corpora, downloading
from charloom.text.corpora import list_corpora, open_text
from charloom.text.dataset import scan
from charloom.text.reading import spool_opener
from charloom.text.source import Text, text_from_string

EMBEDDED = ("python-docs", "python-stdlib", "unicode-names")
BOOK = (
    "\ufeffThe Project Gutenberg EBook of a Book\n\n*** START OF THIS PROJECT GUTENBERG EBOOK ***\n"
    "\n  \n  Chapter 1\n\nIt is “a truth”.\n\n\nEnd of the Project Gutenberg EBook of a Book\n\n"
    "*** END OF THIS PROJECT GUTENBERG EBOOK ***\n\n*** START: FULL LICENSE ***\nnone\n"
)
INNER = "  Chapter 1\n\nIt is “a truth”.\n"

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's cache, the user's texts, or a host other than this one."""
    connect = socket.create_connection

    def only_here(address, *arguments, **options):
        assert address[0] == "127.0.0.1", f"a test asked for {address}"
        return connect(address, *arguments, **options)

    folder = tmp_path / "cache"
    monkeypatch.setattr(socket, "create_connection", only_here)
    monkeypatch.setattr(downloading, "cache_folder", lambda: folder)
    monkeypatch.delenv("CHARLOOM_CORPORA", raising=False)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    return folder


def refusal(source: object, **options) -> str:
    """The one line that opening, or else reading, a text is refused with."""
    with pytest.raises(CharloomError) as caught:
        open_text(source, **options).read()
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__cause__ is None
    return message


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# --- Chunks --------------------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(["a", "é", "“", "𝄞", "\ufeff", "\r", "\n", "\r\n", "\x00", "\x85", "\u2028"]),
    max_size=40,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(text=PIECES, characters=st.integers(1, 50), block=st.integers(1, 9), data=st.data())
def test_no_size_of_chunk_or_block_changes_the_text(text, characters, block, data):
    normalize = data.draw(st.booleans())
    as_bytes = data.draw(st.booleans())
    compressed = data.draw(st.booleans())
    expected = text.encode().decode("latin-1") if as_bytes else text
    if normalize:
        expected = expected.replace("\r\n", "\n").replace("\r", "\n")
    options = {"normalize_newlines": normalize, "as_bytes": as_bytes, "block_size": block}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.gz" if compressed else "text.txt")
        path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
        for opened in (open_text(path, **options), text_from_string(text, **options)):
            chunks = list(opened.chunks(characters))
            assert "".join(chunks) == expected == opened.read()
            assert all(len(chunk) == characters for chunk in chunks[:-1])
            assert all(1 <= len(chunk) <= characters for chunk in chunks[-1:])
            encoded = expected.encode("latin-1" if as_bytes else "utf-8")
            assert scan(opened).sha256 == hashlib.sha256(encoded).hexdigest()


def test_a_chunk_has_at_least_one_character():
    with pytest.raises(ValueError, match="at least one"):
        text_from_string("abc").chunks(0)


def test_readings_of_one_text_may_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abcdefghij" * 3)))
    path = write(tmp_path / "a.txt", b"abcdefghij" * 3)
    for text in (open_text("-", block_size=4), open_text(path, block_size=4)):
        pairs = list(zip(text.chunks(5), text.chunks(5), strict=True))
        assert pairs == [("abcde", "abcde"), ("fghij", "fghij")] * 3


def test_a_reading_that_is_left_closes_its_file(tmp_path):
    text = open_text(write(tmp_path / "a.txt.gz", gzip.compress(b"abcdef" * 1000)))
    assert next(text.chunks(3)) == "abc"  # an unclosed file would warn, and a warning is an error


def test_memory_stays_small(tmp_path):
    import tracemalloc

    path = tmp_path / "zeros.txt"
    with path.open("wb") as file:
        file.truncate(200 << 20)  # a hole: no disk is used
    tracemalloc.start()
    try:
        for count, chunk in enumerate(open_text(path).chunks()):
            assert len(chunk) == 1 << 20
            if count == 20:
                break
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# --- Strings -------------------------------------------------------------------------------------


def test_a_string_is_a_text():
    text = text_from_string("é\r\n")
    assert (text.name, text.origin, text.as_bytes, text.read()) == ("text", "", False, "é\r\n")
    assert text_from_string("é\r\n", as_bytes=True).read() == "Ã©\r\n"
    assert text_from_string("é\r\n", normalize_newlines=True).read() == "é\n"
    assert text_from_string("", "empty").read() == ""
    assert list(text_from_string("").chunks()) == []


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(CharloomError, match=r"U\+D83D\) at character 2"):
        text_from_string("ab\ud83d")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a/b\\c:d", "a-b-c-d"),
        ("..", "text"),
        ("", "text"),
        (" two  words\n", "two-words"),
        ("naïve 本", "naïve-本"),
        ("\udcff", "text"),
        ("本" * 100, "本" * 40),
    ],
)
def test_a_name_is_fit_for_a_folder(name, safe):
    assert text_from_string("x", name).name == safe


# --- Paths ---------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_is(tmp_path):
    path = write(tmp_path / "my.book.txt", b"\xef\xbb\xbfa\r\nb\rc\n")
    text = open_text(str(path))
    assert text.read() == "\ufeffa\r\nb\rc\n"
    assert (text.name, text.origin, text.as_bytes) == ("my.book", str(path), False)
    assert open_text(path, raw=True).read() == text.read()
    assert open_text(path, normalize_newlines=True).read() == "\ufeffa\nb\nc\n"
    assert open_text(path, as_bytes=True).read() == "ï»¿a\r\nb\rc\n"


def test_the_origin_finds_the_file_again_from_another_folder(tmp_path, monkeypatch):
    write(tmp_path / "a.txt", b"abc")
    monkeypatch.chdir(tmp_path)
    origin = open_text("a.txt").origin
    monkeypatch.chdir("/")
    assert open_text(origin).read() == "abc"


def test_the_book_by_its_path(austen):
    text = open_text(austen).read()
    assert (len(text), len(set(text)), text[0]) == (704_190, 86, "\ufeff")
    assert "\r" not in text
    assert scan(open_text(austen)).sha256 == hashlib.sha256(austen.read_bytes()).hexdigest()


def test_a_compressed_file(tmp_path):
    path = write(tmp_path / "book.txt.GZ", gzip.compress("é".encode()) + gzip.compress(b"a\n"))
    text = open_text(path)
    assert (text.name, text.read()) == ("book", "éa\n")
    assert open_text(path, as_bytes=True).read() == "Ã©a\n"


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(b"abc" * 1000)[:-9],  # cut short
        gzip.compress(b"abc" * 1000)[:-8] + b"\0" * 8,  # a wrong checksum
        gzip.compress(b"abc" * 1000)[:10] + b"\xff" * 20,  # no such block
        b"plain text",
    ],
)
def test_a_broken_gzip_file(tmp_path, data):
    path = write(tmp_path / "broken.gz", data)
    assert refusal(path).startswith(f"{str(path)!r} is not a complete gzip file (")


def test_a_name_in_the_table_is_the_corpus_and_a_path_is_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "unicode-names", b"mine")
    assert open_text("unicode-names").origin == "unicode-names"
    assert open_text("./unicode-names").read() == "mine"
    assert open_text(Path("unicode-names")).read() == "mine"


def test_a_missing_file_and_a_name_that_is_nearly_one(tmp_path):
    assert "`charloom corpora`" in refusal(tmp_path / "no.txt")
    assert "there is no file 'zzzz'" in refusal("zzzz")
    assert "corpus pride-and-prejudice?" in refusal("pride")
    assert "corpus pride-and-prejudice?" in refusal("Pride_and_Prejudice")
    assert "corpus tiny-shakespeare?" in refusal("shakespaere")
    assert "corpus python-docs or python-stdlib?" in refusal("python")
    write(tmp_path / "file", b"")
    assert "there is no file" in refusal(tmp_path / "file" / "below.txt")


def test_names_that_are_no_names():
    assert "empty" in refusal("")
    assert "null" in refusal("a\0b")
    assert len(refusal("It is a truth\n" * 5000)) < 400


def test_a_folder(tmp_path):
    assert refusal(tmp_path).startswith(f"{str(tmp_path)!r} is a folder: pass one text file")


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no device files here")
def test_a_device():
    assert "'/dev/null' is a device" in refusal("/dev/null")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write(tmp_path / "secret.txt", b"secret")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read anything
    assert refusal(path) == f"cannot read {str(path)!r}: Permission denied"
    monkeypatch.setattr(Path, "stat", refuse)
    assert refusal(path) == f"cannot read {str(path)!r}: Permission denied"


def test_a_disk_that_fails_while_reading(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", b"abc")
    text = open_text(path)

    class Failing(io.BytesIO):
        def read(self, *_):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(corpora, "file_opener", lambda *_: Failing)
    assert refusal(path) == f"cannot read {str(path)!r}: Input/output error"
    assert text.read() == "abc"


def test_a_file_that_changes_or_goes_between_two_readings(tmp_path):
    path = write(tmp_path / "a.txt", b"abc")
    text = open_text(path)
    assert text.read() == "abc"
    write(path, b"abcd")
    with pytest.raises(CharloomError, match="has changed since it was opened"):
        text.read()
    path.unlink()
    with pytest.raises(CharloomError, match="No such file"):
        text.read()


# --- What is not UTF-8 ---------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 2, 3, 5, 1 << 20])
@pytest.mark.parametrize("suffix", ["txt", "gz"])
@pytest.mark.parametrize(
    ("data", "byte", "offset"),
    [
        (b"abc\xe9def", "0xE9", 3),
        (b"\x80", "0x80", 0),
        ("“a".encode() + b"\xe2\x80", "0xE2", 4),  # the end of the file cuts a character
        ("é".encode() * 3 + b"\xe2\x80a", "0xE2", 6),
        (b"a" * 7 + b"\xed\xa0\x80", "0xED", 7),  # a surrogate
        (b"a" * 4 + b"\xf0\x9f\x98", "0xF0", 4),
    ],
)
def test_bytes_that_are_not_utf_8(tmp_path, data, byte, offset, block, suffix):
    path = tmp_path / f"latin.{suffix}"
    write(path, gzip.compress(data) if suffix == "gz" else data)
    message = refusal(path, block_size=block)
    assert f"{str(path)!r} is not UTF-8 (byte {byte} at byte offset {offset}, " in message
    assert "--bytes" in message
    assert open_text(path, as_bytes=True, block_size=block).read() == data.decode("latin-1")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_and_gzip_are_recognized(tmp_path, encoding):
    message = refusal(write(tmp_path / "a.txt", "\ufeffabc".encode(encoding)))
    assert "looks like UTF-16 (it begins with F" in message
    assert "--bytes" in message
    message = refusal(write(tmp_path / "b.txt", gzip.compress(b"abc")))
    assert "looks gzip-compressed" in message


def test_only_the_beginning_of_a_text_tells_what_it_is(tmp_path):
    path = write(tmp_path / "a.txt", b"aaaa\x1f\x8b")
    assert "byte 0x8B at byte offset 5, " in refusal(path, block_size=4)


# --- Standard input and pipes --------------------------------------------------------------------


@pytest.mark.parametrize("kept", [4, 1 << 20])  # bytes in memory before a temporary file
def test_a_spooled_source_is_read_once_and_handed_out_often(kept):
    open_again = spool_opener(io.BytesIO(b"abc" * 9), "a source", in_memory=kept)
    assert open_again().read() == open_again().read() == b"abc" * 9


def test_standard_input_is_read_once_and_handed_out_often(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("“a”\r\n".encode() * 9)))
    text = open_text("-")
    assert (text.name, text.origin) == ("stdin", "-")
    assert text.read() == text.read() == "“a”\r\n" * 9


def test_standard_input_as_bytes_and_with_mended_newlines(monkeypatch):
    for options, expected in [
        ({"as_bytes": True}, "\xff\r\n"),
        ({"as_bytes": True, "normalize_newlines": True}, "\xff\n"),
    ]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\r\n")))
        assert open_text("-", **options).read() == expected


def test_standard_input_that_is_wrong(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff")))
    assert refusal("-").startswith("standard input is not UTF-8 (byte 0xFF at byte offset 2, ")
    monkeypatch.setattr(sys, "stdin", None)
    assert refusal("-").startswith("standard input is closed")
    closed = io.BytesIO()
    closed.close()
    monkeypatch.setattr(sys, "stdin", type("Stream", (), {"buffer": closed})())
    assert refusal("-").startswith("cannot read standard input into a temporary file: ")


def test_a_stream_of_characters_in_the_place_of_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("“a”"))
    assert open_text("-").read() == "“a”"


def feed(path: Path, data: bytes) -> threading.Thread:
    thread = threading.Thread(target=path.write_bytes, args=(data,), daemon=True)
    thread.start()
    return thread


@needs_pipes
def test_a_named_pipe_is_read_once_and_handed_out_often(tmp_path):
    for name, data in [("pipe.txt", b"abc\n"), ("pipe.gz", gzip.compress(b"abc\n"))]:
        path = tmp_path / name
        os.mkfifo(path)
        writer = feed(path, data)
        text = open_text(path)
        writer.join(10)
        assert (text.name, text.origin) == ("pipe", "-")
        assert text.read() == text.read() == "abc\n"


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no /dev/fd here")
def test_an_open_file_of_a_shell():
    program = (
        "import sys; from charloom.text.corpora import open_text; text = open_text(sys.argv[1]);"
        "print(text.name, text.origin, text.read(), text.read())"
    )
    for source in ("/dev/stdin", "/dev/fd/0", "-"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, source],
            input="abc",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.stdout, done.stderr) == ("stdin - abc abc\n", "")


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


def test_python_docs_in_a_python_without_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(CharloomError, match="python-stdlib or unicode-names"):
        open_text("python-docs")


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
    with pytest.raises(CharloomError, match="python-docs or unicode-names"):
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
    assert open_text("pride-and-prejudice", raw=True).read() == open_text(austen).read()
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
    assert open_text("pride-and-prejudice").read() == book
    assert open_text("pride-and-prejudice", raw=True).read() == text
    mended = open_text("pride-and-prejudice", normalize_newlines=True).read()
    assert mended == INNER


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


# --- Downloads, from this machine to itself ------------------------------------------------------


class Site:
    """A web site on 127.0.0.1: what it answers to each path, and what it was asked for."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.pages: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.asked: list[str] = []

    def serve(self, path: str, body: bytes, status: int = 200, **headers: str) -> str:
        self.pages[path] = (status, body, {"Content-Length": str(len(body)), **headers})
        return self.address + path


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            status, body, headers = site.pages.get(self.path, (404, b"", {"Content-Length": "0"}))
            self.send_response(status)
            for name, value in headers.items():
                if value:
                    self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        site = Site(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield site
        server.shutdown()
        thread.join(10)


VERSE = b"First Citizen:\nSpeak, speak.\n"


@pytest.fixture
def verse(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiny-shakespeare, shortened, at /verse of the site."""
    corpus = dataclasses.replace(
        corpora.CORPORA["tiny-shakespeare"],
        addresses=(site.serve("/verse", VERSE),),
        sha256=hashlib.sha256(VERSE).hexdigest(),
    )
    monkeypatch.setitem(corpora.CORPORA, corpus.name, corpus)


@pytest.fixture
def novel(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """pride-and-prejudice, shortened, at /novel of the site, and then at /mirror."""
    corpus = dataclasses.replace(
        corpora.CORPORA["pride-and-prejudice"],
        addresses=(site.serve("/novel", BOOK.encode()), site.address + "/mirror"),
    )
    monkeypatch.setitem(corpora.CORPORA, corpus.name, corpus)


def test_a_corpus_is_downloaded_once(site, verse, cache):
    steps: list[tuple[str, int, int | None]] = []
    text = open_text("tiny-shakespeare", on_progress=lambda *step: steps.append(step))
    assert text.read() == VERSE.decode()
    assert steps[-1] == ("downloading", len(VERSE), len(VERSE))
    assert sorted(path.name for path in cache.iterdir()) == [
        "tiny-shakespeare.sha256",
        "tiny-shakespeare.txt",
    ]
    recorded = (cache / "tiny-shakespeare.sha256").read_text()
    assert recorded == f"{hashlib.sha256(VERSE).hexdigest()}  tiny-shakespeare.txt\n"
    assert open_text("tiny-shakespeare").read() == VERSE.decode()
    assert site.asked == ["/verse"]


def test_a_download_of_unknown_length(site, verse):
    site.serve("/verse", VERSE, Content_Length="")
    del site.pages["/verse"][2]["Content-Length"]
    steps: list[tuple[str, int, int | None]] = []
    open_text("tiny-shakespeare", on_progress=lambda *step: steps.append(step))
    assert steps[-1] == ("downloading", len(VERSE), None)


def test_the_folder_of_texts_comes_before_the_cache_and_the_cache_before_the_network(
    site, novel, cache, tmp_path, monkeypatch
):
    assert open_text("pride-and-prejudice").read() == INNER
    monkeypatch.setenv("CHARLOOM_CORPORA", str(tmp_path))
    assert open_text("pride-and-prejudice").read() == INNER
    write(tmp_path / "1342-0.txt", BOOK.replace("Chapter", "Part").encode())
    assert open_text("pride-and-prejudice").read() == INNER.replace("Chapter", "Part")
    assert site.asked == ["/novel"]


@pytest.mark.parametrize("record", [True, False])
def test_a_damaged_cache_is_downloaded_again(site, verse, novel, cache, record):
    for name, file_name in [
        ("tiny-shakespeare", "tiny-shakespeare.txt"),
        ("pride-and-prejudice", "1342-0.txt"),
    ]:
        before = open_text(name).read()
        if record:
            write(cache / file_name, (cache / file_name).read_bytes().replace(b"t", b"T"))
        else:
            write(cache / f"{name}.sha256", b"")
        assert open_text(name).read() == before
    # The hash of the verse is known without a record.
    assert site.asked == (["/verse"] * (1 + record) + ["/novel"] * 2)


def test_a_damaged_cache_without_a_network(site, verse, cache):
    open_text("tiny-shakespeare")
    write(cache / "tiny-shakespeare.txt", b"damaged")
    site.pages.clear()
    message = refusal("tiny-shakespeare")
    assert message.startswith("the cached copy of tiny-shakespeare is damaged, and the download")


def test_a_book_put_into_the_cache_by_hand(site, novel, cache):
    cache.mkdir()
    write(cache / "1342-0.txt", BOOK.encode())
    assert open_text("pride-and-prejudice").read() == INNER
    assert site.asked == []


def test_a_wrong_text_is_not_kept(site, verse, cache):
    site.serve("/verse", VERSE.replace(b"s", b"z"))
    message = refusal("tiny-shakespeare")
    assert "its SHA-256 differs" in message
    assert list(cache.iterdir()) == []


def test_the_second_address_serves_where_the_first_does_not(site, novel):
    site.serve("/novel", b"gone", 404)
    site.serve("/mirror", BOOK.replace("Chapter", "Part").encode())
    assert open_text("pride-and-prejudice").read() == INNER.replace("Chapter", "Part")
    assert site.asked == ["/novel", "/mirror"]


@pytest.mark.parametrize(
    ("body", "status", "headers", "reason"),
    [
        (b"<html>sign in</html>", 200, {}, "not a Project Gutenberg text in UTF-8"),
        (b"\xff" + BOOK.encode(), 200, {}, "not a Project Gutenberg text in UTF-8"),
        (b"", 503, {}, "the server answered 503"),
        (BOOK.encode(), 200, {"Content_Length": "100000"}, "it stopped after"),
        (b"", 200, {"Content_Length": str(1 << 40)}, "much larger than the text should be"),
    ],
)
def test_downloads_that_fail(site, novel, cache, body, status, headers, reason):
    site.serve("/novel", body, status)
    for name, value in headers.items():
        site.pages["/novel"][2][name.replace("_", "-")] = value
    message = refusal("pride-and-prejudice")
    assert reason in message
    assert "python-docs, python-stdlib or unicode-names" in message
    assert list(cache.iterdir()) == []


def test_a_download_without_an_end_is_cut(site, verse, cache, monkeypatch):
    corpus = dataclasses.replace(corpora.CORPORA["tiny-shakespeare"], largest=10)
    monkeypatch.setitem(corpora.CORPORA, corpus.name, corpus)
    del site.pages["/verse"][2]["Content-Length"]
    assert "much larger than the text should be" in refusal("tiny-shakespeare")
    assert list(cache.iterdir()) == []


def test_something_that_does_not_speak_http(verse, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        corpus = corpora.CORPORA["tiny-shakespeare"]
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        monkeypatch.setitem(
            corpora.CORPORA, corpus.name, dataclasses.replace(corpus, addresses=(address,))
        )

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail is served here\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert "the download from 127.0.0.1 failed (220 mail" in refusal("tiny-shakespeare")
        thread.join(10)


def test_a_server_that_never_answers(verse, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        corpus = dataclasses.replace(corpora.CORPORA["tiny-shakespeare"], timeout=0.1)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        monkeypatch.setitem(
            corpora.CORPORA, corpus.name, dataclasses.replace(corpus, addresses=(address,))
        )
        assert "there is no network connection to 127.0.0.1 (timed out)" in refusal(
            "tiny-shakespeare"
        )


@pytest.mark.parametrize("name", ["pride-and-prejudice", "tiny-shakespeare"])
def test_without_a_network_one_line_names_the_embedded_corpora(cache, monkeypatch, name):
    def nobody(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", nobody)
    message = refusal(name)
    assert message.startswith(f"{name} is not on this machine yet, and there is no network")
    assert "python-docs, python-stdlib or unicode-names" in message
    assert "CHARLOOM_CORPORA" in message
    assert list(cache.iterdir()) == []


def test_a_bad_certificate_is_not_called_a_missing_network(monkeypatch):
    ssl = pytest.importorskip("ssl")

    def impostor(*_, **__):
        raise ssl.SSLCertVerificationError(1, "certificate verify failed")

    monkeypatch.setattr(socket, "create_connection", impostor)
    assert "failed (certificate verify failed)" in refusal("tiny-shakespeare")


def test_a_cache_folder_that_cannot_be_written(site, verse, cache):
    write(cache, b"a file in the way")
    message = refusal("tiny-shakespeare")
    assert message.startswith(f"cannot write to the cache folder {str(cache)!r} (")
    assert "CHARLOOM_CORPORA" in message
    assert site.asked == []  # told before anything is downloaded


def test_a_disk_that_is_full(site, verse, cache, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "(No space left on device)" in refusal("tiny-shakespeare")
    assert list(cache.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(site, verse, cache):
    def interrupt(stage: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_text("tiny-shakespeare", on_progress=interrupt)
    assert list(cache.iterdir()) == []


# --- The module ----------------------------------------------------------------------------------


def test_importing_is_light():
    program = (
        "import sys, charloom.text.corpora; print(sorted({'urllib.request', 'gzip', 'unicodedata', "
        "'platformdirs', 'rich', 'numpy', 'tempfile', 'ssl', 'difflib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_a_text_says_what_it_is():
    assert repr(text_from_string("a" * 100)) == "Text(name='text', origin='', as_bytes=False)"
    assert isinstance(open_text("unicode-names"), Text)
