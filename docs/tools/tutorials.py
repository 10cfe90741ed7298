"""Run a tutorial of docs/tutorials/ as its reader does, or write it as an executed notebook.

    python docs/tools/tutorials.py run PAGE FOLDER [--short] [--json FILE]
    python docs/tools/tutorials.py notebook PAGE NOTEBOOK

A page is a sequence of fenced blocks, which are executed in order in one folder:

- `sh`: by bash, with `charloom` and `python` of this environment. A program that a block starts in
  the background is ended after the last block.
- `python title="NAME"`: a file that the reader saves, and nothing is executed.
- `python`: as in one session of Python.
- `text`: output, shortened by hand. It is not executed.

The folder has the files that the page links to, such as `[sonnets.txt](sonnets.txt)`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BLOCK = re.compile(r'^```(sh|python|text)(?: title="([^"]+)")?\n(.*?)^```\n', re.M | re.S)
LINKED_FILE = re.compile(r"\]\(([\w.-]+\.txt)\)")
# Tests run every page with these replacements alone: trainings of three seconds or ten steps, and
# a free port.
SHORT_MINUTES = "0.05"
SHORT_STEPS = "10"
MINUTES, STEPS = re.compile(r"(--minutes )[\d.]+"), re.compile(r"(--steps )\d+")
PORT = "8000"


@dataclass
class Block:
    """A fenced block of a page.

    Attributes:
        kind: `sh`, `python` or `text`.
        title: the name of the file to save, or an empty string.
        code: the lines.
        line: the number of its first line in the page, from 1.
        output: everything that it printed, after it was executed.
        seconds: its time.
    """

    kind: str
    title: str
    code: str
    line: int
    output: str = ""
    seconds: float = 0.0


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(match[1], match[2] or "", match[3], text.count("\n", 0, match.start()) + 2)
        for match in BLOCK.finditer(text)
    ]


def shorten(code: str, port: int) -> str:
    """Apply the replacements of the tests."""
    code = MINUTES.sub(rf"\g<1>{SHORT_MINUTES}", STEPS.sub(rf"\g<1>{SHORT_STEPS}", code))
    return re.sub(rf"\b{PORT}\b", str(port), code)


class Session:
    """A folder in which blocks are executed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.groups: list[int] = []  # process groups of the shells
        self.programs = tempfile.TemporaryDirectory()
        for name, arguments in (("charloom", " -m charloom"), ("python", ""), ("python3", "")):
            program = Path(self.programs.name, name)
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        path = self.programs.name + os.pathsep + os.environ["PATH"]
        self.environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}

    def run(self, block: Block) -> None:
        """Execute a block, and keep its output and its time in it.

        Raises:
            RuntimeError: if it fails, with its output.
        """
        started = time.monotonic()
        if block.title:
            (self.folder / block.title).write_text(block.code, encoding="utf-8")
        elif block.kind == "sh":
            self._shell(block)
        elif block.kind == "python":
            self._python(block)
        block.seconds = time.monotonic() - started

    def _shell(self, block: Block) -> None:
        # The output is a file, because a program in the background keeps a pipe open.
        with tempfile.TemporaryFile() as output:
            shell = subprocess.Popen(
                ["bash", "-e", "-o", "pipefail", "-c", block.code],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.groups.append(shell.pid)
            status = shell.wait()
            output.seek(0)
            block.output = output.read().decode("utf-8", "replace")
        if status:
            raise RuntimeError(f"line {block.line}: exit status {status}\n{block.output}")

    def _python(self, block: Block) -> None:
        printed = io.StringIO()
        try:
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
                exec(compile(block.code, f"line {block.line}", "exec"), self.names)
        except Exception:
            raise RuntimeError(f"line {block.line}: {traceback.format_exc()}") from None
        block.output = printed.getvalue()

    def close(self) -> None:
        """End the programs in the background."""
        for group in self.groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)
        self.programs.cleanup()


@contextlib.contextmanager
def session(page: Path, folder: Path) -> Iterator[Session]:
    """Open a session in a folder with the files that a page links to."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED_FILE.findall(page.read_text(encoding="utf-8")):
        shutil.copy(page.parent / name, folder)
    opened = Session(folder)
    try:
        yield opened
    finally:
        opened.close()


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run_page(page: Path, folder: Path, short: bool = False) -> list[Block]:
    """Execute the blocks of a page in order, and return the executed blocks."""
    port = free_port()
    done = []
    with session(page, folder) as opened:
        for block in read_blocks(page):
            if block.kind == "text":
                continue
            if short:
                block.code = shorten(block.code, port)
            opened.run(block)
            done.append(block)
    return done


def as_notebook(page: Path) -> Any:
    """Return a page as a notebook without outputs, whose cells are the page's blocks."""
    import nbformat.v4 as v4

    text = page.read_text(encoding="utf-8")
    cells = [v4.new_code_cell(FIRST_CELL)]
    end = 0
    for match in [*BLOCK.finditer(text), None]:
        prose = text[end : match.start() if match else len(text)].strip()
        if prose:
            cells.append(v4.new_markdown_cell(rebase_links(prose)))
        if match is None:
            break
        end = match.end()
        kind, title, code = match.groups()
        if kind != "text":
            first = f"%%writefile {title}\n" if title else "%%bash\n" if kind == "sh" else ""
            cells.append(v4.new_code_cell(first + code.rstrip("\n")))
    cells.insert(1, cells.pop(0))  # below the page's title
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def execute(notebook: Any, folder: Path) -> None:
    """Execute a notebook's cells in a new kernel, and keep their outputs in it."""
    from nbclient import NotebookClient

    folder.mkdir(parents=True, exist_ok=True)
    opened = Session(folder)
    try:
        client = NotebookClient(
            notebook,
            timeout=240,
            kernel_name="python3",
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=opened.environment)
    finally:
        opened.close()


FIRST_CELL = """\
# All files of this notebook are written to a new folder, and commands print no progress bars.
import os
import tempfile

os.environ.pop("FORCE_COLOR", None)
os.chdir(tempfile.mkdtemp())"""


def rebase_links(prose: str) -> str:
    """Make the links of a page in docs/tutorials/ valid in examples/."""
    prose = re.sub(r"\]\(\.\./(?!\.\.)", "](../docs/", prose)
    return re.sub(r"\]\((?!\.\./|https?:|#)", "](../docs/tutorials/", prose)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a tutorial, or write it as a notebook.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("page", type=Path)
    run.add_argument("folder", type=Path)
    run.add_argument("--short", action="store_true", help="with the replacements of the tests")
    run.add_argument("--json", type=Path, help="write the blocks and their outputs to this file")
    notebook = commands.add_parser("notebook")
    notebook.add_argument("page", type=Path)
    notebook.add_argument("notebook", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "notebook":
        import nbformat

        written = as_notebook(options.page)
        with tempfile.TemporaryDirectory() as folder:
            execute(written, Path(folder))
        for cell in written.cells:
            cell.metadata.pop("execution", None)  # its times differ in every run
        nbformat.write(written, options.notebook)
        return 0
    try:
        done = run_page(options.page, options.folder.resolve(), options.short)
    except RuntimeError as error:
        print(f"{options.page}, {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps([asdict(block) for block in done]), encoding="utf-8")
    else:
        for block in done:
            print(f"--- line {block.line}, {block.seconds:.1f} s\n{block.code}\n{block.output}")
    print(f"{options.page.stem}: {sum(block.seconds for block in done):.0f} seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
