"""Strings, files, pipes and standard input become text; every mistake is one line."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charloom.errors import CharloomError
from charloom.text import corpora
from charloom.text.corpora import open_text
from charloom.text.dataset import scan
from charloom.text.format import TextFormat
from charloom.text.reading import spool_opener
from charloom.text.source import Text, text_from_string
from helpers.corpora import refusal, write

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


# --- Chunks --------------------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(["a", "é", "“", "𝄞", "\ufeff", "\r", "\n", "\r\n", "\x85", "\u2028"]),
    max_size=40,
).map("".join)


@settings(max_examples=150)
@given(text=PIECES, characters=st.integers(1, 50), block=st.integers(1, 9), data=st.data())
def test_text_is_independent_of_chunk_and_block_size(text, characters, block, data):
    keep = data.draw(st.booleans())
    raw = data.draw(st.booleans())
    as_bytes = data.draw(st.booleans())
    compressed = data.draw(st.booleans())
    expected = text.encode().decode("latin-1") if as_bytes else text
    if not (raw or as_bytes):
        expected = expected.removeprefix("\ufeff")
    if not (keep or raw or as_bytes):
        expected = expected.replace("\r\n", "\n").replace("\r", "\n")
    options = {"keep_newlines": keep, "raw": raw, "as_bytes": as_bytes, "block_size": block}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.gz" if compressed else "text.txt")
        path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
        format = TextFormat.of_training(
            {"raw": raw, "keep_newlines": keep}, as_bytes=as_bytes, collection=None
        )
        for opened in (open_text(path, **options), format.text_of(text)):
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
        for count, chunk in enumerate(open_text(path, as_bytes=True).chunks()):
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
    assert TextFormat().text_of("\ufeffé\r\n").read() == "é\n"
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


def test_line_ends_and_the_byte_order_mark_of_a_file(tmp_path):
    path = write(tmp_path / "my.book.txt", b"\xef\xbb\xbfa\r\nb\rc\n")
    text = open_text(str(path))
    assert text.read() == "a\nb\nc\n"
    assert (text.name, text.origin, text.as_bytes) == ("my.book", str(path), False)
    assert open_text(path, raw=True).read() == "\ufeffa\r\nb\rc\n"
    assert open_text(path, keep_newlines=True).read() == "a\r\nb\rc\n"
    assert open_text(path, as_bytes=True).read() == "ï»¿a\r\nb\rc\n"


def test_the_origin_finds_the_file_again_from_another_folder(tmp_path, monkeypatch):
    write(tmp_path / "a.txt", b"abc")
    monkeypatch.chdir(tmp_path)
    origin = open_text("a.txt").origin
    monkeypatch.chdir("/")
    assert open_text(origin).read() == "abc"


def test_the_book_by_its_path(austen):
    text = open_text(austen, raw=True).read()
    assert (len(text), len(set(text)), text[0]) == (704_190, 86, "\ufeff")
    assert open_text(austen).read() == text[1:]
    assert (
        scan(open_text(austen, raw=True)).sha256 == hashlib.sha256(austen.read_bytes()).hexdigest()
    )


def test_a_compressed_file(tmp_path):
    path = write(tmp_path / "book.txt.GZ", gzip.compress("é".encode()) + gzip.compress(b"a\n"))
    text = open_text(path)
    assert (text.name, text.read()) == ("book", "éa\n")
    assert open_text(path, as_bytes=True).read() == "Ã©a\n"


WHOLE = gzip.compress(b"abc" * 1000, mtime=0)


@pytest.mark.parametrize(
    "data",
    [
        WHOLE[:-9],  # cut short
        WHOLE[:-8] + b"\0" * 8,  # a wrong checksum
        WHOLE[:10] + b"\xff" * 20,  # no such block
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
    assert "corpus python-help or python-docs or python-stdlib?" in refusal("python")
    write(tmp_path / "file", b"")
    assert "there is no file" in refusal(tmp_path / "file" / "below.txt")


def test_bad_names_are_refused():
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
        (b"a\nb\n" * 9 + b"c\xff\n", "0xFF", 37),
    ],
)
def test_bytes_that_are_not_utf_8(tmp_path, data, byte, offset, block, suffix):
    path = tmp_path / f"latin.{suffix}"
    write(path, gzip.compress(data) if suffix == "gz" else data)
    message = refusal(path, block_size=block)
    line = 1 + data[:offset].count(b"\n")
    assert f"{byte} in line {line}, at byte offset {offset}" in message
    assert message.startswith(("the text inside " if suffix == "gz" else "") + repr(str(path)))
    assert "--encoding" in message
    assert open_text(path, as_bytes=True, block_size=block).read() == data.decode("latin-1")
    replaced = open_text(path, encoding_errors="replace", block_size=block).read()
    assert replaced == data.decode("utf-8", "replace")


# --- Standard input and pipes --------------------------------------------------------------------


@pytest.mark.parametrize("kept", [4, 1 << 20])  # bytes in memory before a temporary file
def test_a_spooled_source_is_read_once_and_handed_out_often(kept):
    open_again = spool_opener(io.BytesIO(b"abc" * 9), "a source", in_memory=kept)
    assert open_again().read() == open_again().read() == b"abc" * 9


def test_standard_input_is_read_once_and_handed_out_often(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("“a”\r\n".encode() * 9)))
    text = open_text("-")
    assert (text.name, text.origin) == ("stdin", "-")
    assert text.read() == text.read() == "“a”\n" * 9


def test_standard_input_as_bytes(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\r\n")))
    assert open_text("-", as_bytes=True).read() == "\xff\r\n"


def test_standard_input_that_is_wrong(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff")))
    assert refusal("-").startswith(
        "standard input is not UTF-8 (byte 0xFF in line 1, at byte offset 2)"
    )
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
            timeout=100,
        )
        assert (done.stdout, done.stderr) == ("stdin - abc abc\n", "")


# --- The module ----------------------------------------------------------------------------------


def test_importing_is_light():
    program = (
        "import sys, charloom.text.corpora; print(sorted({'urllib.request', 'gzip', 'unicodedata', "
        "'platformdirs', 'rich', 'numpy', 'tempfile', 'ssl', 'difflib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout == "[]\n"


def test_text_has_a_readable_repr():
    assert repr(text_from_string("a" * 100)) == "Text(name='text', origin='', as_bytes=False)"
    assert isinstance(open_text("unicode-names"), Text)
