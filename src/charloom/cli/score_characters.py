"""Characters for `charloom score`: rows while they are read, or the most surprising places."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from charloom.cli.formatting import counted
from charloom.cli.score_pieces import print_as_read, scoring_task
from charloom.cli.terminal import Interrupts, Terminal
from charloom.cli.texts import open_for, say_notes, training_text
from charloom.errors import printable, quoted

if TYPE_CHECKING:
    from charloom.analysis.surprisal_stream import SurprisalStream
    from charloom.evaluation.scored_text import ScoredText
    from charloom.language_model import LanguageModel

PLACES = 10  # of a table, by default


def score_characters(
    model: LanguageModel, arguments: argparse.Namespace, terminal: Terminal, page: Path | None
) -> int:
    """Score and print characters, write a page, and return the number of unknown characters."""
    from charloom.analysis.surprisal_stream import LISTED, score_stored, score_while_read
    from charloom.pages.page import MOST_CHARACTERS, write_page

    rows, top = arguments.json or arguments.csv, arguments.top
    streams = rows and top is None and page is None
    text = open_for(model, arguments, terminal, live=streams)
    with scoring_task(terminal, streams) as on_progress, Interrupts():
        if streams:
            found = score_while_read(
                model,
                text,
                protocol=arguments.protocol,
                training_text=training_text(arguments),
                skip_unknown=arguments.skip_unknown,
                on_progress=on_progress,
            )
            if arguments.csv:
                print_as_read(terminal, found.csv())
            else:
                print_as_read(terminal, found.json(), found.json_end)
            say_notes(text.notes, terminal)
            return found.unknown
        stored = model.encode_to_score(
            text, skip_unknown=arguments.skip_unknown, on_progress=on_progress
        )
        found = score_stored(
            model,
            stored,
            protocol=arguments.protocol,
            training_text=training_text(arguments),
            places=max(top or PLACES, 0 if page is None else LISTED),
            shown=0 if page is None else MOST_CHARACTERS,
            on_progress=on_progress,
        )
        if not rows:
            found.read()
        elif arguments.csv:
            terminal.print_pieces(found.csv(top))
        else:
            terminal.print_json_pieces(found.json(top))
        if page is not None:
            write_page(page, found.page())
    say_notes(text.notes, terminal)
    if not rows:
        _print_table(found, stored, model, top or PLACES, terminal)
    return found.unknown


def _print_table(
    found: SurprisalStream, text: ScoredText, model: LanguageModel, top: int, terminal: Terminal
) -> None:
    from charloom.analysis.surprisal_stream import context_of

    s = found.summary()
    symbols = text.symbols(model.vocabulary)
    size = counted(s["characters"], s["documents"], symbols.unit)
    unit = symbols.unit if s["documents"] is None else "symbol"
    terminal.print(f"{printable(s['text'])}: {size}, protocol {s['protocol']}")
    terminal.print(
        f"{s['bits_per_character']:.4f} bits = {s['nats_per_character']:.4f} nats per {unit}, "
        f"{s['total_bits']:,.1f} bits in all; the {s['model']}'s top guess is right "
        f"{100 * s['accuracy']:.1f}%"
    )
    terminal.print()
    terminal.print(
        f"{'bits':>7}  {symbols.unit:>9}  {found.unit:>8}  {'expected':<14} the most "
        "surprising places"
    )
    places = found.most_surprising(top)
    for place, number, bits, likeliest, chances in zip(
        places.place.tolist(),
        places.number.tolist(),
        places.bits.tolist(),
        places.likeliest.tolist(),
        places.chances.tolist(),
        strict=True,
    ):
        before, here, after = map(printable, context_of(text.ids, symbols, place))
        name = symbols.names[likeliest[0]]  # that of an end or a byte has several characters
        expected = f"{quoted(name) if len(name) == 1 else name} {chances[0] / 100:.1f}%"
        terminal.print(
            f"{bits:>7.2f}  {place:>9,}  {number:>8,}  {expected:<14} {before}[{here}]{after}"
        )
