"""Terminals: no control characters, narrow windows, other encodings, closed windows."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from charloom.cli.main import main
from charloom.cli.terminal import Terminal, harmless
from charloom.storage.checkpoint import load_checkpoint
from helpers.cli import ASCII_ONLY, Window, one_line, posix, process, run_in_window
from helpers.runs import FEW, TINY, train_tiny
from helpers.terminals import InTerminal

pytestmark = posix

# A log with colors, a bell, a title, a line that is reversed, and a byte that some terminals obey.
LOG = "\x1b[31mERROR\x1b[0m \a\b\x1b]0;title\x07 caf\u00e9 \u202eabc \x9b2J\tok\r\u3000\n" * 40


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    train_tiny(folder, LOG, *FEW, "--keep-newlines", name="log")
    train_tiny(folder, LOG, *FEW, "--bytes", name="bytes")
    return folder


def controls(shown: str) -> set[str]:
    return {c for c in shown if (ord(c) < 32 or 126 < ord(c) < 160) and c not in "\n\t"}


def test_harmless_text_keeps_its_lines() -> None:
    text = "a\tb\n\u3000\u00a0e\u0301 \u200d\U0001f989 שלום"
    assert harmless(text) == text
    assert harmless("\x1b[2J\r\x9b\x7f\u202e\u2066\0") == (r"\x1b[2J\r\x9b\x7f\u202e\u2066\x00")


@pytest.mark.parametrize("model", ["log", "bytes"])
@pytest.mark.parametrize(
    "options", [["--length=400"], ["--count=9", "--length=60"], ["--length=60", "--unique"]]
)
def test_a_terminal_gets_no_control_characters(
    models: Path, model: str, options: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    command = [str(models / model), "--seed=1", "--prompt=\x1b[31mERROR", *options]
    _, shown, _ = run_in_window("sample", *command)
    assert controls(shown) == set()
    assert shown.startswith(r"\x1b[31mERROR")
    capfdbinary.readouterr()
    assert main(["sample", *command]) == 0
    raw = capfdbinary.readouterr().out  # of a pipe
    assert b"\x1b" in raw
    text = raw.decode("utf-8", "strict" if model == "log" else "backslashreplace")
    assert harmless(text).removesuffix("\n") == shown.removesuffix("\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "MODEL", "TEXT"],
        ["score", "MODEL", "TEXT", "--csv"],
        ["score", "MODEL", "TEXT", "--json"],
        ["score", "MODEL", "TEXT", "--lines"],
        ["score", "MODEL", "TEXT", "--lines", "--csv"],
        ["info", "MODEL"],
        ["info", "MODEL", "--json"],
        ["evaluate", "MODEL", "TEXT"],
        ["explore", "MODEL", "TEXT"],
        ["sample", "MODEL", "--json", "--count=3"],
    ],
    ids=" ".join,
)
def test_other_commands_write_no_control_characters(models: Path, arguments: list[str]) -> None:
    names = {"MODEL": str(models / "log"), "TEXT": str(models / "woods.txt")}
    status, shown, _ = run_in_window(*(names.get(word, word) for word in arguments))
    assert status == 0
    assert shown
    assert controls(shown) == set()


def test_progress_shows_no_control_characters(models: Path) -> None:
    text = str(models / "woods.txt")
    status, _, shown = run_in_window("train", text, "--keep-newlines", "--out=run", *FEW)
    assert status == 0
    assert "step 4" in shown
    assert not {"\a", "\b", "\x9b", "\u202e"} & set(shown)
    assert "\x1b]0;" not in shown


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gb18030"])
def test_a_character_that_a_terminal_lacks_is_escaped(models: Path, encoding: str) -> None:
    command = ["sample", str(models / "log"), "--seed=1", "--length=300"]
    _, expected, _ = run_in_window(*command)
    status, shown, _ = run_in_window(*command, encoding=encoding)
    assert status == 0
    assert "\u3000" in expected
    assert shown == expected.encode(encoding, "backslashreplace").decode(encoding)
    text = str(models / "woods.txt")
    assert run_in_window("train", text, "--out=run", *FEW, encoding=encoding)[0] == 0


@pytest.mark.parametrize("prompt", ["ok", "ok\n", "ok\n\n"])
def test_a_sample_ends_with_a_line_break_on_a_terminal(models: Path, prompt: str) -> None:
    options = ["--seed=1", "--length=0", f"--prompt={prompt}"]
    _, shown, _ = run_in_window("sample", str(models / "log"), *options)
    assert shown == prompt.removesuffix("\n") + "\n"


@pytest.mark.extended
@pytest.mark.parametrize(
    "environment",
    [ASCII_ONLY, {"PYTHONIOENCODING": "cp1252"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}],
    ids=["ascii", "cp1252", "dumb", "no-color"],
)
def test_any_real_terminal_works(models: Path, environment: dict[str, str]) -> None:
    command = ["sample", str(models / "log"), "--seed=1", "--length=300"]
    with InTerminal(*command, environment=environment, columns=20) as terminal:
        shown = terminal.read()
    assert terminal.process.returncode == 0, shown
    assert controls(shown) == set()
    assert shown.isascii() == (environment is ASCII_ONLY)
    text = str(models / "woods.txt")
    with InTerminal("train", text, "--out=run", *FEW, environment=environment, columns=20) as found:
        shown = found.read()
    assert found.process.returncode == 0, shown
    assert "Traceback" not in shown


def test_help_fits_a_narrow_window() -> None:
    with InTerminal("sample", "--help", columns=40) as terminal:
        shown = terminal.read()
    assert terminal.process.returncode == 0
    assert max(map(len, shown.partition("options:")[2].splitlines())) <= 40


# --- A closed window ------------------------------------------------------------------------------


def test_a_closed_window_saves_the_run(text_file: str) -> None:
    with InTerminal("train", text_file, "--minutes=10", "--out=run", *TINY) as terminal:
        terminal.wait_for("step 0")
        terminal.close()
        terminal.process.wait(timeout=100)
    assert terminal.process.returncode == 128 + signal.SIGHUP
    assert load_checkpoint(Path("run/resume.safetensors")).position is not None


@pytest.mark.extended
def test_nohup_is_respected(text_file: str) -> None:
    command = [sys.executable, "-m", "charloom", "train", text_file, "--steps=9999999"]
    ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command, "--out=run", *TINY]
    with subprocess.Popen(ignoring, stderr=subprocess.PIPE) as working:
        assert working.stderr is not None
        said = b""
        while b"step 0" not in said:
            said += os.read(working.stderr.fileno(), 600)
        working.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            working.wait(timeout=1.5)
        working.send_signal(signal.SIGTERM)
        rest = working.communicate(timeout=100)[1]
    assert working.returncode == 128 + signal.SIGTERM
    assert b"everything is saved" in rest


def test_no_standard_input_is_reported() -> None:
    found = process("train", "-", "--out=run", *FEW, redirect="<&-")
    assert found.returncode == 2
    one_line(found.stderr)


def test_a_message_is_a_line_above_the_progress_bar() -> None:
    window = Window()
    with contextlib.redirect_stderr(window):
        terminal = Terminal()
        with terminal.bar("working") as update:
            update("working", 0.5, 1.0, "details")
            terminal.say("hello")
    assert "\x1b[2Kcharloom: hello\n" in window.shown()
