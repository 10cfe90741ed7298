"""Odd texts and odd names, which are legitimate."""

import os
import sys
from pathlib import Path

import pytest

from charloom.cli.main import main
from charloom.storage.checkpoint import load_checkpoint
from helpers.cli import process, refused, short
from helpers.runs import TINY
from helpers.texts import WOODS

ODD_TEXTS: dict[str, str] = {
    "a terminal's escapes": "\x1b[31mred\x1b[0m\x1b[2J\a\b\x7f\x9b31m " * 200,
    "right to left": "\u202eשלום\u202c سلام\u200f " * 200,
    "all kinds of line ends but CR": "b\nd\x0be\x0cf\x1cg\x85h\u2028i\u2029" * 100,
    "a byte order mark inside": WOODS + "\ufeff" + WOODS,
    "no line ends": "abcdefghij " * 20_000,
    "5,000 characters": "".join(chr(0x4E00 + i) for i in range(5000)),
    "beyond the basic plane": "".join(chr(0x1F600 + i % 60) for i in range(900)),
    "markup": "[bold]x[/bold] [link=a] :smile: \\[ {0} %s " * 100,
}


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_odd_text_is_trained_on_unchanged(
    capfdbinary: pytest.CaptureFixture[bytes], name: str
) -> None:
    text_file = ODD_TEXTS[name]
    Path("odd.txt").write_bytes(text_file.encode())
    assert main(["train", "odd.txt", "--out", "run", "--steps=1", *TINY]) == 0
    err = capfdbinary.readouterr().err.decode()
    assert all(character.isprintable() or character == "\n" for character in err)
    assert load_checkpoint(Path("run/model.safetensors")).vocabulary.characters == tuple(
        sorted(set(text_file))
    )
    assert main(["sample", "run", "--length=50", "--seed=1"]) == 0
    out = capfdbinary.readouterr().out.decode()
    assert len(out) == 50
    assert set(out) <= set(text_file)
    assert main(["evaluate", "run"]) == 0
    assert main(["info", "run"]) == 0
    out = capfdbinary.readouterr().out.decode()
    assert all(character.isprintable() or character == "\n" for character in out)


# --- Names and folders ----------------------------------------------------------------------------

ODD_NAMES = [
    "two words",
    "two\nlines",
    "carriage\rreturn",
    "'quotes\"",
    "[bold]markup",
    "\x1b[31mred",
    "\u202ereversed",
    "\x9b31m",
    "ünïcödé",
    "字🦉",
    ":smile:",
    "%s{0}",
    "$(touch x)",
    "~",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=short)
def test_odd_missing_name_is_reported_on_one_line(
    text_file: str, trained_run: str, name: str
) -> None:
    for arguments in (
        ["info", name],
        ["sample", name],
        ["evaluate", name],
        ["evaluate", trained_run, name],
        ["train", name],
        ["train", text_file, "--from", name],
        ["train", text_file, "--config", name],
        ["train", text_file, "--engine", name],
        ["train", text_file, name],
        [name],
        ["--" + name],
    ):
        refused(*arguments)


@pytest.mark.parametrize("name", ODD_NAMES, ids=short)
def test_an_odd_name_works(capfdbinary: pytest.CaptureFixture[bytes], name: str) -> None:
    Path(name).write_text(WOODS, encoding="utf-8")
    out = Path("runs of mine", name)
    assert main(["train", f"./{name}", "--out", str(out), "--steps=1", *TINY]) == 0
    assert main(["train", f"./{name}", "--steps=1", *TINY]) == 0
    (default,) = Path("runs").iterdir()
    assert main(["evaluate", str(out)]) == 0
    for folder in (out, default):
        assert main(["info", str(folder)]) == 0
        assert main(["info", str(folder), "--json"]) == 0
        assert main(["sample", str(folder), "--length=5"]) == 0
    err = capfdbinary.readouterr().err.decode()
    assert all(character.isprintable() or character == "\n" for character in err)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes there")
@pytest.mark.parametrize("out", [[], [b"--out", b"run\xe9"]], ids=["its own name", "another's"])
def test_a_name_that_is_not_utf_8_works(out: list[bytes]) -> None:
    Path(os.fsdecode(b"caf\xe9.txt")).write_text(WOODS, encoding="utf-8")
    trained = process("train", b"caf\xe9.txt", *out, "--steps=1", *TINY)
    assert trained.returncode == 0, trained.stderr
    folder = out[1] if out else os.fsencode(next(Path("runs").iterdir()))
    for command in (["info"], ["info", "--json"], ["evaluate"], ["sample", "--length=5"]):
        found = process(*command, folder)
        assert found.returncode == 0, found.stderr


def test_dashes_are_names_where_they_cannot_be_options() -> None:
    for name in ("-", "--steps", "-x"):
        Path(name).write_text(WOODS, encoding="utf-8")
    assert "pass ./-x" in refused("train", "--steps=1", *TINY, "-x")
    assert main(["train", "--steps=1", *TINY, "--out=a", "--", "-x"]) == 0
    assert main(["train", "./-", "--steps=1", *TINY, "--out=b"]) == 0
    assert main(["train", "./--steps", "--steps=1", *TINY, "--out=c"]) == 0
