"""Arguments that several commands share: the parser, number types, texts, engine, folders."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import re
import shlex
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from charloom.errors import CharloomError, shortened

if TYPE_CHECKING:
    from charloom.cli.terminal import Terminal
    from charloom.language_model import LanguageModel


_NEGATIVE_NUMBER = re.compile(r"-\.?\d")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line.

    An option that takes one value takes the next word, also if it begins with a dash as in
    `--stop ---`. The order of options and texts is free.
    """

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        assert args is not None
        return super().parse_args(self._in_order(args), namespace)

    def print_help(self, file: Any = None) -> None:
        # argparse itself ignores a full disk.
        print(self.format_help(), end="", file=file, flush=True)

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        raise CharloomError(f"{' '.join(message.split())} (see {self.prog} --help)")

    def _in_order(self, words: Sequence[str]) -> list[str]:
        """Return words in a form that argparse cannot misread.

        They are the options, each value joined to its option, then `--` and all other words.
        """
        options: list[str] = []
        others: list[str] = []
        rest = deque(words)
        while rest:
            word = rest.popleft()
            if word == "--":
                others.extend(rest)
                break
            if not _looks_like_option(word):
                others.append(word)
                continue
            action = self._option(word)
            if action is None:
                self._refuse_unknown(word)
            if action.nargs is None and word in action.option_strings and rest:
                options.append(f"{word}={self._value(word, action, rest.popleft())}")
                continue
            options.append(word)
            if action.nargs == "+":
                while rest and not _looks_like_option(rest[0]):
                    options.append(rest.popleft())
        return [*options, "--", *others] if others else options

    def _option(self, word: str) -> argparse.Action | None:
        """Return the option that a word such as `--prompt` or `--prompt=text` names, if any."""
        actions = self._option_string_actions
        return actions.get(word) or actions.get(word.partition("=")[0])

    def _value(self, word: str, action: argparse.Action, value: str) -> str:
        """Return the value of an option. Raise CharloomError if it is an option itself."""
        if self._option(value) is not None:
            if action.type not in (None, str):
                self.error(f"{word}: expected one argument")
            joined = shlex.quote(f"{word}={value}")
            self.error(f"{word} has no value before {value}: pass one, or {joined} for this text")
        return value

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # Python 3.11 drops the value of `--stop=--`, and fails.
        if action.option_strings and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def _refuse_unknown(self, word: str) -> NoReturn:
        name = word.partition("=")[0]
        known = [
            option
            for option, action in self._option_string_actions.items()
            if action.help != argparse.SUPPRESS
        ]
        if os.path.lexists(word):
            path = os.path.join(os.curdir, word)  # noqa: PTH118 - a Path would drop the dot
            remedy = f"for the file of this name, pass {shlex.quote(path)}"
        elif similar := difflib.get_close_matches(name, known, 1):
            remedy = f"did you mean {similar[0]}?"
        else:
            remedy = "omit it"
        self.error(f"unknown option {shortened(word)}: {remedy}")


def _looks_like_option(word: str) -> bool:
    """Return whether a word begins with a dash and is neither `-`, a number nor a phrase."""
    name = word.partition("=")[0]  # because a value such as that of `--stop=a b` can have spaces
    return len(word) > 1 and word[0] == "-" and " " not in name and not _NEGATIVE_NUMBER.match(word)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help texts with defaults, of options that have one and do not describe it themselves."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_none = action.default is None or action.default is False or action.default in ("", [])
        if has_none or "default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


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


def add_encoding(parser: Parser, text: str) -> None:
    """Add the options that decode a text, which is not the training text."""
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help=f"encoding of {text} (default: that of the training text, UTF-8, or a recognized one)",
    )
    parser.add_argument(
        "--encoding-errors",
        choices=("strict", "replace"),
        help="invalid bytes are refused, or read as U+FFFD (default: as in training)",
    )


def add_network_only(parser: Parser) -> None:
    """Add --network-only."""
    parser.add_argument(
        "--network-only",
        action="store_true",
        help="use the network's predictions alone, which are not mixed with those of counts",
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
    """Load a run's model with the backend of the options that `add_engine` added.

    With `network_only`, --network-only is left to the caller. Otherwise it is refused if it has no
    effect.
    """
    from charloom.language_model import load

    model = load(
        run,
        engine=arguments.engine,
        threads=arguments.threads,
        device=arguments.device,
        network_only=arguments.network_only if network_only is None else network_only,
    )
    if network_only is None:
        refuse_network_only(arguments, [model])
    return model


def refuse_network_only(arguments: argparse.Namespace, models: Collection[LanguageModel]) -> None:
    """Raise CharloomError if --network-only is passed and has no effect on any of the models."""
    if arguments.network_only and all(model.checkpoint.mixture is None for model in models):
        which = "the model is not a mixture" if len(models) == 1 else "no model is a mixture"
        raise CharloomError(f"--network-only has no effect, because {which}: omit it")


def run_folder(out: str | None, default: Path) -> Path:
    """Return the folder of --out, or the default. Raises CharloomError if --out is empty."""
    if out == "":
        raise CharloomError("--out is empty: pass a folder name or omit it")
    return default if out is None else Path(out)


def refuse_folder_of_another_text(
    sources: Sequence[str], folder: Path, run: Path, kind: Literal["run", "search"]
) -> None:
    """Raise CharloomError if a default folder is in use for a text with another file name.

    Args:
        sources: the texts, as on the command line.
        folder: the folder.
        run: the folder of a run in it, which records its text.
        kind: the content of the folder.
    """
    from charloom.storage.checkpoint import read_header
    from charloom.storage.folders import RESUME_FILE
    from charloom.text.source import ORIGIN_SEPARATOR, shown_origin

    header = read_header(run / RESUME_FILE)
    origin = "" if header is None else str(header.get("text", {}).get("origin", ""))
    given = [Path(source).absolute().name for source in sources]
    if origin and [Path(one).name for one in origin.split(ORIGIN_SEPARATOR)] != given:
        raise CharloomError(
            f"{folder} holds a {kind} of another text, {shown_origin(origin)}: pass another folder "
            "with --out"
        )
