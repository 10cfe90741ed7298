"""Texts that cannot be learned or read: one line, status 2, and nothing changed."""

import errno
import gzip
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import charloom
from charloom.cli.main import main
from charloom.errors import CharloomError
from charloom.progress import OnProgress
from charloom.text import corpora
from helpers.cli import Captured, contents, in_place_of_standard_input, posix, refused, short
from helpers.runs import FEW, TINY
from helpers.texts import WOODS

# --- Texts ----------------------------------------------------------------------------------------

# The bytes of a text, its name, and what is said of it.
BAD_TEXTS: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "a.txt", "is empty"),
    "one character": (b"a", "a.txt", "one character"),
    "one character of three bytes": ("字".encode(), "a.txt", "one character"),
    "one distinct character": (b"a" * 5000, "a.txt", "one distinct character"),
    "only zeros": (bytes(5000), "a.txt", "null character"),
    "a zero far inside": (b"abcd\n" * 50_000 + b"\0", "a.txt", "null character in line 50,001"),
    "training part too short": (b"ab", "a.txt", "training split"),
    "validation part too short": (b"abcdefghij" * 10, "a.txt", "validation split"),
    "Latin-1": (b"caf\xe9 " * 500, "a.txt", "byte offset 3"),
    "invalid far inside": (b"abcde" * 500_000 + b"\xff", "a.txt", "byte offset 2500000"),
    "cut in a character": (b"abcde" * 500 + "字".encode()[:2], "a.txt", "byte offset 2500"),
    "surrogate": (b"abcde" * 500 + b"\xed\xa0\x80", "a.txt", "byte offset 2500"),
    "overlong": (b"ab\xc0\x80" * 500, "a.txt", "byte offset 2"),
    "binary": (b"\x7fELF" + bytes(range(256)) * 20, "a.txt", "a program, not text"),
    "UTF-16 cut in a character": (b"\xff\xfe" + b"w\0o\0" * 500 + b"w", "a.txt", "is not utf-16"),
    "gzip cut short": (gzip.compress(WOODS.encode())[:-20], "a.txt.gz", "not a complete gzip file"),
    "gzip of its header alone": (gzip.compress(b"")[:10], "a.txt.gz", "not a complete gzip file"),
    "gzip with a wrong checksum": (
        gzip.compress(WOODS.encode())[:-8] + bytes(8),
        "a.txt.gz",
        "not a complete gzip file",
    ),
    "gzip and then something": (
        gzip.compress(WOODS.encode()) + b"something",
        "a.txt.gz",
        "not a complete gzip file",
    ),
    "gzip of nothing": (gzip.compress(b""), "a.txt.gz", "is empty"),
    "gzip of Latin-1": (gzip.compress(b"caf\xe9 " * 500), "a.txt.gz", "byte offset 3"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_untrainable_text_is_refused(name: str) -> None:
    data, file_name, said = BAD_TEXTS[name]
    Path(file_name).write_bytes(data)
    # Without it, all of a short text is for training.
    split = ["--split=90/5/5"] if "part" in name else []
    line = refused("train", file_name, "--steps=1", "--hidden-size=8", *split)
    assert said in line


@pytest.mark.parametrize("name", [n for n in BAD_TEXTS if "part" not in n])
def test_untrainable_text_is_refused_in_python(name: str) -> None:
    data, file_name, said = BAD_TEXTS[name]
    Path(file_name).write_bytes(data)
    with pytest.raises(CharloomError, match=re.escape(said)):
        charloom.train(Path(file_name), out="out", steps=1, hidden_size=8)
    assert not Path("out").exists()


NOT_TO_EVALUATE = ["empty", "Latin-1", "binary", "gzip of nothing"]


@pytest.mark.parametrize("name", NOT_TO_EVALUATE)
def test_unreadable_text_is_not_evaluated(trained_run: str, name: str) -> None:
    data, file_name, said = BAD_TEXTS[name]
    Path(file_name).write_bytes(data)
    line = refused("evaluate", trained_run, file_name)
    assert said in line or "no characters to evaluate" in line


@pytest.mark.parametrize("as_name", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere.txt", "there is no file"),
        ("woods.txt/x", "there is no file"),
        ("", "empty"),
        (" ", "there is no file"),
        ("x" * 5000, "cannot read"),
        (".", "has no files"),
        ("tiny-shakespear", "did you mean the corpus tiny-shakespeare"),
        ("https://example.org/a.txt", "there is no file"),
        pytest.param("/dev/null", "is a device", marks=posix),
        pytest.param("/dev/zero", "is a device", marks=posix),
    ],
    ids=short,
)
def test_non_text_is_refused(trained_run: str, as_name: str, source: str, said: str) -> None:
    arguments = (
        ["evaluate", trained_run, source] if as_name == "evaluate" else ["train", source, *FEW]
    )
    line = refused(*arguments)
    assert said in line
    assert len(line) < 600


def test_a_file_that_may_not_be_read_is_refused(capsys: Captured) -> None:
    path = Path("secret.txt")
    path.write_text(WOODS, encoding="utf-8")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    capsys.readouterr()
    assert main(["train", "secret.txt", *FEW]) == 2
    assert "Permission denied" in capsys.readouterr().err
    path.chmod(0o600)


def test_a_file_that_the_system_does_not_open_is_refused(
    capsys: Captured, text_file: str, trained_run: str
) -> None:
    """As above, also where the tests run as a user who may read every file."""
    really_open = Path.open

    def forbidden(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "secret":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, *arguments, **options)

    Path("secret").write_text(WOODS, encoding="utf-8")
    before = contents(Path.cwd())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", forbidden)
        for arguments in (
            ["train", "secret", *FEW],
            ["train", text_file, "--config=secret"],
            ["train", text_file, "--from=secret", *FEW],
            ["info", "secret"],
            ["evaluate", trained_run, "secret"],
            ["evaluate", trained_run, "--training-text=secret"],
        ):
            capsys.readouterr()
            assert main(arguments) == 2
            (line,) = [line for line in capsys.readouterr().err.split("\n") if line]
            assert "Permission denied" in line
    assert contents(Path.cwd()) == before


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "empty"), (b"a", "one character"), (b"ab\xff", "byte offset 2")]
)
def test_standard_input_is_checked_like_a_file(
    trained_run: str, monkeypatch: pytest.MonkeyPatch, data: bytes, said: str
) -> None:
    in_place_of_standard_input(monkeypatch, data)
    assert said in refused("train", "-", *FEW)


def test_standard_input_that_is_closed_is_refused(
    trained_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in refused("train", "-", *FEW)
    assert "standard input is closed" in refused("evaluate", trained_run, "-")


def test_download_progress_is_shown(text_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = corpora.open_text

    def downloading(source: str, *, on_progress: OnProgress, **how: Any) -> Any:
        for done in (0, 50, 100):
            on_progress("downloading", done, 100)
        return really_open(source, **how)

    monkeypatch.setattr(corpora, "open_text", downloading)
    assert main(["train", text_file, "--out=run", "--steps=1", *TINY]) == 0
