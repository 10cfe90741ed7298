"""`charloom corpora`: list the built-in corpora."""

from __future__ import annotations

import argparse

from charloom.cli.arguments import Parser
from charloom.cli.terminal import Terminal


def add_corpora_arguments(parser: Parser) -> None:
    del parser  # because the command has no arguments


def run_corpora(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.text.corpora import list_corpora

    for corpus in list_corpora():
        terminal.print(
            f"{corpus.name:<20} {corpus.kind:<11} {corpus.description} ({corpus.license})"
        )
        terminal.print(f"{'':<20} {corpus.place}")
    return 0
