"""`charloom decompress`: restore a compressed text."""

from __future__ import annotations

import argparse

from charloom.cli.arguments import Parser, whole_number
from charloom.cli.compress import (
    PIPE,
    SUFFIX,
    add_model,
    add_output,
    announced,
    check_output,
    read_whole,
    write_whole,
)
from charloom.cli.terminal import Terminal
from charloom.errors import CharloomError


def add_decompress_arguments(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a compressed file, or - for standard input")
    add_output(parser, f"the restored file (default: FILE without {SUFFIX}, or - for -)")
    add_model(parser)
    parser.add_argument(
        "--max-bytes",
        type=whole_number,
        default=100_000_000,
        help="refuse a file that would become larger (default: 100,000,000)",
    )


def run_decompress(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.compression.api import MOST_ADDED, decompress

    out = arguments.out
    if out is None:
        out = PIPE if arguments.file == PIPE else arguments.file.removesuffix(SUFFIX)
        if out == arguments.file != PIPE:
            raise CharloomError(f"{out} does not end in {SUFFIX}: name the result with --out")
    check_output(arguments.file, out, arguments.force, terminal)
    data = read_whole(arguments.file, max(0, arguments.max_bytes) + MOST_ADDED)
    with terminal.task("decompressing") as on_progress:
        text = decompress(
            data,
            arguments.model,
            most_bytes=arguments.max_bytes,
            on_progress=announced(on_progress, terminal),
        )
    write_whole(out, text, terminal)
    if out != PIPE:
        terminal.say(f"{out}: {len(text):,} bytes")
    return 0
