"""`charloom demo`: train on a built-in corpus, sample and evaluate, in about a minute."""

from __future__ import annotations

import argparse
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from charloom.cli.arguments import Parser, number, run_folder, whole_number
from charloom.cli.evaluate import evaluate_model, keep_evaluation_of, print_evaluation
from charloom.cli.terminal import Interrupts, print_line, progress_bar, say
from charloom.cli.train import start_run, watch

if TYPE_CHECKING:
    from charloom.training.state import Progress


DEMO_TEXT = "python-docs"


# demo


def add_demo_arguments(parser: Parser) -> None:
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: a new runs/demo)")
    parser.add_argument("--minutes", type=number, default=1.0, help="how long to train")
    parser.add_argument("--seed", type=whole_number, default=0, help="of every random number")


def run_demo(arguments: argparse.Namespace, started: float) -> int:
    folder = run_folder(arguments.out, _new_folder(Path("runs/demo")))
    given = {"minutes": arguments.minutes, "seed": arguments.seed}
    shown = [0.0]

    def show(progress: Progress) -> None:
        # Before training, about every third of it, and after.
        if progress.step == 0 or progress.done >= 1 or progress.done > shown[0] + 0.3:
            shown[0] = progress.done
            when = "before training" if progress.step == 0 else f"after {progress.step:,} steps"
            bar.console.print()
            print_line(f"--- a sample {when}\n{(progress.sample or '').strip()}\n")

    with Interrupts() as interrupts:
        with progress_bar() as bar:
            run = start_run([DEMO_TEXT], folder, given, interrupts, bar, started)
            watch(run, bar, show)
        if run.interrupted:
            say(f"interrupted; what was learned is in {folder}: charloom sample {folder}")
            return 128 + (interrupts.received or signal.SIGINT)
    with progress_bar() as bar:
        model = run.model()
        evaluation = evaluate_model(model, bar)
    print_evaluation(evaluation, model)
    keep_evaluation_of(folder, evaluation, model)
    name = shlex.quote(str(folder))
    print_line(
        f"""
Next:
  charloom sample {name} --prompt "The " --temperature 0.7    more from this model
  charloom train YOUR-TEXT.txt --minutes 10                   your own text
  charloom evaluate {name} YOUR-TEXT.txt                      how well it predicts another
  charloom corpora                                            texts to play with
  charloom train --help                                       all there is to choose"""
    )
    return 0


def _new_folder(folder: Path) -> Path:
    number_ = 1
    candidate = folder
    while candidate.exists():
        number_ += 1
        candidate = folder.with_name(f"{folder.name}-{number_}")
    return candidate
