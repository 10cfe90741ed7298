"""The commands that a command suggests: each works where it is printed, as it is printed."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charloom.cli.terminal import Terminal
    from charloom.text.dataset import Dataset


def path_word(path: str | Path) -> str:
    """Return a path as a word of a command: it is not an option if it begins with a dash."""
    text = str(path)
    return f"./{text}" if text.startswith("-") and text != "-" else text


def in_shell(*words: str | Path) -> str:
    """Return the words of a command as a shell reads them.

    The word `charloom` becomes the path of the script that runs, such as `.venv/bin/charloom`,
    where a shell does not find it by its name.
    """
    first, *others = words
    words = (program() if first == "charloom" else first, *others)
    return shlex.join([path_word(word) if isinstance(word, Path) else word for word in words])


def program() -> str:
    """Return how a shell starts the running charloom: by its name, or by the script's path."""
    script = Path(sys.argv[0])
    if script.name != "charloom" or shutil.which("charloom") or not script.is_file():
        return "charloom"
    return str(script)


def resuming(
    command: str, sources: Sequence[str], folder: Path, *options: str, launcher: str = ""
) -> str:
    """Return how to resume what a command did with texts; `launcher` starts it."""
    texts = map(path_word, sources)
    line = in_shell("charloom", command, *texts, "--out", folder, "--resume", *options)
    if "-" in sources:
        return f"To resume, pipe the same text into: {launcher}{line}"
    return f"To resume: {launcher}{line}"


def say_next(folder: Path, dataset: Dataset, terminal: Terminal) -> None:
    """Suggest the commands for a model in a folder, which was trained on a text."""
    terminal.say(f"  {in_shell('charloom', 'sample', folder)}")
    missing = _missing_to_evaluate(dataset)
    if missing is None:
        terminal.say(f"  {in_shell('charloom', 'evaluate', folder)}")
    else:
        terminal.say(missing)


def _missing_to_evaluate(dataset: Dataset) -> str | None:
    """Return what `charloom evaluate` needs besides the run, None if that is nothing."""
    from charloom.text.corpora import can_be_read_again

    if not (len(dataset.test) or len(dataset.validation)):
        return "to evaluate it, pass another text, because all of this one was trained on"
    if not can_be_read_again(dataset.origin):
        return (
            "to evaluate it, pass the same text in a file with --training-text, because it was "
            "read from a pipe"
        )
    if not all(can_be_read_again(part["origin"]) for part in dataset.own.values()):
        return "to evaluate it, pass a text, because one of its parts was read from a pipe"
    return None
