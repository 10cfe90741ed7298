"""`charloom train`: train a model on a text, or resume a run."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charloom.cli.arguments import Parser, add_texts, refuse_folder_of_another_text, run_folder
from charloom.cli.formatting import excerpt, format_duration, in_bits
from charloom.cli.options import add_training_options, read_options
from charloom.cli.suggestions import resuming, say_next
from charloom.cli.terminal import STOPPING, Interrupts, Terminal
from charloom.cli.texts import report_text, text_opener
from charloom.errors import CharloomError, plural

if TYPE_CHECKING:
    from charloom.engines.process_group import ProcessGroup
    from charloom.runs.run import TrainingRun
    from charloom.training.state import Progress


def add_train_arguments(parser: Parser) -> None:
    add_texts(parser)
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument(
        "--resume", action="store_true", help="resume the run in --out, or start it"
    )
    parser.add_argument("--config", metavar="FILE.toml", help="TOML file with options")
    parser.add_argument(
        "--tensorboard", action="store_true", help="also write event files for TensorBoard"
    )
    add_training_options(parser)


@dataclass(frozen=True)
class RunRequest:
    """A command's texts, folder and options.

    `held_up` returns the seconds that do not count against --minutes.
    """

    sources: Sequence[str]
    folder: Path
    options: dict[str, Any]
    resume: bool = False
    tensorboard: bool = False
    held_up: Callable[[], float] | None = None

    def resuming(self, launcher: str = "") -> str:
        """Return how to resume the run."""
        options = ["--tensorboard"] if self.tensorboard else []
        return resuming("train", self.sources, self.folder, *options, launcher=launcher)


def run_train(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.text.corpora import text_name

    options = read_options(arguments)
    folder = run_folder(arguments.out, Path("runs") / text_name(arguments.text[0]))
    if arguments.out is None and not arguments.resume:
        refuse_folder_of_another_text(arguments.text, folder, folder, "run")
    request = RunRequest(arguments.text, folder, options, arguments.resume, arguments.tensorboard)
    launcher = ""
    with contextlib.ExitStack() as stack:
        process_group = stack.enter_context(_process_group(options))
        if not process_group.leads:
            return _follow(request, process_group)
        if process_group.size > 1:
            launcher = "torchrun … -m "
            if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0" and not request.resume:
                terminal.say("processes restarted by torchrun cannot resume: add --resume")
        interrupts = stack.enter_context(Interrupts())
        run = start_run(request, terminal, interrupts, process_group)
        watch(run, terminal)
    status = 0
    if run.interrupted:
        terminal.say(
            f"interrupted at step {run.state.step:,}, everything is saved. "
            f"{request.resuming(launcher)}"
        )
        status = interrupts.status
    else:
        _conclude(run, terminal)
    if process_group.size > 1:
        os._exit(status)  # at an ordinary exit, remaining threads of PyTorch can abort it
    return status


def _process_group(options: dict[str, Any]) -> ProcessGroup:
    """Join the processes that torchrun started, or return the group of this one alone."""
    from charloom.engines.distributed import TorchProcessGroup, started_by_torchrun
    from charloom.engines.process_group import SINGLE_PROCESS
    from charloom.training.options import TrainingConfig

    if not started_by_torchrun():
        if "rank_timeout" in options:
            raise CharloomError(
                "--rank-timeout is for the processes that torchrun starts: omit it, or use torchrun"
            )
        return SINGLE_PROCESS
    config = TrainingConfig.of(options)  # checks the options
    return TorchProcessGroup(config.rank_timeout, config.device)


def _follow(request: RunRequest, process_group: ProcessGroup) -> int:
    """Run as a follower: rank 0 alone handles signals and prints messages."""
    from charloom.runs.distributed import follow

    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    opener = text_opener(request.sources, lambda *_: None)
    return 0 if follow(opener, request.options, process_group) else 2


def start_run(
    request: RunRequest,
    terminal: Terminal,
    interrupts: Interrupts,
    process_group: ProcessGroup | None = None,
) -> TrainingRun:
    """Open a run, with a progress bar while a long text is read, and describe it."""
    from charloom.engines.process_group import SINGLE_PROCESS
    from charloom.runs.opening import open_run
    from charloom.runs.run import RunControl

    with terminal.task("reading") as on_progress:
        run = open_run(
            text_opener(request.sources, on_progress),
            request.folder,
            request.options,
            resume=request.resume,
            tensorboard=request.tensorboard,
            control=RunControl(
                should_stop=interrupts,
                every_step=False,
                on_reading=on_progress,
                started=terminal.started,
                held_up=request.held_up,
            ),
            process_group=process_group or SINGLE_PROCESS,
        )
    config = run.config
    for note in run.notes:
        terminal.say(note)
    report_text(run.dataset, terminal)
    terminal.note(
        f"{config.cell}, {config.layers} × {plural(config.hidden_size, 'unit')}, "
        f"{run.engine.config.parameter_count:,} parameters; {plural(run.batches.rows, 'row')} of "
        f"{plural(config.window, run.dataset.vocabulary.unit)}, {config.optimizer} at "
        f"{config.learning_rate:g}, engine {run.engine.name}, threads: {run.threads}"
        + (f", ranks: {run.ranks}" if run.ranks > 1 else "")
    )
    interrupts.training = True
    return run


def watch(
    run: TrainingRun, terminal: Terminal, show_sample: Callable[[Progress], None] | None = None
) -> None:
    """Train with a progress bar, and a line at every validation.

    Args:
        run: the run, which trains while it is iterated over.
        terminal: the command's output.
        show_sample: called at every validation; by default an excerpt of the sample is shown.
    """
    refit = run.state.refit_step is not None
    marks_best = run.config.keep == "best"
    vocabulary = run.dataset.vocabulary
    lines = vocabulary.end_id is not None and "\n" not in vocabulary.characters
    speeds: list[tuple[float, int]] = []

    def show(progress: Progress) -> None:
        nonlocal refit
        if not refit and run.state.refit_step is not None:
            refit = True
            terminal.note(
                "from now on 80% of the validation split is also used for training; the other 20% "
                "is used for validation",
                dim=True,
            )
        if progress.kind == "validation":
            terminal.note(_validation_line(progress, _unit(run), marks_best=marks_best))
            if show_sample is not None:
                show_sample(progress)
            elif progress.sample:
                sample = progress.sample.replace("\n", " · ") if lines else progress.sample
                terminal.note(f"    {excerpt(sample)}", dim=True)

    def status(progress: Progress) -> tuple[str, float, str]:
        speeds[:-20] = []
        speeds.append((progress.elapsed, progress.characters))
        return "training", progress.done, _details(progress, speeds)

    terminal.watch(run, run.notes, show, status)


def _details(progress: Progress, speeds: list[tuple[float, int]]) -> str:
    (begin, first), (end, last) = speeds[0], speeds[-1]
    rate = (last - first) / (end - begin) if end > begin else 0.0
    left = progress.elapsed * (1 / progress.done - 1) if progress.done > 0 else 0.0
    return (
        f"step {progress.step:,}  epoch {progress.epoch:.2f}  loss {progress.smoothed_loss:.3f}  "
        f"{rate:,.0f} characters/s  {format_duration(left)} left"
    )


def _unit(run: TrainingRun) -> str:
    """Return the unit of losses: the ends of documents are symbols, too."""
    vocabulary = run.dataset.vocabulary
    return vocabulary.unit if vocabulary.end_id is None else "symbol"


def _validation_line(progress: Progress, unit: str, *, marks_best: bool) -> str:
    line = (
        f"{format_duration(progress.elapsed)}  step {progress.step:,}  epoch {progress.epoch:.2f}"
    )
    if progress.loss is not None:
        line += f"  training loss {progress.loss:.4f}"
    if progress.validation is not None:
        nats = progress.validation.nats_per_character
        line += f"  validation {nats:.4f} nats ({in_bits(nats):.3f} bits) per {unit}"
        line += " *" if progress.best and marks_best else ""
    return line


def _conclude(run: TrainingRun, terminal: Terminal) -> None:
    """Write the result of a finished run, and the next commands."""
    state, folder = run.state, shlex.quote(str(run.folder))
    if state.best_loss is not None:
        which = "best" if run.config.keep == "best" else "last"
        terminal.say(
            f"{which} validation loss: {state.best_loss:.4f} nats ({in_bits(state.best_loss):.3f} "
            f"bits) per {_unit(run)} at step {state.best_step:,} of {state.step:,}"
            + ("" if state.refit_step is None else ", on the part that was not used for training")
        )
        if state.best_step == 0 and state.step > 0:
            terminal.say(
                "the weights of step 0 are kept, an untrained network: it has the best loss on "
                f"the {plural(len(run.dataset.validation), _unit(run))} of the validation split. "
                "Use --keep last, or train on more text"
            )
    else:
        terminal.say(
            f"trained {plural(state.step, 'step')} without a validation split: the last weights "
            "are kept"
        )
    terminal.say(f"saved {folder}/model.safetensors. Next:")
    say_next(run.folder, run.dataset, terminal)
    terminal.say(f"curves and samples: {folder}/report.html")
