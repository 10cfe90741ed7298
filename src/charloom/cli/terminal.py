"""Write to a terminal or a pipe: messages, progress, results. Handle interrupts."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from charloom.errors import CharloomError, escaped, printable
from charloom.json_text import in_ascii, to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from charloom.progress import OnProgress

Event = TypeVar("Event")
# Control characters except line breaks and tabs, and the marks that reverse a line.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
REDRAW_SECONDS = 0.2  # shortest time between two updates of a progress bar


def harmless(text: str) -> str:
    """Return a text of any number of lines with escapes for characters that control a terminal."""
    return CONTROLS.sub(lambda match: escaped(match.group()), text)


class Terminal:
    """The output of one command: results on standard output, everything else on standard error.

    Progress bars appear where standard error is a terminal and clear themselves; elsewhere only
    lines are written. Rich is imported when the first line or bar needs it.

    Attributes:
        started: when the command began, by `time.monotonic`; `--minutes` counts from here.
        show_progress: False hides lines and bars, for the followers of a distributed run.
    """

    def __init__(self, show_progress: bool = True) -> None:
        self.started = time.monotonic()
        self.show_progress = show_progress
        self._console: Console | None = None
        self._live: Progress | None = None
        self._said: set[str] = set()

    def say(self, message: str) -> None:
        """Write a message of one line to standard error: `charloom: MESSAGE`."""
        one_line = message.replace("\n", " ")
        line = f"charloom: {printable(one_line)}"
        if self._live is not None and self._open_console().is_terminal:
            self._open_console().print(line, markup=False)  # above the progress bar
        else:
            print(line, file=StandardError(), flush=True)

    def say_once(self, message: str) -> None:
        """Write a message to standard error, unless it was written in this way before."""
        if message not in self._said:
            self._said.add(message)
            self.say(message)

    def print(self, text: str = "") -> None:
        """Write lines of a result to standard output.

        Raises:
            CharloomError: if standard output is closed.
        """
        self.output()
        print("\n".join(printable(line) for line in text.split("\n")), flush=True)

    def print_json(self, value: Any, indent: int | None = 2) -> None:
        """Write a value as JSON to standard output, on one line if `indent` is None."""
        self.print_json_pieces([to_json(value, indent=indent), "\n"])

    def print_json_pieces(self, pieces: Iterable[str]) -> None:
        """Write JSON to standard output piece by piece, as ASCII where the output is not UTF-8."""
        self.output()
        is_utf8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
        self.print_pieces(pieces if is_utf8 else map(in_ascii, pieces))

    def print_pieces(self, pieces: Iterable[str]) -> None:
        """Write a long result to standard output, piece by piece."""
        self.output()
        for piece in pieces:
            self._write(piece, piece.encode("utf-8"))
        sys.stdout.flush()

    def write(self, text: str, raw: bytes) -> None:
        """Write a piece of a result to standard output at once.

        A terminal gets the text, with escapes for characters that control it or that its encoding
        lacks. A file or a pipe gets the raw bytes.
        """
        self.output()
        self._write(text, raw)
        sys.stdout.flush()

    def _write(self, text: str, raw: bytes) -> None:
        if sys.stdout.isatty():
            sys.stdout.write(harmless(text))
        else:
            sys.stdout.buffer.write(raw)

    def output(self) -> BinaryIO:
        """Return the bytes of standard output.

        Raises:
            CharloomError: if it is closed.
        """
        if sys.stdout is None:
            raise CharloomError("standard output is closed: there is nowhere to write to")
        return sys.stdout.buffer

    def note(self, text: str = "", *, dim: bool = False) -> None:
        """Write a line about the work in progress to standard error, above the progress bar."""
        if self.show_progress:
            self._open_console().print(harmless(text), markup=False, style="dim" if dim else None)

    @contextlib.contextmanager
    def task(self, description: str) -> Iterator[OnProgress]:
        """Show a progress bar, and yield the callback that moves it.

        The callback takes the stage, which replaces the description, the amount done and the
        total, or None where the total is unknown.
        """
        with self.bar(description) as update:

            def on_progress(stage: str, done: int, total: int | None) -> None:
                known = "" if total is None else f" of {total:,}"
                unit = "bytes" if stage == "downloading" else "characters"
                update(stage, done, total, f"{done:,}{known} {unit}" if done else "")

            yield on_progress

    @contextlib.contextmanager
    def bar(self, description: str) -> Iterator[Callable[[str, float, float | None, str], None]]:
        """Show a progress bar; yields a function of description, done, total and details."""
        live = self._live or self._new_progress()
        outermost = self._live is None
        with contextlib.ExitStack() as stack:
            if outermost:
                stack.enter_context(live)
                self._live = live
                stack.callback(setattr, self, "_live", None)
            task = live.add_task(description, total=None, details="")
            stack.callback(live.remove_task, task)

            def update(stage: str, done: float, total: float | None, details: str) -> None:
                live.update(task, description=stage, completed=done, total=total, details=details)

            yield update

    def watch(
        self,
        events: Iterable[Event],
        notes: list[str],
        show: Callable[[Event], None],
        status: Callable[[Event], tuple[str, float, str]],
    ) -> None:
        """Consume the events of a long job, with a progress bar.

        Args:
            events: the job's events, which end with the job.
            notes: messages of the job, a list that grows; each is written once.
            show: called with every event; writes the lines that should stay.
            status: description, done (0 to 1) and details of the bar, called a few times a second.
        """
        drawn, said = -1e9, len(notes)
        with self.bar("") as update:
            for event in events:
                said = self._say_new(notes, said)
                show(event)
                now = time.monotonic()
                if now - drawn > REDRAW_SECONDS:
                    drawn = now
                    description, done, details = status(event)
                    update(description, done, 1.0, details)
            self._say_new(notes, said)

    def _say_new(self, notes: list[str], said: int) -> int:
        for note in notes[said:]:
            self.say(note)
        return len(notes)

    def _open_console(self) -> Console:
        if self._console is None:
            from rich.console import Console

            self._console = Console(
                file=cast(IO[str], StandardError()), highlight=False, emoji=False, soft_wrap=True
            )
        return self._console

    def _new_progress(self) -> Progress:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = self._open_console()
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[details]}", markup=False),
            console=console,
            transient=True,
            disable=not (self.show_progress and console.is_terminal),
            # Lines on the same terminal go above the bar; redirected output is left alone.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
            redirect_stderr=False,
        )


class StandardError(io.TextIOBase):
    """Standard error without errors: a failed write is ignored.

    Where standard error is closed, `print` would fall back on standard output.
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


# Signals that stop a run, if the system has them. A closed terminal sends SIGHUP, and
# schedulers of batch jobs announce the end of a job's time by SIGUSR1 or SIGUSR2.
STOPPING = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]
INSISTING = (signal.SIGINT, signal.SIGTERM)  # which end the process where they come second


def stopping_signals() -> list[int]:
    """Return the signals that stop a run, without a SIGHUP that `nohup` ignores."""
    return [
        number
        for number in STOPPING
        if number in INSISTING or signal.getsignal(number) is not signal.SIG_IGN
    ]


class Interrupts:
    """Record the first signal that stops a run, so that a step can be finished and saved.

    Before training begins it ends the process at once, and so does a second SIGINT or SIGTERM. A
    second SIGHUP does not, because a shell and the system both send one as a terminal closes.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.training = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in stopping_signals():
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in INSISTING and self.received in INSISTING:
            os._exit(128 + number)
        if self.received is None or number in INSISTING:
            self.received = number
        if not self.training:
            sys.exit(128 + number)

    def __call__(self) -> bool:
        return self.received is not None

    @property
    def status(self) -> int:
        """The exit status of a command that was interrupted."""
        return 128 + (self.received or signal.SIGINT)
