"""Read a text from a file, a pipe or standard input: UTF-8, gzip, precise offsets in errors."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from charloom.errors import CharloomError
from charloom.text.source import BLOCK, Text, normalized_newlines

_KEPT_IN_MEMORY = 8 << 20  # bytes of standard input; more goes to a temporary file


def decoded(
    blocks: Callable[[], Iterator[bytes]], as_bytes: bool, label: str
) -> Callable[[], Iterator[str]]:
    """The bytes as text: UTF-8, or a character a byte. `label` names the text in errors."""
    if as_bytes:
        return lambda: (block.decode("latin-1") for block in blocks())
    return lambda: _decoded_as_utf_8(blocks(), label)


def _decoded_as_utf_8(blocks: Iterator[bytes], label: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    beginning = b""
    offset = 0  # of the block, in the text's bytes
    final = False
    while not final:
        block = next(blocks, b"")
        final = not block
        beginning = beginning or block[:4]
        held_back = len(decoder.getstate()[0])  # bytes of a character that the last block cut
        try:
            piece = decoder.decode(block, final)
        except UnicodeDecodeError as error:
            at = offset - held_back + error.start
            raise CharloomError(
                _not_utf_8(label, beginning, at, error.object[error.start], error.reason)
            ) from None
        yield piece
        offset += len(block)


def _not_utf_8(label: str, beginning: bytes, offset: int, byte: int, reason: str) -> str:
    """The sentence for bytes that are not UTF-8."""
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        return (
            f"{label} looks like UTF-16 (it begins with {beginning[:2].hex(' ').upper()}): convert "
            "it to UTF-8 (for example `iconv -f UTF-16 -t UTF-8`), or train on bytes with --bytes"
        )
    if beginning.startswith(b"\x1f\x8b"):
        return (
            f"{label} looks gzip-compressed (it begins with 1F 8B): give it a name in .gz, or pipe "
            "it through `gunzip -c`, or train on bytes with --bytes"
        )
    return (
        f"{label} is not UTF-8: byte 0x{byte:02X} at byte offset {offset} ({reason}); convert it "
        "to UTF-8 (for example `iconv -f LATIN1 -t UTF-8`), or train on bytes with --bytes"
    )


# --- Files, pipes, standard input ----------------------------------------------------------------

# Names of open files of this very process: what a shell passes for <(command).
OPEN_FILE = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/(self|\d+)/fd/\d+")


def open_standard_input(normalize_newlines: bool, as_bytes: bool) -> Text:
    label = "standard input"
    blocks = blocks_of(spooled(_standard_input(), label), label, compressed=False)
    pieces = normalized_newlines(decoded(blocks, as_bytes, label), normalize_newlines)
    return Text("stdin", "-", as_bytes, pieces)


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise CharloomError("standard input is closed: pipe a text into it, or give a path")
    binary: BinaryIO | None = getattr(sys.stdin, "buffer", None)
    if binary is None:  # a program, or a notebook, put a stream of characters in its place
        return io.BytesIO(sys.stdin.read().encode("utf-8", "surrogateescape"))
    return binary


def opened_file(path: Path, label: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CharloomError(f"cannot read {label}: {reason_of(error)}") from None


def reopened_file(path: Path, label: str) -> Callable[[], BinaryIO]:
    """Opens the file at each reading, and refuses it when it is no longer what it was."""

    def state(file: BinaryIO) -> tuple[int, int]:
        status = os.fstat(file.fileno())
        return status.st_size, status.st_mtime_ns

    with opened_file(path, label) as file:
        at_first = state(file)

    def open_again() -> BinaryIO:
        file = opened_file(path, label)
        if state(file) != at_first:
            file.close()
            raise CharloomError(f"{label} has changed since it was opened: start again")
        return file

    return open_again


class _Spool:
    """A temporary file with what can be read only once; it goes with the last reference to it."""

    def __init__(self) -> None:
        import tempfile
        import weakref

        self.file = tempfile.SpooledTemporaryFile(max_size=_KEPT_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self.file.close)

    def reader(self) -> BinaryIO:
        return io.BufferedReader(_SpoolReader(self))


class _SpoolReader(io.RawIOBase):
    """One reading of a spool from its beginning, with its own position: several may take turns."""

    def __init__(self, spool: _Spool) -> None:
        self.spool = spool
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self.spool.file.seek(self.position)
        data = self.spool.file.read(len(buffer))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def spooled(source: BinaryIO, label: str) -> Callable[[], BinaryIO]:
    """Reads what can be read only once, into a temporary file, which can be read again."""
    import shutil

    spool = _Spool()
    try:
        shutil.copyfileobj(source, spool.file, BLOCK)
    except (OSError, ValueError) as error:  # ValueError: the source is closed
        raise CharloomError(
            f"cannot read {label} into a temporary file: {reason_of(error)}"
        ) from None
    return spool.reader


def blocks_of(
    open_bytes: Callable[[], BinaryIO], label: str, compressed: bool
) -> Callable[[], Iterator[bytes]]:
    """The bytes of a file, decompressed if it is, block by block."""

    def read() -> Iterator[bytes]:
        import zlib
        from contextlib import ExitStack

        with ExitStack() as stack:
            stream = stack.enter_context(open_bytes())
            if compressed:
                import gzip

                stream = cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=stream)))
            while True:
                try:
                    block = stream.read(BLOCK)
                except (EOFError, zlib.error) as error:
                    raise CharloomError(_broken_gzip(label, error)) from None
                except OSError as error:
                    if compressed and error.errno is None:  # gzip.BadGzipFile
                        raise CharloomError(_broken_gzip(label, error)) from None
                    raise CharloomError(f"cannot read {label}: {reason_of(error)}") from None
                if not block:
                    return
                yield block

    return read


def _broken_gzip(label: str, error: Exception) -> str:
    return (
        f"{label} is not a whole gzip file ({reason_of(error)}): make it again, or rename it if it "
        "is not compressed"
    )


def quoted(source: str | Path) -> str:
    """The path in quotes, on one line, cut where it is absurdly long (a text in its place)."""
    quoted = repr(str(source))
    return quoted if len(quoted) <= 300 else f"{quoted[:100]}…{quoted[-100:]}"


def reason_of(error: Exception) -> str:
    """What an exception says, on one line."""
    said = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(str(said).split())
