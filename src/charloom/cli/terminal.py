"""Write to a terminal or a pipe: messages, progress, JSON, tables. Handle interrupts."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from charloom.errors import CharloomError, printable

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel


def say(message: str) -> None:
    message = printable(" ".join(message.split("\n")))
    print(f"charloom: {message}", file=StandardError(), flush=True)


class StandardError(io.TextIOBase):
    """Standard error that nobody needs to read: what cannot be written there ends nothing.

    Where it is closed, print would fall back on standard output.
    """

    def __init__(self) -> None:
        self._stream = sys.stderr

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("standard error is closed")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"


def print_line(text: str = "") -> None:
    """A text, which may have several lines, to standard output."""
    output_stream()
    print("\n".join(printable(line) for line in text.split("\n")), flush=True)


def print_json(value: Any) -> None:
    output_stream()
    print(json.dumps(value, indent=2).replace("\x7f", "\\u007f"), flush=True)


def output_stream() -> BinaryIO:
    """Standard output's bytes. Raises CharloomError where it is closed."""
    if sys.stdout is None:
        raise CharloomError("standard output is closed: there is nowhere to write to")
    return sys.stdout.buffer


class Interrupts:
    """SIGINT and SIGTERM, taken note of so that a step can be finished. A second one ends the
    process at once, and so does the first before training has begun."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.training = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number_ in (signal.SIGINT, signal.SIGTERM):
            self._before[number_] = signal.signal(number_, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number_, handler in self._before.items():
            signal.signal(number_, handler)

    def _handle(self, number_: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number_)
        self.received = number_
        if not self.training:
            sys.exit(128 + number_)

    def __call__(self) -> bool:
        return self.received is not None


def progress_bar() -> Any:
    """A progress bar on standard error, which clears itself; none where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(
        file=cast(IO[str], StandardError()), highlight=False, emoji=False, soft_wrap=True
    )
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # What is printed on the same terminal goes above the bar; elsewhere it is left alone.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        redirect_stderr=False,
    )


def format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def in_bits(nats: float) -> float:
    return nats / 0.6931471805599453


def excerpt(text: str) -> str:
    """The beginning of a text on one line; a terminal's control characters do nothing in it."""
    line = "".join(c if c.isprintable() else "·" for c in " ".join(text.split()))
    return line if len(line) <= 88 else line[:87] + "…"


def write_text(model: LanguageModel, text: str) -> None:
    """To standard output, in the encoding of the model's text, at once."""
    encoding = "latin-1" if model.vocabulary.as_bytes else "utf-8"
    output = output_stream()
    output.write(text.encode(encoding, "replace"))
    output.flush()


def print_pieces(pieces: Iterator[str]) -> None:
    output = output_stream()
    for piece in pieces:
        output.write(piece.encode("utf-8"))
    output.flush()
