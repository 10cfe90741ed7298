"""`charloom demo`: train on a built-in corpus, sample and evaluate, in about a minute."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from charloom.cli.arguments import Parser, number, run_folder, whole_number
from charloom.cli.evaluate import evaluate_model, keep_evaluation_of, print_evaluation
from charloom.cli.suggestions import in_shell
from charloom.cli.terminal import Interrupts, Terminal
from charloom.cli.train import RunRequest, start_run, watch
from charloom.errors import plural

if TYPE_CHECKING:
    from charloom.training.state import Progress


DEMO_TEXT = "python-help"


def add_demo_arguments(parser: Parser) -> None:
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: a new runs/demo)")
    parser.add_argument("--minutes", type=number, default=1.0, help="training time")
    parser.add_argument("--seed", type=whole_number, default=0, help="random seed")


def run_demo(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.storage.folders import free_folder

    folder = run_folder(arguments.out, free_folder(Path("runs/demo")))
    options = {"minutes": arguments.minutes, "seed": arguments.seed}
    shown = [0.0]

    def show(progress: Progress) -> None:
        # Before training, about every third of it, and after.
        if progress.step == 0 or progress.done >= 1 or progress.done > shown[0] + 0.3:
            shown[0] = progress.done
            when = f"after {plural(progress.step, 'step')}" if progress.step else "before training"
            terminal.note()
            terminal.print(f"--- a sample {when}\n{(progress.sample or '').strip()}\n")

    with Interrupts() as interrupts:
        run = start_run(RunRequest([DEMO_TEXT], folder, options), terminal, interrupts)
        watch(run, terminal, show)
        if run.interrupted:
            terminal.say(
                f"interrupted; the model so far is in {folder}. Next: "
                f"{in_shell('charloom', 'sample', folder)}"
            )
            return interrupts.status
    model = run.model()
    evaluation = evaluate_model(model, terminal)
    print_evaluation(evaluation, model, terminal)
    keep_evaluation_of(folder, evaluation, model, terminal)
    next_commands = {
        in_shell("charloom", "sample", folder, "--prompt", "The "): "more samples",
        "charloom train YOUR-TEXT.txt --minutes 10": "your own text",
        "charloom train YOUR-LIST.txt --lines": "a list, such as names",
        in_shell("charloom", "evaluate", folder, "YOUR-TEXT.txt"): "how well it predicts a text",
        "charloom corpora": "built-in texts",
        "charloom train --help": "all options",
    }
    width = max(map(len, next_commands))
    terminal.print("\nNext:")
    for command, purpose in next_commands.items():
        terminal.print(f"  {command:<{width}}  # {purpose}")
    return 0
