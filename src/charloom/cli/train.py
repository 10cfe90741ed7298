"""`charloom train`: train a model on a text, or resume a run."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charloom.cli.arguments import Parser, add_texts, run_folder
from charloom.cli.options import add_training_options, given_options
from charloom.cli.terminal import Interrupts, excerpt, format_duration, in_bits, progress_bar, say
from charloom.cli.texts import reading_progress, report_text, text_opener_for

if TYPE_CHECKING:
    from charloom.engines.process_group import ProcessGroup
    from charloom.runs.run import TrainingRun
    from charloom.training.state import Progress


# train


def add_train_arguments(parser: Parser) -> None:
    parser.formatter_class = argparse.HelpFormatter
    add_texts(parser)
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --out, or start it"
    )
    parser.add_argument("--config", metavar="FILE.toml", help="options in a file")
    parser.add_argument(
        "--tensorboard", action="store_true", help="write event files for TensorBoard too"
    )
    add_training_options(parser)


def run_train(arguments: argparse.Namespace, started: float) -> int:
    from charloom.text.corpora import text_name

    given = given_options(arguments)
    folder = run_folder(arguments.out, Path("runs") / text_name(arguments.text[0]))
    command = shlex.join(["charloom", "train", *arguments.text, "--out", str(folder), "--resume"])
    command += " --tensorboard" if arguments.tensorboard else ""
    with contextlib.ExitStack() as stack:
        process_group = stack.enter_context(_process_group(given))
        if not process_group.leads:
            return _follow(arguments.text, given, process_group)
        if process_group.size > 1:
            command = f"torchrun … -m {command}"
            if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0" and not arguments.resume:
                say("ranks that torchrun starts again cannot go on without --resume: add it")
        interrupts, bar = stack.enter_context(Interrupts()), stack.enter_context(progress_bar())
        run = start_run(
            arguments.text,
            folder,
            given,
            interrupts,
            bar,
            started,
            resume=arguments.resume,
            tensorboard=arguments.tensorboard,
            process_group=process_group,
        )
        watch(run, bar)
    status = 0
    if run.interrupted:
        say(f"interrupted at step {run.state.step:,}; all is saved. To go on: {command}")
        status = 128 + (interrupts.received or signal.SIGINT)
    else:
        _conclude(run)
    if process_group.size > 1:
        os._exit(status)  # at an ordinary exit, threads of PyTorch that are left can abort it
    return status


def _process_group(given: dict[str, Any]) -> ProcessGroup:
    """The processes that train together: those that torchrun started, or this one alone."""
    from charloom.engines.distributed import TorchProcessGroup, started_by_torchrun
    from charloom.engines.process_group import SINGLE_PROCESS
    from charloom.training.options import TrainingConfig

    if not started_by_torchrun():
        return SINGLE_PROCESS
    config = TrainingConfig.of(given)  # refuses nonsense
    return TorchProcessGroup(config.rank_timeout, config.device)


def _follow(sources: Sequence[str], given: dict[str, Any], process_group: ProcessGroup) -> int:
    """Run as a follower: rank 0 alone handles signals and prints messages."""
    from charloom.runs.distributed import follow

    for number_ in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number_, signal.SIG_IGN)
    with progress_bar() as bar:
        bar.disable = True
        return 0 if follow(text_opener_for(bar, sources), given, process_group) else 2


def start_run(
    sources: Sequence[str],
    folder: Path,
    given: dict[str, Any],
    interrupts: Interrupts,
    bar: Any,
    started: float,
    **how: Any,
) -> TrainingRun:
    """Opens a run, with a bar while a long text is read, and says what it is. how: more arguments
    of `open_run`."""
    from charloom.runs.opening import open_run
    from charloom.runs.run import RunControl

    with reading_progress(bar) as report:
        control = RunControl(should_stop=interrupts, on_reading=report, started=started)
        run = open_run(text_opener_for(bar, sources), folder, given, control=control, **how)
    config = run.config
    for note in run.notes:
        say(note)
    report_text(run.dataset, bar)
    bar.console.print(
        f"{config.cell} of {config.hidden_size} units, layers: {config.layers}, "
        f"{run.engine.config.parameter_count:,} parameters; {run.batches.rows} rows of "
        f"{config.window} characters; {config.optimizer} at {config.learning_rate:g}; engine "
        f"{run.engine.name}, threads: {run.threads}"
        + (f", ranks: {run.ranks}" if run.ranks > 1 else ""),
        markup=False,
    )
    interrupts.training = True
    return run


def watch(run: TrainingRun, bar: Any, show: Callable[[Progress], None] | None = None) -> None:
    """Trains, with a bar, a line at every validation, and `show` called after each."""
    task = bar.add_task("training", total=1.0, figures="")
    drawn, refit = -1e9, run.state.refit_step is not None
    speeds: list[tuple[float, int]] = []
    said = len(run.notes)
    for progress in run:
        for note in run.notes[said:]:
            say(note)
        said = len(run.notes)
        now = time.monotonic()
        if not refit and run.state.refit_step is not None:
            refit = True
            bar.console.print(
                "from here on it learns from four fifths of the validation part too; the rest is "
                "held against it",
                style="dim",
            )
        if progress.kind == "validation":
            bar.console.print(_validation_line(progress), markup=False)
            if show is not None:
                show(progress)
            elif progress.sample:
                bar.console.print(f"    {excerpt(progress.sample)}", markup=False, style="dim")
        if now - drawn > 0.2:
            drawn = now
            speeds = [*speeds[-20:], (progress.elapsed, progress.characters)]
            bar.update(task, completed=progress.done, figures=_figures(progress, speeds))
    for note in run.notes[said:]:
        say(note)
    bar.remove_task(task)


def _figures(progress: Progress, speeds: list[tuple[float, int]]) -> str:
    (begin, first), (end, last) = speeds[0], speeds[-1]
    rate = (last - first) / (end - begin) if end > begin else 0.0
    left = progress.elapsed * (1 / progress.done - 1) if progress.done > 0 else 0.0
    return (
        f"step {progress.step:,}  epoch {progress.epoch:.2f}  loss {progress.smoothed_loss:.3f}  "
        f"{rate:,.0f} characters/s  {format_duration(left)} left"
    )


def _validation_line(progress: Progress) -> str:
    line = (
        f"{format_duration(progress.elapsed)}  step {progress.step:,}  epoch {progress.epoch:.2f}"
    )
    if progress.loss is not None:
        line += f"  training loss {progress.loss:.4f}"
    if progress.validation is not None:
        nats = progress.validation.nats_per_character
        line += f"  validation {nats:.4f} nats ({in_bits(nats):.3f} bits) per character"
        line += " *" if progress.best else ""
    return line


def _conclude(run: TrainingRun) -> None:
    """What a finished run came to, and what can be done with it."""
    state, folder = run.state, shlex.quote(str(run.folder))
    if state.best_loss is not None:
        say(
            f"the best validation was {state.best_loss:.4f} nats ({in_bits(state.best_loss):.3f} "
            f"bits) per character, at step {state.best_step:,} of {state.step:,}"
            + ("" if state.refit_step is None else ", of what it did not learn from")
        )
    else:
        say(f"trained {state.step:,} steps, with no validation part")
    say(f"the model is {folder}/model.safetensors. Next:")
    say(f"  charloom sample {folder}")
    say(f"  charloom evaluate {folder}")
    say(f"its curves and samples: {folder}/report.html")
