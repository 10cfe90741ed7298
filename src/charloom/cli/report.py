"""`charloom report`: write one page of curves, samples and metrics for one or more runs."""

from __future__ import annotations

import argparse

from charloom.cli.arguments import Parser
from charloom.cli.terminal import Terminal
from charloom.errors import CharloomError


def add_report_arguments(parser: Parser) -> None:
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="a run's folder; several are compared"
    )
    parser.add_argument(
        "--out",
        metavar="FILE.html",
        help="the page (default: report.html, in the run's folder if it is one run)",
    )


def run_report(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.runs.report import write_report

    if arguments.out == "":
        raise CharloomError("--out is empty: pass a file name or omit it")
    terminal.print(str(write_report(arguments.runs, arguments.out)))
    return 0
