"""The command line: find the command, run it, and turn errors into one line and exit status 2.

Standard output carries results (text, tables, JSON), standard error everything else. A command's
module is imported when it runs, and heavy imports are inside the functions that need them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from charloom.cli.arguments import Command, HelpFormatter, Parser
from charloom.cli.terminal import Terminal
from charloom.errors import CharloomError, CharloomWarning, LostRanksError, error_reason, shortened
from charloom.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, and return its exit status."""
    terminal = Terminal()
    # Print an escape for a character that the terminal's encoding lacks.
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with _warnings_said(terminal):
            status = _dispatch(list(sys.argv[1:] if arguments is None else arguments), terminal)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except LostRanksError as error:
        terminal.say(str(error))
        os._exit(2)  # because PyTorch's threads, which wait for the lost processes, would abort
    except CharloomError as error:
        terminal.say(str(error))
        return 2
    except KeyboardInterrupt:
        terminal.say("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of standard output is gone, so buffered output must not be written at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except MemoryError:
        terminal.say("not enough memory: use a smaller model, batch or text")
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        terminal.say(f"{place}{error_reason(error)}")
        return 2


@contextlib.contextmanager
def _warnings_said(terminal: Terminal) -> Iterator[None]:
    """Write the warnings of the package like other messages."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CharloomWarning)
        show = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, CharloomWarning):
                terminal.say(str(message))
            else:
                show(message, category, *place, **more)

        warnings.showwarning = say
        yield


def _dispatch(arguments: list[str], terminal: Terminal) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        terminal.print(_overview())
        return 0
    if arguments[:1] == ["--version"]:
        terminal.print(f"charloom {__version__}")
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        wrong = f"unknown command {shortened(arguments[0])}: " if arguments else ""
        raise CharloomError(f"{wrong}use one of {', '.join(COMMANDS)} (see charloom --help)")
    name, rest = arguments[0], arguments[1:]
    command = COMMANDS[name]
    parser = Parser(
        prog=f"charloom {name}",
        description=command.summary,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    command.add_arguments(parser)
    return command.run(parser.parse_args(rest), terminal)


def whole_parser() -> Parser:
    """Return one parser of all commands, for shell completion and the manual page."""
    from charloom.cli.completion import make_parser

    commands = {name: (c.summary, c.add_arguments) for name, c in COMMANDS.items()}
    return make_parser(commands, __version__)


def _overview() -> str:
    lines = [
        "usage: charloom COMMAND ... (details: charloom COMMAND --help)",
        "",
        "Train a recurrent language model on the characters of your own text, on a CPU.",
        "",
        *(f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()),
        "",
        "  --version  print the version",
    ]
    return "\n".join(lines)


def _command(summary: str, name: str, module: str | None = None) -> Command:
    """Return a command whose module in `cli/`, by default of its name, is imported when it runs."""

    def call(function: str, *arguments: Any) -> Any:
        found = importlib.import_module(f"charloom.cli.{module or name}")
        return getattr(found, function)(*arguments)

    return Command(summary, partial(call, f"add_{name}_arguments"), partial(call, f"run_{name}"))


def _complete(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.cli.completion import run_completion

    return run_completion(arguments, terminal, whole_parser())


COMMANDS = {
    "demo": _command("train for a minute on a built-in text, sample and evaluate", "demo"),
    "train": _command("train a model on a text", "train"),
    "tune": _command("search for the best options for a text in many short trials", "tune"),
    "sample": _command("sample text from a model", "sample"),
    "evaluate": _command("compare a model's predictions with baselines", "evaluate"),
    "fill": _command("fill the blanks of a text", "fill"),
    "score": _command("measure how surprising each character or line of a text is", "score"),
    "explore": _command("find units that follow properties of a text", "explore"),
    "report": _command(
        "write a page with the curves, samples and metrics of one or more runs", "report"
    ),
    "compress": _command("compress a text without loss, alone or with a model", "compress"),
    "decompress": _command("restore a compressed text", "decompress"),
    "serve": _command("serve models over an OpenAI-compatible HTTP API", "serve"),
    "info": _command("show what is in a checkpoint", "info"),
    "export": _command(
        "export a model as a web page, or to PyTorch, ONNX or Hugging Face", "export", "exchange"
    ),
    "import": _command("import a PyTorch state dict", "import", "exchange"),
    "corpora": _command("list the built-in corpora", "corpora"),
    "completion": replace(
        _command(
            "print the script that completes commands, options and files in a shell", "completion"
        ),
        run=_complete,
    ),
}
