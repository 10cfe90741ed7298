"""What a user can do wrong, one thing after another: each is one line, status 2, and nothing lost.

Where signals, pipes or the encoding of a terminal matter, the command runs as a process of its own.
"""

import dataclasses
import errno
import gzip
import io
import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import charloom
from charloom.cli import arguments as arguments_module
from charloom.cli.main import COMMANDS, main
from charloom.errors import CharloomError
from charloom.network.parameters import ModelConfig, Parameters
from charloom.progress import OnProgress
from charloom.storage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charloom.text import corpora
from charloom.text.vocabulary import Vocabulary
from charloom.training.options import TrainingConfig, option_name

TEXT = "The woods are lovely, dark and deep,\nund schön → 字 🦉\n" * 30
TINY = ["--hidden-size=8", "--batch-size=2", "--window=8"]
FEW = [*TINY, "--steps=4"]
HUGE = "1" + "0" * 400  # too large for a float
ENDLESS = "9" * 5000  # more digits than Python reads

Captured = pytest.CaptureFixture[str]

posix = pytest.mark.skipif(os.name != "posix", reason="as POSIX has it")


# --- Helpers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, and a run on it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "woods.txt").write_text(TEXT, encoding="utf-8")
    command = ["train", str(folder / "woods.txt"), "--out", str(folder / "run"), *FEW]
    assert main(command) == 0
    return folder


@pytest.fixture(scope="module")
def text(place: Path) -> str:
    return str(place / "woods.txt")


@pytest.fixture(scope="module")
def run(place: Path) -> str:
    return str(place / "run")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder for every test."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(capsys: Captured, *arguments: str) -> str:
    """What the command says as it refuses: one line, status 2, soon, and nothing changed here."""
    before = contents(Path.cwd())
    capsys.readouterr()
    started = time.monotonic()
    status = main(arguments)
    out, err = capsys.readouterr()
    assert status == 2, (status, out, err)
    assert time.monotonic() - started < 5
    assert out == ""
    # Empty lines are counted once, in test_an_error_is_one_line_and_no_more.
    (line,) = [line for line in err.split("\n") if line]
    assert line.startswith("charloom: ")
    assert line.isprintable()
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
        timeout=60,
        env={**os.environ, **(environment or {})},
    )


def one_line(err: bytes) -> str:
    (line,) = err.decode().splitlines()
    assert line.startswith("charloom: ")
    return line


def short(value: object) -> str:
    """A test's name that can be read."""
    return repr(value) if len(repr(value)) < 40 else repr(value)[:20] + "…"


# --- Texts ----------------------------------------------------------------------------------------

# The bytes of a text, its name, and what is said of it.
BAD_TEXTS: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "a.txt", "is empty"),
    "one character": (b"a", "a.txt", "one character"),
    "one character of three bytes": ("字".encode(), "a.txt", "one character"),
    "one distinct character": (b"a" * 5000, "a.txt", "one distinct character"),
    "only zeros": (bytes(5000), "a.txt", "one distinct character"),
    "training part too short": (b"ab", "a.txt", "training part"),
    "validation part too short": (b"abcdefghij" * 10, "a.txt", "validation part"),
    "Latin-1": (b"caf\xe9 " * 500, "a.txt", "byte offset 3"),
    "invalid far inside": (b"abcde" * 500_000 + b"\xff", "a.txt", "byte offset 2500000"),
    "cut in a character": (b"abcde" * 500 + "字".encode()[:2], "a.txt", "byte offset 2500"),
    "surrogate": (b"abcde" * 500 + b"\xed\xa0\x80", "a.txt", "byte offset 2500"),
    "overlong": (b"ab\xc0\x80" * 500, "a.txt", "byte offset 2"),
    "binary": (b"\x7fELF" + bytes(range(256)) * 20, "a.txt", "not UTF-8"),
    "UTF-16": (b"\xff\xfew\0o\0" * 500, "a.txt", "UTF-16"),
    "UTF-16 of the other order": (b"\xfe\xff\0w\0o" * 500, "a.txt", "UTF-16"),
    "gzip without the name": (gzip.compress(TEXT.encode()), "a.txt", "gzip"),
    "text with gzip's name": (TEXT.encode(), "a.txt.gz", "not a complete gzip file"),
    "gzip cut short": (gzip.compress(TEXT.encode())[:-20], "a.txt.gz", "not a complete gzip file"),
    "gzip of its header alone": (gzip.compress(b"")[:10], "a.txt.gz", "not a complete gzip file"),
    "gzip with a wrong checksum": (
        gzip.compress(TEXT.encode())[:-8] + bytes(8),
        "a.txt.gz",
        "not a complete gzip file",
    ),
    "gzip and then something": (
        gzip.compress(TEXT.encode()) + b"something",
        "a.txt.gz",
        "not a complete gzip file",
    ),
    "gzip of nothing": (gzip.compress(b""), "a.txt.gz", "is empty"),
    "gzip of Latin-1": (gzip.compress(b"caf\xe9 " * 500), "a.txt.gz", "byte offset 3"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_a_text_that_cannot_be_learned_is_refused(capsys: Captured, name: str) -> None:
    data, file_name, said = BAD_TEXTS[name]
    Path(file_name).write_bytes(data)
    line = refused(capsys, "train", file_name, "--steps=1", "--hidden-size=8")
    assert said in line


@pytest.mark.parametrize("name", [n for n, (*_, said) in BAD_TEXTS.items() if "part" not in said])
def test_a_text_that_cannot_be_learned_does_not_start_in_a_call(name: str) -> None:
    data, file_name, said = BAD_TEXTS[name]
    Path(file_name).write_bytes(data)
    with pytest.raises(CharloomError, match=re.escape(said)):
        charloom.train(Path(file_name), out="out", steps=1, hidden_size=8)
    assert not Path("out").exists()


NOT_TO_EVALUATE = ["empty", "Latin-1", "UTF-16", "text with gzip's name", "gzip of nothing"]


@pytest.mark.parametrize("name", NOT_TO_EVALUATE)
def test_a_text_that_cannot_be_read_is_not_evaluated(capsys: Captured, run: str, name: str) -> None:
    data, file_name, said = BAD_TEXTS[name]
    Path(file_name).write_bytes(data)
    line = refused(capsys, "evaluate", run, file_name)
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
        (".", "is a folder"),
        ("tiny-shakespear", "did you mean the corpus tiny-shakespeare"),
        ("https://example.org/a.txt", "there is no file"),
        pytest.param("/dev/null", "is a device", marks=posix),
        pytest.param("/dev/zero", "is a device", marks=posix),
    ],
    ids=short,
)
def test_what_is_no_text_is_refused(
    capsys: Captured, run: str, as_name: str, source: str, said: str
) -> None:
    arguments = ["evaluate", run, source] if as_name == "evaluate" else ["train", source, *FEW]
    line = refused(capsys, *arguments)
    assert said in line
    assert len(line) < 600


def test_a_file_that_may_not_be_read_is_refused(capsys: Captured) -> None:
    path = Path("secret.txt")
    path.write_text(TEXT, encoding="utf-8")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    capsys.readouterr()
    assert main(["train", "secret.txt", *FEW]) == 2
    assert "Permission denied" in capsys.readouterr().err
    path.chmod(0o600)


def test_a_file_that_the_system_does_not_open_is_refused(
    capsys: Captured, text: str, run: str
) -> None:
    """As above, also where the tests run as a user who may read every file."""
    really_open = Path.open

    def forbidden(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "secret":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, *arguments, **options)

    Path("secret").write_text(TEXT, encoding="utf-8")
    before = contents(Path.cwd())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", forbidden)
        for arguments in (
            ["train", "secret", *FEW],
            ["train", text, "--config=secret"],
            ["train", text, "--from=secret", *FEW],
            ["info", "secret"],
            ["evaluate", run, "secret"],
            ["evaluate", run, "--training-text=secret"],
        ):
            capsys.readouterr()
            assert main(arguments) == 2
            (line,) = [line for line in capsys.readouterr().err.split("\n") if line]
            assert "Permission denied" in line
    assert contents(Path.cwd()) == before


def in_place_of_standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "empty"), (b"a", "one character"), (b"ab\xff", "byte offset 2")]
)
def test_standard_input_is_checked_like_a_file(
    capsys: Captured, run: str, monkeypatch: pytest.MonkeyPatch, data: bytes, said: str
) -> None:
    in_place_of_standard_input(monkeypatch, data)
    assert said in refused(capsys, "train", "-", *FEW)


def test_standard_input_that_is_closed_is_refused(
    capsys: Captured, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in refused(capsys, "train", "-", *FEW)
    assert "standard input is closed" in refused(capsys, "evaluate", run, "-")


ODD_TEXTS: dict[str, str] = {
    "zero bytes": "a\0b\0\0c" * 500,
    "a terminal's escapes": "\x1b[31mred\x1b[0m\x1b[2J\a\b\x7f\x9b31m " * 200,
    "right to left": "\u202eשלום\u202c سلام\u200f " * 200,
    "lone carriage returns": "one\rtwo\r" * 300,
    "all kinds of line ends": "a\r\nb\nc\rd\x0be\x0cf\x1cg\x85h\u2028i\u2029" * 100,
    "a byte order mark": "\ufeff" + TEXT,
    "no line ends": "abcdefghij " * 20_000,
    "5,000 characters": "".join(chr(0x4E00 + i) for i in range(5000)),
    "beyond the basic plane": "".join(chr(0x1F600 + i % 60) for i in range(900)),
    "markup": "[bold]x[/bold] [link=a] :smile: \\[ {0} %s " * 100,
}


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_an_odd_text_is_learned_as_it_is(
    capfdbinary: pytest.CaptureFixture[bytes], name: str
) -> None:
    text = ODD_TEXTS[name]
    Path("odd.txt").write_bytes(text.encode())
    assert main(["train", "odd.txt", "--out", "run", "--steps=1", *TINY]) == 0
    err = capfdbinary.readouterr().err.decode()
    assert all(character.isprintable() or character == "\n" for character in err)
    assert load_checkpoint(Path("run/model.safetensors")).vocabulary.characters == tuple(
        sorted(set(text))
    )
    assert main(["sample", "run", "--length=50", "--seed=1"]) == 0
    out = capfdbinary.readouterr().out.decode()
    assert len(out) == 50
    assert set(out) <= set(text)
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
def test_an_odd_name_of_what_is_not_there_is_told_on_one_line(
    capsys: Captured, text: str, run: str, name: str
) -> None:
    for arguments in (
        ["info", name],
        ["sample", name],
        ["evaluate", name],
        ["evaluate", run, name],
        ["train", name],
        ["train", text, "--from", name],
        ["train", text, "--config", name],
        ["train", text, "--engine", name],
        ["train", text, name],
        [name],
        ["--" + name],
    ):
        refused(capsys, *arguments)


@pytest.mark.parametrize("name", ODD_NAMES, ids=short)
def test_an_odd_name_works(capfdbinary: pytest.CaptureFixture[bytes], name: str) -> None:
    Path(name).write_text(TEXT, encoding="utf-8")
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
    Path(os.fsdecode(b"caf\xe9.txt")).write_text(TEXT, encoding="utf-8")
    trained = process("train", b"caf\xe9.txt", *out, "--steps=1", *TINY)
    assert trained.returncode == 0, trained.stderr
    folder = out[1] if out else os.fsencode(next(Path("runs").iterdir()))
    for command in (["info"], ["info", "--json"], ["evaluate"], ["sample", "--length=5"]):
        found = process(*command, folder)
        assert found.returncode == 0, found.stderr


def test_dashes_are_names_where_they_cannot_be_options(capsys: Captured) -> None:
    for name in ("-", "--steps", "-x"):
        Path(name).write_text(TEXT, encoding="utf-8")
    assert "required" in refused(capsys, "train", "--steps=1", *TINY, "-x")
    assert main(["train", "--steps=1", *TINY, "--out=a", "--", "-x"]) == 0
    assert main(["train", "./-", "--steps=1", *TINY, "--out=b"]) == 0
    assert main(["train", "./--steps", "--steps=1", *TINY, "--out=c"]) == 0


def test_a_place_that_cannot_be_written_is_refused(capsys: Captured, text: str) -> None:
    Path("file").write_text("kept", encoding="utf-8")
    Path("dangling").symlink_to("nowhere/at/all")
    places = ["file", "file/below", "dangling", "new/" + "x" * 300, "x" * 300 + "/new"]
    if sys.platform == "linux":
        places += ["/proc/new", "/dev/null", "/dev/null/new"]
    for out in places:
        line = refused(capsys, "train", text, "--out", out, *FEW)
        assert "--out" in line or "file name too long" in line.lower()
        assert "--out" in refused(capsys, "demo", "--minutes=0.001", "--out", out)


def test_an_empty_name_of_a_folder_is_refused(capsys: Captured, text: str) -> None:
    assert "--out" in refused(capsys, "train", text, "--out=", *FEW)


def test_a_run_that_cannot_be_written_here_is_refused(capsys: Captured, text: str) -> None:
    """As where the current folder is read-only, which the system's owner is not held to."""
    Path("runs").write_text("a file where the runs would be", encoding="utf-8")
    assert "--out" in refused(capsys, "train", text, *FEW)
    assert "--out" in refused(capsys, "demo", "--minutes=0.001")


def test_a_read_only_folder_is_refused(capsys: Captured, text: str) -> None:
    Path("locked").mkdir(mode=0o500)
    if os.access("locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "--out" in refused(capsys, "train", text, "--out=locked/run", *FEW)


def test_a_folder_of_something_else_is_left_alone(capsys: Captured, text: str) -> None:
    folder = Path("letters")
    folder.mkdir()
    (folder / "letter.txt").write_text("Dear …", encoding="utf-8")
    (folder / ".draft.tmp").write_text("Dear …", encoding="utf-8")
    (folder / ".lock").write_text("somebody's", encoding="utf-8")
    (folder / ".folder.tmp").mkdir()
    for arguments in (
        ["train", text, "--out=letters", *FEW],
        ["train", text, "--out=letters", "--resume", *FEW],
        ["demo", "--minutes=0.001", "--out=letters"],
    ):
        assert "letters is not empty" in refused(capsys, *arguments)


def test_a_refusal_leaves_no_lock_in_a_folder(capsys: Captured, text: str) -> None:
    Path("letters").mkdir()
    Path("letters/letter.txt").write_text("Dear …", encoding="utf-8")
    assert "letters is not empty" in refused(capsys, "train", text, "--out=letters", *FEW)


def test_a_run_is_never_written_over(capsys: Captured, text: str, run: str) -> None:
    shutil.copytree(run, "run")
    assert "--resume" in refused(capsys, "train", text, "--out=run", *FEW)
    assert "--out" in refused(capsys, "demo", "--minutes=0.001", "--out=run")


def test_a_model_without_its_resume_file_is_never_written_over(
    capsys: Captured, text: str, run: str
) -> None:
    """Who threw away the larger file, or got the model from a friend, still wants the model."""
    shutil.copytree(run, "run")
    Path("run/resume.safetensors").unlink()
    refused(capsys, "train", text, "--out=run", "--resume", *FEW)


def test_samples_that_are_gone_do_not_come_back_as_zeros(text: str, run: str) -> None:
    shutil.copytree(run, "run")
    Path("run/samples.txt").unlink()
    assert main(["train", text, "--out=run", "--resume", "--steps=5"]) == 0
    assert b"\0" not in Path("run/samples.txt").read_bytes()


def test_going_on_with_another_text_or_other_options_is_refused(
    capsys: Captured, text: str, run: str
) -> None:
    shutil.copytree(run, "run")
    Path("other.txt").write_text(TEXT.replace("woods", "moods"), encoding="utf-8")
    line = refused(capsys, "train", "other.txt", "--out=run", "--resume")
    assert "not the one" in line
    assert "--out" in line, "it must say what to do"
    again = ["train", text, "--out=run", "--resume"]
    assert "--hidden-size" in refused(capsys, *again, "--hidden-size=9")
    assert "--steps" in refused(capsys, *again, "--steps=3")
    assert "--cell" in refused(capsys, *again, "--cell=lstm")
    assert "--bytes" in refused(capsys, *again, "--bytes")
    assert "--from" in refused(capsys, *again, "--from", run)


@pytest.mark.parametrize("field", dataclasses.fields(TrainingConfig), ids=lambda f: f.name)
def test_nonsense_is_refused_when_a_run_goes_on(
    capsys: Captured, text: str, run: str, field: "dataclasses.Field[Any]"
) -> None:
    shutil.copytree(run, "run")
    line = refused(
        capsys, "train", text, "--out=run", "--resume", f"{option_name(field.name)}=\N{SNOWMAN}"
    )
    assert option_name(field.name) in line


def test_a_run_of_bytes_goes_on_in_its_usual_folder(text: str) -> None:
    assert main(["train", text, "--bytes", *FEW]) == 0
    assert main(["train", text, "--resume", "--steps=5"]) == 0


# --- Options of training --------------------------------------------------------------------------

WHOLE_NUMBERS = ["", " ", "three", "1.5", "1e3", "nan", "inf", "-inf", "0x10", "1,000", "½"]
NUMBERS = ["", " ", "three", "nan", "-nan", "inf", "-inf", "1e400", "1,5", "0x1p3", "1/2", "½"]
SPLITS = [
    "",
    "90",
    "90/5",
    "90/5/6",
    "90/5/5/0",
    "90,5,5",
    "a/b/c",
    "//",
    "0/50/50",
    "-10/60/50",
    "110/-5/-5",
    "nan/5/5",
    "inf/0/0",
    "inf/-inf/100",
    "1e400/0/0",
]


def words_that_are_no_choice(choices: Sequence[str]) -> list[str]:
    first = choices[0]
    return [
        "",
        "nonsense",
        first.upper(),
        first.capitalize(),
        first + "s",
        f" {first}",
        "None",
        "0",
    ]


def nonsense(field: "dataclasses.Field[Any]") -> list[str]:
    """Values that the option of a field must refuse."""
    limits, kind = field.metadata, str(field.type).split("|")[0].strip()
    if kind == "bool":
        return ["", "yes", "true", "1"]
    if "choices" in limits:
        return words_that_are_no_choice(limits["choices"])
    if field.name == "split":
        return SPLITS
    if field.name == "from_run":
        return ["", "nowhere", ".", "woods.safetensors"]
    values = [*(WHOLE_NUMBERS if kind == "int" else NUMBERS), "-1", HUGE, "-" + HUGE, ENDLESS]
    if kind == "int":
        values += [str(limits["least"] - 1), str(limits["most"] + 1)]
    else:
        values += ["0"] if "above" in limits else ["-1e-9"]
        values += [str(limits["below"])] if "below" in limits else [repr(limits["most"] * 1.001)]
    return list(dict.fromkeys(values))


NONSENSE = [(f.name, value) for f in dataclasses.fields(TrainingConfig) for value in nonsense(f)]


@pytest.mark.parametrize(("name", "value"), NONSENSE, ids=short)
def test_nonsense_for_an_option_of_training_is_refused(
    capsys: Captured, text: str, name: str, value: str
) -> None:
    line = refused(capsys, "train", text, *FEW, f"{option_name(name)}={value}")
    assert option_name(name) in line or name == "from_run"
    assert len(line) < 600


# What looks like nonsense and is none, and why.
LEGITIMATE: list[tuple[str, Any, str]] = [
    ("clip", 0.0, "no limit to the gradient's norm"),
    ("clip", 1e-300, "next to no step at all, but a step"),
    ("warmup", 0.0, "no warm-up"),
    ("warmup", 1.0, "the learning rate rises to the end"),
    ("dropout", 0.0, "no dropout"),
    ("dropout", 0.999, "very strong dropout"),
    ("seed", 0, "a seed like any other"),
    ("seed", 2**63 - 1, "the largest seed"),
    ("steps", 10**15, "longer than anyone waits, but it can be interrupted"),
    ("epochs", 1e9, "the same"),
    ("minutes", 1e7, "the same: 19 years"),
    ("epochs", 1e-9, "a part of an epoch, rounded up to one step"),
    ("minutes", 1e-9, "over before it begins: the untrained model"),
    ("validate_every", 10**15, "validations only at the beginning and at the end"),
    ("learning_rate", 1e-300, "learns nothing, harms nothing"),
    ("learning_rate", 1e6, "diverges, and is then refused in one line"),
    ("hidden_size", 1, "the smallest model"),
    ("layers", 64, "the deepest"),
    ("batch_size", 65_536, "as many rows as the text gives"),
    ("threads", 256, "more than there are cores"),
    ("split", "100/0/0", "no validation, as the error for a short text advises"),
    ("split", "33.3/33.3/33.4", "fractions of a percent"),
    ("split", " 90 / 5 / 5 ", "spaces do no harm"),
]


@pytest.mark.parametrize(("name", "value", "reason"), LEGITIMATE, ids=short)
def test_what_is_extreme_and_makes_sense_is_accepted(name: str, value: Any, reason: str) -> None:
    assert getattr(TrainingConfig.of({name: value}), name) == value


@pytest.mark.parametrize(
    "options",
    [
        ["--clip=0"],
        ["--clip=1e-300"],
        ["--warmup=0"],
        ["--warmup=1"],
        ["--dropout=0.999"],
        ["--seed=9223372036854775807"],
        ["--epochs=1e-9"],
        ["--minutes=1e-9"],
        ["--validate-every=1000000000000000"],
        ["--learning-rate=1e-300"],
        ["--layers=16"],
        ["--batch-size=65536"],
        ["--split=100/0/0", "--window=65536"],
        ["--split=1/98/1"],
        ["--threads=256"],
        ["--preset=classic", "--batch-size=1"],
    ],
    ids=short,
)
def test_extreme_options_train(text: str, options: list[str]) -> None:
    ends = [] if any("epochs" in o or "minutes" in o for o in options) else ["--steps=2"]
    assert main(["train", text, "--out=run", *TINY, *ends, *options]) == 0
    assert load_checkpoint(Path("run/model.safetensors")).config.hidden_size == 8


@pytest.mark.parametrize("value", ["5", " 5 ", "+5", "0_5", "٥"])
def test_whole_numbers_are_read_as_python_reads_them(value: str) -> None:
    assert arguments_module.whole_number(value) == 5


def test_a_learning_rate_that_is_too_large_says_so(capsys: Captured, text: str) -> None:
    capsys.readouterr()
    options = ["--learning-rate=1e6", "--clip=0", "--schedule=constant", "--steps=300"]
    assert main(["train", text, "--out=run", *TINY, *options]) == 2
    last = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert last.startswith("charloom: the loss became NaN or infinite at step ")
    assert "--learning-rate" in last
    assert "a smaller --clip (it is 0)" not in last, "nothing is smaller, and 0 is no limit"
    charloom.load("run")  # the best model before it diverged


def test_a_model_larger_than_the_machine_is_refused(capsys: Captured, text: str) -> None:
    line = refused(capsys, "train", text, "--hidden-size=65536", "--layers=64", "--steps=1")
    assert "memory" in line
    assert "--hidden-size" in line


def test_the_preset_classic_reads_one_row(capsys: Captured, text: str) -> None:
    assert "--batch-size" in refused(capsys, "train", text, "--preset=classic", *FEW)


@pytest.mark.parametrize(
    "value", [[], {}, b"x", object(), 1j, True, "\N{SNOWMAN}", float("nan"), -1], ids=short
)
@pytest.mark.parametrize("field", dataclasses.fields(TrainingConfig), ids=lambda f: f.name)
def test_nonsense_in_a_call_is_refused(field: "dataclasses.Field[Any]", value: Any) -> None:
    if field.type == "bool" and value is True:
        pytest.skip("true makes sense here")
    with pytest.raises(CharloomError):
        charloom.train(TEXT, out="run", **{"epochs": 0.01, field.name: value})
    assert not Path("run").exists()


def test_an_unknown_option_in_a_call_is_refused() -> None:
    with pytest.raises(CharloomError, match="no option --attention"):
        charloom.train(TEXT, out="run", attention=True)
    assert not Path("run").exists()


def test_a_value_that_makes_no_sense_is_refused_before_the_text_is_read(text: str) -> None:
    """Nobody wants to type a text, or to download one, before the option is found wrong."""
    process_ = subprocess.Popen(
        [sys.executable, "-m", "charloom", "train", "-", "--steps=0"],
        stdin=subprocess.PIPE,  # stays open: whoever reads it waits for ever
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process_.wait(timeout=10) == 2
    finally:
        process_.kill()
        _, err = process_.communicate()
    assert b"--steps" in err


# --- Options in a file ----------------------------------------------------------------------------

# What is in the file, and what is said.
BAD_CONFIGURATIONS: dict[str, tuple[bytes, str]] = {
    "no TOML": (b"steps: 5", "not TOML"),
    "JSON": (b'{"steps": 5}', "not TOML"),
    "nothing after =": (b"steps =", "not TOML"),
    "twice": (b"steps = 1\nsteps = 2", "not TOML"),
    "not UTF-8": (b'cell = "\xff"', "not TOML"),
    "UTF-16": ("steps = 5".encode("utf-16"), "not TOML"),
    "zeros": (bytes(100), "not TOML"),
    "a number of 5,000 digits": (f"steps = {ENDLESS}".encode(), "--config"),
    "nested deeply": (b"steps = " + b"[" * 100_000, "TOML"),
    "an unknown key": (b"attention = true", "--attention"),
    "a table": (b"[train]\nsteps = 5", "--train"),
    "an abbreviation": (b"step = 5", "--step"),
    "an option of the command": (b'out = "runs/a"', "--out"),
    "an empty key": (b'"" = 5', "--"),
    "a key of two lines": (b'"a\\nb\\u001b[2J" = 5', "--a"),
    "steps a string": (b'steps = "5"', "--steps"),
    "steps a fraction": (b"steps = 1.5", "--steps"),
    "steps true": (b"steps = true", "--steps"),
    "steps zero": (b"steps = 0", "--steps"),
    "steps negative": (b"steps = -5", "--steps"),
    "steps of 400 digits": (f"steps = {HUGE}".encode(), "--steps"),
    "steps a list": (b"steps = [5]", "--steps"),
    "steps a day": (b"steps = 2020-01-01", "--steps"),
    "bytes a word": (b'bytes = "yes"', "--bytes"),
    "bytes a number": (b"bytes = 1", "--bytes"),
    "raw a word": (b'raw = "no"', "--raw"),
    "minutes not a number": (b"minutes = nan", "--minutes"),
    "minutes infinite": (b"minutes = inf", "--minutes"),
    "minutes of 400 digits": (f"minutes = {HUGE}".encode(), "--minutes"),
    "cell of upper case": (b'cell = "LSTM"', "--cell"),
    "cell a list": (b'cell = ["lstm"]', "--cell"),
    "cell a table": (b'[cell]\nkind = "lstm"', "--cell"),
    "preset a list": (b"preset = []", "--preset"),
    "preset unknown": (b'preset = "huge"', "--preset"),
    "split a number": (b"split = 90", "--split"),
    "split a list": (b"split = [90, 5, 5]", "--split"),
    "from a number": (b"from = 5", "--from"),
    "from a list": (b"from = []", "--from"),
    "from nowhere": (b'from = "nowhere"', "nowhere"),
    "hidden-size a word": (b'hidden-size = "big"', "--hidden-size"),
    "seed negative": (b"seed = -1", "--seed"),
}


@pytest.mark.parametrize("name", BAD_CONFIGURATIONS)
def test_a_bad_file_of_options_is_refused(capsys: Captured, text: str, name: str) -> None:
    data, said = BAD_CONFIGURATIONS[name]
    Path("options.toml").write_bytes(data)
    # Nothing of the file is given again here: the command line's word would count.
    line = refused(capsys, "train", text, "--config=options.toml", "--epochs=0.001")
    assert said in line
    assert len(line) < 1000


@pytest.mark.parametrize("name", ["nowhere.toml", ".", "", "x" * 300, "a/b"], ids=short)
def test_a_file_of_options_that_is_none_is_refused(capsys: Captured, text: str, name: str) -> None:
    assert "--config" in refused(capsys, "train", text, f"--config={name}", *FEW)


def test_the_command_line_counts_more_than_the_file(capsys: Captured, text: str) -> None:
    Path("options.toml").write_text("steps = 0\nhidden-size = 8\nbatch_size = 2\nwindow = 8")
    assert main(["train", text, "--config=options.toml", "--steps=1", "--out=run"]) == 0
    assert load_checkpoint(Path("run/model.safetensors")).config.hidden_size == 8


# --- The command line itself ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [""],
        ["TRAIN"],
        ["trian"],
        ["help"],
        ["-v"],
        ["--verbose"],
        ["--VERSION"],
        ["train"],
        ["sample"],
        ["evaluate"],
        ["info"],
        ["train", "--steps=1"],
        ["corpora", "more"],
        ["corpora", "--json"],
        ["demo", "more"],
        ["sample", "a", "b"],
        ["evaluate", "a", "b", "c"],
        ["info", "a", "b"],
        ["train", "a", "-s", "1"],
        ["sample", "a", "--json"],
    ],
    ids=short,
)
def test_a_command_that_is_none_is_refused(capsys: Captured, arguments: list[str]) -> None:
    assert "--help" in refused(capsys, *arguments)


TRAINING_OPTIONS = {option_name(f.name): f.type for f in dataclasses.fields(TrainingConfig)}
OPTIONS: dict[str, list[str]] = {
    "train": ["--out", "--resume", "--config", "--tensorboard", *TRAINING_OPTIONS],
    "tune": [
        *("--out", "--resume", "--config", "--trial-minutes"),
        *(o for o in TRAINING_OPTIONS if o not in ("--preset", "--steps", "--epochs", "--refit")),
    ],
    "sample": [
        *("--prompt", "--length", "--temperature", "--top-k", "--top-p", "--min-p", "--stop"),
        *("--seed", "--count", "--skip-unknown", "--network-only", "--engine", "--threads"),
        *("--device", "--clamp", "--report-overlap", "--max-overlap", "--training-text"),
    ],
    "evaluate": [
        *("--protocol", "--json", "--training-text", "--skip-unknown", "--network-only"),
        *("--engine", "--threads", "--device"),
    ],
    "demo": ["--out", "--minutes", "--seed"],
    "score": [
        *("--lines", "--html", "--json", "--csv", "--top", "--protocol", "--training-text"),
        *("--skip-unknown", "--network-only", "--engine", "--threads", "--device"),
    ],
    "explore": [
        "--out",
        "--json",
        "--units",
        "--skip-unknown",
        "--engine",
        "--threads",
        "--device",
    ],
    "report": ["--out"],
    "serve": [
        *("--host", "--port", "--api-key", "--max-streams", "--network-only", "--engine"),
        "--threads",
        "--device",
    ],
    "info": ["--json"],
    "export": ["--to", "--out"],
    "import": ["--vocabulary", "--out"],
    "corpora": [],
}
FLAGS = {
    *("--resume", "--json", "--csv", "--lines", "--skip-unknown", "--network-only"),
    *("--report-overlap", "--tensorboard"),
} | {n for n, t in TRAINING_OPTIONS.items() if t == "bool"}
EVERY_OPTION = [(command, option) for command in OPTIONS for option in OPTIONS[command]]


def needed(command: str) -> list[str]:
    some = {"demo": 0, "corpora": 0, "score": 2, "explore": 2}
    return ["something"] * some.get(command, 1)


def test_every_command_is_in_the_table_above() -> None:
    assert set(OPTIONS) == set(COMMANDS)


@pytest.mark.parametrize("command", OPTIONS)
def test_help_tells_of_every_option(capsys: Captured, command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code in (0, None)
    out, err = capsys.readouterr()
    assert err == ""
    assert set(OPTIONS[command]) <= set(re.findall(r"--[a-z0-9-]+", out))
    assert set(re.findall(r"^  (--[a-z0-9-]+)", out, re.MULTILINE)) == set(OPTIONS[command])
    assert COMMANDS[command].summary[:20] in out


def test_help_tells_of_every_command(capsys: Captured) -> None:
    for option in ("-h", "--help"):
        assert main([option]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        for name in COMMANDS:
            assert re.search(rf"^  {name} ", out, re.MULTILINE)


@pytest.mark.parametrize(("command", "option"), EVERY_OPTION)
def test_abbreviations_and_lists_of_options_are_refused(
    capsys: Captured, command: str, option: str
) -> None:
    """An abbreviation that works today means something else when an option is added."""
    words = [option[:-1], option.upper(), option + "x"]
    if not option.startswith("--h"):  # -hidden-size is -h, for help, with more behind it
        words.append(option[1:])
    for word in words:
        line = refused(capsys, command, *needed(command), word)
        assert word in line


@pytest.mark.parametrize(("command", "option"), EVERY_OPTION)
def test_an_option_without_its_value_or_with_one_too_many_is_refused(
    capsys: Captured, command: str, option: str
) -> None:
    argument = f"{option}=yes" if option in FLAGS else option
    assert option in refused(capsys, command, *needed(command), argument)


def test_of_an_option_given_twice_the_last_counts(text: str) -> None:
    assert main(["train", text, *FEW, "--steps=0", "--steps=1", "--out=a", "--out=b"]) == 0
    assert [path.name for path in Path.cwd().iterdir()] == ["b"]
    assert load_checkpoint(Path("b/resume.safetensors")).metrics["step"] == 1


def test_the_version_is_told(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"charloom {charloom.__version__}\n", "")


def test_the_module_is_the_command() -> None:
    found = process("--version")
    assert (found.returncode, found.stderr) == (0, b"")
    assert found.stdout.decode().split() == ["charloom", charloom.__version__]
    project = Path(__file__).parents[1] / "pyproject.toml"
    scripts = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"charloom": "charloom.cli.main:main"}
    assert process("nonsense").returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "nowhere.txt"],
        ["train", "-", "--steps=0"],
        ["evaluate", "RUN", "nowhere.txt"],
        ["evaluate", "RUN", "--protocol=cold-0"],
        ["sample", "RUN", "--count=0"],
        ["info", "nowhere"],
        ["nonsense"],
        ["demo", "--minutes=0"],
    ],
    ids=short,
)
def test_an_error_is_one_line_and_no_more(run: str, arguments: list[str]) -> None:
    found = process(*(run if argument == "RUN" else argument for argument in arguments))
    assert found.returncode == 2
    assert found.stdout == b""
    assert found.stderr.count(b"\n") == 1
    one_line(found.stderr)


def test_a_search_without_its_library_is_refused(
    capsys: Captured, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    line = refused(capsys, "tune", text)
    assert "a search needs Optuna" in line
    assert "pip install 'charloom[tune]'" in line


# --- Options of the other commands ----------------------------------------------------------------

NO_ENGINES = words_that_are_no_choice(["reference"])
NO_DEVICES = [*words_that_are_no_choice(["cpu"]), "gpu", "cuda:0"]
NO_THREADS = [*WHOLE_NUMBERS, "0", "-1", "257", HUGE, ENDLESS]
NO_PROTOCOLS = [
    *("", " ", "cold", "cold-", "cold-0", "cold--1", "cold-x", "cold-1.5", "cold-+5", "cold- 5"),
    *("cold-٥", "cold-99999999999999", "cold-" + HUGE, "cold-" + ENDLESS, "COLD-5", "Carried"),
    *("carried-5", "carried ", "adaptive-5", "warm-5", "5"),
]

NONSENSE_ELSEWHERE: dict[tuple[str, str], list[str]] = {
    ("sample", "--length"): [*WHOLE_NUMBERS[:6], "-1", "-inf", "INF", "infinity", ENDLESS],
    ("sample", "--temperature"): [*NUMBERS, "-1", "-1e-9"],
    ("sample", "--top-k"): [*WHOLE_NUMBERS, "0", "-1", ENDLESS],
    ("sample", "--top-p"): [*NUMBERS, "0", "-0.1", "1.1", HUGE],
    ("sample", "--min-p"): [*NUMBERS, "-0.1", "1.1", HUGE],
    ("sample", "--stop"): [""],
    ("sample", "--seed"): [*WHOLE_NUMBERS, "-1", ENDLESS],
    ("sample", "--count"): [*WHOLE_NUMBERS, "0", "-1", ENDLESS],
    ("sample", "--max-overlap"): [*WHOLE_NUMBERS, "0", "-1", ENDLESS],
    ("sample", "--training-text"): ["", "nowhere.txt", "."],
    ("sample", "--engine"): NO_ENGINES,
    ("sample", "--threads"): NO_THREADS,
    ("sample", "--device"): NO_DEVICES,
    ("evaluate", "--protocol"): NO_PROTOCOLS,
    ("evaluate", "--engine"): NO_ENGINES,
    ("evaluate", "--threads"): NO_THREADS,
    ("evaluate", "--training-text"): ["", "nowhere.txt", "."],
    ("demo", "--minutes"): [*NUMBERS, "0", "-1", "1e30", HUGE],
    ("demo", "--seed"): [*WHOLE_NUMBERS, "-1", str(2**63), HUGE, ENDLESS],
}


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [(*where, value) for where, values in NONSENSE_ELSEWHERE.items() for value in values],
    ids=short,
)
def test_nonsense_for_another_option_is_refused(
    capsys: Captured, run: str, command: str, option: str, value: str
) -> None:
    arguments = ["--minutes=0.001"] if command == "demo" else [run]
    if command == "sample":
        arguments.append("--length=1")
    if (command, option) == ("sample", "--training-text"):
        arguments.append("--report-overlap")
    line = refused(capsys, command, *arguments, f"{option}={value}")
    names = {option, option.removeprefix("--"), option.removeprefix("--").replace("-", "_")}
    if option == "--training-text":
        names.add("training text")
    assert any(name in line for name in names)
    assert len(line) < 600


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--temperature=0"], "greedy"),
        (["--temperature=1e-300"], "nearly greedy, without an overflow"),
        (["--temperature=1e300"], "nearly uniform"),
        (["--top-k=1000000000"], "more than there are: all of them"),
        (["--top-p=1"], "all of them"),
        (["--top-p=1e-300"], "the likeliest"),
        (["--min-p=0"], "all of them"),
        (["--min-p=1"], "the likeliest"),
        ([f"--seed={HUGE}"], "a seed of any size"),
        ([f"--max-overlap={HUGE}"], "nothing is excluded"),
        (["--threads=256"], "more than there are cores"),
        (["--engine=auto"], "the default"),
    ],
    ids=short,
)
def test_extreme_settings_draw(
    capfdbinary: pytest.CaptureFixture[bytes], run: str, options: list[str], reason: str
) -> None:
    assert main(["sample", run, "--length=30", "--seed=1", *options]) == 0
    out, err = capfdbinary.readouterr()
    assert len(out.decode()) == 30
    assert err == b""


# --- Drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--report-overlap", "--max-overlap=8"])
def test_what_is_copied_is_not_known_without_the_training_text(
    capsys: Captured, tmp_path: Path, run: str, text: str, option: str
) -> None:
    moved, changed = tmp_path / "moved.txt", tmp_path / "changed.txt"
    shutil.copy(text, moved)
    assert main(["train", str(moved), f"--out={tmp_path / 'run'}", *FEW]) == 0
    moved.rename(tmp_path / "elsewhere.txt")
    changed.write_text(TEXT + "x", encoding="utf-8")
    command = ["sample", str(tmp_path / "run"), "--length=9", "--seed=1", option]
    line = refused(capsys, *command)
    assert "moved.txt" in line
    assert "--training-text" in line
    line = refused(capsys, *command, f"--training-text={changed}")
    assert "is not the one that the run was trained on" in line
    assert main([*command, f"--training-text={tmp_path / 'elsewhere.txt'}"]) == 0
    line = refused(capsys, "sample", run, f"--training-text={text}")
    assert "--report-overlap" in line


def test_a_training_text_that_is_too_long_is_not_indexed(
    capsys: Captured, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charloom.language_model.LONGEST_TO_INDEX", 1000)
    line = refused(capsys, "sample", run, "--max-overlap=9")
    assert f"{len(TEXT):,} characters" in line
    assert "1,000" in line


def drawn(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> str:
    capfdbinary.readouterr()
    assert main(["sample", *arguments]) == 0
    return capfdbinary.readouterr().out.decode()


def test_an_unknown_character_of_a_prompt_is_named_and_can_be_passed_over(
    capfdbinary: pytest.CaptureFixture[bytes], run: str
) -> None:
    assert main(["sample", run, "--prompt", "The w~~d§"]) == 2
    (line,) = capfdbinary.readouterr().err.decode().splitlines()
    assert "'~' (U+007E TILDE)" in line
    assert "position 5" in line
    assert "--skip-unknown" in line
    common = [run, "--length=20", "--seed=1"]
    skipped = drawn(capfdbinary, *common, "--prompt", "The w~~d§", "--skip-unknown")
    plain = drawn(capfdbinary, *common, "--prompt", "The wd")
    assert skipped[-20:] == plain[-20:]
    assert main(["sample", *common, "--prompt", "The w~~d§", "--skip-unknown"]) == 0
    assert b"3 characters of the prompt" in capfdbinary.readouterr().err


@pytest.mark.parametrize("prompt", ["\udcff", "\x1b[2J", "\0", "a\nQ", "\u202e"])
def test_a_prompt_of_odd_characters_is_told_on_one_line(
    capsys: Captured, run: str, prompt: str
) -> None:
    line = refused(capsys, "sample", run, "--prompt", prompt)
    assert "--skip-unknown" in line
    assert main(["sample", run, "--prompt", prompt, "--skip-unknown", "--length=3"]) == 0


def test_a_prompt_for_a_model_of_bytes_is_read_as_bytes(
    capfdbinary: pytest.CaptureFixture[bytes], text: str
) -> None:
    assert main(["train", text, "--bytes", "--out=run", *FEW]) == 0
    capfdbinary.readouterr()
    assert main(["sample", "run", "--prompt", "schön 字", "--length=9", "--seed=1"]) == 0
    out = capfdbinary.readouterr().out
    assert out.startswith("schön 字".encode())
    assert len(out) == len("schön 字".encode()) + 9


def test_a_stop_text_for_a_model_of_bytes_is_read_as_bytes(
    capfdbinary: pytest.CaptureFixture[bytes], text: str
) -> None:
    assert main(["train", text, "--bytes", "--out=run", *FEW]) == 0
    common = ["sample", "run", "--length=5000", "--seed=1"]
    capfdbinary.readouterr()
    assert main(common) == 0
    whole = capfdbinary.readouterr().out
    end = whole.find("ö".encode())
    assert end > 0, "the sample must hold what stops it"
    assert main([*common, "--stop=ö"]) == 0
    assert capfdbinary.readouterr().out == whole[:end]


@pytest.mark.parametrize("name", ["nowhere", "", "empty", "file", "folder-in-its-place"])
def test_a_run_without_a_model_is_refused(capsys: Captured, name: str) -> None:
    Path("empty").mkdir()
    Path("file").write_text("no model", encoding="utf-8")
    Path("folder-in-its-place/model.safetensors").mkdir(parents=True)
    for command in ("sample", "evaluate", "info"):
        line = refused(capsys, command, name)
        assert (name or ".") in line


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "nowhere", ""], ids=short)
def test_a_run_that_is_none_is_refused_in_a_call(name: str) -> None:
    with pytest.raises(CharloomError):
        charloom.load(name)


def test_a_sample_is_as_long_as_asked_and_alone(
    capfdbinary: pytest.CaptureFixture[bytes], run: str
) -> None:
    found = process("sample", run, "--length=200", "--seed=7")
    assert (found.returncode, found.stderr) == (0, b"")
    assert len(found.stdout.decode()) == 200
    again = drawn(capfdbinary, run, "--length=200", "--seed=7")
    assert again.encode() == found.stdout
    assert drawn(capfdbinary, run, "--length=0", "--seed=7") == ""
    unseeded = process("sample", run, "--length=200")
    assert len(unseeded.stdout.decode()) == 200
    (seed,) = re.findall(r"^charloom: seed (\d+)$", unseeded.stderr.decode(), re.MULTILINE)
    assert drawn(capfdbinary, run, "--length=200", f"--seed={seed}").encode() == unseeded.stdout


def test_a_stop_text_ends_the_sample_and_is_left_out(
    capfdbinary: pytest.CaptureFixture[bytes], run: str
) -> None:
    common = [run, "--length=3000", "--seed=7"]
    whole = drawn(capfdbinary, *common)
    for stops in (["e"], [whole[100:103]], ["\n", "字"], [whole[-3:]], ["not in it"]):
        end = min([whole.find(stop) for stop in stops if stop in whole], default=len(whole))
        options = [word for stop in stops for word in ("--stop", stop)]
        assert drawn(capfdbinary, *common, *options) == whole[:end]


def test_many_samples_begin_at_once(run: str) -> None:
    """The first of a billion samples does not wait for the others."""
    sampling = subprocess.Popen(
        [sys.executable, "-m", "charloom", "sample", run, "--count=1000000000", "--length=5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert sampling.stdout is not None
        ready, _, _ = select.select([sampling.stdout], [], [], 8)
        assert ready
    finally:
        sampling.kill()
        sampling.communicate()


@posix
def test_a_reader_that_leaves_is_no_error(run: str) -> None:
    """As `charloom sample RUN --length inf | head -c 100` does."""
    sampling = subprocess.Popen(
        [sys.executable, "-m", "charloom", "sample", run, "--length=inf", "--seed=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert sampling.stdout is not None
    assert sampling.stderr is not None
    assert len(sampling.stdout.read(100)) == 100
    sampling.stdout.close()
    err = sampling.stderr.read()
    assert sampling.wait(timeout=20) == 128 + signal.SIGPIPE
    sampling.stderr.close()
    assert err == b""


@posix
@pytest.mark.parametrize("arguments", [["info"], ["evaluate"], ["evaluate", "--json"]], ids=short)
def test_a_reader_that_was_never_there_is_no_error(run: str, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as out:
        found = subprocess.run(
            [sys.executable, "-m", "charloom", *arguments, run],
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    assert found.returncode == 128 + signal.SIGPIPE
    assert found.stderr.strip() == b""


@posix
@pytest.mark.parametrize("command", [["sample", "--length=inf"], ["train", "--minutes=10", *TINY]])
def test_an_interrupt_ends_it_cleanly(run: str, text: str, command: list[str]) -> None:
    name, *options = command
    source = run if name == "sample" else text
    working = subprocess.Popen(
        [sys.executable, "-m", "charloom", name, source, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert working.stdout is not None
    said = b""
    while b"step 0" not in said and len(said) < 1000:  # then it is at work
        said += working.stdout.read1(600)
    working.send_signal(signal.SIGINT)
    rest, _ = working.communicate(timeout=30)
    assert working.returncode == 130
    assert b"Traceback" not in rest
    assert (
        rest.decode()
        .rstrip()
        .splitlines()[-1]
        .endswith("interrupted" if name == "sample" else "--resume")
    )


@posix
def test_an_interrupted_sample_tells_what_it_copied(run: str) -> None:
    working = subprocess.Popen(
        [sys.executable, "-m", "charloom", "sample", run, "--length=inf", "--report-overlap"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert working.stdout is not None
    assert working.stdout.read(300)
    working.send_signal(signal.SIGINT)
    _, err = working.communicate(timeout=30)
    assert working.returncode == 130
    seed, told, end = err.decode().splitlines()
    assert seed.startswith("charloom: seed ")
    assert told.startswith("charloom: sample 1: the longest stretch copied from the training text")
    assert end == "charloom: interrupted"


ASCII_ONLY = {
    "LC_ALL": "C",
    "LANG": "C",
    "PYTHONIOENCODING": "ascii",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


def test_a_sample_is_utf_8_whatever_the_terminal_speaks(
    capfdbinary: pytest.CaptureFixture[bytes], run: str
) -> None:
    common = [run, "--length=2000", "--seed=1"]
    expected = drawn(capfdbinary, *common, "--prompt", "schön 字")
    assert not expected.isascii()
    for environment in (ASCII_ONLY, {"PYTHONIOENCODING": "utf-16"}, {"LC_ALL": "C"}):
        # Under a locale of ASCII Python reads other arguments as bytes, so without a prompt here.
        found = process("sample", *common, environment=environment)
        assert found.returncode == 0, found.stderr
        assert found.stdout.decode() == drawn(capfdbinary, *common)
    found = process("sample", *common, "--prompt", "schön 字")
    assert found.stdout.decode() == expected


@pytest.fixture
def many_characters() -> str:
    """A model whose characters do not fit on a line."""
    characters = tuple(chr(0x4E00 + i) for i in range(300))
    model = Checkpoint(
        Parameters(ModelConfig("rnn", 1, 1, len(characters))),
        Vocabulary(characters),
        text={"name": "字"},
    )
    save_checkpoint(Path("many"), model)
    return "many"


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "RUN"],
        ["info", "RUN", "--json"],
        ["info", "MANY"],
        ["info", "MANY", "--json"],
        ["evaluate", "RUN"],
        ["evaluate", "RUN", "--json"],
        ["evaluate", "RUN", "字.txt"],
        ["train", "字.txt", "--steps=1", *TINY],
        ["corpora"],
        ["train", "--help"],
    ],
    ids=short,
)
def test_every_command_runs_in_a_terminal_of_ascii(
    run: str, many_characters: str, arguments: list[str]
) -> None:
    Path("字.txt").write_text(TEXT, encoding="utf-8")
    names = {"RUN": run, "MANY": many_characters}
    words = [names.get(word, word) for word in arguments]
    found = process(*words, environment={"PYTHONIOENCODING": "ascii"})
    assert found.returncode == 0, found.stderr
    assert b"Traceback" not in found.stderr
    if "--json" in arguments:
        json.loads(found.stdout)


@posix
@pytest.mark.parametrize(
    "arguments",
    [["sample", "RUN", "--length=30"], ["info", "RUN"], ["evaluate", "RUN"], ["--version"]],
    ids=short,
)
def test_a_standard_output_that_is_closed_is_told(run: str, arguments: list[str]) -> None:
    words = [run if word == "RUN" else word for word in arguments]
    found = process(*words, redirect=">&-")
    assert found.returncode == 2
    lines = [line for line in found.stderr.decode().splitlines() if line and "seed" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("charloom: ")


@posix
@pytest.mark.parametrize("redirect", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_an_error_is_an_error_whatever_is_closed(text: str, redirect: str) -> None:
    found = process("train", text, "--steps=0", redirect=redirect)
    assert found.returncode == 2
    assert found.stdout == b"", "an error is never written among what was asked for"
    if "2>" not in redirect:
        assert "--steps" in one_line(found.stderr.strip())
    assert list(Path.cwd().iterdir()) == []


@posix
@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full"])
def test_a_standard_error_that_cannot_be_written_changes_nothing(
    capfdbinary: pytest.CaptureFixture[bytes], run: str, text: str, redirect: str
) -> None:
    if redirect == "2>/dev/full" and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    found = process("sample", run, "--length=50", redirect=redirect)
    assert found.returncode == 0
    assert len(found.stdout.decode()) == 50
    expected = drawn(capfdbinary, run, "--length=50", "--seed=1").encode()
    assert process("sample", run, "--length=50", "--seed=1", redirect=redirect).stdout == expected
    found = process("train", text, "--out=run", *FEW, redirect=redirect)
    assert (found.returncode, found.stdout) == (0, b"")
    assert load_checkpoint(Path("run/resume.safetensors")).metrics["step"] == 4


@posix
def test_training_outlives_the_reader_of_its_messages(text: str) -> None:
    """As `charloom train TEXT 2>&1 | head -1` does: a reader's leaving must not spoil the run."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as err:
        found = subprocess.run(
            [sys.executable, "-m", "charloom", "train", text, "--out=run", *FEW],
            stdout=subprocess.DEVNULL,
            stderr=err,
            check=False,
            timeout=60,
        )
    assert found.returncode in (0, 128 + signal.SIGPIPE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "RUN", "--length=30", "--seed=1"],
        ["sample", "RUN", "--length=inf", "--seed=1"],
        ["info", "RUN"],
        ["info", "RUN", "--json"],
        ["evaluate", "RUN"],
        ["evaluate", "RUN", "--json"],
        ["corpora"],
        ["--help"],
        ["--version"],
    ],
    ids=short,
)
def test_a_full_disk_is_told_in_one_line(run: str, arguments: list[str]) -> None:
    words = [run if word == "RUN" else word for word in arguments]
    found = process(*words, redirect=">/dev/full")
    assert found.returncode == 2
    assert "No space left" in one_line(found.stderr.strip())


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        ({"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"}, ["corpora"]),
        ({"HOME": ""}, ["corpora"]),
        ({"CHARLOOM_CORPORA": "/nonexistent"}, ["corpora"]),
        ({"TERM": "dumb"}, ["train"]),
        ({"TERM": "", "COLUMNS": "wide"}, ["train"]),
        ({"COLUMNS": "1", "FORCE_COLOR": "1"}, ["train"]),
        ({"COLUMNS": "0", "NO_COLOR": "1"}, ["train"]),
        ({"COLUMNS": "20"}, ["train", "--help"]),
        ({"COLUMNS": "0"}, ["train", "--help"]),
    ],
    ids=short,
)
def test_any_environment_will_do(
    text: str, environment: dict[str, str], arguments: list[str]
) -> None:
    more = [text, "--steps=1", *TINY] if arguments == ["train"] else []
    found = process(*arguments, *more, environment=environment)
    assert found.returncode == 0, found.stderr


def test_a_download_is_shown(capsys: Captured, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = corpora.open_text

    def downloading(source: str, *, on_progress: OnProgress, **how: Any) -> Any:
        for done in (0, 50, 100):
            on_progress("downloading", done, 100)
        return really_open(source, **how)

    monkeypatch.setattr(corpora, "open_text", downloading)
    assert main(["train", text, "--out=run", "--steps=1", *TINY]) == 0


# --- Evaluation -----------------------------------------------------------------------------------


def test_an_unknown_character_of_a_text_is_named_and_can_be_passed_over(
    capsys: Captured, run: str
) -> None:
    Path("other.txt").write_text("The woods~ are § lovely", encoding="utf-8")
    line = refused(capsys, "evaluate", run, "other.txt")
    assert "'~' (U+007E TILDE)" in line
    assert "position 9" in line
    assert "--skip-unknown" in line
    assert main(["evaluate", run, "other.txt", "--skip-unknown", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["characters"] == len("The woods are  lovely")
    assert found["skipped_characters"] == 2


def test_a_text_of_unknown_characters_alone_is_refused(capsys: Captured, run: str) -> None:
    Path("other.txt").write_text("§§~~", encoding="utf-8")
    line = refused(capsys, "evaluate", run, "other.txt", "--skip-unknown")
    assert "no characters to evaluate" in line


@pytest.mark.parametrize("protocol", NO_PROTOCOLS, ids=short)
def test_a_protocol_that_is_none_is_refused_in_a_call(run: str, protocol: str) -> None:
    with pytest.raises(CharloomError, match="protocol"):
        charloom.load(run).evaluate(protocol=protocol)


@pytest.mark.parametrize("protocol", ["carried", "cold-1", "cold-007", "cold-999999999"])
def test_json_is_alone_on_standard_output(capsys: Captured, run: str, protocol: str) -> None:
    capsys.readouterr()
    assert main(["evaluate", run, "--json", "--protocol", protocol]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert err.strip() == ""
    nats, bits = found["nats_per_character"], found["bits_per_character"]
    assert bits == pytest.approx(nats / math.log(2))
    bytes_per_character = found["utf8_bytes"] / found["characters"]
    assert found["bits_per_byte"] == pytest.approx(bits / bytes_per_character)
    assert bytes_per_character > 1
    assert found["characters"] == len(TEXT) - int(len(TEXT) * 0.95)
    expected = "cold-7" if protocol == "cold-007" else protocol
    assert found["protocol"] == expected
    protocols = {name: row["protocol"] for name, row in found["baselines"].items()}
    assert found["model"] == "mixture"
    assert protocols == {
        "network": expected,
        "uniform": "static",
        "unigram": "static",
        "ngram": expected,
        "xz": "adaptive",
        "bzip2": "adaptive",
    }
    for row in found["baselines"].values():
        assert row["bits_per_character"] >= 0
        assert row["reason"] is None


@pytest.fixture
def orphan(text: str) -> tuple[str, Path]:
    """A run whose training text can be moved and changed."""
    source = Path("source.txt").absolute()
    shutil.copy(text, source)
    assert main(["train", str(source), "--out=orphan", *FEW]) == 0
    return "orphan", source


def changed_text(source: Path) -> None:
    source.write_text(TEXT.replace("woods", "moods"), encoding="utf-8")


def folder_in_its_place(source: Path) -> None:
    source.unlink()
    source.mkdir()


HARMS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "moved": (lambda source: source.rename("elsewhere.txt"), "there is no file"),
    "changed": (changed_text, "SHA-256"),
    "emptied": (lambda source: source.write_bytes(b""), "SHA-256"),
    "no longer UTF-8": (lambda source: source.write_bytes(b"\xff"), "byte offset 0"),
    "a folder": (folder_in_its_place, "is a folder"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_training_text_that_is_gone_or_changed(
    capsys: Captured, orphan: tuple[str, Path], text: str, harm: str
) -> None:
    run, source = orphan
    do_harm, said = HARMS[harm]
    do_harm(source)
    line = refused(capsys, "evaluate", run)
    assert said in line
    assert "--training-text" in line
    assert "give a text" in line
    Path("other.txt").write_text(TEXT[:200], encoding="utf-8")
    assert main(["evaluate", run, "other.txt", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bits_per_character"] > 0
    assert found["baselines"]["uniform"]["bits_per_character"] > 0
    for name in ("unigram", "ngram", "xz", "bzip2"):
        row = found["baselines"][name]
        assert row["bits_per_character"] is None
        assert said in row["reason"]
        assert row["protocol"] in ("static", "carried", "adaptive")
    assert main(["evaluate", run, "other.txt"]) == 0
    assert said in capsys.readouterr().out
    assert main(["evaluate", run, "--training-text", text, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(row["bits_per_character"] is not None for row in found["baselines"].values())


def test_a_wrong_training_text_is_refused_and_the_right_one_is_not_needed_for_another(
    capsys: Captured, run: str
) -> None:
    Path("wrong.txt").write_text(TEXT + "!", encoding="utf-8")
    line = refused(capsys, "evaluate", run, "--training-text=wrong.txt")
    assert "SHA-256" in line
    assert "wrong" in line
    Path("other.txt").write_text(TEXT[:200], encoding="utf-8")
    arguments = ["evaluate", run, "other.txt", "--training-text=wrong.txt", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert "SHA-256" in found["baselines"]["xz"]["reason"]


def test_a_run_without_a_held_out_part_needs_a_text(capsys: Captured, text: str) -> None:
    assert main(["train", text, "--split=100/0/0", "--out=run", *FEW]) == 0
    assert "give another text" in refused(capsys, "evaluate", "run")
    assert main(["evaluate", "run", text]) == 0


def test_a_run_on_standard_input_needs_a_text(
    capsys: Captured, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_place_of_standard_input(monkeypatch, TEXT.encode())
    assert main(["train", "-", "--out=run", *FEW]) == 0
    assert "--training-text" in refused(capsys, "evaluate", "run")
    assert main(["evaluate", "run", "--training-text", text]) == 0


# --- Reports and event files ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("nowhere", "no such folder"),
        ("a-file", "give the folder of its run"),
        ("empty", "holds no metrics.jsonl"),
        ("nu\0ll", "cannot be read"),
        ("", "holds no metrics.jsonl"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_a_report_of_what_is_no_run_is_refused(
    what: str, expected: str, beside: bool, capsys: Captured, run: str
) -> None:
    Path("a-file").touch()
    Path("empty").mkdir()
    line = refused(capsys, "report", *([run] if beside else []), what)
    assert expected in line


@pytest.mark.parametrize("out", ["a-folder", "", "missing/page.html", "a-file/page.html", "nu\0ll"])
def test_a_report_that_cannot_be_written_is_refused(out: str, capsys: Captured, run: str) -> None:
    Path("a-folder").mkdir()
    Path("a-file").touch()
    line = refused(capsys, "report", run, "--out", out)
    assert "--out is empty" in line or "give another file" in line


def test_tensorboard_that_is_not_installed(
    text: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    line = refused(capsys, "train", text, "--out", "run", *FEW, "--tensorboard")
    assert "charloom[tensorboard]" in line


def test_a_folder_of_events_that_is_a_file(text: str, capsys: Captured) -> None:
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    assert main(["train", text, "--out", "run", *FEW]) == 0
    Path("run/tensorboard").touch()
    capsys.readouterr()
    assert main(["train", text, "--out", "run", "--resume", "--steps=6", "--tensorboard"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "charloom: " in line]
    assert "cannot write" in line
    assert main(["train", text, "--out", "run", "--resume", "--steps=6"]) == 0
