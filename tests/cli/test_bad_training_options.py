"""Nonsense for an option of training is refused; what is extreme and makes sense is not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.inspect import type_info

import charloom
from charloom.cli import arguments
from charloom.cli.main import main
from charloom.errors import CharloomError
from charloom.storage.checkpoint import load_checkpoint
from charloom.training.options import OPTIONS, Option, TrainingConfig, option_name
from helpers.cli import Captured, refused, short
from helpers.nonsense import ENDLESS, HUGE, NUMBERS, WHOLE_NUMBERS, words_that_are_no_choice
from helpers.runs import FEW, TINY
from helpers.texts import WOODS

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


NO_TEXTS = {
    "validation": ["", "nowhere", "."],
    "test": ["", "nowhere", "."],
    "separator": ["", "\\q", "\\", "\\x1", "\\ud800", "@@@"],
    "column": ["", "title"],
    "encoding": ["", "nothing", "rot13", "hex", "idna", "undefined", "utf_9"],
}


def nonsense(option: Option) -> list[str]:
    """Values that an option must refuse."""
    if option.value_type is bool:
        return ["", "yes", "true", "1"]
    if option.choices:
        return words_that_are_no_choice(option.choices)
    if option.name == "split":
        return SPLITS
    if option.name == "from_run":
        return ["", "nowhere", ".", "woods.safetensors"]
    if option.value_type is str:
        return NO_TEXTS[option.name]
    whole, limits = option.value_type is int, type_info(option.value_kind)
    values = [*(WHOLE_NUMBERS if whole else NUMBERS), "-1", HUGE, "-" + HUGE, ENDLESS]
    if whole:
        values += [str(limits.ge - 1), str(limits.le + 1)]
    else:
        values += ["-1e-9"] if limits.gt is None else ["0"]
        values += [repr(limits.le * 1.001)] if limits.lt is None else [str(limits.lt)]
    return list(dict.fromkeys(values))


NONSENSE = [(name, value) for name, option in OPTIONS.items() for value in nonsense(option)]


@pytest.mark.parametrize(("name", "value"), NONSENSE, ids=short)
def test_invalid_training_option_is_refused(text_file: str, name: str, value: str) -> None:
    line = refused("train", text_file, *FEW, f"{option_name(name)}={value}")
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
def test_extreme_but_valid_option_is_accepted(name: str, value: Any, reason: str) -> None:
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
def test_extreme_options_train(text_file: str, options: list[str]) -> None:
    ends = [] if any("epochs" in o or "minutes" in o for o in options) else ["--steps=2"]
    assert main(["train", text_file, "--out=run", *TINY, *ends, *options]) == 0
    assert load_checkpoint(Path("run/model.safetensors")).config.hidden_size == 8


@pytest.mark.parametrize("value", ["5", " 5 ", "+5", "0_5", "٥"])
def test_whole_numbers_are_read_as_python_reads_them(value: str) -> None:
    assert arguments.whole_number(value) == 5


def test_diverging_learning_rate_is_reported(capsys: Captured, text_file: str) -> None:
    capsys.readouterr()
    options = ["--learning-rate=1e6", "--clip=0", "--schedule=constant", "--steps=300"]
    assert main(["train", text_file, "--out=run", *TINY, *options]) == 2
    last = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert last.startswith("charloom: the loss became NaN or infinite at step ")
    assert "--learning-rate" in last
    assert "a smaller --clip (it is 0)" not in last, "nothing is smaller, and 0 is no limit"
    charloom.load("run")  # the best model before it diverged


def test_a_model_larger_than_the_machine_is_refused(text_file: str) -> None:
    line = refused("train", text_file, "--hidden-size=65536", "--layers=64", "--steps=1")
    assert "memory" in line
    assert "--hidden-size" in line


def test_preset_classic_uses_one_row(text_file: str) -> None:
    assert "--batch-size" in refused("train", text_file, "--preset=classic", *FEW)


@pytest.mark.parametrize(
    "value", [[], {}, b"x", object(), 1j, True, "\N{SNOWMAN}", float("nan"), -1], ids=short
)
@pytest.mark.parametrize("name", OPTIONS)
def test_invalid_option_is_refused_in_python(name: str, value: Any) -> None:
    if OPTIONS[name].value_type is bool and value is True:
        pytest.skip("true makes sense here")
    with pytest.raises(CharloomError):
        charloom.train(WOODS, out="run", **{"epochs": 0.01, name: value})
    assert not Path("run").exists()


def test_unknown_option_is_refused_in_python() -> None:
    with pytest.raises(CharloomError, match="no option --attention"):
        charloom.train(WOODS, out="run", attention=True)
    assert not Path("run").exists()


def test_invalid_value_is_refused_before_the_text_is_read(text_file: str) -> None:
    """Nobody wants to type a text, or to download one, before the option is found wrong."""
    process_ = subprocess.Popen(
        [sys.executable, "-m", "charloom", "train", "-", "--steps=0"],
        stdin=subprocess.PIPE,  # stays open: whoever reads it waits for ever
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process_.wait(timeout=100) == 2
    finally:
        process_.kill()
        _, err = process_.communicate()
    assert b"--steps" in err
