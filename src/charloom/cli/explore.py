"""`charloom explore`: write a page of what single units respond to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from charloom.cli.arguments import Parser, add_encoding, add_engine, limit_threads, load_model
from charloom.cli.formatting import counted
from charloom.cli.terminal import Terminal
from charloom.cli.texts import open_for, say_notes
from charloom.errors import CharloomError, plural, printable

if TYPE_CHECKING:
    from charloom.analysis.exploration import Exploration


def add_explore_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="+",
        help="a path, - for standard input, or a corpus; of a collection also a folder",
    )
    parser.add_argument(
        "--out",
        metavar="FILE.html",
        help="write a page with the text colored by unit activation",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--units",
        metavar="h1,h2,...",
        default="",
        help="units to include in the page and the JSON",
    )
    parser.add_argument(
        "--skip-unknown", action="store_true", help="skip unknown characters of TEXT"
    )
    add_encoding(parser, "TEXT")
    add_engine(parser)


def run_explore(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.analysis.exploration import explore
    from charloom.pages.page import check_writable, write_page

    if arguments.units and arguments.out is None and not arguments.json:
        raise CharloomError(
            "--units is for the page and the JSON: add --out FILE.html or --json, or omit it"
        )
    page = None if arguments.out is None else Path(arguments.out)
    if page is not None:
        check_writable(page)
    with limit_threads(arguments.threads):
        model = load_model(arguments, arguments.run, network_only=True)
        text = open_for(model, arguments, terminal)
        with terminal.task("exploring") as on_progress:
            found = explore(
                model,
                text,
                name=text.name,
                units=[unit for unit in arguments.units.split(",") if unit.strip()],
                with_activations=page is not None,
                skip_unknown=arguments.skip_unknown,
                on_progress=on_progress,
            )
        say_notes(text.notes, terminal)
        if page is not None:
            write_page(page, found.page())
    if found.skipped:
        terminal.say(f"{plural(found.skipped, f'unknown {model.vocabulary.unit}')} skipped")
    if arguments.json:
        terminal.print_json_pieces(found.json())
    else:
        _print_exploration(found, terminal)
    if page is not None:
        terminal.say(f"the page is {page} ({page.stat().st_size:,} bytes)")
    return 0


def _print_exploration(found: Exploration, terminal: Terminal) -> None:
    facts = found.as_dict()
    size = counted(len(found.ids), found.documents, found.vocabulary.unit)
    terminal.print(f"{printable(found.text)}: {size}, state {found.protocol}")
    terminal.print()
    terminal.print(
        "Units by correlation with labels: chosen on the first half, confirmed on the second half;"
    )
    terminal.print("the columns 'random' show the best of as many random directions")
    terminal.print()
    terminal.print(f"{'second':>8} {'first':>8} {'unit':<8} {'random':>8} {'first':>8}  label")
    labels = facts["labels"]
    for row in sorted(labels, key=lambda row: -abs(row["second_half"] or 0)):
        if row["first_half"] is None:
            continue
        numbers = [
            "-" if row[name] is None else f"{row[name]:.3f}"
            for name in ("second_half", "first_half", "random_second_half", "random_first_half")
        ]
        terminal.print(
            f"{numbers[0]:>8} {numbers[1]:>8} {row['unit']:<8} {numbers[2]:>8} {numbers[3]:>8}  "
            f"{row['label']}"
        )
    missing = [row["label"] for row in labels if row["first_half"] is None]
    if len(missing) == len(labels):
        terminal.print("No correlations: the text is too short.")
    elif missing:
        terminal.print()
        terminal.print(f"Labels that do not vary in this text: {', '.join(missing)}")
