"""Nonsense for the options of the commands that do not train."""

from pathlib import Path

import pytest

from charloom.cli.main import main
from helpers.cli import refused, short
from helpers.nonsense import (
    ENDLESS,
    HUGE,
    NO_DEVICES,
    NO_ENGINES,
    NO_PROTOCOLS,
    NO_THREADS,
    NUMBERS,
    WHOLE_NUMBERS,
)
from helpers.texts import WOODS

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
def test_invalid_value_of_any_other_option_is_refused(
    trained_run: str, command: str, option: str, value: str
) -> None:
    arguments = ["--minutes=0.001"] if command == "demo" else [trained_run]
    if command == "sample":
        arguments.append("--length=1")
    if (command, option) == ("sample", "--training-text"):
        arguments.append("--report-overlap")
    line = refused(command, *arguments, f"{option}={value}")
    names = {option, option.removeprefix("--"), option.removeprefix("--").replace("-", "_")}
    if option == "--training-text":
        names.add("training text")
    assert any(name in line for name in names)
    assert len(line) < 600


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["evaluate", "RUN", "--skip-unknown"], "--skip-unknown is for a TEXT"),
        (["train", "woods.txt", "--steps=1", "--rank-timeout=9"], "that torchrun starts: omit it"),
        (["train", "woods.txt", "--rank-timeout=0"], "--rank-timeout"),
    ],
    ids=short,
)
def test_an_option_without_what_it_is_for_is_refused(
    trained_run: str, monkeypatch: pytest.MonkeyPatch, command: list[str], problem: str
) -> None:
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    Path("woods.txt").write_text(WOODS, encoding="utf-8")
    assert problem in refused(*(trained_run if word == "RUN" else word for word in command))
    assert not Path("runs/woods").exists()


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
def test_extreme_sampling_settings_work(
    capfdbinary: pytest.CaptureFixture[bytes], trained_run: str, options: list[str], reason: str
) -> None:
    assert main(["sample", trained_run, "--length=30", "--seed=1", *options]) == 0
    out, err = capfdbinary.readouterr()
    assert len(out.decode()) == 30
    assert err == b""
