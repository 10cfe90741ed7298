"""Short texts from the command line: what is kept, what is said, and what `sample` then writes."""

import json
import re
from pathlib import Path

import pytest

from charloom.storage.checkpoint import load_checkpoint
from helpers.cli import refusal, run
from helpers.documents import shuffled_names
from helpers.texts import PANGRAMS

POEM = """\
Nature's first green is gold,
Her hardest hue to hold.
Her early leaf's a flower;
But only so an hour.
Then leaf subsides to leaf.
So Eden sank to grief,
So dawn goes down to day.
Nothing gold can stay.
"""
MANY_STEPS = ("--steps=300", "--hidden-size=64", "--learning-rate=0.015", "--threads=1")


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def share_of_words(sample: str, text: str) -> float:
    known = set(words(text))
    return sum(word in known for word in words(sample)) / len(words(sample))


@pytest.fixture(scope="module")
def poem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("poem")
    (folder / "poem.txt").write_text(POEM)
    return folder


@pytest.fixture(scope="module")
def trained(poem: Path) -> tuple[Path, str]:
    out = poem / "run"
    status, _, errors = run("train", str(poem / "poem.txt"), "--out", str(out), *MANY_STEPS)
    assert status == 0
    return out, errors


def test_a_poem_is_learned_and_what_was_learned_is_kept(trained: tuple[Path, str]) -> None:
    folder, errors = trained
    assert f"the text is short ({len(POEM)} characters): the model trains on all of it" in errors
    assert "trained 300 steps without a validation split: the last weights are kept" in errors
    assert "the network has memorized the text, so no n-gram model is mixed with it" in errors
    assert not re.search(r"charloom evaluate \S*run$", errors, re.MULTILINE)
    checkpoint = load_checkpoint(folder / "model.safetensors")
    assert checkpoint.metrics["step"] == 300
    assert checkpoint.training["split"] == "100/0/0"
    assert checkpoint.mixture is None
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    validated = [event["step"] for event in events if event["event"] == "validation"]
    assert validated[:7] == [0, 1, 2, 4, 8, 15, 30]


@pytest.mark.parametrize("temperature", ["1.0", "0.7"])
def test_a_sample_has_the_words_of_the_poem(trained: tuple[Path, str], temperature: str) -> None:
    status, sample, _ = run(
        "sample", str(trained[0]), "--seed=1", "--length=400", f"--temperature={temperature}"
    )
    assert status == 0
    assert share_of_words(sample, POEM) > 0.8
    assert POEM not in sample  # a window is shorter than the poem


def test_evaluation_of_a_model_without_a_test_split_is_refused(trained: tuple[Path, str]) -> None:
    line = refusal("evaluate", str(trained[0]))
    assert "trained on the whole text" in line
    assert "--split 90/5/5" in line


def test_resuming_keeps_the_choice(trained: tuple[Path, str], poem: Path) -> None:
    before = (trained[0] / "model.safetensors").read_bytes()
    text = str(poem / "poem.txt")
    status, _, errors = run("train", text, "--out", str(trained[0]), "--resume")
    assert (status, "is short" in errors) == (0, False)
    assert (trained[0] / "model.safetensors").read_bytes() == before
    line = refusal("train", text, "--out", str(trained[0]), "--resume", "--split", "90/5/5")
    assert "--split is 90/5/5, but the run has 100/0/0" in line


def test_a_planned_run_of_seconds_keeps_what_it_learned(poem: Path) -> None:
    out = poem / "planned"
    status, _, errors = run(
        "train", str(poem / "poem.txt"), "--out", str(out), "--minutes=0.04", "--threads=1"
    )
    assert status == 0
    assert "the model trains on all of it" in errors
    assert load_checkpoint(out / "model.safetensors").metrics["step"] > 0


def test_a_run_by_steps_on_two_kilobytes_keeps_the_last_weights(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(PANGRAMS)
    arguments = "train", str(tmp_path / "text.txt"), *MANY_STEPS[1:], "--steps=40"
    status, _, errors = run(*arguments, "--out", str(tmp_path / "last"))
    assert status == 0
    assert "the last weights are kept, although they memorize much of it" in errors
    assert "last validation loss:" in errors
    assert "at step 40 of 40" in errors
    checkpoint = load_checkpoint(tmp_path / "last" / "model.safetensors")
    assert (checkpoint.metrics["step"], checkpoint.training["keep"]) == (40, "last")
    status, output, _ = run("evaluate", str(tmp_path / "last"))
    assert status == 0
    assert "test split" in output


def test_an_untrained_network_is_not_kept_silently(tmp_path: Path) -> None:
    letters = "".join(chr(97 + i * i * 7 % 26) for i in range(700)) + "0123456789" * 70
    (tmp_path / "text.txt").write_text(letters)
    status, _, errors = run(
        "train",
        str(tmp_path / "text.txt"),
        *MANY_STEPS[1:],
        "--steps=30",
        "--split=50/50/0",
        "--out",
        str(tmp_path / "run"),
    )
    assert status == 0
    assert "the weights of step 0 are kept, an untrained network" in errors
    assert "--keep last" in errors


def test_a_short_list_of_names_is_a_list_of_names_again(tmp_path: Path) -> None:
    names = shuffled_names()[:100]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    status, _, _ = run(
        "train",
        str(tmp_path / "names.txt"),
        "--lines",
        "--split=100/0/0",
        *MANY_STEPS[1:],
        "--steps=150",
        "--out",
        str(tmp_path / "run"),
    )
    assert status == 0
    status, output, _ = run("sample", str(tmp_path / "run"), "--count=40", "--seed=1")
    pieces = "".join(f"^{name}$" for name in names)
    sampled = output.split()
    known = [f"^{name}$"[i : i + 3] in pieces for name in sampled for i in range(len(name))]
    assert sum(known) > 0.85 * len(known)
