"""`charloom tune`: search for the options that suit a text best."""

from __future__ import annotations

import argparse
import shlex
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charloom.cli.arguments import Parser, add_texts, number, run_folder
from charloom.cli.options import add_training_options, read_options
from charloom.cli.terminal import Interrupts, format_duration, in_bits, progress_bar, say
from charloom.cli.texts import reading_progress, report_text, text_opener_for

if TYPE_CHECKING:
    from charloom.tuning.search import Search
    from charloom.tuning.settings import Trial


# tune


def add_tune_arguments(parser: Parser) -> None:
    from charloom.training.options import NOT_TUNED_OPTIONS

    parser.formatter_class = argparse.HelpFormatter
    add_texts(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="the search's folder (default: runs/NAME-tune)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the search in --out, or start it"
    )
    parser.add_argument("--config", metavar="FILE.toml", help="options in a file")
    parser.add_argument(
        "--trial-minutes",
        type=number,
        help="wall time of a trial (default: a twentieth of all, at least 0.25)",
    )
    minutes = {"minutes": "wall time of the whole search (default: 30)"}
    add_training_options(parser, minutes | dict.fromkeys(NOT_TUNED_OPTIONS, argparse.SUPPRESS))


def run_tune(arguments: argparse.Namespace, started: float) -> int:
    from charloom.text.corpora import text_name
    from charloom.tuning.search import Search

    given = read_options(arguments)
    folder = run_folder(arguments.out, Path("runs") / f"{text_name(arguments.text[0])}-tune")
    with Interrupts() as interrupts, progress_bar() as bar:
        with reading_progress(bar) as report:
            search = Search(
                text_opener_for(bar, arguments.text),
                folder,
                given,
                trial_minutes=arguments.trial_minutes,
                resume=arguments.resume,
                should_stop=interrupts,
                report=report,
                started=started,
            )
        report_text(search.dataset, bar)
        interrupts.training = True
        _watch_search(search, bar)
    if search.interrupted:
        command = ["charloom", "tune", *arguments.text, "--out", str(folder), "--resume"]
        say(f"interrupted; all is saved. To go on: {shlex.join(command)}")
        return 128 + (interrupts.received or signal.SIGINT)
    _conclude_search(search, arguments.text)
    return 0


def _watch_search(search: Search, bar: Any) -> None:
    """Searches, with a bar, and a line for every trial that has ended."""
    settings = search.settings
    searched = ", ".join(name.replace("_", " ") for name in settings.ranges)
    bar.console.print(
        f"searching {searched}; trials of {format_duration(settings.trial_seconds)} each, "
        f"{settings.minutes:g} minutes in all",
        markup=False,
    )
    if search.trials:
        bar.console.print(
            f"going on after {len(search.trials)} trials, {100 * search.done:.0f}% of the time is "
            "spent",
            markup=False,
        )
    task = bar.add_task("searching", total=1.0, figures="")
    drawn, said = -1e9, 0
    best: Trial | None = search.best
    for event in search:
        for note in search.notes[said:]:
            say(note)
        said = len(search.notes)
        if event.progress is None:
            best = search.best
            bar.console.print(_trial_line(event.trial, best), markup=False)
        now = time.monotonic()
        if now - drawn > 0.2:
            drawn = now
            figures = f"trial {event.trial.number}"
            if event.progress is not None:
                figures += (
                    f", {100 * event.progress.done:.0f}% done  step {event.progress.step:,}  loss "
                    f"{event.progress.smoothed_loss:.3f}"
                )
            figures += "" if best is None else f"  best {best.loss:.4f} (trial {best.number})"
            bar.update(task, completed=search.done, figures=figures)
    for note in search.notes[said:]:
        say(note)
    bar.remove_task(task)


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


def _conclude_search(search: Search, sources: Sequence[str]) -> None:
    """What a search that has had its time came to, and what can be done with it."""
    count = {
        state: sum(trial.state == state for trial in search.trials)
        for state in ("complete", "pruned", "failed")
    }
    trials = ", ".join(f"{number_} {state}" for state, number_ in count.items() if number_)
    best, first = search.best, search.trials[0]
    assert best is not None  # or the search had ended with an error
    if search.exhausted:
        say("every combination of what was searched has been tried")
    others = ""
    if best is not first and first.state == "complete" and first.loss is not None:
        others = f"; what charloom would choose itself reached {first.loss:.4f}"
    several = "s" if len(search.trials) > 1 else ""
    say(
        f"the best of {len(search.trials)} trial{several} ({trials}) was trial {best.number}: "
        f"{best.loss:.4f} nats ({in_bits(best.loss or 0):.3f} bits) per character{others}"
    )
    run = shlex.quote(str(search.best_run))
    say(f"its run, trained for {format_duration(search.settings.trial_seconds)}, is {run}. Next:")
    say(f"  charloom sample {run}")
    say(f"  charloom evaluate {run}")
    say(f"to train longer with its options (they are in {search.folder / 'best.toml'} too):")
    say(f"  {shlex.join(search.settings.command(best, sources))}")
    say(f"what was tried: {shlex.quote(str(search.folder / 'report.html'))}")
