"""`charloom info`: show what is in a checkpoint."""

from __future__ import annotations

import argparse
from typing import Any

from charloom.cli.arguments import Parser
from charloom.cli.formatting import excerpt
from charloom.cli.terminal import Terminal


def add_info_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_info(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.storage.checkpoint import load_checkpoint
    from charloom.storage.folders import model_path

    path = model_path(arguments.run)
    checkpoint = load_checkpoint(path)
    config, vocabulary = checkpoint.config, checkpoint.vocabulary
    facts: dict[str, Any] = {
        "file": str(path),
        "config": config.as_dict() | {"bytes": vocabulary.as_bytes},
        "parameters": config.parameter_count,
        "vocabulary": list(vocabulary.characters),
        "training": checkpoint.training,
        "text": checkpoint.text,
        "metrics": checkpoint.metrics,
        "counts": None
        if checkpoint.mixture is None
        else {
            "context": checkpoint.mixture.table.context,
            "ngrams": len(checkpoint.mixture.table.characters),
            "bytes": checkpoint.mixture.table.nbytes,
        },
    }
    if checkpoint.position is not None:
        facts["position"] = checkpoint.position
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
    terminal.print(f"{len(vocabulary)} {kind}: {excerpt(ascii(''.join(vocabulary.characters)))}")
    for title in ("text", "metrics", "training", "position"):
        for name, value in (facts.get(title) or {}).items():
            if value is not None:
                terminal.print(f"{title + ' ' + name:<28} {value}")
    return 0
