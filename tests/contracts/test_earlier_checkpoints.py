"""Checkpoints and runs of earlier commits load, score the same and resume."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charloom
from charloom.cli.main import main

DATA = Path(__file__).parents[1] / "data" / "commit_27fece8"
MIXER = DATA.parent / "commit_f4d7bb1"
EXPECTED: dict[str, Any] = json.loads((DATA / "expected.json").read_text("utf-8"))
TEXT = (DATA / "text.txt").read_text("utf-8")
# On the machine that wrote them the numbers are equal to the last bit. NumPy's exponential function
# rounds differently on other processors.
TOLERANCE = {"gru": 2e-6, "lstm": 1e-13, "classic": 2e-6}


@pytest.mark.parametrize("run", sorted(EXPECTED))
@pytest.mark.parametrize("part", ["model", "network"])
def test_scores_and_samples_of_an_earlier_checkpoint(run: str, part: str) -> None:
    model = charloom.load(DATA / run, engine="reference", threads=1, network_only=part == "network")
    expected = EXPECTED[run][part]
    lines = TEXT.splitlines()[:5]
    tolerance = TOLERANCE[run]
    np.testing.assert_allclose(model.score_lines(lines), expected["lines"], rtol=tolerance)
    scores = model.score("\n".join(lines)).log_probabilities[:60]
    np.testing.assert_allclose(scores, expected["log_probabilities"], rtol=tolerance)
    assert model.sample("Ba", length=80, temperature=0.8, seed=5) == expected["sample"]


def test_a_mixer_of_an_earlier_version_predicts_and_learns_as_before() -> None:
    expected = json.loads((MIXER / "expected.json").read_text("utf-8"))["mixer"]["model"]
    model = charloom.load(MIXER / "mixer", threads=1)
    lines = TEXT.splitlines()[:5]
    np.testing.assert_allclose(model.score_lines(lines), expected["lines"], rtol=2e-6)
    scores = model.score("\n".join(lines)).log_probabilities[:60]
    np.testing.assert_allclose(scores, expected["log_probabilities"], rtol=2e-6)
    assert model.sample("Ba", length=80, temperature=0.8, seed=5) == expected["sample"]
    adaptive = model.evaluate(
        TEXT[:1500], protocol="adaptive", training_text=str(DATA / "text.txt")
    )
    assert adaptive.nats_per_character == pytest.approx(expected["adaptive"], rel=2e-6)


@pytest.mark.parametrize("run", [*(DATA / run for run in sorted(EXPECTED)), MIXER / "mixer"])
def test_an_earlier_run_resumes(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / run.name
    shutil.copytree(run, folder)
    recorded = json.loads((run.parent / "expected.json").read_text("utf-8"))
    expected = recorded[run.name]["resumed"]
    text = str(DATA / "text.txt")
    assert (
        main(["train", text, "--out", str(folder), "--resume", "--steps", str(expected["step"])])
        == 0
    )
    lines = [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    ]
    last = [line for line in lines if line["event"] == "validation"][-1]
    assert last["step"] == expected["step"]
    assert last["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert last["validation"]["nats_per_character"] == pytest.approx(
        expected["validation"], rel=1e-4
    )
