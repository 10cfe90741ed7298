"""Arguments that several commands share: the parser, number types, texts, engine, folders."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from charloom.errors import CharloomError, shortened

if TYPE_CHECKING:
    from charloom.cli.terminal import Terminal
    from charloom.language_model import LanguageModel


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        raise CharloomError(f"{' '.join(message.split())} (see {self.prog} --help)")


@dataclass(frozen=True)
class Command:
    """A command of the command line: its summary, its arguments and what runs it."""

    summary: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace, Terminal], int]


def whole_number(text: str) -> int:
    """Parse an integer; its range is checked where it is used, for every way of passing it."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a whole number") from None


def number(text: str) -> float:
    """Parse a number; its range is checked where it is used."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a number") from None


def length(text: str) -> int | Literal["auto"] | None:
    """Parse a number of characters, `auto`, or `inf` as None."""
    if text == "auto":
        return "auto"
    return None if text == "inf" else whole_number(text)


@contextlib.contextmanager
def limit_threads(count: int | None) -> Iterator[None]:
    """Limit the threads of NumPy's matrix products while a command runs."""
    if count is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    from charloom.training.options import check_option

    check_option("threads", count)
    with threadpool_limits(count, user_api="blas"):
        yield


def add_texts(parser: Parser) -> None:
    """Add the texts to train on."""
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="+",
        help="a path of a file or folder, - for standard input, or a corpus; several texts are "
        "documents of a collection",
    )


def add_network_only(parser: Parser) -> None:
    """Add --network-only."""
    parser.add_argument(
        "--network-only", action="store_true", help="use the network without the n-gram model"
    )


def add_engine(parser: Parser) -> None:
    """Add the options of the backend."""
    parser.add_argument(
        "--engine", default="auto", help="compute backend: auto, compiled, reference or pytorch"
    )
    parser.add_argument(
        "--threads", type=whole_number, help="number of threads (default: all cores)"
    )
    parser.add_argument("--device", default="cpu", help="device of the PyTorch engine: cpu or cuda")


def load_model(
    arguments: argparse.Namespace, run: str, *, network_only: bool | None = None
) -> LanguageModel:
    """Load a run's model with the backend of the options that `add_engine` added."""
    from charloom.language_model import load

    return load(
        run,
        engine=arguments.engine,
        threads=arguments.threads,
        device=arguments.device,
        network_only=arguments.network_only if network_only is None else network_only,
    )


def add_no_arguments(parser: Parser) -> None:
    """Add nothing, for commands without arguments."""
    del parser


def run_folder(out: str | None, default: Path) -> Path:
    """Return the folder of --out, or the default. Raises CharloomError if --out is empty."""
    if out == "":
        raise CharloomError("--out is empty: pass a folder name or omit it")
    return default if out is None else Path(out)
