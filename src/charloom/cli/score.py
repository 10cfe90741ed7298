"""`charloom score`: print how surprising a text is, by character or by line."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from charloom.cli.arguments import (
    Parser,
    add_engine,
    add_network_only,
    limit_threads,
    load_model,
    whole_number,
)
from charloom.cli.terminal import Terminal
from charloom.cli.texts import open_for
from charloom.errors import CharloomError, printable

if TYPE_CHECKING:
    from charloom.analysis.surprisal import Surprisal
    from charloom.language_model import LanguageModel


def add_score_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument("text", metavar="TEXT", help="a path, - for standard input, or a corpus")
    parser.add_argument(
        "--lines", action="store_true", help="score each line separately, most surprising first"
    )
    parser.add_argument(
        "--html", metavar="FILE.html", help="write a page with the text colored by its surprisal"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, by character or line")
    parser.add_argument("--csv", action="store_true", help="print CSV, by character or line")
    parser.add_argument(
        "--top", type=whole_number, help="places or lines to list (default: 10 places, all lines)"
    )
    parser.add_argument(
        "--protocol", default="carried", help="carried, adaptive, or cold-N like cold-256"
    )
    parser.add_argument(
        "--training-text", metavar="TEXT", nargs="+", help="path of the training text"
    )
    parser.add_argument(
        "--skip-unknown", action="store_true", help="skip unknown characters of TEXT"
    )
    add_network_only(parser)
    add_engine(parser)


def run_score(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.analysis.surprisal import surprisal_of
    from charloom.pages.page import check_writable, write_page

    if arguments.json and arguments.csv:
        raise CharloomError("--json and --csv cannot be combined: pass one of them")
    if arguments.top is not None and arguments.top < 1:
        raise CharloomError(f"--top is {arguments.top}: pass 1 or more")
    if arguments.lines and arguments.html is not None:
        raise CharloomError("--html needs a whole text: omit --lines")
    if arguments.lines and arguments.protocol != "carried":
        raise CharloomError("--protocol has no effect with --lines: omit it")
    page = None if arguments.html is None else Path(arguments.html)
    if page is not None:
        check_writable(page)
    with limit_threads(arguments.threads):
        model = load_model(arguments, arguments.run)
        text = open_for(model, arguments.text, terminal=terminal)
        if arguments.lines:
            return _score_lines(model, text.read(), arguments, terminal)
        with terminal.task("scoring") as on_progress:
            surprisal = surprisal_of(
                model,
                text,
                protocol=arguments.protocol,
                training_text=arguments.training_text,
                skip_unknown=arguments.skip_unknown,
                on_progress=on_progress,
            )
        if page is not None:
            write_page(page, surprisal.page())
    if surprisal.skipped:
        terminal.say(f"{surprisal.skipped:,} unknown characters skipped")
    if arguments.json or arguments.csv:
        terminal.print_pieces(surprisal.json() if arguments.json else surprisal.csv())
    else:
        _print_surprisal(surprisal, arguments.top or 10, terminal)
    if page is not None:
        terminal.say(f"the page is {page} ({page.stat().st_size:,} bytes)")
    return 0


def _score_lines(
    model: LanguageModel, text: str, arguments: argparse.Namespace, terminal: Terminal
) -> int:
    from charloom.analysis.surprisal import LineSurprisal

    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    skipped = 0
    if arguments.skip_unknown:
        known = [model.vocabulary.encode_known(line) for line in lines]
        skipped = sum(count for _, count in known)
        lines = [model.vocabulary.decode(ids) for ids, _ in known]
    if not any(lines):
        raise CharloomError("the text has no characters to score")
    with terminal.task("scoring") as on_progress:
        nats = model.score_lines(lines, on_progress=on_progress)
    result = LineSurprisal(lines, -nats / math.log(2) + 0.0)
    if skipped:
        terminal.say(f"{skipped:,} unknown characters skipped")
    if arguments.json or arguments.csv:
        terminal.print_pieces(result.json() if arguments.json else result.csv())
        return 0
    terminal.print(f"{'bits/character':>14}  {'bits':>10}  {'line':>7}  text")
    for row in result.ranked()[: arguments.top]:
        mean = "-" if row["bits_per_character"] is None else f"{row['bits_per_character']:.4f}"
        terminal.print(
            f"{mean:>14}  {row['total_bits']:>10.3f}  {row['line']:>7,}  {printable(row['text'])}"
        )
    return 0


def _print_surprisal(surprisal: Surprisal, top: int, terminal: Terminal) -> None:
    s = surprisal.summary()
    terminal.print(
        f"{printable(s['text'])}: {s['characters']:,} characters, protocol {s['protocol']}"
    )
    terminal.print(
        f"{s['bits_per_character']:.4f} bits = {s['nats_per_character']:.4f} nats per character, "
        f"{s['total_bits']:,.1f} bits in all; the {s['model']}'s top guess is right "
        f"{100 * s['accuracy']:.1f}%"
    )
    terminal.print()
    terminal.print(
        f"{'bits':>7}  {'character':>9}  {'line':>6}  {'expected':<14} the most surprising places"
    )
    lines, chances = surprisal.lines(), surprisal.probabilities
    for place in surprisal.most_surprising(top):
        before, here, after = (printable(part) for part in surprisal.context(place))
        guess = int(surprisal.scores.likeliest[place, 0])
        expected = ascii(surprisal.vocabulary.characters[guess])
        chance = f"{expected} {chances[place, 0] / 100:.1f}%"
        terminal.print(
            f"{surprisal.bits[place]:>7.2f}  {place:>9,}  {lines[place]:>6,}  {chance:<14} "
            f"{before}[{here}]{after}"
        )
