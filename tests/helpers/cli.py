"""The command: run in this process or as one of its own, and what it says as it refuses."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from charloom.cli.main import main

Captured = pytest.CaptureFixture[str]


posix = pytest.mark.skipif(os.name != "posix", reason="as POSIX has it")


ASCII_ONLY = {
    "LC_ALL": "C",
    "LANG": "C",
    "PYTHONIOENCODING": "ascii",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, and in those below."""
    return {name: data for name, data in contents(folder).items() if data is not None}


def run(*arguments: str) -> tuple[int, str, str]:
    """A command's status, and what it wrote on standard output and standard error."""
    with (
        contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        status = main(list(arguments))
    output.seek(0)
    return status, output.read(), errors.getvalue()


class Window(io.TextIOWrapper):
    """A terminal in memory, for output."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding, newline="")

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        self.seek(0)
        return self.read()


def run_in_window(*arguments: str, encoding: str = "utf-8") -> tuple[int, str, str]:
    """Return a command's status, and its standard output and standard error on terminals."""
    output, errors = Window(encoding), Window(encoding)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = main(list(arguments))
    return status, output.shown(), errors.shown()


def refusal(*arguments: str) -> str:
    """What a command says as it refuses: one line, status 2, nothing on standard output."""
    status, output, errors = run(*arguments)
    assert (status, output) == (2, ""), (status, output, errors)
    # Empty lines are counted once, in test_error_is_exactly_one_line.
    (line,) = [line for line in errors.split("\n") if line]
    assert line.startswith("charloom: ")
    assert "Traceback" not in line
    assert line.isprintable(), "what a file or a name holds must not reach the terminal as it is"
    return line


def refused(*arguments: str) -> str:
    """What a command says as it refuses and changes nothing in the current folder."""
    before = contents(Path.cwd())
    line = refusal(*arguments)
    assert contents(Path.cwd()) == before
    return line


def process(
    *arguments: str | bytes,
    environment: dict[str, str] | None = None,
    redirect: str = "",
    stdin: bytes = b"",
) -> "subprocess.CompletedProcess[bytes]":
    """The command as a process; `redirect` is what a shell would be told, like `>&-`."""
    command: list[str | bytes] = [sys.executable, "-m", "charloom", *arguments]
    if redirect:
        command = ["sh", "-c", f'exec "$@" {redirect}', "sh", *command]
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=100,
        env={**os.environ, **(environment or {})},
    )


def one_line(err: bytes) -> str:
    (line,) = err.decode().splitlines()
    assert line.startswith("charloom: ")
    return line


def short(value: object) -> str:
    """A test's name that can be read, the same in every process."""
    if type(value) is object:
        return "object"
    return repr(value) if len(repr(value)) < 40 else repr(value)[:20] + "…"


def in_place_of_standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def drawn(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> str:
    capfdbinary.readouterr()
    assert main(["sample", *arguments]) == 0
    return capfdbinary.readouterr().out.decode()
