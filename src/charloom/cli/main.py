"""The command line: one thin function a command. Errors are one line, and exit with status 2.

Standard output carries what was asked for (text, tables, JSON), standard error all else. Heavy
imports stand inside the functions that need them, so that --help is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence

from charloom.cli.arguments import Command, Parser, add_no_arguments
from charloom.cli.corpora import run_corpora
from charloom.cli.demo import add_demo_arguments, run_demo
from charloom.cli.evaluate import add_evaluate_arguments, run_evaluate
from charloom.cli.exchange import add_export_arguments, add_import_arguments, run_export, run_import
from charloom.cli.explore import add_explore_arguments, run_explore
from charloom.cli.info import add_info_arguments, run_info
from charloom.cli.report import add_report_arguments, run_report
from charloom.cli.sample import add_sample_arguments, run_sample
from charloom.cli.score import add_score_arguments, run_score
from charloom.cli.serve import add_serve_arguments, run_serve
from charloom.cli.terminal import print_line, say
from charloom.cli.train import add_train_arguments, run_train
from charloom.cli.tune import add_tune_arguments, run_tune
from charloom.errors import CharloomError, LostRanksError, shortened
from charloom.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name and returns its exit status."""
    started = time.monotonic()
    # A terminal that lacks a character shows its escape instead.
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = _dispatch(list(sys.argv[1:] if arguments is None else arguments), started)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except LostRanksError as error:
        say(str(error))
        os._exit(2)  # PyTorch's threads, which wait for those that are lost, would abort
    except CharloomError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone. What is still buffered must not be written at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except MemoryError:
        say("there is not enough memory: use a smaller model, batch or text")
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        say(f"{place}{error.strerror or error}")
        return 2


def _dispatch(arguments: list[str], started: float) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        print_line(_overview())
        return 0
    if arguments[:1] == ["--version"]:
        print_line(f"charloom {__version__}")
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        wrong = f"there is no command {shortened(arguments[0])}: " if arguments else ""
        raise CharloomError(f"{wrong}give one of {', '.join(COMMANDS)} (see charloom --help)")
    name, rest = arguments[0], arguments[1:]
    command = COMMANDS[name]
    parser = Parser(
        prog=f"charloom {name}",
        description=command.summary,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_arguments(parser)
    return command.run(parser.parse_args(rest), started)


def _overview() -> str:
    lines = [
        "usage: charloom COMMAND ... (charloom COMMAND --help tells more)",
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
        "train for a minute on a text that Python carries, and show what was learned",
        add_demo_arguments,
        run_demo,
    ),
    "train": Command("train a model on a text", add_train_arguments, run_train),
    "tune": Command(
        "search for the options that learn a text best, in many short trainings",
        add_tune_arguments,
        run_tune,
    ),
    "sample": Command("draw text from a model", add_sample_arguments, run_sample),
    "evaluate": Command(
        "measure how well a model predicts, beside baselines", add_evaluate_arguments, run_evaluate
    ),
    "score": Command(
        "measure how surprising each character or line of a text is", add_score_arguments, run_score
    ),
    "explore": Command(
        "find out what a network's units track in a text", add_explore_arguments, run_explore
    ),
    "report": Command(
        "draw a run's curves, samples and figures, or several runs beside each other, as a page",
        add_report_arguments,
        run_report,
    ),
    "serve": Command(
        "serve models over an OpenAI-compatible HTTP API",
        add_serve_arguments,
        run_serve,
    ),
    "info": Command("tell what a checkpoint is", add_info_arguments, run_info),
    "export": Command(
        "write a model's network for PyTorch or as an ONNX graph, or the model for Hugging Face",
        add_export_arguments,
        run_export,
    ),
    "import": Command(
        "make a model of a PyTorch state dict and a vocabulary",
        add_import_arguments,
        run_import,
    ),
    "corpora": Command("list the texts that have a name", add_no_arguments, run_corpora),
}
