"""`charloom explore`: write a page of what single units respond to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from charloom.cli.arguments import Parser, add_engine, limit_threads, load_model
from charloom.cli.terminal import print_line, print_pieces, progress_bar, say
from charloom.cli.texts import open_for
from charloom.errors import printable

if TYPE_CHECKING:
    from charloom.analysis.exploration import Exploration


# explore


def add_explore_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument("text", metavar="TEXT", help="a path, - for standard input, or a corpus")
    parser.add_argument(
        "--out", metavar="FILE.html", help="write a page with the text colored by any unit"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--units",
        metavar="h1,h2,...",
        default="",
        help="units that the page and the JSON carry in any case",
    )
    parser.add_argument(
        "--skip-unknown", action="store_true", help="pass over unknown characters of TEXT"
    )
    add_engine(parser)


def run_explore(arguments: argparse.Namespace, started: float) -> int:
    from charloom.analysis.exploration import explore
    from charloom.pages.page import check_writable, write_page

    page = None if arguments.out is None else Path(arguments.out)
    if page is not None:
        check_writable(page)
    with limit_threads(arguments.threads), progress_bar() as bar:
        model = load_model(arguments, arguments.run, network_only=True)
        text = open_for(model, bar, arguments.text)
        task = bar.add_task("exploring", total=None, figures="")

        def report(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of, figures=f"{done:,} of {of:,} characters")

        found = explore(
            model,
            text.read(),
            name=text.name,
            units=[unit for unit in arguments.units.split(",") if unit.strip()],
            with_activations=page is not None,
            skip_unknown=arguments.skip_unknown,
            report=report,
        )
        bar.update(task, total=None, figures="")
        if page is not None:
            write_page(page, found.page())
    if found.skipped:
        say(f"{found.skipped:,} unknown characters were passed over")
    if arguments.json:
        print_pieces(found.json())
    else:
        _print_exploration(found)
    if page is not None:
        say(f"the page is {page} ({page.stat().st_size:,} bytes)")
    return 0


def _print_exploration(found: Exploration) -> None:
    facts = found.as_dict()
    print_line(f"{printable(found.text)}: {len(found.ids):,} characters, state {found.protocol}")
    print_line()
    print_line(
        "What units follow, by correlation: chosen on the first half, confirmed on the second;"
    )
    print_line("the same for the best of as many random directions")
    print_line()
    print_line(f"{'second':>8} {'first':>8} {'unit':<8} {'random':>8} {'first':>8}  label")
    labels = facts["labels"]
    for row in sorted(labels, key=lambda row: -abs(row["second_half"] or 0)):
        if row["first_half"] is None:
            continue
        numbers = [
            "-" if row[name] is None else f"{row[name]:.3f}"
            for name in ("second_half", "first_half", "random_second_half", "random_first_half")
        ]
        print_line(
            f"{numbers[0]:>8} {numbers[1]:>8} {row['unit']:<8} {numbers[2]:>8} {numbers[3]:>8}  "
            f"{row['label']}"
        )
    missing = [row["label"] for row in labels if row["first_half"] is None]
    if len(missing) == len(labels):
        print_line("Nothing: there is too little text for anything in it to vary.")
    elif missing:
        print_line()
        print_line(f"Not to be found in this text: {', '.join(missing)}")
