"""`charloom serve`: serve models over an OpenAI-compatible HTTP API."""

from __future__ import annotations

import argparse
import contextlib
import os
from threading import Thread

from charloom.cli.arguments import (
    Parser,
    add_engine,
    add_network_only,
    limit_threads,
    load_model,
    refuse_network_only,
    whole_number,
)
from charloom.cli.terminal import Terminal
from charloom.errors import CharloomError


def add_serve_arguments(parser: Parser) -> None:
    """Add the arguments of `charloom serve`."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="run folders or checkpoint files; requests select one by its name",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all interfaces"
    )
    parser.add_argument(
        "--port", type=whole_number, default=8000, help="port to listen on; 0 for a free one"
    )
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="accept requests for this host name too, such as that of a proxy; repeatable",
    )
    parser.add_argument(
        "--allow-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="accept requests from web pages of this origin, such as https://app.example.org; "
        "repeatable",
    )
    parser.add_argument("--open", action="store_true", help="open the playground in a browser")
    parser.add_argument("--strict", action="store_true", help="reject requests with unknown fields")
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help="API key that clients must send (default: CHARLOOM_API_KEY, or no key)",
    )
    parser.add_argument(
        "--max-streams",
        type=whole_number,
        default=256,
        metavar="N",
        help="texts sampled at a time; N more can wait",
    )
    add_network_only(parser)
    add_engine(parser)


def run_serve(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Serve models until a signal ends the server, and return the exit status."""
    from charloom.serving.access import Access
    from charloom.serving.connection import open_socket
    from charloom.serving.server import Server, name_runs

    key = os.environ.get("CHARLOOM_API_KEY") if arguments.api_key is None else arguments.api_key
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise CharloomError(
            "--api-key is empty or not ASCII without spaces: use another key, or omit it"
        )
    Access(arguments.host, arguments.allow_host, arguments.allow_origin)  # reports invalid names
    names = name_runs(arguments.runs)
    opened = open_socket(arguments.host, arguments.port)
    with limit_threads(arguments.threads), contextlib.closing(opened):
        models = {
            name: load_model(arguments, run, network_only=arguments.network_only)
            for name, run in zip(names, arguments.runs, strict=True)
        }
        refuse_network_only(arguments, models.values())
        for model in models.values():
            model.sample(length=1)  # so that the first request does not wait for compilation
        host, port = opened.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

        def ready() -> None:
            terminal.print(f"serving {', '.join(names)} at {url}")
            if arguments.open:
                open_playground(url, terminal)

        server = Server(
            models,
            opened,
            host=arguments.host,
            allow_hosts=arguments.allow_host,
            allow_origins=arguments.allow_origin,
            api_key=key,
            strict=arguments.strict,
            most_texts=arguments.max_streams,
            ready=ready,
        )
        server.serve_until_ended()
    return 0


def open_playground(url: str, terminal: Terminal) -> Thread:
    """Open the playground in a browser, in a thread, because a browser in a terminal blocks."""
    import webbrowser

    def open_page() -> None:
        if not webbrowser.open(url):
            terminal.say(f"no browser: open {url}")

    thread = Thread(target=open_page, daemon=True)
    thread.start()
    return thread
