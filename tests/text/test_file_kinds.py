"""Compressed files are read; files that are not text are refused with the command that helps."""

import bz2
import gzip
import io
import lzma
import os
import sys
import tarfile
import zipfile

import pytest

from charloom.text.corpora import open_text
from charloom.text.format import TextFormat, open_texts
from helpers.corpora import refusal, write

CONTENT = "été\n".encode() * 100


def archive(*names: str, first: str = "") -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name in names:
            file.writestr(name, first if name == "mimetype" else "content")
    return data.getvalue()


def tar(mode: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as file:
        file.addfile(tarfile.TarInfo("a.txt"))
    return data.getvalue()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.bz2", "a.txt.xz", "a.txt"])
def test_compressed_files_are_read_whatever_their_name(tmp_path, monkeypatch, compress, name):
    path = write(tmp_path / name, compress(CONTENT) + compress(CONTENT))  # two members
    text = open_text(path)
    assert (text.name, text.read()) == ("a", CONTENT.decode() * 2)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert open_text("-").read() == CONTENT.decode() * 2
    write(path, compress(CONTENT)[:-6])
    assert "is not a complete " in refusal(path)


@pytest.mark.parametrize("name", ["a.gz", "a.xz", "a.zst"])
def test_a_file_with_the_name_of_a_compressed_one(tmp_path, name):
    assert open_text(write(tmp_path / name, CONTENT)).read() == CONTENT.decode()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python reads zstd")
def test_zstd_needs_a_later_python(tmp_path):
    path = write(tmp_path / "a.zst", b"\x28\xb5\x2f\xfd\0\0")
    assert refusal(path).endswith("pipe it through `zstd -dc` and pass - (standard input)")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python cannot read zstd")
def test_zstd(tmp_path):
    from compression import zstd

    path = write(tmp_path / "a.txt.zst", zstd.compress(CONTENT) * 2)
    assert open_text(path).read() == CONTENT.decode() * 2
    write(path, zstd.compress(CONTENT)[:-3])
    assert "is not a complete zstd file" in refusal(path)


def test_compressed_tables(tmp_path):
    path = write(tmp_path / "t.csv.xz", lzma.compress(b"\xef\xbb\xbfa,b\r\nx,y\r\n"))
    assert list(open_texts([path], TextFormat(column="a")).documents()) == ["x"]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        (
            "a.pdf",
            b"%PDF-1.7\n",
            "a PDF file, not text: make a text of it (for example with `pdftotext a.pdf a.txt`)",
        ),
        ("a.txt", b"%PDF-1.7\n", "`pdftotext a.txt a-text.txt`"),
        (
            "a.docx",
            archive("[Content_Types].xml", "word/document.xml"),
            "a Word document, not text:"
            " make a text of it (for example with `pandoc -t plain a.docx -o a.txt`)",
        ),
        ("a.epub", archive("mimetype", "a.html", first="application/epub+zip"), "an EPUB book"),
        (
            "a.odt",
            archive("mimetype", first="application/vnd.oasis.opendocument.text"),
            "an OpenDocument file",
        ),
        (
            "a b.zip",
            archive("a.txt"),
            "a zip archive, not text: extract its texts (for example with"
            " `unzip 'a b.zip' -d 'a b'`)",
        ),
        ("a.tar", tar("w"), "`tar xf a.tar`"),
        (
            "a.tar.gz",
            tar("w:gz"),
            "a tar archive, compressed with gzip, not text: extract its texts"
            " (for example with `tar xf a.tar.gz`)",
        ),
        ("a.txt", tar("w:xz"), "a tar archive, compressed with xz, not text"),
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a picture, not text: pass a text file"),
        ("a", b"\x7fELF\2\1\1\0", "a program, not text"),
        ("a.exe", b"MZ\x90\0\3\0\0\0", "a program, not text"),
        ("a.db", b"SQLite format 3\0", "an SQLite database"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive"),
        ("m.safetensors", (300).to_bytes(8, "little") + b'{"a"', "a checkpoint of weights"),
        ("a.rtf", b"{\\rtf1\\ansi text}", "`pandoc -t plain a.rtf -o a.txt`"),
        ("a.Z", b"\x1f\x9d\x90a", "`uncompress -c a.Z > a.txt`"),
        ("a.lz4", b"\x04\x22\x4d\x18\x64\x40\xa7\0", "`lz4 -dc a.lz4 > a.txt`"),
        ("a.npz", archive("a.npy"), "a file of NumPy arrays"),
        ("a.gz", gzip.compress(gzip.compress(b"a")), "is compressed twice"),
    ],
    # Compressed bytes hold the time, so that they differ between the processes of a test run.
    ids=lambda value: value[:4].hex() if isinstance(value, bytes) else None,
)
def test_files_that_are_not_text(tmp_path, monkeypatch, name, data, told):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name, data)
    message = refusal(name)
    assert message.startswith(repr(name))
    assert told in message
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert refusal("-").startswith("standard input is ")
    assert open_text(name, as_bytes=True).read()


@pytest.mark.parametrize("data", [b"MZ is a text\n", b"PAR1 and GIF8\n", b"PK\n", b"BZh", b"ID3\n"])
def test_texts_that_begin_like_other_files(tmp_path, data):
    assert open_text(write(tmp_path / "a", data)).read() == data.decode()


def test_bytes_are_decompressed_only_by_name(tmp_path):
    data = gzip.compress(CONTENT)
    named = open_text(write(tmp_path / "a.gz", data), as_bytes=True).read()
    assert named == CONTENT.decode("latin-1")
    assert open_text(write(tmp_path / "a", data), as_bytes=True).read() == data.decode("latin-1")


def test_a_folder_reads_texts_by_their_content(tmp_path):
    (tmp_path / "texts").mkdir()
    for name, data in {
        "a.txt": b"one",
        "b.txt.xz": lzma.compress(b"two"),
        "c.bz2": bz2.compress(b"three"),
        "d.txt": "four\n".encode("utf-16"),
        "e.html": b"<p>five",
        "f.txt": b"%PDF-1.7\n",
        "g.txt": os.urandom(20) + b"\0" * 9,
        "h.tar.gz": tar("w:gz"),
        "i.gz": tar("w:gz"),
    }.items():
        write(tmp_path / "texts" / name, data)
    text = open_texts([tmp_path / "texts"], TextFormat())
    assert list(text.documents()) == ["one", "two", "three", "four\n", "<p>five"]
    assert any("4 skipped" in note for note in text.notes)
