"""`charloom tune`: search for the options that suit a text best."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from charloom.cli.arguments import (
    Parser,
    add_texts,
    number,
    refuse_folder_of_another_text,
    run_folder,
)
from charloom.cli.formatting import format_duration, in_bits
from charloom.cli.options import add_training_options, read_options
from charloom.cli.suggestions import in_shell, path_word, resuming, say_next
from charloom.cli.terminal import Interrupts, Terminal
from charloom.cli.texts import report_text, text_opener
from charloom.errors import plural

if TYPE_CHECKING:
    from charloom.tuning.search import Search, SearchProgress
    from charloom.tuning.settings import Trial


def add_tune_arguments(parser: Parser) -> None:
    from charloom.training.options import NOT_TUNED_OPTIONS, OPTIONS, TUNED_OPTIONS

    add_texts(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="the search's folder (default: runs/NAME-tune)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume the search in --out, or start it"
    )
    parser.add_argument("--config", metavar="FILE.toml", help="TOML file with options")
    parser.add_argument(
        "--trial-minutes",
        type=number,
        help="wall time of a trial (default: a twentieth of --minutes, at least 0.25)",
    )
    helps = {"minutes": "wall time of the whole search (default: 30)"} | {
        name: f"{OPTIONS[name].help.partition(' (default')[0]} (default: searched)"
        for name in TUNED_OPTIONS
    }
    add_training_options(parser, helps | dict.fromkeys(NOT_TUNED_OPTIONS, argparse.SUPPRESS))


def run_tune(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.runs.run import RunControl
    from charloom.text.corpora import text_name
    from charloom.tuning.folder import BEST
    from charloom.tuning.opening import open_search

    options = read_options(arguments)
    folder = run_folder(arguments.out, Path("runs") / f"{text_name(arguments.text[0])}-tune")
    if arguments.out is None and not arguments.resume:
        refuse_folder_of_another_text(arguments.text, folder, folder / BEST, "search")
    with Interrupts() as interrupts, contextlib.ExitStack() as stack:
        with terminal.task("reading") as on_progress:
            opening = open_search(
                text_opener(arguments.text, on_progress),
                folder,
                options,
                trial_minutes=arguments.trial_minutes,
                resume=arguments.resume,
                control=RunControl(
                    should_stop=interrupts,
                    on_reading=on_progress,
                    started=terminal.started,
                    on_wait=terminal.say,
                ),
            )
            search = stack.enter_context(opening)
        report_text(search.dataset, terminal)
        interrupts.training = True
        _watch_search(search, terminal)
    if search.interrupted:
        how = resuming("tune", arguments.text, folder)
        terminal.say(f"interrupted; everything is saved. {how}")
        return interrupts.status
    _conclude_search(search, arguments.text, terminal)
    return 0


def _watch_search(search: Search, terminal: Terminal) -> None:
    """Run the search with a progress bar, and a line for every trial that ended."""
    settings = search.settings
    searched = ", ".join(name.replace("_", " ") for name in settings.ranges)
    terminal.note(
        f"searching {searched}; trials of {format_duration(settings.trial_seconds)} each, "
        f"{plural(settings.minutes, 'minute')} in all"
    )
    if search.trials:
        terminal.note(
            f"resuming after {plural(len(search.trials), 'trial')}, {100 * search.done:.0f}% of "
            "the time used"
        )
    for note in search.notes:
        terminal.say(note)

    def show(event: SearchProgress) -> None:
        if event.progress is None:
            terminal.note(_trial_line(event.trial, search.best))

    def status(event: SearchProgress) -> tuple[str, float, str]:
        details = f"trial {event.trial.number}"
        if event.progress is not None:
            details += (
                f", {100 * event.progress.done:.0f}% done  step {event.progress.step:,}  loss "
                f"{event.progress.smoothed_loss:.3f}"
            )
        if (best := search.best) is not None:
            details += f"  best {best.loss:.4f} (trial {best.number})"
        return "searching", search.done, details

    with contextlib.closing(iter(search)) as events:
        terminal.watch(events, search.notes, show, status)


def _trial_line(trial: Trial, best: Trial | None) -> str:
    loss = "" if trial.loss is None else f"{trial.loss:.4f} nats"
    what = {
        "complete": loss + (" *" if best is not None and best.number == trial.number else ""),
        "pruned": f"pruned after {100 * max((p[0] for p in trial.curve), default=0):.0f}%, {loss}",
        "failed": f"failed: {trial.reason}",
    }[trial.state]
    options = ", ".join(f"{name.replace('_', ' ')} {v}" for name, v in trial.options.items())
    best_so_far = "" if best is None else f"; best {best.loss:.4f}"
    ended = format_duration(trial.ended or 0)
    return f"{ended}  trial {trial.number}: {what}{best_so_far}  [{options}]"


def _conclude_search(search: Search, sources: Sequence[str], terminal: Terminal) -> None:
    """Write the result of a finished search, and the next commands."""
    count = {
        state: sum(trial.state == state for trial in search.trials)
        for state in ("complete", "pruned", "failed")
    }
    trials = ", ".join(f"{number_} {state}" for state, number_ in count.items() if number_)
    best, first = search.best, search.trials[0]
    assert best is not None  # or the search had ended with an error
    if search.exhausted:
        terminal.say("every combination of the searched options has been tried")
    others = ""
    if best is not first and first.state == "complete" and first.loss is not None:
        reached = f"{first.loss:.4f}"
        others = "the same" if reached == f"{best.loss:.4f}" else reached
        others = f"; the options of the planner reached {others}"
    unit = "character" if search.dataset.vocabulary.end_id is None else "symbol"
    terminal.say(
        f"the best of {plural(len(search.trials), 'trial')} ({trials}) was trial {best.number}: "
        f"{best.loss:.4f} nats ({in_bits(best.loss or 0):.3f} bits) per {unit}{others}"
    )
    run = shlex.quote(str(search.best_run))
    terminal.say(
        f"its run, trained for {format_duration(search.settings.trial_seconds)}, is {run}. Next:"
    )
    say_next(search.best_run, search.dataset, terminal)
    piped = ", pipe the same text into this command" if "-" in sources else ""
    terminal.say(
        f"to train longer with its options (they are in {search.folder / 'best.toml'} too){piped}:"
    )
    from charloom.storage.folders import free_folder

    longer = free_folder(search.folder.with_name(f"{search.folder.name}-longer"))
    words = search.settings.command(best, [path_word(source) for source in sources])
    terminal.say(f"  {in_shell(*words, '--out', longer)}")
    terminal.say(f"all trials: {shlex.quote(str(search.folder / 'report.html'))}")
