"""`charloom fill`: fill the blanks of a text."""

from __future__ import annotations

import argparse
from typing import Any

from charloom.cli.arguments import (
    Parser,
    add_engine,
    add_network_only,
    limit_threads,
    load_model,
    whole_number,
)
from charloom.cli.terminal import Terminal


def add_fill_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument(
        "text", metavar="TEXT", help="text with blanks, each at least three underscores"
    )
    parser.add_argument(
        "--count", type=whole_number, default=5, help="number of texts, the likeliest first"
    )
    parser.add_argument(
        "--match",
        metavar="REGEX",
        action="append",
        default=[],
        help="regular expression that a blank matches, by default a word; once for all blanks, or "
        "once for each",
    )
    parser.add_argument(
        "--length",
        type=whole_number,
        action="append",
        default=[],
        help="characters of a blank, at most (default: 20); once for all blanks, or once for each",
    )
    parser.add_argument(
        "--samples", type=whole_number, default=256, help="texts to sample for a blank"
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="random seed")
    parser.add_argument(
        "--json", action="store_true", help="one object a line: text, parts, log_probability"
    )
    add_network_only(parser)
    add_engine(parser)


def run_fill(arguments: argparse.Namespace, terminal: Terminal) -> int:
    settings: dict[str, Any] = {}
    if arguments.match:
        one = len(arguments.match) == 1
        settings["match"] = arguments.match[0] if one else arguments.match
    if arguments.length:
        one = len(arguments.length) == 1
        settings["length"] = arguments.length[0] if one else arguments.length
    with limit_threads(arguments.threads):
        model = load_model(arguments, arguments.run)
        found = model.fill(
            arguments.text,
            count=arguments.count,
            samples=arguments.samples,
            seed=arguments.seed,
            **settings,
        )
    for filled in found:
        if arguments.json:
            terminal.print_json(
                {
                    "text": filled.text,
                    "parts": list(filled.parts),
                    "log_probability": filled.log_probability,
                },
                indent=None,
            )
        else:
            terminal.print(f"{filled.log_probability:8.2f}  {filled.text}")
    return 0
