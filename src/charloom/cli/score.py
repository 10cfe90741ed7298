"""`charloom score`: print how surprising a text is, by character or by line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from charloom.cli.arguments import (
    Parser,
    add_encoding,
    add_engine,
    add_network_only,
    limit_threads,
    load_model,
    whole_number,
)
from charloom.cli.formatting import in_bits
from charloom.cli.score_characters import score_characters
from charloom.cli.score_pieces import score_pieces
from charloom.cli.terminal import Terminal
from charloom.errors import CharloomError, plural

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel


def add_score_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="+",
        help="a path, - for standard input, or a corpus; of a collection also a folder",
    )
    parser.add_argument(
        "--lines",
        action="store_true",
        help="score each line separately, most surprising first (of a collection: each line as a "
        "whole document)",
    )
    parser.add_argument(
        "--characters",
        action="store_true",
        help="score each character (default, except for models of collections, which score each "
        "document)",
    )
    parser.add_argument(
        "--prefix",
        action="store_true",
        help="score each line or document as the beginning of one, without its end",
    )
    parser.add_argument(
        "--html", metavar="FILE.html", help="write a page with the text colored by its surprisal"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON, by character, line or document"
    )
    parser.add_argument(
        "--csv", action="store_true", help="print CSV, by character, line or document"
    )
    parser.add_argument(
        "--top",
        type=whole_number,
        help="number of places, lines or documents, most surprising first (default: 10 places, "
        "100,000 lines or documents of a table, all of --json and --csv)",
    )
    parser.add_argument(
        "--protocol",
        help="documents (default for collections), carried (default for single texts), adaptive, "
        "or cold-N like cold-256",
    )
    parser.add_argument(
        "--training-text", metavar="TEXT", nargs="+", help="path of the training text"
    )
    parser.add_argument(
        "--skip-unknown", action="store_true", help="skip unknown characters of TEXT, at no cost"
    )
    add_encoding(parser, "TEXT")
    add_network_only(parser)
    add_engine(parser)


def run_score(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.pages.page import check_writable

    _refuse_combinations(arguments)
    page = None if arguments.html is None else Path(arguments.html)
    if page is not None:
        check_writable(page)
    with limit_threads(arguments.threads):
        model = load_model(arguments, arguments.run)
        if _by_piece(arguments, model):
            unknown = score_pieces(model, arguments, terminal)
        else:
            unknown = score_characters(model, arguments, terminal, page)
    _report_unknown(unknown, model, arguments, terminal)
    if page is not None:
        terminal.say(f"the page is {page} ({page.stat().st_size:,} bytes)")
    return 0


def _refuse_combinations(arguments: argparse.Namespace) -> None:
    """Raise CharloomError for options that exclude each other for every model."""
    if arguments.json and arguments.csv:
        raise CharloomError("--json and --csv cannot be combined: pass one of them")
    if arguments.top is not None and arguments.top < 1:
        raise CharloomError(f"--top is {arguments.top}: pass 1 or more")
    if arguments.lines and arguments.html is not None:
        raise CharloomError("--html needs a whole text: omit --lines")
    if arguments.lines and arguments.characters:
        raise CharloomError("--lines and --characters cannot be combined: pass one of them")
    if arguments.lines and arguments.protocol is not None:
        raise CharloomError("--protocol has no effect with --lines: omit it")
    if arguments.training_text is not None and arguments.protocol != "adaptive":
        raise CharloomError(
            "--training-text has no effect without --protocol adaptive: omit it, or add that"
        )


def _by_piece(arguments: argparse.Namespace, model: LanguageModel) -> bool:
    """Return whether lines or documents are scored, not characters.

    Raises:
        CharloomError: if an option suits neither the model nor the other options.
    """
    of_characters = (
        arguments.characters
        or arguments.html is not None
        or arguments.protocol not in (None, "documents")
    )
    collection = model.config.end_id is not None
    by_piece = arguments.lines or (collection and not of_characters)
    if arguments.prefix and not collection:
        raise CharloomError(
            "--prefix is for models of collections, and this one was trained on a single text, "
            "whose end it does not score: omit it"
        )
    if arguments.prefix and not by_piece:
        raise CharloomError(
            "--prefix is for scores of lines or documents: omit --characters, --html and --protocol"
        )
    return by_piece


def _report_unknown(
    unknown: int, model: LanguageModel, arguments: argparse.Namespace, terminal: Terminal
) -> None:
    if not unknown:
        return
    characters = plural(unknown, f"unknown {model.vocabulary.unit}")
    if arguments.skip_unknown or model.unseen is None:
        terminal.say(f"{characters} skipped")
        return
    bits = -in_bits(model.unseen.log_probability)
    terminal.say(f"{characters} scored at {bits:.1f} bits each")
