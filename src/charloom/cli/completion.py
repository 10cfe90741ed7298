"""`charloom completion`: print the script that completes charloom's words in a shell.

Shtab writes the script from the parser of all commands. It is imported only here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

from charloom.cli.arguments import HelpFormatter, Parser
from charloom.cli.terminal import Terminal

SHELLS = ("bash", "zsh", "fish")
# Options and arguments that are paths, by metavar or name.
FILES = {"TEXT", "RUN", "FILE", "FILE.toml", "FILE.html", "FILE.json", "FILE|DIR"}
FILES_BY_NAME = {"validation", "test", "from_run"}
FOLDERS = {"DIR"}
PHRASES = {("fill", "text")}  # a command's argument that is a text itself, not a path

AddArguments = Callable[[Parser], None]


def add_completion_arguments(parser: Parser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="shell to print the script for")


def make_parser(commands: dict[str, tuple[str, AddArguments]], version: str) -> Parser:
    """Return one parser of all commands, from which scripts and the manual page are made.

    Args:
        commands: for each command, its summary and the function that adds its arguments.
        version: the version of the package.
    """
    parser = Parser(
        prog="charloom",
        description="Train a recurrent language model on the characters of your own text, on a "
        "CPU.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"charloom {version}")
    added = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, (summary, add_arguments) in commands.items():
        command = added.add_parser(
            name,
            help=summary,
            description=summary,
            allow_abbrev=False,
            formatter_class=HelpFormatter,
        )
        add_arguments(command)
    return parser


def run_completion(arguments: argparse.Namespace, terminal: Terminal, parser: Parser) -> int:
    import shtab

    for command, action in _actions(parser):
        if (command, action.dest) in PHRASES:
            continue
        if action.metavar in FOLDERS:
            action.complete = shtab.DIRECTORY
        elif action.metavar in FILES or action.dest in FILES_BY_NAME:
            action.complete = shtab.FILE
        elif isinstance(action.metavar, str) and "|" in action.metavar and not action.choices:
            action.choices = action.metavar.split("|")
    script = shtab.complete(parser, arguments.shell)
    # In zsh, `source` is another context than `eval`, in which shtab would complete at once.
    script = script.replace("zsh_eval_context[-1] == eval", "zsh_eval_context[-1] == (eval|file)")
    terminal.print(script)
    return 0


def _actions(parser: Parser) -> Iterator[tuple[str, Any]]:
    """Yield the options and arguments of all commands, each with its command's name."""
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name, command in subparsers.choices.items():
        for action in command._actions:
            yield name, action
