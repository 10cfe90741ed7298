"""`charloom corpora`: list the built-in corpora."""

from __future__ import annotations

import argparse

from charloom.cli.terminal import print_line


def run_corpora(arguments: argparse.Namespace, started: float) -> int:
    from charloom.text.corpora import list_corpora

    for corpus in list_corpora():
        print_line(f"{corpus.name:<20} {corpus.kind:<11} {corpus.description} ({corpus.license})")
        print_line(f"{'':<20} {corpus.place}")
    return 0
