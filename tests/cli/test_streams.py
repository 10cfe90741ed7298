"""Standard streams, signals and environments: the command runs as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from charloom.network.parameters import ModelConfig, Parameters
from charloom.storage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charloom.text.vocabulary import Vocabulary
from helpers.cli import ASCII_ONLY, drawn, one_line, posix, process, short
from helpers.runs import FEW, TINY
from helpers.texts import WOODS


@posix
def test_closed_pipe_is_no_error(trained_run: str) -> None:
    """As `charloom sample RUN --length inf | head -c 100` does."""
    sampling = subprocess.Popen(
        [sys.executable, "-m", "charloom", "sample", trained_run, "--length=inf", "--seed=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert sampling.stdout is not None
    assert sampling.stderr is not None
    assert len(sampling.stdout.read(100)) == 100
    sampling.stdout.close()
    err = sampling.stderr.read()
    assert sampling.wait(timeout=100) == 128 + signal.SIGPIPE
    sampling.stderr.close()
    assert err == b""


@posix
@pytest.mark.parametrize("arguments", [["info"], ["evaluate"], ["evaluate", "--json"]], ids=short)
def test_pipe_without_reader_is_no_error(trained_run: str, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as out:
        found = subprocess.run(
            [sys.executable, "-m", "charloom", *arguments, trained_run],
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
            timeout=100,
        )
    assert found.returncode == 128 + signal.SIGPIPE
    assert found.stderr.strip() == b""


@posix
@pytest.mark.parametrize("command", [["sample", "--length=inf"], ["train", "--minutes=10", *TINY]])
def test_an_interrupt_ends_it_cleanly(trained_run: str, text_file: str, command: list[str]) -> None:
    name, *options = command
    source = trained_run if name == "sample" else text_file
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
    rest, _ = working.communicate(timeout=100)
    assert working.returncode == 130
    assert b"Traceback" not in rest
    assert (
        rest.decode()
        .rstrip()
        .splitlines()[-1]
        .endswith("interrupted" if name == "sample" else "--resume")
    )


@posix
def test_interrupted_sample_reports_overlap(trained_run: str) -> None:
    working = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "charloom",
            "sample",
            trained_run,
            "--length=inf",
            "--report-overlap",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert working.stdout is not None
    assert working.stdout.read(300)
    working.send_signal(signal.SIGINT)
    _, err = working.communicate(timeout=100)
    assert working.returncode == 130
    seed, told, end = err.decode().splitlines()
    assert seed.startswith("charloom: seed ")
    assert told.startswith("charloom: sample 1, longest verbatim overlap with the training text: ")
    assert end == "charloom: interrupted"


def test_sample_is_utf_8_in_any_locale(
    capfdbinary: pytest.CaptureFixture[bytes], trained_run: str
) -> None:
    common = [trained_run, "--length=2000", "--seed=1"]
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
def test_every_command_runs_in_an_ascii_terminal(
    trained_run: str, many_characters: str, arguments: list[str]
) -> None:
    Path("字.txt").write_text(WOODS, encoding="utf-8")
    names = {"RUN": trained_run, "MANY": many_characters}
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
def test_closed_standard_output_is_reported(trained_run: str, arguments: list[str]) -> None:
    words = [trained_run if word == "RUN" else word for word in arguments]
    found = process(*words, redirect=">&-")
    assert found.returncode == 2
    lines = [line for line in found.stderr.decode().splitlines() if line and "seed" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("charloom: ")


@posix
@pytest.mark.parametrize("redirect", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_errors_exit_2_whatever_is_closed(text_file: str, redirect: str) -> None:
    found = process("train", text_file, "--steps=0", redirect=redirect)
    assert found.returncode == 2
    assert found.stdout == b"", "an error is never written among what was asked for"
    if "2>" not in redirect:
        assert "--steps" in one_line(found.stderr.strip())
    assert list(Path.cwd().iterdir()) == []


@posix
@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full"])
def test_unwritable_standard_error_changes_nothing(
    capfdbinary: pytest.CaptureFixture[bytes], trained_run: str, text_file: str, redirect: str
) -> None:
    if redirect == "2>/dev/full" and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    found = process("sample", trained_run, "--length=50", redirect=redirect)
    assert found.returncode == 0
    assert len(found.stdout.decode()) == 50
    expected = drawn(capfdbinary, trained_run, "--length=50", "--seed=1").encode()
    assert (
        process("sample", trained_run, "--length=50", "--seed=1", redirect=redirect).stdout
        == expected
    )
    found = process("train", text_file, "--out=run", *FEW, redirect=redirect)
    assert (found.returncode, found.stdout) == (0, b"")
    assert load_checkpoint(Path("run/resume.safetensors")).metrics["step"] == 4


@posix
def test_training_survives_a_closed_standard_error(text_file: str) -> None:
    """As `charloom train TEXT 2>&1 | head -1` does: a reader's leaving must not spoil the run."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as err:
        found = subprocess.run(
            [sys.executable, "-m", "charloom", "train", text_file, "--out=run", *FEW],
            stdout=subprocess.DEVNULL,
            stderr=err,
            check=False,
            timeout=100,
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
        ["sample", "--help"],
        ["--version"],
    ],
    ids=short,
)
def test_full_disk_is_reported_on_one_line(trained_run: str, arguments: list[str]) -> None:
    words = [trained_run if word == "RUN" else word for word in arguments]
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
def test_any_environment_works(
    text_file: str, environment: dict[str, str], arguments: list[str]
) -> None:
    more = [text_file, "--steps=1", *TINY] if arguments == ["train"] else []
    found = process(*arguments, *more, environment=environment)
    assert found.returncode == 0, found.stderr
