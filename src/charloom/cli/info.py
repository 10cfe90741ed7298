"""`charloom info`: show what is in a checkpoint."""

from __future__ import annotations

import argparse
from typing import Any

from charloom.cli.arguments import Parser
from charloom.cli.formatting import excerpt
from charloom.cli.terminal import Terminal
from charloom.text.source import shown_origin


def add_info_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_info(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.storage.checkpoint import load_checkpoint
    from charloom.storage.facts import facts_of
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
    terminal.print(
        f"{config.cell}, {config.hidden_size} hidden units, layers: {config.layers}, "
        f"{config.parameter_count:,} parameters, {config.dtype}"
    )
    if checkpoint.mixture is not None:
        table = checkpoint.mixture.table
        terminal.print(
            f"mixed with an n-gram model: {len(table.characters):,} n-grams, {table.context} "
            f"characters of context, {table.nbytes:,} bytes"
        )
    kind = "bytes" if vocabulary.as_bytes else "characters"
    characters = [character for character in vocabulary.characters if character != END]
    and_end = f", and the end of a document ({END_NAME})" if vocabulary.end_id is not None else ""
    terminal.print(f"{len(characters)} {kind}: {excerpt(ascii(''.join(characters)))}{and_end}")
    for title in ("text", "metrics", "training", "position"):
        for name, value in (facts.get(title) or {}).items():
            if value is not None:
                terminal.print(f"{title + ' ' + name:<28} {_shown(value)}")
    return 0


def _shown(value: Any) -> Any:
    """Return a value as it is printed: text on one line, several origins with commas."""
    if isinstance(value, str):
        return shown_origin(value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return value
