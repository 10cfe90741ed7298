"""`charloom sample`: write text."""

from __future__ import annotations

import argparse
import io
import os
import sys
from typing import TYPE_CHECKING

from charloom.cli.arguments import (
    Parser,
    add_engine,
    add_network_only,
    length,
    limit_threads,
    load_model,
    number,
    whole_number,
)
from charloom.cli.formatting import excerpt
from charloom.cli.terminal import Terminal
from charloom.errors import CharloomError

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel


def add_sample_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint file")
    parser.add_argument("--prompt", default="", help="text at the beginning of the sample")
    parser.add_argument("--length", type=length, default=500, help="characters to sample, or inf")
    parser.add_argument("--temperature", type=number, default=1.0, help="0 for greedy sampling")
    parser.add_argument("--top-k", type=whole_number, help="sample from the k likeliest characters")
    parser.add_argument(
        "--top-p", type=number, help="sample from the likeliest characters with total probability p"
    )
    parser.add_argument(
        "--min-p",
        type=number,
        help="sample from characters at least p times as likely as the likeliest",
    )
    parser.add_argument(
        "--stop", action="append", default=[], help="text that ends the sample; may be repeated"
    )
    parser.add_argument("--seed", type=whole_number, help="random seed (default: a new one)")
    parser.add_argument("--count", type=whole_number, default=1, help="number of samples")
    parser.add_argument(
        "--skip-unknown", action="store_true", help="skip unknown characters of the prompt"
    )
    parser.add_argument(
        "--clamp",
        metavar="UNIT=VALUE",
        action="append",
        default=[],
        help="hold a unit at a value, like h17=0.9 (see charloom explore); may be repeated",
    )
    parser.add_argument(
        "--report-overlap",
        action="store_true",
        help="print each sample's longest verbatim overlap with the training text",
    )
    parser.add_argument(
        "--max-overlap",
        type=whole_number,
        metavar="N",
        help="copy at most N consecutive characters from the training text",
    )
    parser.add_argument(
        "--training-text", metavar="TEXT", help="path of the training text, if it has moved"
    )
    add_network_only(parser)
    add_engine(parser)


def run_sample(arguments: argparse.Namespace, terminal: Terminal) -> int:
    import secrets

    if arguments.count < 1:
        raise CharloomError(f"--count is {arguments.count}: pass 1 or more")
    looks_up = arguments.report_overlap or arguments.max_overlap is not None
    if arguments.training_text is not None and not looks_up:
        raise CharloomError(
            "--training-text requires --report-overlap or --max-overlap: add one of them"
        )
    with limit_threads(arguments.threads):
        model = load_model(arguments, arguments.run)
        encoding = "latin-1" if model.vocabulary.as_bytes else "utf-8"
        seed = secrets.randbelow(2**31) if arguments.seed is None else arguments.seed
        prompt, stop = arguments.prompt, arguments.stop
        if model.vocabulary.as_bytes:
            prompt, *stop = (os.fsencode(text).decode("latin-1") for text in (prompt, *stop))
        _, skipped = model.vocabulary.encode_known(prompt)
        if looks_up:  # now, so that a missing training text is reported before sampling starts
            model.training_index(arguments.training_text)
        for index in range(arguments.count):
            stream = model.stream(
                prompt,
                length=arguments.length,
                temperature=arguments.temperature,
                top_k=arguments.top_k,
                top_p=arguments.top_p,
                min_p=arguments.min_p,
                stop=stop,
                seed=seed,
                index=index,
                skip_unknown=arguments.skip_unknown,
                clamp=arguments.clamp,
                max_overlap=arguments.max_overlap,
            )
            if index:
                terminal.write("\n", encoding)
            else:
                terminal.output()
                if skipped:
                    terminal.say(f"{skipped} unknown characters of the prompt were skipped")
                if arguments.seed is None:
                    terminal.say(f"seed {seed}")
            terminal.write(prompt, encoding)
            drawn = io.StringIO()
            try:
                for piece in stream:
                    terminal.write(piece, encoding)
                    if arguments.report_overlap:
                        drawn.write(piece)
            finally:  # also for a sample that Ctrl-C interrupts
                if arguments.report_overlap:
                    if sys.stdout.isatty():
                        terminal.write("\n", encoding)
                    _report_overlap(terminal, model, index, prompt, drawn.getvalue())
        if sys.stdout.isatty() and not arguments.report_overlap:
            terminal.write("\n", encoding)
    return 0


def _report_overlap(
    terminal: Terminal, model: LanguageModel, index: int, prompt: str, drawn: str
) -> None:
    found = model.overlap(prompt + drawn, drawn_from=len(prompt))
    if not found.length:
        terminal.say(f"sample {index + 1}, no verbatim overlap with the training text")
        return
    copied = found.text.encode("latin-1") if model.vocabulary.as_bytes else found.text
    characters = f"{found.length:,} character{'s' if found.length > 1 else ''}"
    terminal.say(
        f"sample {index + 1}, longest verbatim overlap with the training text: {characters}, "
        f"{excerpt(repr(copied))} (at character {found.training_place + 1:,}, line "
        f"{found.training_line:,})"
    )
