"""`charloom score` of pipes and of long texts: rows as the lines come, and bounded memory."""

import csv
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from charloom.cli.main import main
from helpers.cli import Captured, one_line, posix, short
from helpers.documents import shuffled_names

SMALL = ["--steps=20", "--hidden-size=16", "--threads=1", "--seed=1"]
SECONDS = 60  # in which a process must end, on a busy machine

pytestmark = posix


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a book, one of its lines, and one of its bytes."""
    folder = tmp_path_factory.mktemp("streams")
    text = folder / "names.txt"
    text.write_text("\n".join([*shuffled_names(), "le café"]) + "\n", encoding="utf-8")
    for name, options in (("book", []), ("lines", ["--lines"]), ("bytes", ["--bytes"])):
        assert main(["train", str(text), *options, *SMALL, "--out", str(folder / name)]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def converse(
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    talk: Callable[[int, Iterator[bytes]], None],
) -> int:
    """Run `charloom score` while `talk` writes into its input and reads the lines of its output."""
    reading, writing = os.pipe()
    results, output = os.pipe()
    failures: list[BaseException] = []

    def talking() -> None:
        try:
            with os.fdopen(results, "rb") as lines:
                talk(writing, lines)
        except BaseException as error:
            failures.append(error)

    talker = threading.Thread(target=talking)
    with os.fdopen(reading) as stdin, os.fdopen(output, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        talker.start()
        names = {"PIPE": f"/dev/fd/{reading}"}
        status = main(["score", *(names.get(word, word) for word in arguments)])
    talker.join(SECONDS)
    if failures:
        raise failures[0]
    return status


@pytest.mark.parametrize(
    ("arguments", "rows_a_line"),
    [
        (["book", "-", "--lines", "--csv"], 1),
        (["lines", "-", "--csv", "--skip-unknown"], 1),
        (["lines", "-", "--lines", "--csv", "--prefix", "--network-only"], 1),
        (["bytes", "PIPE", "--lines", "--csv"], 1),
        (["book", "-", "--csv"], 6),
        (["lines", "-", "--characters", "--csv"], 6),
        (["book", "-", "--csv", "--protocol=cold-3"], 6),
    ],
    ids=short,
)
def test_rows_are_written_as_lines_arrive(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], rows_a_line: int
) -> None:
    # A window is scored when it has all its characters, without the unknown ones.
    sent = ["anlia"] * 3 if "--protocol=cold-3" in arguments else ["anlia", "bethx", "zuzu字"]

    def talk(writing: int, rows: Iterator[bytes]) -> None:
        table = csv.reader(row.decode() for row in rows)
        with os.fdopen(writing, "wb", buffering=0) as lines:
            for number, line in enumerate(sent):
                lines.write(f"{line}\n".encode())
                if number == 0:
                    assert next(table)[0] in ("line", "place")
                for _ in range(rows_a_line):  # It would wait forever for a row that is held back.
                    assert len(next(table)) >= 6
            lines.write(b"no break")
        expected = 1 if rows_a_line == 1 else len("no break") + ("lines" in arguments)
        assert len(list(table)) == expected

    assert converse(monkeypatch, arguments, talk) == 0


def test_a_line_can_arrive_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of a character, a line break of two characters, a byte order mark."""

    def talk(writing: int, rows: Iterator[bytes]) -> None:
        pieces = ["\ufeffle ca".encode(), b"f\xc3", b"\xa9\r", b"\nanlia\r\n\r\n", b"beth"]
        with os.fdopen(writing, "wb", buffering=0) as lines:
            for piece in pieces:
                lines.write(piece)
        table = list(csv.DictReader(io.StringIO(b"".join(rows).decode())))
        assert [row["text"] for row in table] == ["le café", "anlia", "", "beth"]

    assert converse(monkeypatch, ["book", "-", "--lines", "--csv"], talk) == 0


@pytest.mark.parametrize("run", ["book", "lines"])
@pytest.mark.parametrize("form", ["--csv", "--json"])
@pytest.mark.parametrize("options", [["--lines"], ["--characters"]], ids=short)
def test_a_pipe_has_the_rows_of_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, run: str, form: str, options: list[str]
) -> None:
    text = "\n".join([*shuffled_names()[:300], "字", "", "字字 anlia"] * 3).encode()
    Path("some.txt").write_bytes(text)
    Path("some.txt.gz").write_bytes(gzip.compress(text))
    expected = ""
    for path in ("some.txt", "some.txt.gz"):
        capsys.readouterr()
        assert main(["score", run, path, *options, form]) == 0
        found = capsys.readouterr().out
        assert not expected or found.replace("some.txt", "some") == expected
        expected = found.replace("some.txt", "some")

    def talk(writing: int, rows: Iterator[bytes]) -> None:
        with os.fdopen(writing, "wb", buffering=0) as lines:
            for begin in range(0, len(text), 997):
                lines.write(text[begin : begin + 997])
        found = b"".join(rows).decode()
        if options == ["--characters"] and form == "--json":
            found = found.replace('"text": "stdin"', '"text": "some"')
        assert found == expected

    assert converse(monkeypatch, [run, "-", *options, form], talk) == 0


def test_an_empty_input_has_no_rows(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    for content in (b"", b"\n\n"):
        for options in (["--lines", "--csv"], ["--lines", "--json"], ["--lines", "--top=1"]):

            def talk(writing: int, rows: Iterator[bytes], content: bytes = content) -> None:
                with os.fdopen(writing, "wb", buffering=0) as lines:
                    lines.write(content)
                assert list(rows) == []

            assert converse(monkeypatch, ["book", "-", *options], talk) == 2
            assert "has no characters to score" in one_line(capsys.readouterr().err.encode())


def test_an_error_comes_after_the_rows_before_it(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def talk(writing: int, rows: Iterator[bytes]) -> None:
        with os.fdopen(writing, "wb", buffering=0) as lines:
            lines.write(b"anlia\n")
            next(rows)
            assert b"anlia" in next(rows)
            lines.write(b"b\xff\n")

    assert converse(monkeypatch, ["book", "-", "--lines", "--csv"], talk) == 2
    assert "is not UTF-8" in one_line(capsys.readouterr().err.encode())


@pytest.mark.parametrize(
    ("number", "options"),
    [
        (signal.SIGINT, ["--lines", "--json"]),
        pytest.param(signal.SIGTERM, ["--json"], marks=pytest.mark.extended),
        pytest.param(signal.SIGTERM, ["--lines", "--csv"], marks=pytest.mark.extended),
    ],
)
def test_a_signal_ends_it_with_what_was_written(number: signal.Signals, options: list[str]) -> None:
    working = subprocess.Popen(
        [sys.executable, "-m", "charloom", "score", "book", "-", *options, "--threads=1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert working.stdin is not None
    assert working.stdout is not None
    working.stdin.write(b"anlia\nbeth\n")
    working.stdin.flush()
    found = b""
    sign, times = (b"beth", 1) if "--lines" in options else (b'"character"', len("anlia\nbeth\n"))
    while found.count(sign) < times:
        found += working.stdout.read1(10_000)
    working.send_signal(number)
    rest, err = working.communicate(timeout=SECONDS)
    assert working.returncode == 128 + number, err
    assert b"Traceback" not in err
    if "--csv" in options:
        assert (found + rest).count(b"\n") == 3
    elif "--lines" in options:
        assert len(json.loads(found + rest)) == 2
    else:
        assert len(json.loads(found + rest)["scores"]) == 11


@pytest.mark.extended
def test_a_reader_that_leaves_is_no_error() -> None:
    found = subprocess.run(
        [
            "sh",
            "-c",
            f"yes anlia | {sys.executable} -m charloom score book - --lines --csv | head -3",
        ],
        capture_output=True,
        check=True,
        timeout=SECONDS,
    )
    assert found.stdout.count(b"\n") == 3
    assert found.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--training-text", "names.txt"], "has no effect without --protocol adaptive"),
        (["--lines", "--training-text", "names.txt"], "has no effect without --protocol adaptive"),
    ],
    ids=short,
)
def test_options_without_effect_are_refused(
    capsys: Captured, arguments: list[str], said: str
) -> None:
    capsys.readouterr()
    assert main(["score", "book", "names.txt", *arguments]) == 2
    assert said in one_line(capsys.readouterr().err.encode())


def test_characters_are_shown_as_themselves(capsys: Captured) -> None:
    Path("shown.txt").write_text("le café\tlé\x01é\n", encoding="utf-8")
    for run in ("book", "bytes"):
        capsys.readouterr()
        assert main(["score", run, "shown.txt", "--lines"]) == 0
        assert "le café\\tlé\\x01é" in capsys.readouterr().out
        assert main(["score", run, "shown.txt", "--lines", "--json"]) == 0
        assert "le café\\tlé\\u0001é" in capsys.readouterr().out
        assert main(["score", run, "shown.txt", "--top=40"]) == 0
        table = capsys.readouterr().out
        assert "le café" in table
        assert "\\u00e9" not in table
        assert "Ã" not in table


@pytest.fixture(scope="module")
def long_log(folder: Path) -> Path:
    generator = random.Random(1)
    names = shuffled_names()
    path = folder / "long.log"
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < 5_000_000:
            lines = (" ".join(generator.choices(names, k=12)) for _ in range(1_000))
            file.write("\n".join(lines) + "\n")
    return path


WITH_PEAK = """
import re, sys
from pathlib import Path
from charloom.cli.main import main
status = main(sys.argv[1:])
Path("peak").write_text(re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])
sys.exit(status)
"""


@pytest.mark.extended
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux reports the peak")
@pytest.mark.parametrize(
    "command",
    [
        ["score", "book", "long.log"],
        ["score", "book", "long.log", "--lines"],
        ["score", "book", "long.log", "--lines", "--csv"],
        ["score", "book", "long.log", "--lines", "--json"],
        ["score", "book", "long.log", "--html", "long.html"],
        ["score", "lines", "long.log"],
        ["score", "lines", "long.log", "--characters", "--top=3", "--json"],
        ["evaluate", "book", "long.log", "--training-text=/dev/null"],
        ["evaluate", "lines", "long.log", "--training-text=/dev/null"],
        ["evaluate", "book", "long.log", "--protocol=cold-64", "--training-text=/dev/null"],
    ],
    ids=short,
)
def test_memory_does_not_grow_with_the_text(long_log: Path, command: list[str]) -> None:
    """Python and the model take 80 MB, documents and evaluations 155, at any length. A page takes
    more.
    """
    with Path(os.devnull).open("wb") as nowhere:
        # Not `ru_maxrss`, which begins with the memory of the process that started this one.
        subprocess.run(
            [sys.executable, "-c", WITH_PEAK, *command, "--network-only", "--threads=1"],
            stdout=nowhere,
            stderr=nowhere,
            check=True,
        )
    most = 150_000_000 if command[:2] == ["score", "book"] else 187_000_000
    most = 275_000_000 if "--html" in command else most
    assert int(Path("peak").read_text()) * 1024 < most
