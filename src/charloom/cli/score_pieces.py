"""Lines or documents for `charloom score`: rows while they are read, or a ranked table."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from charloom.cli.formatting import excerpt
from charloom.cli.terminal import Interrupts, Terminal
from charloom.cli.texts import documents_for, open_for, say_notes
from charloom.errors import printable

if TYPE_CHECKING:
    from charloom.analysis.lines import LineSurprisal
    from charloom.language_model import LanguageModel
    from charloom.progress import OnProgress

LONGEST_NAME = 40  # columns of the name of a document in a table
BEGINNING = 10_000  # characters of a document that are kept for its excerpt in a table
RANKED = 100_000  # rows of a table at most, by default, because they are all in memory


def scoring_task(
    terminal: Terminal, streams: bool
) -> contextlib.AbstractContextManager[OnProgress]:
    """Return a progress bar, unless rows stream to a terminal, where it would be in the way."""
    if streams and sys.stdout is not None and sys.stdout.isatty():
        return contextlib.nullcontext(lambda stage, done, total: None)
    return terminal.task("scoring")


def print_as_read(
    terminal: Terminal, pieces: Iterable[str], json_end: Callable[[], str] | None = None
) -> None:
    """Write each piece of a result as soon as it is complete.

    Args:
        terminal: the terminal.
        pieces: the pieces.
        json_end: for JSON, returns its end, which is written if a signal ends the input.
    """
    write = terminal.print_pieces if json_end is None else terminal.print_json_pieces
    try:
        for piece in pieces:
            write([piece])
    except (KeyboardInterrupt, SystemExit):
        if json_end is not None:
            write([json_end()])
        raise


def score_pieces(model: LanguageModel, arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Score and print lines or documents, and return the number of unknown characters."""
    from charloom.analysis.lines import JSON_END, as_csv, as_json, rank_rows, score_in_batches

    streams = (arguments.json or arguments.csv) and arguments.top is None
    unit, pieces, live, notes = _open_pieces(model, arguments, terminal, live=streams)
    unknown = rows = 0

    def counted(parts: Iterable[LineSurprisal]) -> Iterator[Iterator[dict[str, Any]]]:
        nonlocal unknown, rows
        for part in parts:
            unknown += int(part.unknown.sum())
            rows += len(part.lines)
            yield part.rows()

    with scoring_task(terminal, streams) as on_progress, Interrupts():
        parts = counted(
            score_in_batches(
                model,
                pieces,
                prefix=arguments.prefix,
                skip_unknown=arguments.skip_unknown,
                live=live,
                on_progress=on_progress,
            )
        )
        if streams and arguments.csv:
            print_as_read(terminal, as_csv(parts, unit))
        elif streams:
            print_as_read(terminal, as_json(parts), lambda: JSON_END)
            terminal.print_json_pieces([JSON_END])
        if streams:
            say_notes(notes, terminal)
            return unknown
        every = (row for part in parts for row in part)
        if unit == "document" and not (arguments.csv or arguments.json):
            every = (row | {"text": row["text"][:BEGINNING]} for row in every)
        ranked = rank_rows(every, arguments.top or RANKED)
    say_notes(notes, terminal)
    if arguments.csv:
        terminal.print_pieces(as_csv([ranked], unit))
    elif arguments.json:
        terminal.print_json_pieces([*as_json([ranked]), JSON_END])
    else:
        ends = model.config.end_id is not None and not arguments.prefix
        _print_table(ranked, unit, f"bits/{'symbol' if ends else model.vocabulary.unit}", terminal)
        if arguments.top is None and rows > RANKED:
            terminal.say(
                f"the table has {RANKED:,} of {rows:,} {unit}s: pass --top for another number, or "
                "--csv for all in their order"
            )
    return unknown


class _Pieces(NamedTuple):
    """Lines or documents.

    Attributes:
        unit: `line` or `document`.
        places_and_texts: the number or name of each one, and its characters.
        live: True if they arrive while they are read.
        notes: lines to print, some of which are only made while the pieces are read.
    """

    unit: str
    places_and_texts: Iterator[tuple[int | str, str]]
    live: bool
    notes: Iterable[str]


def _open_pieces(
    model: LanguageModel, arguments: argparse.Namespace, terminal: Terminal, *, live: bool
) -> _Pieces:
    from charloom.text.source import split_lines

    if model.config.end_id is None:
        text = open_for(model, arguments, terminal, live=live)
        return _Pieces("line", enumerate(split_lines(text.pieces()), 1), text.live, text.notes)
    found = documents_for(model, arguments, terminal, live=live)
    pieces: Iterator[tuple[int | str, str]]
    if found.by_line:
        pieces = ((document.number, document.text) for document in found)
    else:
        pieces = ((found.place(document), document.text) for document in found)
    return _Pieces("line" if found.by_line else "document", pieces, found.live, found.notes)


def _print_table(rows: list[dict[str, Any]], unit: str, mean_of: str, terminal: Terminal) -> None:
    width = 7
    if unit == "document":
        width = min(max((len(printable(row[unit])) for row in rows), default=0), LONGEST_NAME)
    terminal.print(f"{mean_of:>14}  {'bits':>10}  {unit:>{width}}  {'unknown':>7}  text")
    for row in rows:
        mean = "-" if row["bits_per_character"] is None else f"{row['bits_per_character']:.4f}"
        place = f"{row[unit]:,}" if unit == "line" else printable(row[unit])
        # Documents of many lines are long.
        text = printable(row["text"]) if unit == "line" else excerpt(row["text"])
        terminal.print(
            f"{mean:>14}  {row['total_bits']:>10.3f}  {place:>{width}}  {row['unknown']:>7,}  "
            f"{text}"
        )
