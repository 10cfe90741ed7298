"""The command line: find the command, run it, and turn errors into one line and exit status 2.

Standard output carries results (text, tables, JSON), standard error everything else. Heavy imports
are inside the functions that need them, so that --help is quick.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from charloom.cli.arguments import Command, HelpFormatter, Parser, add_no_arguments
from charloom.cli.completion import add_completion_arguments, make_parser, run_completion
from charloom.cli.compress import add_compress_arguments, run_compress
from charloom.cli.corpora import run_corpora
from charloom.cli.decompress import add_decompress_arguments, run_decompress
from charloom.cli.demo import add_demo_arguments, run_demo
from charloom.cli.evaluate import add_evaluate_arguments, run_evaluate
from charloom.cli.exchange import add_export_arguments, add_import_arguments, run_export, run_import
from charloom.cli.explore import add_explore_arguments, run_explore
from charloom.cli.fill import add_fill_arguments, run_fill
from charloom.cli.info import add_info_arguments, run_info
from charloom.cli.report import add_report_arguments, run_report
from charloom.cli.sample import add_sample_arguments, run_sample
from charloom.cli.score import add_score_arguments, run_score
from charloom.cli.serve import add_serve_arguments, run_serve
from charloom.cli.terminal import Terminal
from charloom.cli.train import add_train_arguments, run_train
from charloom.cli.tune import add_tune_arguments, run_tune
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


COMMANDS = {
    "demo": Command(
        "train for a minute on a built-in text, sample and evaluate",
        add_demo_arguments,
        run_demo,
    ),
    "train": Command("train a model on a text", add_train_arguments, run_train),
    "tune": Command(
        "search for the best options for a text in many short trials",
        add_tune_arguments,
        run_tune,
    ),
    "sample": Command("sample text from a model", add_sample_arguments, run_sample),
    "evaluate": Command(
        "compare a model's predictions with baselines",
        add_evaluate_arguments,
        run_evaluate,
    ),
    "fill": Command("fill the blanks of a text", add_fill_arguments, run_fill),
    "score": Command(
        "measure how surprising each character or line of a text is", add_score_arguments, run_score
    ),
    "explore": Command(
        "find units that follow properties of a text",
        add_explore_arguments,
        run_explore,
    ),
    "report": Command(
        "write a page with the curves, samples and metrics of one or more runs",
        add_report_arguments,
        run_report,
    ),
    "compress": Command(
        "compress a text without loss, alone or with a model",
        add_compress_arguments,
        run_compress,
    ),
    "decompress": Command("restore a compressed text", add_decompress_arguments, run_decompress),
    "serve": Command(
        "serve models over an OpenAI-compatible HTTP API",
        add_serve_arguments,
        run_serve,
    ),
    "info": Command("show what is in a checkpoint", add_info_arguments, run_info),
    "export": Command(
        "export a model as a web page, or to PyTorch, ONNX or Hugging Face",
        add_export_arguments,
        run_export,
    ),
    "import": Command(
        "import a PyTorch state dict",
        add_import_arguments,
        run_import,
    ),
    "corpora": Command("list the built-in corpora", add_no_arguments, run_corpora),
    "completion": Command(
        "print the script that completes commands, options and files in a shell",
        add_completion_arguments,
        lambda arguments, terminal: run_completion(arguments, terminal, whole_parser()),
    ),
}
