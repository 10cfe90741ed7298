"""The commands, run as a user runs them; errors have files of their own."""

import argparse
import ast
import contextlib
import io
import json
import math
import os
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from charloom import CharloomError, __version__, load
from charloom.cli.arguments import refuse_network_only
from charloom.cli.demo import Times
from charloom.cli.main import main
from charloom.cli.suggestions import in_shell
from charloom.cli.terminal import Terminal
from charloom.training.state import TrainingState
from helpers.cli import refused
from helpers.texts import EINMALEINS

SMALL = ["--hidden-size", "16", "--window", "32", "--seed", "1"]


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and a run on it, made by the command in that folder."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "tables.txt").write_text(EINMALEINS, encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["train", "tables.txt", "--steps", "40", *SMALL]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def in_place(trained_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained_folder)


def header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, read by hand as a script would."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])["__metadata__"]


def test_training_writes_its_files() -> None:
    folder = Path("runs/tables")
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "resume.safetensors", "metrics.jsonl", "samples.txt"} <= names
    values = header(folder / "model.safetensors")
    assert json.loads(values["config"])["hidden_size"] == 16
    assert json.loads(values["vocabulary"]) == sorted(set(EINMALEINS))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "report"] == list(range(1, 41))
    assert {"elapsed_seconds", "characters_per_second"} == set(lines[-1]["timing"])
    validations = [line for line in lines if line["event"] == "validation"]
    assert len(validations) == 21
    assert validations[-1]["validation"]["nats_per_character"] < math.log(len(set(EINMALEINS)))
    assert (folder / "samples.txt").read_text(encoding="utf-8").count("--- step") == 21


def test_training_reports_progress(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "tables.txt", "--out", "said", "--steps", "2", *SMALL]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{len(EINMALEINS):,} characters" in err
    assert "validation" in err
    assert "charloom sample said" in err


def test_sample_output_is_only_text(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    command = ["sample", "runs/tables", "--length", "200", "--seed", "3"]
    assert main(command) == 0
    out, err = capfdbinary.readouterr()
    assert len(out.decode()) == 200
    assert err == b""
    assert main(command) == 0
    assert capfdbinary.readouterr()[0] == out
    assert main(["sample", "runs/tables/model.safetensors", *command[2:]]) == 0
    assert capfdbinary.readouterr()[0] == out
    assert main(["sample", "runs/tables", "--length", "20", "--prompt", "schön"]) == 0
    out, err = capfdbinary.readouterr()
    assert out.decode().startswith("schön")
    assert len(out.decode()) == 25
    assert err.startswith(b"charloom: seed ")


def test_several_samples_differ(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    settings = ["--seed", "3", "--stop", "\n", "--temperature", "0.7", "--top-k", "20"]
    assert main(["sample", "runs/tables", "--count", "4", *settings]) == 0
    *lines, rest = capfdbinary.readouterr()[0].decode().split("\n")
    assert (len(lines), rest) == (4, "")
    assert len(set(lines)) > 1
    assert main(["sample", "runs/tables", "--count", "1", *settings]) == 0
    assert capfdbinary.readouterr()[0].decode() == lines[0]


def reported(err: bytes) -> list[tuple[str, int, int]]:
    """What --report-overlap says of each sample: the stretch, its place and its line, from 1."""
    found = []
    for number, line in enumerate(err.decode().splitlines(), start=1):
        said = re.fullmatch(
            rf"charloom: sample {number}, longest verbatim overlap with the training text: "
            r"(\d+) (?:character|byte)s?, (.+) \(at (?:character|byte) ([\d,]+), line ([\d,]+)\)",
            line,
        )
        assert said, line
        text = ast.literal_eval(said[2])
        if " bytes, " in line:
            text = text.encode()
        assert len(text) == int(said[1])
        found.append((text, int(said[3].replace(",", "")), int(said[4].replace(",", ""))))
    return found


def test_overlap_is_reported_and_limited(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    prompt = "7 mal 8"
    command = ["sample", "runs/tables", "--seed=3", "--prompt", prompt, "--temperature=0.5"]
    command += ["--length=300", "--stop=29"]
    assert main([*command, "--count=3"]) == 0
    plain, _ = capfdbinary.readouterr()
    assert main([*command, "--count=3", "--report-overlap"]) == 0
    out, err = capfdbinary.readouterr()
    assert out == plain  # which carries the text alone
    stretches = reported(err)
    assert len(stretches) == 3
    for text, trained_folder, line in stretches:
        assert len(text) > 8
        assert text in out.decode()
        assert EINMALEINS.index(text) == trained_folder - 1
        assert line == 1 + EINMALEINS[: trained_folder - 1].count("\n")
    for engine in ("auto", "reference"):
        guarded = [*command, "--max-overlap=8", f"--engine={engine}"]
        assert main([*guarded, "--report-overlap"]) == 0
        out, err = capfdbinary.readouterr()
        drawn = out.decode()
        assert drawn.startswith(prompt)
        ends = range(max(9, len(prompt) + 1), len(drawn) + 1)
        assert not any(drawn[end - 9 : end] in EINMALEINS for end in ends)
        ((text, _, _),) = reported(err)
        assert len(text) <= 8
    assert main(["sample", "runs/tables", "--length=0", "--seed=1", "--report-overlap"]) == 0
    assert capfdbinary.readouterr() == (
        b"",
        b"charloom: sample 1, no verbatim overlap with the training text\n",
    )


def test_overlap_limit_without_choices_ends_in_an_error(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    text = "".join(a + b for a in "abc" for b in "abc") * 300  # each after each
    Path("abc.txt").write_text(text)
    assert main(["train", "abc.txt", "--out", "abc", "--steps", "2", *SMALL]) == 0
    capfdbinary.readouterr()
    command = ["sample", "abc", "--seed=1", "--max-overlap=1", "--report-overlap"]
    assert main([*command, "--prompt=ab"]) == 2
    out, err = capfdbinary.readouterr()
    assert out == b"ab"
    told, error = err.decode().splitlines()
    assert told == "charloom: sample 1, no verbatim overlap with the training text"
    assert "after 0 characters" in error
    assert "--max-overlap" in error


def test_overlap_of_a_byte_model(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    data = EINMALEINS.encode()
    Path("bytes.txt").write_bytes(data)
    command = ["train", "bytes.txt", "--out", "bytes", "--bytes", "--steps", "20", *SMALL]
    assert main(command) == 0
    capfdbinary.readouterr()
    command = ["sample", "bytes", "--length=200", "--seed=2", "--temperature=0.5"]
    command += ["--prompt=schö", "--report-overlap"]
    assert main(command) == 0
    out, err = capfdbinary.readouterr()
    ((stretch, trained_folder, line),) = reported(err)
    assert isinstance(stretch, bytes)
    assert stretch in out
    assert data.index(stretch) == trained_folder - 1
    assert line == 1 + data[: trained_folder - 1].count(b"\n")
    assert main([*command, "--max-overlap=6"]) == 0
    out, err = capfdbinary.readouterr()
    assert not any(out[end - 7 : end] in data for end in range(7, len(out) + 1))
    assert len(reported(err)[0][0]) <= 6


def test_evaluate_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "runs/tables"]) == 0
    out = capsys.readouterr().out
    assert "test split" in out
    assert "carried" in out
    for name in ("mixture", "this gru", "uniform", "unigram", "ngram", "xz", "bzip2"):
        assert name in out
    assert "95% confidence interval: " in out
    assert "longest verbatim overlap with the training text: " in out


def test_evaluate_prints_what_is_only_noticed_while_reading(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("late.txt").write_bytes(EINMALEINS.encode() * (70_000 // len(EINMALEINS) + 1) + b"1\r\n")
    assert main(["evaluate", "runs/tables", "late.txt", "--json"]) == 0
    assert "Windows line ends are read as line breaks" in capsys.readouterr().err


def test_network_only_is_refused_without_an_ngram_model() -> None:
    assert main(["train", "tables.txt", "--steps=2", *SMALL, "--no-mix", "--out=alone"]) == 0
    for command in (["sample"], ["score"], ["evaluate"], ["serve", "--port=0"]):
        text = ["tables.txt"] if command == ["score"] else []
        line = refused(*command, "alone", *text, "--network-only")
        assert "--network-only has no effect, because the model is not a mixture: omit it" in line
    models = [load("alone"), load("alone")]
    with pytest.raises(CharloomError, match="no model is a mixture"):
        refuse_network_only(argparse.Namespace(network_only=True), models)
    refuse_network_only(argparse.Namespace(network_only=True), [*models, load("runs/tables")])


def test_evaluate_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "runs/tables", "tables.txt", "--protocol", "cold-64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["characters"] == len(EINMALEINS)
    assert found["protocol"] == "cold-64"
    bits = found["bits_per_character"]
    assert found["nats_per_character"] == pytest.approx(bits * math.log(2))
    assert found["bits_per_byte"] == pytest.approx(
        bits * len(EINMALEINS) / len(EINMALEINS.encode())
    )
    assert found["model"] == "mixture"
    low, high = found["nats_per_character_95_percent"]
    assert low < found["nats_per_character"] < high
    overlap = found["longest_overlap"]
    trained_folder, length = overlap["place"], overlap["characters"]
    assert EINMALEINS[trained_folder : trained_folder + length] == overlap["text"]
    assert overlap["training_place"] == 0  # it is the training text itself
    assert set(found["baselines"]) == {"network", "uniform", "unigram", "ngram", "xz", "bzip2"}
    for name, protocol in (("ngram", "cold-64"), ("xz", "adaptive"), ("uniform", "static")):
        assert found["baselines"][name]["protocol"] == protocol
        assert found["baselines"][name]["bits_per_character"] > 0


def test_info_describes_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "runs/tables"]) == 0
    out = capsys.readouterr().out
    assert "gru, 16 hidden units" in out
    assert "mixed with an n-gram model: " in out
    assert "tables.txt" in out
    rows = {tuple(line.split()[:2]): line.split(maxsplit=2)[-1] for line in out.splitlines()}
    assert rows["text", "characters"] == f"{len(EINMALEINS):,}"
    assert len(rows["text", "unseen"]) <= len("0.000123456")
    assert re.search(r"nats_per_character \d\.\d{1,5},", rows["metrics", "validation"])
    assert main(["info", "runs/tables/resume.safetensors", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["cell"] == "gru"
    assert found["position"]["state"]["step"] == 40


def test_options_in_a_file() -> None:
    Path("options.toml").write_text('cell = "gru"\nhidden-size = 9\nsteps = 2\nwindow = 20\n')
    command = ["train", "tables.txt", "--out", "from-file", "--config", "options.toml"]
    assert main([*command, "--hidden-size", "11"]) == 0
    config = json.loads(header(Path("from-file/model.safetensors"))["config"])
    assert (config["cell"], config["hidden_size"]) == ("gru", 11)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        buffer = io.BytesIO(EINMALEINS.encode())

        @staticmethod
        def isatty() -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", Input)
    assert main(["train", "-", "--out", "piped", "--steps", "2", *SMALL]) == 0
    whole = json.loads(header(Path("runs/tables/model.safetensors"))["text"])
    piped = json.loads(header(Path("piped/model.safetensors"))["text"])
    assert piped["sha256"] == whole["sha256"]


def test_bytes_and_newlines(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Path("windows.txt").write_bytes(EINMALEINS.replace("\n", "\r\n").encode("latin-1"))
    assert main(["train", "windows.txt", "--out", "b", "--bytes", "--steps", "9", *SMALL]) == 0
    assert main(["sample", "b", "--length", "300", "--seed", "1", "--temperature", "2"]) == 0
    assert len(capfdbinary.readouterr()[0]) == 300
    values = header(Path("b/model.safetensors"))
    assert "\r" in json.loads(values["vocabulary"])
    assert json.loads(values["config"])["bytes"] is True
    Path("crlf.txt").write_bytes(EINMALEINS.replace("\n", "\r\n").encode())
    command = ["train", "crlf.txt", "--out", "n", "--normalize-newlines", "--steps", "2", *SMALL]
    assert main(command) == 0
    assert json.loads(header(Path("n/model.safetensors"))["vocabulary"]) == sorted(set(EINMALEINS))
    assert main(["evaluate", "n", "--json"]) == 0  # it is read again as it was read then


def test_fine_tuning_grows_the_vocabulary() -> None:
    Path("other.txt").write_text(EINMALEINS.replace("mal", "Ω×") + "☃", encoding="utf-8")
    command = ["train", "other.txt", "--from", "runs/tables", "--out", "tuned", "--steps", "2"]
    assert main([*command, "--window", "32"]) == 0
    old = json.loads(header(Path("runs/tables/model.safetensors"))["vocabulary"])
    new = json.loads(header(Path("tuned/model.safetensors"))["vocabulary"])
    assert new == old + sorted("Ω×☃")
    assert json.loads(header(Path("tuned/model.safetensors"))["config"])["hidden_size"] == 16


def test_corpora_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpora"]) == 0
    out = capsys.readouterr().out
    for name in (
        "python-help",
        "python-docs",
        "python-stdlib",
        "unicode-names",
        "pride-and-prejudice",
    ):
        assert name in out


def test_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--minutes", "0.01"]) == 0
    assert main(["demo", "--minutes", "0.05"]) == 0
    out = capsys.readouterr().out
    assert "--- a sample before training" in out
    assert "predictor" in out
    assert "Report: runs/demo-2/report.html" in out
    assert Path("runs/demo-2/report.html").exists()
    assert Path("runs/demo/model.safetensors").exists()
    lines = [line for line in out.split("Next:")[-1].splitlines() if "YOUR-" not in line]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line]
    assert [command[0] for command in commands] == ["serve", "sample", "corpora", "train"]
    assert commands[0] == ["serve", "runs/demo-2", "--open"]
    assert all(main(command) == 0 for command in commands[1:3])
    # The last sample is that of the command above it.
    shown = re.search(
        r"^--- charloom (sample runs/demo-2 .*)\n([^\0]*?)\n\ntest split: ", out, re.M
    )
    assert shown
    capsys.readouterr()
    assert main(shlex.split(shown[1])) == 0
    assert capsys.readouterr().out == shown[2]


def test_the_demo_tells_compilation_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilation and imports are no part of the minute, but of the seconds printed at the end."""
    compiling = [7.0]
    monkeypatch.setattr("charloom.kernels.kernel.seconds_compiling", lambda: compiling[0])
    terminal = Terminal()
    terminal.started -= 2.0  # of imports
    times = Times(terminal)
    compiling[0] = 9.0
    assert times.held_up() == pytest.approx(11.0, abs=0.2)
    times.trained(TrainingState(began=3.0, elapsed=60.0))
    summary = times.summary()
    assert "Seconds: 2.0 importing, 9.0 compiling (once on this machine), 3.0 preparing" in summary
    assert ", 57.0 training, " in summary


def test_a_suggested_command_has_the_path_of_a_script_that_is_not_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bin dir" / "charloom"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert in_shell("charloom", "sample", "charloom") == "charloom sample charloom"
    monkeypatch.setattr("sys.argv", [str(script), "demo"])
    assert in_shell("charloom", "sample", "charloom") == f"'{script}' sample charloom"
    monkeypatch.setenv("PATH", str(script.parent))
    assert in_shell("charloom", "sample", "charloom") == "charloom sample charloom"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_terminal_shows_a_progress_bar() -> None:
    import pty

    master, slave = pty.openpty()
    command = [sys.executable, "-m", "charloom", "train", "tables.txt", "--out", "seen"]
    with subprocess.Popen([*command, "--steps", "30", *SMALL], stdout=slave, stderr=slave) as done:
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # Linux tells the end so
            while data := os.read(master, 4096):
                shown += data
        os.close(master)
    assert done.returncode == 0
    assert b"training" in shown
    assert b"characters/s" in shown
    assert b"best validation" in shown


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"charloom {__version__}\n"
    assert main(["--help"]) == 0
    assert "evaluate" in capsys.readouterr().out
