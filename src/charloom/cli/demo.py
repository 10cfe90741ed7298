"""`charloom demo`: train on a built-in corpus, sample and evaluate, in about a minute."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from charloom.cli.arguments import Parser, number, run_folder, whole_number
from charloom.cli.evaluate import evaluate_model, keep_evaluation_of, print_evaluation
from charloom.cli.suggestions import in_shell
from charloom.cli.terminal import Interrupts, Terminal
from charloom.cli.train import RunRequest, start_run, watch
from charloom.errors import plural

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel
    from charloom.training.state import Progress, TrainingState


DEMO_TEXT = "python-help"
PROMPT, LENGTH, TEMPERATURE = "The ", 400, 0.6  # of the last sample


def add_demo_arguments(parser: Parser) -> None:
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: a new runs/demo)")
    parser.add_argument(
        "--minutes",
        type=number,
        default=1.0,
        help="training time, without imports and the first compilation",
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="random seed")


def run_demo(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.storage.folders import free_folder

    folder = run_folder(arguments.out, free_folder(Path("runs/demo")))
    options = {"minutes": arguments.minutes, "seed": arguments.seed}
    times = Times(terminal)
    shown = [0.0]

    def show(progress: Progress) -> None:
        # Before training, and about every third of it.
        if progress.step == 0 or shown[0] + 0.3 < progress.done < 1:
            shown[0] = progress.done
            when = f"after {plural(progress.step, 'step')}" if progress.step else "before training"
            terminal.note()
            terminal.print(f"--- a sample {when}\n{(progress.sample or '').strip()}\n")

    with Interrupts() as interrupts:
        request = RunRequest([DEMO_TEXT], folder, options, held_up=times.held_up)
        run = start_run(request, terminal, interrupts)
        watch(run, terminal, show)
        if run.interrupted:
            terminal.say(
                f"interrupted; the model so far is in {folder}. Next: "
                f"{in_shell('charloom', 'sample', folder)}"
            )
            return interrupts.status
    times.trained(run.state)
    model = run.model()
    _show_sample(model, folder, arguments.seed, terminal)
    evaluation = evaluate_model(model, terminal)
    print_evaluation(evaluation, model, terminal)
    keep_evaluation_of(folder, evaluation, model, terminal)
    terminal.print(f"\n{times.summary()}")
    _show_next(folder, terminal)
    return 0


class Times:
    """The seconds of the demo: imports, compilation, preparation, training, results."""

    def __init__(self, terminal: Terminal) -> None:
        import charloom.runs.opening  # noqa: F401 - so that it is not counted as training

        self._importing = time.monotonic() - terminal.started
        self._started = terminal.started
        self._preparing = self._training = 0.0

    def held_up(self) -> float:
        """Return the seconds that are not the minute's: of imports and compilation."""
        from charloom.kernels.kernel import seconds_compiling

        return self._importing + seconds_compiling()

    def trained(self, state: TrainingState) -> None:
        """Note the times of a finished run."""
        self._preparing, self._training = state.began, state.elapsed - state.began

    def summary(self) -> str:
        """Return the times up to now in one line."""
        spent = self.held_up() + self._preparing + self._training
        results = time.monotonic() - self._started - spent
        compiling = self.held_up() - self._importing
        once = "once on this machine" if compiling else "kept from an earlier run"
        return (
            f"Seconds: {self._importing:.1f} importing, {compiling:.1f} compiling ({once}), "
            f"{self._preparing:.1f} preparing, {self._training:.1f} training, "
            f"{results:.1f} saving, sampling and evaluating"
        )


def _show_sample(model: LanguageModel, folder: Path, seed: int, terminal: Terminal) -> None:
    """Print a sample, below the command that samples it again."""
    text = model.sample(PROMPT, length=LENGTH, temperature=TEMPERATURE, seed=seed)
    options = f"--prompt '{PROMPT}' --length {LENGTH} --temperature {TEMPERATURE} --seed {seed}"
    terminal.print(f"\n--- {in_shell('charloom', 'sample', folder)} {options}\n{text}\n")


def _show_next(folder: Path, terminal: Terminal) -> None:
    text = "YOUR-TEXT.txt"
    terminal.print(f"\nReport: {folder / 'report.html'} (curves, samples and these results)\nNext:")
    next_commands = {
        in_shell("charloom", "serve", folder, "--open"): "the playground, in a browser",
        in_shell("charloom", "sample", folder, "--prompt", PROMPT): "more samples",
        in_shell("charloom", "train", text, "--minutes", "10"): "your own text",
        in_shell("charloom", "train", "YOUR-LIST.txt", "--lines"): "a list, such as names",
        in_shell("charloom", "evaluate", folder, text): "how well the model predicts a text",
        in_shell("charloom", "corpora"): "built-in texts",
        in_shell("charloom", "train", "--help"): "all options",
    }
    width = max(map(len, next_commands))
    for command, purpose in next_commands.items():
        terminal.print(f"  {command:<{width}}  # {purpose}")
