"""`charloom info`: show what is in a checkpoint."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from charloom.cli.arguments import Parser
from charloom.cli.formatting import WIDEST, cut
from charloom.cli.terminal import Terminal
from charloom.errors import escaped, plural, printable
from charloom.text.source import shown_origin

if TYPE_CHECKING:
    from charloom.text.vocabulary import Vocabulary


def add_info_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_info(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.storage.checkpoint import load_checkpoint
    from charloom.storage.facts import counts_in_words, facts_of
    from charloom.storage.folders import model_path
    from charloom.text.vocabulary import END, END_NAME

    path = model_path(arguments.run)
    checkpoint = load_checkpoint(path)
    config, vocabulary = checkpoint.config, checkpoint.vocabulary
    facts = facts_of(checkpoint, path)
    if arguments.json:
        terminal.print_json(facts)
        return 0
    terminal.print(f"{path} ({path.stat().st_size:,} bytes)")
    extra = ", normalized products" if config.norm == "rms" else ""
    extra += f", {plural(config.extra_inputs, 'extra input')}" if config.extra_inputs else ""
    terminal.print(
        f"{config.cell}, {plural(config.hidden_size, 'hidden unit')}, layers: {config.layers}, "
        f"{plural(config.parameter_count, 'parameter')}, {config.dtype}{extra}"
    )
    if checkpoint.mixture is not None:
        counts = counts_in_words(checkpoint.mixture.counts, vocabulary.unit)
        reads = ", which the network also reads" if config.extra_inputs else ""
        terminal.print(f"mixed with {counts}{reads}")
    characters = [_shown_alone(c, vocabulary) for c in vocabulary.characters if c != END]
    and_end = f", and the end of a document ({END_NAME})" if vocabulary.end_id is not None else ""
    beginning = cut("".join(characters), WIDEST - 2)
    terminal.print(f"{plural(len(characters), vocabulary.unit)}: '{beginning}'{and_end}")
    for title in ("text", "metrics", "training", "position"):
        for name, value in (facts.get(title) or {}).items():
            if value is not None:
                shown = str(value) if name == "seed" else _shown(value)
                terminal.print(f"{title + ' ' + name:<28} {shown}")
    return 0


def _shown_alone(character: str, vocabulary: Vocabulary) -> str:
    """Return a character of a vocabulary for output. Of all spaces, one is shown as itself."""
    from charloom.text.typed import as_shown

    if character.isspace() and character != " ":
        return escaped(character)
    return printable(as_shown(character, vocabulary))


def _shown(value: Any) -> str:
    """Return a value as it is printed: text on one line, several origins with commas.

    Whole numbers have thousands separators, and others six significant digits.
    """
    if isinstance(value, str):
        return shown_origin(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
