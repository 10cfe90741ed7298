"""Runs that start from the base model that the package carries."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charloom.base_model.carried import CARRIED, load_base
from charloom.base_model.choices import ENGLISH, base_of
from charloom.cli.main import main
from charloom.evaluation.evaluation import Evaluation
from charloom.network.initialization import initialize, reduce_vocabulary
from charloom.network.parameters import ModelConfig
from charloom.runs.carried import start_from_english
from charloom.runs.start import Start, fresh
from charloom.storage.checkpoint import load_checkpoint
from charloom.text.dataset import Split, load_dataset
from charloom.text.source import text_from_string
from charloom.training import planner

ENGLISH_TEXT = (
    "The old house was at the end of the lane, and it had been empty for many years. "
    "When the children came home from school they would stop at the gate, and one of them would "
    'whisper, "Shall we go in?" They never did. There was a garden behind it, with a stone wall.\n'
) * 8
RUSSIAN = "Старый дом стоял в конце улицы, и в нём уже много лет никто не жил.\n" * 40
GERMAN = (
    "Das alte Haus stand am Ende der Straße, und niemand hatte seit Jahren darin gewohnt.\n" * 40
)
LOG = "".join(
    f"2024-03-{i % 28:02} 11:{i % 60:02}:07 pid={i * 97} GET /a/{i}.gif 200\n" for i in range(80)
)
TIMED = {"minutes": 1.0, "threads": 1}
FEW = ["--batch-size=2", "--window=8", "--threads=1", "--steps=6"]


def started(text: str, **options: Any) -> Start:
    start = fresh(TIMED | options)
    dataset = load_dataset(text_from_string(text), Split.parse(start.config.split))
    return start_from_english(start, dataset)[0]


def test_the_carried_model_is_small_and_names_no_place() -> None:
    assert CARRIED.stat().st_size < 3_000_000
    base = load_base(ENGLISH)
    assert base.text["origin"] == ""
    assert "/" not in json.dumps([base.text, base.training]).replace("90/5/5", "")
    assert base.config.end_id is None


def test_an_english_text_starts_from_it() -> None:
    start = started(ENGLISH_TEXT)
    assert start.config.from_run == ENGLISH
    assert start.base is not None
    # Only characters of the text are left.
    assert set(start.base.vocabulary.characters) <= set(ENGLISH_TEXT)
    assert start.fixed["hidden_size"] == start.base.config.hidden_size


@pytest.mark.parametrize("text", [RUSSIAN, GERMAN, LOG, ENGLISH_TEXT[:400]])
def test_other_texts_start_from_nothing(text: str) -> None:
    assert started(text).base is None


@pytest.mark.parametrize(
    "options",
    [
        {"from_run": "none"},
        {"cell": "lstm"},
        {"hidden_size": 64},
        {"layers": 2},
        {"dtype": "float64"},
        {"minutes": None, "steps": 5},
        {"minutes": 0.2},
        {"preset": "tiny"},
        {"counts": "context-mixing", "read_counts": True},
    ],
)
def test_options_that_do_not_fit_start_from_nothing(options: dict[str, Any]) -> None:
    assert started(ENGLISH_TEXT, **options).base is None


def test_its_planned_training_is_gentler() -> None:
    start = started(ENGLISH_TEXT)
    dataset = load_dataset(text_from_string(ENGLISH_TEXT), Split.parse(start.config.split))
    chosen = planner.plan(60, 1.0, dataset, start.fixed).options
    assert chosen["learning_rate"] == planner.RATE_FROM_BASE
    assert (chosen["dropout"], chosen["weight_drop"]) == planner.DROPPED_FROM_BASE
    assert chosen["hidden_size"] == load_base(ENGLISH).config.hidden_size


def test_a_run_from_it_resumes_exactly_and_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(ENGLISH_TEXT + "é", encoding="utf-8")
    command = ["train", str(text), "--from", "english", *FEW]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    shorter = [*command[:-1], "--steps=3", "--schedule=constant", "--validate-every=3"]
    longer = [*command, "--schedule=constant", "--validate-every=3"]
    assert main([*shorter, "--out", str(tmp_path / "parts")]) == 0
    assert main([*longer, "--resume", "--out", str(tmp_path / "parts")]) == 0
    assert main([*longer, "--out", str(tmp_path / "once")]) == 0
    weights = [
        load_checkpoint(tmp_path / name / "resume.safetensors").parameters.flat
        for name in ("parts", "once")
    ]
    assert np.array_equal(*weights)
    assert "é" in load_checkpoint(tmp_path / "once" / "model.safetensors").vocabulary.known
    again = ["train", str(text), "--from", str(tmp_path / "whole"), *FEW]
    assert main([*again, "--out", str(tmp_path / "further")]) == 0
    for name in ("whole", "further"):
        run = str(tmp_path / name)
        assert base_of(load_checkpoint(tmp_path / name / "model.safetensors").text) == ENGLISH
        capsys.readouterr()
        assert main(["evaluate", run, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["base"] == ENGLISH
        assert Evaluation.from_dict(found).rows("gru")[0].note
        assert main(["evaluate", run]) == 0
        assert "started from english" in capsys.readouterr().out
        assert "descends from" in (tmp_path / name / "report.html").read_text(encoding="utf-8")


def test_fewer_characters_have_the_same_logits() -> None:
    old = initialize(ModelConfig("gru", 4, 2, 6), 0)
    reduced = reduce_vocabulary(old, [1, 3, 4])
    assert reduced.config == replace(old.config, vocabulary_size=3)
    for name, values in old.items():
        if name == "rnn.weight_ih_l0":
            assert np.array_equal(reduced[name], values[:, [1, 3, 4]])
        elif name.startswith("decoder."):
            assert np.array_equal(reduced[name], values[[1, 3, 4]])
        else:
            assert np.array_equal(reduced[name], values)
