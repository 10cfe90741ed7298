"""Recognize compressed files, and files that are not text, by their first bytes."""

from __future__ import annotations

import shlex
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from charloom.errors import CharloomError, error_reason

# First bytes of compressed files, by the suffix of their names.
COMPRESSED = {
    ".gz": b"\x1f\x8b\x08",
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ\0",
    ".zst": b"\x28\xb5\x2f\xfd",
}
PROGRAMS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}


class Kind(NamedTuple):
    """A kind of files that are not text.

    Attributes:
        name: what a file of this kind is.
        command: makes a text of it; `{path}`, `{stem}` and `{text}` are replaced. Empty if nothing
            does.
        offset: where its bytes are.
        first: these bytes.
    """

    name: str
    command: str
    offset: int
    first: bytes


PANDOC = "pandoc -t plain {path} -o {text}"
OFFICE = "soffice --convert-to txt {path}"
KINDS = (
    Kind("a PDF file", "pdftotext {path} {text}", 0, b"%PDF-"),
    Kind("a tar archive", "tar xf {path}", 257, b"ustar"),
    Kind("an EPUB book", PANDOC, 30, b"mimetypeapplication/epub+zip"),
    Kind("an OpenDocument file", PANDOC, 30, b"mimetypeapplication/vnd.oasis.opendocument.text"),
    Kind("an OpenDocument file", OFFICE, 30, b"mimetypeapplication/vnd.oasis.opendocument"),
    Kind("a zip archive", "unzip {path} -d {stem}", 0, b"PK\x03\x04"),
    Kind("a zip archive", "unzip {path} -d {stem}", 0, b"PK\x05\x06"),
    Kind("a 7z archive", "7z x {path}", 0, b"7z\xbc\xaf\x27\x1c"),
    Kind("a RAR archive", "unrar x {path}", 0, b"Rar!\x1a\x07"),
    Kind("a document of an earlier Office", OFFICE, 0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    Kind("an RTF document", PANDOC, 0, b"{\\rtf"),
    Kind("a file compressed with compress", "uncompress -c {path} > {text}", 0, b"\x1f\x9d"),
    Kind("a file compressed with LZ4", "lz4 -dc {path} > {text}", 0, b"\x04\x22\x4d\x18"),
    Kind("an SQLite database", "sqlite3 {path} .dump", 0, b"SQLite format 3\0"),
    Kind("a picture", "", 0, b"\x89PNG\r\n"),
    Kind("a picture", "", 0, b"\xff\xd8\xff"),
    Kind("a picture", "", 0, b"GIF8"),
    Kind("a picture", "", 0, b"II*\0"),
    Kind("a picture", "", 0, b"MM\0*"),
    Kind("a picture", "", 8, b"WEBP"),
    Kind("a sound file", "", 8, b"WAVE"),
    Kind("a sound file", "", 0, b"ID3\x03\0"),
    Kind("a sound file", "", 0, b"ID3\x04\0"),
    Kind("a sound file", "", 0, b"OggS\0"),
    Kind("a sound file", "", 0, b"fLaC\0"),
    Kind("a sound file", "", 0, b"\xff\xfb"),
    Kind("a film or sound file", "", 4, b"ftyp"),
    Kind("a film", "", 0, b"\x1aE\xdf\xa3"),
    Kind("a program", "", 0, b"\x7fELF"),
    Kind("a program", "", 0, b"MZ"),
    Kind("a program", "", 0, b"\xca\xfe\xba\xbe"),
    Kind("a program", "", 0, b"\xcf\xfa\xed\xfe"),
    Kind("a program", "", 0, b"\0asm"),
    Kind("a checkpoint of weights", "", 8, b'{"'),
    Kind("an array of NumPy", "", 0, b"\x93NUMPY"),
    Kind("a Parquet file", "", 0, b"PAR1"),
    Kind("an HDF5 file", "", 0, b"\x89HDF\r\n"),
    Kind("a pickle of Python", "", 0, b"\x80\x04\x95"),
)
NO_NULLS = ("a PDF file", "an RTF document")  # kinds whose first bytes are all of ASCII
# Files of Office, by what their archive has.
IN_ZIP = (
    Kind("a Word document", PANDOC, 0, b"word/"),
    Kind("a workbook of Excel", OFFICE.replace("txt", "csv"), 0, b"xl/"),
    Kind("a presentation", OFFICE, 0, b"ppt/"),
    Kind("a file of NumPy arrays", "", 0, b".npy"),
    Kind("a program", "", 0, b"META-INF/MANIFEST.MF"),
)


def compression_of(beginning: bytes) -> str:
    """Return `.gz` and the like for the first bytes of a compressed file, else an empty string."""
    for suffix, first in COMPRESSED.items():
        if beginning.startswith(first) and (suffix != ".bz2" or beginning[4:5] in (b"1", b"\x17")):
            return suffix
    return ""


def kind_of(beginning: bytes) -> Kind | None:
    """Return the kind of a file that is not text, from its first bytes."""
    for kind in KINDS:
        if beginning[kind.offset :].startswith(kind.first):
            # A text can begin with these letters too, but it has no null bytes.
            if kind.first.isascii() and b"\0" not in beginning and kind.name not in NO_NULLS:
                return None
            if kind.name == "a zip archive":
                return next((one for one in IN_ZIP if one.first in beginning), kind)
            return kind
    return None


def refuse_kind(beginning: bytes, label: str, path: Path | None, compression: str) -> None:
    """Raise CharloomError if a file is not text, with the command that makes a text of it.

    Args:
        beginning: its first bytes, decompressed.
        label: its name in errors.
        path: its path, if it is a file.
        compression: how it was compressed, as `compression_of` returns it.
    """
    twice = compression_of(beginning)
    if twice:
        raise CharloomError(
            f"{label} is compressed twice: decompress it with `{PROGRAMS[compression or twice]} -d`"
        )
    kind = kind_of(beginning)
    if kind is None:
        return
    packed = f", compressed with {PROGRAMS[compression]}" if compression else ""
    problem = f"{label} is {kind.name}{packed}, not text"
    if not kind.command:
        raise CharloomError(f"{problem}: pass a text file, or train on its bytes with --bytes")
    place = Path("FILE") if path is None else path
    text = f"{place.stem}.txt" if place.suffix != ".txt" else f"{place.stem}-text.txt"
    names = {"path": str(place), "stem": place.stem, "text": text}
    command = kind.command.format(**{name: shlex.quote(value) for name, value in names.items()})
    archive = "extract its texts" if "archive" in kind.name else "make a text of it"
    raise CharloomError(f"{problem}: {archive} (for example with `{command}`) and pass that")


def open_decompressed(stream: BinaryIO, compression: str, label: str) -> BinaryIO:
    """Return a stream of the decompressed bytes of a file. Raises CharloomError without zstd."""
    if compression == ".gz":
        import gzip

        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    if compression == ".bz2":
        import bz2

        return cast(BinaryIO, bz2.BZ2File(stream))
    if compression == ".xz":
        import lzma

        return cast(BinaryIO, lzma.LZMAFile(stream))
    return cast(BinaryIO, _zstd(label).ZstdFile(stream))


def _zstd(label: str) -> Any:
    import importlib

    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        raise CharloomError(
            f"{label} is compressed with zstd, which needs Python 3.14 or later: pipe it through "
            "`zstd -dc` and pass - (standard input)"
        ) from None


def is_damaged(error: Exception) -> bool:
    """Return True for the errors of damaged compressed files."""
    if isinstance(error, OSError):
        return error.errno is None  # gzip.BadGzipFile and the like
    return isinstance(error, (EOFError, ValueError, zlib.error)) or type(error).__name__ in (
        "LZMAError",
        "ZstdError",
    )


def damaged(label: str, compression: str, error: Exception) -> str:
    """Return the message for a compressed file that is damaged or not complete."""
    return (
        f"{label} is not a complete {PROGRAMS[compression]} file ({error_reason(error)}): create "
        "it again"
    )
