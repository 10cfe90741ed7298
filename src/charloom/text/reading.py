"""Bytes of a file, a pipe or standard input, decompressed and decoded to pieces of text.

Each source is wrapped as a function that opens it anew, because a text is read more than once.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from charloom.errors import CharloomError, error_reason
from charloom.text.source import BLOCK_SIZE, Text, mark_remover, newline_normalizer

EncodingErrors = Literal["strict", "replace"]

SPOOLED_IN_MEMORY = 8 << 20  # bytes of a pipe; the rest is spooled to a temporary file

# Paths of this process's open files, such as a shell passes for <(command).
OPEN_FILE_PATH = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/(self|\d+)/fd/\d+")


@dataclass(frozen=True)
class Reading:
    """The way in which bytes become text.

    Attributes:
        as_bytes: decode each byte to one character, instead of decoding UTF-8.
        keep_newlines: keep CR LF and a lone CR, which are read as LF otherwise.
        keep_mark: keep a byte order mark at the beginning.
        encoding: the name of the encoding; None for UTF-8 or a recognized one.
        encoding_errors: "strict" to refuse invalid bytes, "replace" to read them as U+FFFD.
        block_size: bytes that are read and decoded at a time.
        live: read a pipe once, as its bytes arrive, instead of to its end first.
    """

    as_bytes: bool = False
    keep_newlines: bool = False
    keep_mark: bool = False
    encoding: str | None = None
    encoding_errors: EncodingErrors = "strict"
    block_size: int = BLOCK_SIZE
    live: bool = False

    def pieces(
        self, blocks: Callable[[], Iterator[bytes]], label: str
    ) -> Callable[[], Iterator[str]]:
        """Return a function that decodes `blocks` to pieces of text, named `label` in errors."""
        if self.encoding is not None and not self.as_bytes:
            return self.read(_decoder_of(self.encoding, self.encoding_errors, blocks, label))
        return self.read(block_decoder(blocks, self.as_bytes, label))

    def read(self, pieces: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
        """Return a function that reads decoded pieces of text, without what is not kept."""
        if not self.keep_mark:
            pieces = mark_remover(pieces, self.as_bytes)
        return pieces if self.keep_newlines else newline_normalizer(pieces)


def open_standard_input(reading: Reading) -> Text:
    """Return standard input as a text. It is read to its end once and spooled, unless it is live."""
    label, source = "standard input", _standard_input()
    if reading.live:
        return open_live(source, "stdin", label, reading)
    blocks = block_reader(spool_opener(source, label), label, reading.block_size)
    return Text("stdin", "-", reading.as_bytes, reading.pieces(blocks, label))


def open_live(source: BinaryIO, name: str, label: str, reading: Reading) -> Text:
    """Return a pipe as a text that can be read once, whose pieces are what has arrived.

    Args:
        source: the pipe; a file is read in the same way, in whole blocks.
        name: the name of the text.
        label: its name in errors.
        reading: how it is decoded.
    """
    try:
        number = source.fileno()
        is_pipe = not stat.S_ISREG(os.fstat(number).st_mode)
    except (OSError, ValueError):  # A program has replaced it with another object, or it is closed.
        number, is_pipe = None, False

    def blocks() -> Iterator[bytes]:
        while True:
            try:
                # Not through its buffer, which would wait for a whole block.
                size = reading.block_size
                block = source.read(size) if number is None else os.read(number, size)
            except (OSError, ValueError) as error:
                raise CharloomError(f"cannot read {label}: {error_reason(error)}") from None
            if not block:
                return
            yield block

    return Text(name, "-", reading.as_bytes, reading.pieces(blocks, label), live=is_pipe)


def open_file(path: Path, label: str) -> BinaryIO:
    """Open a file for reading. Raises CharloomError if that fails."""
    try:
        return path.open("rb")
    except OSError as error:
        raise CharloomError(f"cannot read {label}: {error_reason(error)}") from None


def file_opener(path: Path, label: str) -> Callable[[], BinaryIO]:
    """Return a function that opens a file, and raises CharloomError once the file has changed."""

    def state(file: BinaryIO) -> tuple[int, int]:
        status = os.fstat(file.fileno())
        return status.st_size, status.st_mtime_ns

    with open_file(path, label) as file:
        at_first = state(file)

    def open_unchanged() -> BinaryIO:
        file = open_file(path, label)
        if state(file) != at_first:
            file.close()
            raise CharloomError(f"{label} has changed since it was opened: start again")
        return file

    return open_unchanged


def spool_opener(
    source: BinaryIO, label: str, in_memory: int = SPOOLED_IN_MEMORY
) -> Callable[[], BinaryIO]:
    """Read a source that can be read only once, and return a function that opens its copy.

    Args:
        source: the source, which is read to its end.
        label: its name in errors.
        in_memory: bytes that are kept in memory; a longer copy goes to a temporary file.

    Raises:
        CharloomError: if the source or the temporary file fails.
    """
    import shutil

    spool = _Spool(in_memory)
    try:
        shutil.copyfileobj(source, spool.file, BLOCK_SIZE)
    except (OSError, ValueError) as error:  # ValueError: the source is closed
        raise CharloomError(
            f"cannot read {label} into a temporary file: {error_reason(error)}"
        ) from None
    return spool.reader


def block_reader(
    open_bytes: Callable[[], BinaryIO],
    label: str,
    block_size: int = BLOCK_SIZE,
    *,
    compressed: bool = False,
) -> Callable[[], Iterator[bytes]]:
    """Return a function that reads a source in blocks.

    Args:
        open_bytes: opens the source.
        label: its name in errors.
        block_size: bytes of a block.
        compressed: decompress it with gzip.
    """

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
                    block = stream.read(block_size)
                except (EOFError, zlib.error) as error:
                    raise CharloomError(_broken_gzip(label, error)) from None
                except OSError as error:
                    if compressed and error.errno is None:  # gzip.BadGzipFile
                        raise CharloomError(_broken_gzip(label, error)) from None
                    raise CharloomError(f"cannot read {label}: {error_reason(error)}") from None
                if not block:
                    return
                yield block

    return read


def block_decoder(
    blocks: Callable[[], Iterator[bytes]], as_bytes: bool, label: str
) -> Callable[[], Iterator[str]]:
    """Return a function that decodes blocks as UTF-8, or each byte to one character.

    `label` is the text's name in errors.
    """
    if as_bytes:
        return lambda: (block.decode("latin-1") for block in blocks())
    return lambda: _decoded_as_utf_8(blocks(), label)


def _decoder_of(
    encoding: str, errors: EncodingErrors, blocks: Callable[[], Iterator[bytes]], label: str
) -> Callable[[], Iterator[str]]:
    """Return a function that decodes blocks in a named encoding."""

    def decoded() -> Iterator[str]:
        try:
            yield from codecs.iterdecode(blocks(), encoding, errors)
        except UnicodeDecodeError as error:
            raise CharloomError(f"{label} is not {encoding} ({error.reason})") from None

    return decoded


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise CharloomError("standard input is closed: pipe a text into it, or pass a path")
    binary: BinaryIO | None = getattr(sys.stdin, "buffer", None)
    if binary is None:  # A program or a notebook has replaced it with a stream of characters.
        return io.BytesIO(sys.stdin.read().encode("utf-8", "surrogateescape"))
    return binary


class _Spool:
    """A temporary copy of a source that can be read once, closed with the last reference to it."""

    def __init__(self, in_memory: int) -> None:
        import tempfile
        import weakref

        self.file = tempfile.SpooledTemporaryFile(max_size=in_memory)  # noqa: SIM115
        weakref.finalize(self, self.file.close)

    def reader(self) -> BinaryIO:
        return io.BufferedReader(_SpoolReader(self))


class _SpoolReader(io.RawIOBase):
    """A reader of a spool with a position of its own, so that several readers can alternate."""

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
    """Return the message for bytes that are not UTF-8.

    Args:
        label: the text's name.
        beginning: its first bytes, which identify UTF-16 and gzip.
        offset: where the first invalid byte is.
        byte: that byte.
        reason: the decoder's reason.
    """
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        return (
            f"{label} looks like UTF-16 (it begins with {beginning[:2].hex(' ').upper()}): convert "
            "it to UTF-8 (for example `iconv -f UTF-16 -t UTF-8`), or train on bytes with --bytes"
        )
    if beginning.startswith(b"\x1f\x8b"):
        return (
            f"{label} looks gzip-compressed (it begins with 1F 8B): rename it to end in .gz, pipe "
            "it through `gunzip -c`, or train on bytes with --bytes"
        )
    return (
        f"{label} is not UTF-8 (byte 0x{byte:02X} at byte offset {offset}, {reason}): convert it "
        "to UTF-8 (for example `iconv -f LATIN1 -t UTF-8`), or train on bytes with --bytes"
    )


def _broken_gzip(label: str, error: Exception) -> str:
    return (
        f"{label} is not a complete gzip file ({error_reason(error)}): create it again, or rename "
        "it if it is not compressed"
    )
