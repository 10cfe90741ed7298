"""Options in a file of TOML."""

from pathlib import Path

import pytest

from charloom.cli.main import main
from charloom.storage.checkpoint import load_checkpoint
from helpers.cli import refused, short
from helpers.nonsense import ENDLESS, HUGE
from helpers.runs import FEW

# --- Options in a file ----------------------------------------------------------------------------

# What is in the file, and what is said.
BAD_CONFIGURATIONS: dict[str, tuple[bytes, str]] = {
    "no TOML": (b"steps: 5", "not valid TOML"),
    "JSON": (b'{"steps": 5}', "not valid TOML"),
    "nothing after =": (b"steps =", "not valid TOML"),
    "twice": (b"steps = 1\nsteps = 2", "not valid TOML"),
    "not UTF-8": (b'cell = "\xff"', "not valid TOML"),
    "half of UTF-16": (b"\xff\xfes", "not valid TOML"),
    "zeros": (bytes(100), "not valid TOML"),
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
def test_bad_options_file_is_refused(text_file: str, name: str) -> None:
    data, said = BAD_CONFIGURATIONS[name]
    Path("options.toml").write_bytes(data)
    # Nothing of the file is given again here: the command line's word would count.
    line = refused("train", text_file, "--config=options.toml", "--epochs=0.001")
    assert said in line
    assert len(line) < 1000


@pytest.mark.parametrize("name", ["nowhere.toml", ".", "", "x" * 300, "a/b"], ids=short)
def test_missing_options_file_is_refused(text_file: str, name: str) -> None:
    assert "--config" in refused("train", text_file, f"--config={name}", *FEW)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_options_file_as_windows_saves_it(text_file: str, encoding: str) -> None:
    content = "steps = 1\r\nhidden-size = 8\r\nbatch-size = 2\r\nwindow = 8\r\n"
    Path("options.toml").write_bytes(content.encode(encoding))
    assert main(["train", text_file, "--config=options.toml", "--out=run"]) == 0
    assert load_checkpoint(Path("run/model.safetensors")).config.hidden_size == 8


def test_command_line_overrides_options_file(text_file: str) -> None:
    Path("options.toml").write_text("steps = 0\nhidden-size = 8\nbatch_size = 2\nwindow = 8")
    assert main(["train", text_file, "--config=options.toml", "--steps=1", "--out=run"]) == 0
    assert load_checkpoint(Path("run/model.safetensors")).config.hidden_size == 8
