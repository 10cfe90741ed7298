"""`charloom serve`: serve models over an OpenAI-compatible HTTP API."""

from __future__ import annotations

import argparse
import contextlib
import os

from charloom.cli.arguments import (
    Parser,
    add_engine,
    add_network_only,
    limit_threads,
    load_model,
    whole_number,
)
from charloom.cli.terminal import Terminal
from charloom.errors import CharloomError


def add_serve_arguments(parser: Parser) -> None:
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="runs' folders or checkpoint files; a request chooses one by its name",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for the whole network"
    )
    parser.add_argument("--port", type=whole_number, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help="what a client must know (default: CHARLOOM_API_KEY, or nothing)",
    )
    parser.add_argument(
        "--max-streams",
        type=whole_number,
        default=256,
        metavar="N",
        help="texts that are drawn at a time; as many more may wait",
    )
    add_network_only(parser)
    add_engine(parser)


def run_serve(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from charloom.serving.connection import open_socket
    from charloom.serving.server import Server, name_runs

    key = os.environ.get("CHARLOOM_API_KEY") if arguments.api_key is None else arguments.api_key
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise CharloomError("--api-key is empty or not ASCII without spaces: give another, or none")
    names = name_runs(arguments.runs)
    opened = open_socket(arguments.host, arguments.port)
    with limit_threads(arguments.threads), contextlib.closing(opened):
        models = {
            name: load_model(arguments, run)
            for name, run in zip(names, arguments.runs, strict=True)
        }
        for model in models.values():
            model.sample(length=1)  # compiles what the first request would wait for
        host, port = opened.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        server = Server(
            models,
            opened,
            host=arguments.host,
            api_key=key,
            most_texts=arguments.max_streams,
            ready=lambda: terminal.print(f"serving {', '.join(names)} at {url}"),
        )
        server.serve_until_ended()
    return 0
