"""Arguments that several commands share: the parser, number types, texts, engine, folders."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from charloom.errors import CharloomError, shortened

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        raise CharloomError(f"{' '.join(message.split())} (see {self.prog} --help)")


@dataclass(frozen=True)
class Command:
    summary: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace, float], int]


# Values. What a number may be is checked where it is used, for every way of giving it.


def whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a whole number") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a number") from None


def length(text: str) -> int | None:
    return None if text == "inf" else whole_number(text)


@contextlib.contextmanager
def limit_threads(count: int | None) -> Iterator[None]:
    if count is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    from charloom.training.options import check_option

    check_option("threads", count)
    with threadpool_limits(count, user_api="blas"):
        yield


def add_texts(parser: Parser) -> None:
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="+",
        help="a path, - for standard input, or a corpus; several are joined, in that order",
    )


def add_network_only(parser: Parser) -> None:
    parser.add_argument(
        "--network-only", action="store_true", help="leave out the counts that a model mixes in"
    )


def add_engine(parser: Parser) -> None:
    parser.add_argument(
        "--engine", default="auto", help="what computes: auto, compiled, reference or pytorch"
    )
    parser.add_argument(
        "--threads", type=whole_number, help="threads to compute with (default: all cores)"
    )
    parser.add_argument(
        "--device", default="cpu", help="where the engine pytorch computes: cpu or cuda"
    )


def load_model(
    arguments: argparse.Namespace, run: str, *, network_only: bool | None = None
) -> LanguageModel:
    """A run's model, with what computes as _add_engine's options say."""
    from charloom.language_model import load

    return load(
        run,
        engine=arguments.engine,
        threads=arguments.threads,
        device=arguments.device,
        network_only=arguments.network_only if network_only is None else network_only,
    )


# corpora


def add_no_arguments(parser: Parser) -> None:
    del parser


def run_folder(given: str | None, default: Path) -> Path:
    if given == "":
        raise CharloomError("--out is empty: give a folder's name, or leave it out")
    return default if given is None else Path(given)
