"""`charloom compress`: write a text in few bytes, without loss."""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path
from typing import IO, cast

from charloom.cli.arguments import Parser, number
from charloom.cli.formatting import format_duration
from charloom.cli.terminal import Terminal
from charloom.errors import CharloomError, error_reason, quoted_path
from charloom.progress import OnProgress

SUFFIX = ".loom"
PIPE = "-"
MEASURED_SECONDS, LONG_SECONDS = 1.0, 10.0
BLOCK = 1 << 20  # bytes that are read at a time


def add_compress_arguments(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="any file, or - for standard input")
    add_output(parser, f"the compressed file (default: FILE{SUFFIX}, or - for -)")
    add_model(parser)
    parser.add_argument(
        "--minutes",
        type=number,
        help="time limit; a network learns the text too if there is time (default: no network)",
    )


def add_output(parser: Parser, help_text: str) -> None:
    """Add the options of the file that is written."""
    parser.add_argument("--out", "-o", metavar="FILE", help=f"{help_text}; - is standard output")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def add_model(parser: Parser) -> None:
    """Add the option of a model that both sides have."""
    parser.add_argument(
        "--model",
        metavar="RUN",
        help="a run's folder, a checkpoint, or english for the base model of the package; needed "
        "to decompress too",
    )


def run_compress(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.compression.api import LARGEST, compress

    out = arguments.out
    if out is None:
        out = PIPE if arguments.file == PIPE else arguments.file + SUFFIX
    check_output(arguments.file, out, arguments.force, terminal)
    text = read_whole(arguments.file, LARGEST)
    began = time.monotonic()
    with terminal.task("compressing") as on_progress:
        found = compress(
            text,
            arguments.model,
            minutes=arguments.minutes,
            on_progress=announced(on_progress, terminal),
        )
    write_whole(out, found, terminal)
    if out != PIPE:
        seconds = time.monotonic() - began
        share = 100 * len(found) / max(1, len(text))
        terminal.say(
            f"{out}: {len(text):,} bytes to {len(found):,} ({share:.1f}%) in {seconds:.1f} s"
        )
    return 0


def check_output(source: str, out: str, force: bool, terminal: Terminal) -> None:
    """Check that the result can be written, before anything is computed.

    Raises:
        CharloomError: if it cannot, or if a file would be lost.
    """
    if out == PIPE:
        terminal.output()
        if sys.stdout.isatty():
            raise CharloomError("the result is not for a terminal: name a file with --out")
        return
    from charloom.pages.page import check_writable

    path = Path(out)
    if path.is_file() and not force:
        raise CharloomError(f"{quoted_path(path)} exists: replace it with --force, or use --out")
    if source != PIPE and path.exists() and path.samefile(source):
        raise CharloomError(f"{quoted_path(path)} is the file to read: pass another --out")
    check_writable(path, page=False)


def announced(on_progress: OnProgress, terminal: Terminal) -> OnProgress:
    """Return a callback that also reports the duration of a long job, after its first second."""
    began: list[tuple[float, int]] = []
    said: list[str] = []

    def update(stage: str, done: int, total: int | None) -> None:
        on_progress(stage, done, total)
        if not began:
            began.append((time.monotonic(), done))
            return
        seconds = time.monotonic() - began[0][0]
        if total is None or said or seconds < MEASURED_SECONDS or done <= began[0][1]:
            return
        speed = (done - began[0][1]) / seconds
        said.append(stage)
        if total / speed > LONG_SECONDS:
            terminal.say(
                f"{stage} {total:,} characters takes about {format_duration(total / speed)} "
                f"({speed:,.0f} a second, {peak_memory():,} MB so far)"
            )

    return update


def peak_memory() -> int:
    """Return the most memory that the process has had, in megabytes, 0 where it is unknown."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


def read_whole(source: str, most: int) -> bytes:
    """Return the bytes of a file, or of standard input, but not many more than `most`.

    Raises:
        CharloomError: if it cannot be read.
    """
    try:
        if source != PIPE:
            with Path(source).open("rb") as file:
                return _read(file, most + 1)
        if sys.stdin is None:
            raise CharloomError("standard input is closed: pipe a file into it, or pass a path")
        return _read(cast(IO[bytes], sys.stdin.buffer), most + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, CharloomError):
            raise
        raise CharloomError(
            f"cannot read {quoted_path(source)} ({error_reason(error)}): pass the path of a file"
        ) from None


def _read(file: IO[bytes], most: int) -> bytes:
    """Return up to `most` bytes, without memory for more than there are."""
    found = io.BytesIO()
    while most > 0:
        block = file.read(min(BLOCK, most))
        found.write(block)
        most = most - len(block) if len(block) == BLOCK else 0
    return found.getvalue()


def write_whole(out: str, data: bytes, terminal: Terminal) -> None:
    """Write a result, whole or not at all. Raises CharloomError."""
    from charloom.storage.atomic import write_atomically

    if out == PIPE:
        stream = terminal.output()
        stream.write(data)
        stream.flush()
        return
    try:
        write_atomically(Path(out).resolve(), data)
    except OSError as error:
        raise CharloomError(
            f"cannot write {quoted_path(out)} ({error_reason(error)}): use another file"
        ) from None
