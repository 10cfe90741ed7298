"""Build hook: the wheel carries a manual page, `man charloom`, made from the commands' parser."""

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.utils import get_reproducible_timestamp

SUMMARY = "train a recurrent language model on the characters of a text"


class ManualPage(BuildHookInterface):
    """Adds share/man/man1/charloom.1 to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        page = Path(self._folder.name, "charloom.1")
        page.write_text(manual_page(Path(self.root, "src")), encoding="utf-8")
        build_data["shared_data"][str(page)] = "share/man/man1/charloom.1"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._folder.cleanup()


def manual_page(source: Path) -> str:
    """Return the manual page of the package in a source folder, whose parsers need msgspec only."""
    from argparse_manpage.manpage import Manpage

    sys.path.insert(0, str(source))
    try:
        from charloom.cli.main import whole_parser
        from charloom.version import __version__
    finally:
        sys.path.remove(str(source))
    parser = whole_parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                command.usage = short_usage(command)
    page = Manpage(parser)
    page.description = SUMMARY
    page.source = f"charloom {__version__}"
    page.manual = "User Commands"
    page.date = f"{datetime.fromtimestamp(get_reproducible_timestamp(), UTC):%Y-%m-%d}"
    return str(page)


def short_usage(command: argparse.ArgumentParser) -> str:
    """Return a command's usage without its options, which the page lists below."""
    formatter = command._get_formatter()
    words = [
        formatter._format_args(action, action.dest)
        for action in command._actions
        if not action.option_strings
    ]
    return " ".join([command.prog, "[OPTION]...", *words])
