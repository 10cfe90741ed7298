"""`python -m charloom.scratch`."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from charloom import scratch
from helpers.scratch import VERSE, run_scratch

# --- The command ----------------------------------------------------------------------------------


def test_the_command_on_pride_and_prejudice(austen: Path) -> None:
    done = run_scratch(str(austen), "--steps", "300")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.split("\n")
    assert lines[0] == "704,190 characters; vocabulary size: 86"
    assert lines[1] == "epoch 1, 0 windows: smoothed loss 111.36 nats (4.45 a character)"
    (last,) = (line for line in lines if "300 windows" in line)
    assert "characters/s" in last
    # Below 107 on most processors, 107.38 on one: rounding decides. Without learning: 111.36.
    assert float(last.split("smoothed loss ")[1].split()[0]) < 108.5
    assert lines.count("----") == 4  # around two samples


def test_the_command_is_reproducible_and_stops_after_its_epochs(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_bytes(VERSE.encode())

    def printed(seed: str) -> list[str]:
        done = run_scratch(str(book), "--epochs", "2", "--seed", seed)
        assert (done.returncode, done.stderr) == (0, "")
        return [line.split(" a character)")[0] for line in done.stdout.split("\n")]

    assert printed("3") == printed("3") != printed("4")
    windows = 2 * len(range(0, len(VERSE) - 1, 10))
    assert any(line.startswith(f"epoch 2, {windows} windows") for line in printed("3"))


def test_the_book_is_read_as_utf_8_and_as_it_is(tmp_path: Path) -> None:
    """In a locale that knows only ASCII, with a byte order mark and two kinds of line ends."""
    book = tmp_path / "book.txt"
    book.write_bytes("\ufeff“Né,”\r\nsaid\n".encode() * 3)
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run_scratch(str(book), "--steps", "1", **ascii_locale, PYTHONIOENCODING="ascii:strict")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("39 characters; vocabulary size: 12\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is too short: it has 0 characters, and 26 are needed"),
        (b"twenty-five characters...", "is too short: it has 25 characters, and 26 are needed"),
        (b"thirty characters, then a byte: \xff", "is not UTF-8: invalid start byte at byte 32"),
    ],
)
def test_unusable_file_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture, content: bytes | None, message: str
) -> None:
    book = tmp_path / "book.txt"
    if content is not None:
        book.write_bytes(content)
    assert scratch.main([str(book)]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"python -m charloom.scratch: {book} {message}\n")


def test_a_folder_is_no_book_and_the_status_reaches_the_shell(tmp_path: Path) -> None:
    done = run_scratch(str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr


def test_26_characters_are_enough(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    book = tmp_path / "book.txt"
    book.write_bytes(b"abcdefghijklmnopqrstuvwxyz")
    assert scratch.main([str(book), "--epochs", "1"]) == 0
    assert "epoch 1, 3 windows: smoothed loss 81." in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--epochs", "--steps", "--seed"])
@pytest.mark.parametrize("value", ["-1", "many"])
def test_options_that_make_no_sense(option: str, value: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        scratch.main(["book.txt", option, value])
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def start_scratch(tmp_path: Path) -> subprocess.Popen:
    book = tmp_path / "book.txt"
    book.write_bytes(VERSE.encode() * 500)
    return subprocess.Popen(
        [sys.executable, "-m", "charloom.scratch", str(book), "--epochs", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_ctrl_c_ends_quietly_with_130(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits "ignored"
    try:
        process = start_scratch(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (130, b"")


@pytest.mark.skipif(os.name == "nt", reason="Windows reports a closed pipe in another way")
def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    with start_scratch(tmp_path) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=100) == 141
    assert err == b""


def test_the_page_imports_numpy_and_nothing_of_the_package() -> None:
    imported = set()
    for node in ast.walk(ast.parse(Path(scratch.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])
    assert imported - sys.stdlib_module_names == {"numpy"}
