"""Samples under constraints, likeliest texts and blanks at the command line."""

import json
import re

import pytest

from helpers.cli import refused, run
from helpers.runs import FEW, train_tiny

TEXT = "the quick brown fox jumps over a lazy dog and runs\n" * 40


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(train_tiny(tmp_path_factory.mktemp("models"), TEXT, *FEW, name="book"))


def lines_of(*arguments: str) -> list[str]:
    status, output, errors = run(*arguments)
    assert status == 0, errors
    return output.splitlines()


def test_samples_meet_their_constraints(book: str) -> None:
    command = ["sample", book, "--seed=1", "--count=5", "--match=[a-z]{2,5} [a-z]+", "--forbid=e"]
    found = [json.loads(line) for line in lines_of(*command, "--json", "--length=12")]
    assert len(found) == 5
    for one in found:
        assert re.fullmatch("[a-df-z]{2,5} [a-df-z]+", one["text"])
        assert one["log_probability"] <= one["conditioned_log_probability"]
    plain = lines_of(*command, "--length=12")
    assert plain == [one["text"] for one in found]
    # A line break ends a sample of a single text, so that it needs no length.
    assert len(lines_of(*command, "--length=inf")) == 5


def test_the_likeliest_texts_have_log_probabilities(book: str) -> None:
    found = lines_of("sample", book, "--beam=3", "--length=4", "--match=[a-z]+")
    values = [float(line.split()[0]) for line in found]
    assert len(found) == 3
    assert values == sorted(values, reverse=True)


def test_blanks_have_patterns_and_lengths(book: str) -> None:
    blanks = ["--match=[a-d]+", "--length=2", "--match=[a-z ]+", "--length=5"]
    found = lines_of("fill", book, "the ___ and ____", *blanks, "--count=3", "--samples=16")
    for line in found:
        assert re.fullmatch(r" *-[\d.]+  the [a-d]{1,2} and [a-z ]{1,5}", line)
    one = lines_of("fill", book, "the ___", "--json", "--count=1", "--samples=8")[0]
    assert set(json.loads(one)) == {"text", "parts", "log_probability"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["sample", "--match=a{9}", "--length=8"], "has at least 9 characters, and length is 8"),
        (["sample", "--match=(a", "--count=3"], "match '(a' is not a regular expression"),
        (["sample", "--json-schema=missing.json"], "--json-schema 'missing.json' cannot be read"),
        (["sample", "--grammar=."], "--grammar '.' cannot be read"),
        (["sample", "--beam=2", "--count=3"], "--count has no effect with --beam"),
        (["fill", "no blank"], "the text has no blank"),
        (["fill", "___", "--samples=0"], "samples is 0: pass 1 to 4,096"),
        (["fill", "___", "--count=300"], "count is 300: pass 1 to 256"),
        (["fill", "___", "--length=0"], "has at least 1 character, and length is 0"),
    ],
)
def test_what_cannot_be_met_is_one_line(book: str, arguments: list[str], problem: str) -> None:
    assert problem in refused(arguments[0], book, *arguments[1:])
