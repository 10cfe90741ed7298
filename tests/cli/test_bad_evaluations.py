"""Evaluations of what cannot be evaluated, and of training texts that moved or changed."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import charloom
from charloom.cli.main import main
from charloom.errors import CharloomError
from helpers.cli import Captured, in_place_of_standard_input, refused, short
from helpers.nonsense import NO_PROTOCOLS
from helpers.runs import FEW
from helpers.texts import WOODS

# --- Evaluation -----------------------------------------------------------------------------------


def test_unknown_characters_of_a_text_are_charged_or_skipped(
    capsys: Captured, trained_run: str
) -> None:
    Path("other.txt").write_text("The woods~ are § lovely", encoding="utf-8")
    assert main(["evaluate", trained_run, "other.txt", "--json"]) == 0
    charged = json.loads(capsys.readouterr().out)
    assert (charged["characters"], charged["unknown_characters"]) == (23, 2)
    assert main(["evaluate", trained_run, "other.txt", "--skip-unknown", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["characters"] == len("The woods are  lovely")
    assert found["skipped_characters"] == 2
    assert found["unknown_characters"] == 0
    for name, baseline in found["baselines"].items():
        assert baseline["bits_per_character"] < charged["baselines"][name]["bits_per_character"]
    assert found["bits_per_character"] < charged["bits_per_character"]


def test_a_text_of_unknown_characters_alone_is_refused(trained_run: str) -> None:
    Path("other.txt").write_text("§§~~", encoding="utf-8")
    line = refused("evaluate", trained_run, "other.txt", "--skip-unknown")
    assert "no characters to evaluate" in line


@pytest.mark.parametrize("protocol", NO_PROTOCOLS, ids=short)
def test_unknown_protocol_is_refused_in_python(trained_run: str, protocol: str) -> None:
    with pytest.raises(CharloomError, match="protocol"):
        charloom.load(trained_run).evaluate(protocol=protocol)


@pytest.mark.parametrize("protocol", ["carried", "cold-1", "cold-007", "cold-999999999"])
def test_json_is_alone_on_standard_output(
    capsys: Captured, trained_run: str, protocol: str
) -> None:
    capsys.readouterr()
    assert main(["evaluate", trained_run, "--json", "--protocol", protocol]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert err.strip() == ""
    nats, bits = found["nats_per_character"], found["bits_per_character"]
    assert bits == pytest.approx(nats / math.log(2))
    bytes_per_character = found["utf8_bytes"] / found["characters"]
    assert found["bits_per_byte"] == pytest.approx(bits / bytes_per_character)
    assert bytes_per_character > 1
    assert found["characters"] == len(WOODS) - int(len(WOODS) * 0.95)
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
def orphan(text_file: str) -> tuple[str, Path]:
    """A run whose training text can be moved and changed."""
    source = Path("source.txt").absolute()
    shutil.copy(text_file, source)
    assert main(["train", str(source), "--out=orphan", *FEW]) == 0
    return "orphan", source


def changed_text(source: Path) -> None:
    source.write_text(WOODS.replace("woods", "moods"), encoding="utf-8")


def folder_in_its_place(source: Path) -> None:
    source.unlink()
    source.mkdir()


HARMS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "moved": (lambda source: source.rename("elsewhere.txt"), "was not found at"),
    "changed": (changed_text, "SHA-256"),
    "emptied": (lambda source: source.write_bytes(b""), "SHA-256"),
    "no longer UTF-8": (lambda source: source.write_bytes(b"\xff"), "byte offset 0"),
    "a folder": (folder_in_its_place, "has no files"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_training_text_that_is_gone_or_changed(
    capsys: Captured, orphan: tuple[str, Path], text_file: str, harm: str
) -> None:
    trained_run, source = orphan
    do_harm, said = HARMS[harm]
    do_harm(source)
    line = refused("evaluate", trained_run)
    assert said in line
    assert "--training-text" in line
    assert "pass a text" in line
    Path("other.txt").write_text(WOODS[:200], encoding="utf-8")
    assert main(["evaluate", trained_run, "other.txt", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bits_per_character"] > 0
    assert found["baselines"]["uniform"]["bits_per_character"] > 0
    for name in ("unigram", "ngram", "xz", "bzip2"):
        row = found["baselines"][name]
        assert row["bits_per_character"] is None
        assert said in row["reason"]
        assert row["protocol"] in ("static", "carried", "adaptive")
    assert main(["evaluate", trained_run, "other.txt"]) == 0
    assert said in capsys.readouterr().out
    assert main(["evaluate", trained_run, "--training-text", text_file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(row["bits_per_character"] is not None for row in found["baselines"].values())


def test_wrong_training_text_is_refused_and_none_is_needed_for_another_text(
    capsys: Captured, trained_run: str
) -> None:
    Path("wrong.txt").write_text("!" + WOODS, encoding="utf-8")
    line = refused("evaluate", trained_run, "--training-text=wrong.txt")
    assert "SHA-256" in line
    assert "wrong" in line
    Path("other.txt").write_text(WOODS[:200], encoding="utf-8")
    arguments = ["evaluate", trained_run, "other.txt", "--training-text=wrong.txt", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert "SHA-256" in found["baselines"]["xz"]["reason"]


def test_run_without_a_held_out_split_needs_a_text(text_file: str) -> None:
    assert main(["train", text_file, "--split=100/0/0", "--out=run", *FEW]) == 0
    assert "pass another text" in refused("evaluate", "run")
    assert main(["evaluate", "run", text_file]) == 0


def test_a_run_on_standard_input_needs_a_text(
    text_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_place_of_standard_input(monkeypatch, WOODS.encode())
    assert main(["train", "-", "--out=run", *FEW]) == 0
    assert "--training-text" in refused("evaluate", "run")
    assert main(["evaluate", "run", "--training-text", text_file]) == 0
