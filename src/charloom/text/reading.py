"""Bytes of a file, a pipe or standard input, decompressed and decoded to pieces of text.

Each source is wrapped as a function that opens it anew, because a text is read more than once.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal, cast

from charloom.errors import CharloomError, error_reason
from charloom.text.file_kinds import (
    compression_of,
    damaged,
    is_damaged,
    open_decompressed,
    refuse_kind,
)
from charloom.text.source import (
    BLOCK_SIZE,
    Notes,
    Text,
    mark_remover,
    newline_normalizer,
    newline_notes,
)

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
        encoding_is_certain: False if a text can also be UTF-8, or another encoding that is
            recognized.
        keep_nulls: accept null characters, as earlier versions did.
        block_size: bytes that are read and decoded at a time.
        live: read a pipe once, as its bytes arrive, instead of to its end first.
    """

    as_bytes: bool = False
    keep_newlines: bool = False
    keep_mark: bool = False
    encoding: str | None = None
    encoding_errors: EncodingErrors = "strict"
    encoding_is_certain: bool = True
    keep_nulls: bool = False
    block_size: int = BLOCK_SIZE
    live: bool = False

    def pieces(
        self,
        blocks: Callable[[], Iterator[bytes]],
        label: str,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> Callable[[], Iterator[str]]:
        """Return a function that decodes `blocks` to pieces of text, named `label` in errors."""
        if self.as_bytes:
            return self.read(lambda: (block.decode("latin-1") for block in blocks()), on_note)
        from charloom.text.encodings import decode, refuse_binary

        encoding = self.encoding or "utf-8"

        def decoded() -> Iterator[str]:
            pieces = decode(blocks, encoding, self.encoding_errors, label)
            return pieces if self.keep_nulls else refuse_binary(pieces, label)

        return self.read(decoded, on_note)

    def read(
        self,
        pieces: Callable[[], Iterator[str]],
        on_note: Callable[[str], None] = lambda note: None,
    ) -> Callable[[], Iterator[str]]:
        """Return a function that reads decoded pieces with the line ends of this reading."""
        if not self.keep_mark:
            pieces = mark_remover(pieces, self.as_bytes)
        return pieces if self.keep_newlines else newline_normalizer(pieces, on_note)

    def open(
        self,
        open_bytes: Callable[[], BinaryIO],
        label: str,
        path: Path | None,
        on_note: Callable[[str], None],
    ) -> tuple[Callable[[], Iterator[str]], str | None]:
        """Open a source: see whether it is compressed, and how it is encoded.

        Args:
            open_bytes: opens the source.
            label: its name in errors.
            path: its path, if it is a file.
            on_note: called with every decision, in a line to print.

        Returns:
            A function that returns the text in pieces, and the encoding if it was recognized.

        Raises:
            CharloomError: if the source is not text.
        """
        from charloom.text.encodings import BEGINNING

        compression = compression_of(next(block_reader(open_bytes, label, BEGINNING)(), b""))
        if self.as_bytes and (path is None or path.suffix.lower() != compression):
            compression = ""  # the bytes themselves are wanted
        blocks = block_reader(open_bytes, label, self.block_size, compression=compression)
        if self.as_bytes:
            return self.pieces(blocks, label, on_note), None
        first = block_reader(open_bytes, label, BEGINNING, compression=compression)
        beginning = next(first(), b"")
        refuse_kind(beginning, label, path, compression)
        inside = f"the text inside {label}" if compression else label
        encoding = self._recognized(beginning, inside, on_note)
        reading = self if encoding is None else replace(self, encoding=encoding)
        if not self.keep_newlines:
            for note in newline_notes(beginning.decode(reading.encoding or "utf-8", "replace")):
                on_note(note)
        return reading.pieces(blocks, inside, on_note), encoding

    def _recognized(
        self, beginning: bytes, label: str, on_note: Callable[[str], None]
    ) -> str | None:
        """Return the encoding that the beginning of a text has, unless it is the expected one."""
        from charloom.text.encodings import is_utf_8, recognized

        found = recognized(beginning)
        if self.encoding is None:
            if found is not None:
                on_note(f"{label} is read as {found.upper()}")
            return found
        if found is None and is_utf_8(beginning):
            found = "utf-8"
        if found is None or found == "utf-8" == codecs.lookup(self.encoding).name:
            return None
        if _is_same(found, self.encoding):
            return found  # with the order of its bytes
        if self.encoding_is_certain:
            on_note(f"{label} looks like {found.upper()}, but is read as {self.encoding}")
            return None
        on_note(f"{label} is read as {found.upper()}, not as {self.encoding}")
        return found


def open_standard_input(reading: Reading, notes: Notes) -> Text:
    """Return standard input as a text, read to its end once and spooled, unless it is live."""
    return open_pipe(_standard_input(), "stdin", "standard input", None, reading, notes)


def open_pipe(
    source: BinaryIO, name: str, label: str, path: Path | None, reading: Reading, notes: Notes
) -> Text:
    """Return a source that can be read only once as a text.

    It is read to its end and spooled, unless the reading is live. The pieces of a live text are
    the bytes that have arrived.

    Args:
        source: the source.
        name: the name of the text.
        label: its name in errors.
        path: its path; None for standard input, which stays open.
        reading: the way in which it becomes text.
        notes: receives each decision.
    """
    pipe = _LivePipe(source, label, closes=path is not None) if reading.live else None
    if pipe is not None and (reading.as_bytes or not compression_of(pipe.beginning)):
        opener, live = pipe.reader, pipe.arrives
    else:
        with contextlib.nullcontext() if path is None else source:
            opener = spool_opener(source if pipe is None else pipe.reader(), label)
        live = False
    pieces, encoding = reading.open(opener, label, path, notes.add)
    return Text(name, "-", reading.as_bytes, pieces, encoding=encoding, notes=notes, live=live)


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
    compression: str = "",
) -> Callable[[], Iterator[bytes]]:
    """Return a function that reads a source in blocks.

    Args:
        open_bytes: opens the source.
        label: its name in errors.
        block_size: bytes of a block.
        compression: how it is compressed, as `compression_of` returns it.
    """

    def read() -> Iterator[bytes]:
        from contextlib import ExitStack

        with ExitStack() as stack:
            stream = stack.enter_context(open_bytes())
            if compression:
                stream = stack.enter_context(open_decompressed(stream, compression, label))
            while True:
                try:
                    block = stream.read(block_size)
                except Exception as error:
                    if compression and is_damaged(error):
                        raise CharloomError(damaged(label, compression, error)) from None
                    if isinstance(error, OSError):
                        raise CharloomError(f"cannot read {label}: {error_reason(error)}") from None
                    raise
                if not block:
                    return
                yield block

    return read


def _is_same(one: str, other: str) -> bool:
    """Return True for two names of an encoding, with or without the order of its bytes."""
    names = [codecs.lookup(name).name for name in (one, other)]
    return names[0].startswith(names[1].removesuffix("-sig"))


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


class _LivePipe:
    """A source that is read as its bytes arrive: only one reader gets more than its beginning.

    Attributes:
        beginning: the bytes that arrive first.
        arrives: False for a file, whose bytes are all there.
    """

    def __init__(self, source: BinaryIO, label: str, *, closes: bool) -> None:
        self._source, self._label, self._closes = source, label, closes
        self._number: int | None = None
        self.arrives = False
        with contextlib.suppress(OSError, ValueError):  # It is closed, or replaced by a program.
            self._number = source.fileno()
            self.arrives = not stat.S_ISREG(os.fstat(self._number).st_mode)
        self.beginning = self.take(BLOCK_SIZE)
        self.owner: _LiveReader | None = None  # the reader of the rest

    def take(self, size: int) -> bytes:
        """Return at most `size` bytes that have arrived, none at the end."""
        try:
            if self._number is None:
                return self._source.read(size)
            return os.read(self._number, size)  # A buffer would wait for more.
        except (OSError, ValueError) as error:
            raise CharloomError(f"cannot read {self._label}: {error_reason(error)}") from None

    def reader(self) -> BinaryIO:
        """Return a reader from the beginning on."""
        return cast(BinaryIO, _LiveReader(self))

    def close(self) -> None:
        """Close the source, unless it is standard input."""
        if self._closes:
            self._source.close()


class _LiveReader(io.RawIOBase):
    """A reader of a live pipe, from its beginning on."""

    def __init__(self, pipe: _LivePipe) -> None:
        self._pipe = pipe
        self._position = 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed and self._pipe.owner is self:
            self._pipe.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        pipe = self._pipe
        data = pipe.beginning[self._position : self._position + len(buffer)]
        if not data and pipe.owner in (None, self):
            pipe.owner = self
            data = pipe.take(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
