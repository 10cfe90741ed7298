"""A resume file that is damaged, or not one, is refused and nothing is lost."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import charloom
from charloom.cli.main import main
from charloom.storage.folders import RESUME_FILE
from helpers.checkpoints import (
    Change,
    Tensors,
    changed,
    entry,
    missing_within,
    same_bytes,
    within,
    within_state,
)
from helpers.cli import contents, refused

# --- One file in the place of the other -----------------------------------------------------------


def test_resume_file_loads_as_a_model(
    trained_run: Path, resume_file: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds a whole model, the current one, so that it may have the other's name."""
    (tmp_path / "model.safetensors").write_bytes(resume_file)
    found = charloom.load(tmp_path).checkpoint.parameters.flat
    assert same_bytes(found, charloom.load(trained_run / RESUME_FILE).checkpoint.parameters.flat)
    assert main(["info", str(tmp_path)]) == 0
    assert "position" in capsys.readouterr().out, "info must say that it is a resume file"


def test_a_model_cannot_be_resumed(trained_run: Path, model_file: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    (folder / RESUME_FILE).write_bytes(model_file)
    before = contents(folder)
    text = str(trained_run.parent / "woods.txt")
    line = refused("train", text, "--out", str(folder), "--resume", "--steps", "9")
    assert RESUME_FILE in line
    assert contents(folder) == before


@pytest.mark.parametrize(
    "damage", [lambda file: b"", lambda file: file[:-1], lambda file: b"\x80\x04" + file]
)
def test_a_damaged_resume_file_is_refused_and_nothing_is_lost(
    trained_run: Path,
    resume_file: bytes,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    (folder / RESUME_FILE).write_bytes(damage(resume_file))
    before = contents(folder)
    text = str(trained_run.parent / "woods.txt")
    line = refused("train", text, "--out", str(folder), "--resume", "--steps", "9")
    assert RESUME_FILE in line
    assert contents(folder) == before


def state_of_other_rows(metadata: dict[str, str], tensors: Tensors) -> None:
    tensors["state"] = np.concatenate([tensors["state"]] * 3, axis=2)


def state_of_no_shape(metadata: dict[str, str], tensors: Tensors) -> None:
    tensors["state"] = tensors["state"].ravel()


def an_optimizer_lost(metadata: dict[str, str], tensors: Tensors) -> None:
    for name in [name for name in tensors if name.startswith("optimizer.")][1:]:
        del tensors[name]


def an_optimizer_unknown(metadata: dict[str, str], tensors: Tensors) -> None:
    some = next(values for name, values in tensors.items() if name.startswith("optimizer."))
    tensors["optimizer.lucky"] = some


RESUMED: dict[str, Change] = {
    "position-empty": entry("position", "{}"),
    "no-state": missing_within("position", "state"),
    "no-ends": missing_within("position", "ends"),
    "state-empty-of-a-word": within("position", state="here"),
    "state-with-more": within("position", state={"mood": 1}),
    "state-of-words": within("position", state={"step": "four"}),
    "step-negative": within("position", state={"step": -4}),
    "a-step-of-words": within_state(step="four"),
    "a-best-step-of-words": within_state(best_step="four"),
    "a-best-loss-of-words": within_state(best_loss="low"),
    "a-smoothed-loss-of-words": within_state(smoothed_loss="low"),
    "recent-steps-of-none": within_state(recent_steps=None),
    "recent-steps-negative": within_state(recent_steps=-1),
    "threads-of-words": within("position", threads="all"),
    "threads-beyond-counting": within("position", threads=10**30),
    "no-learning-rate": within("training", learning_rate=None),
    "ends-of-words": within("position", ends={"steps": "many"}),
    "lines-of-words": within("position", metrics_lines="nine"),
    "samples-negative": within("position", samples_bytes=-1),
    "training-with-more": within("training", attention=True),
    "training-lacks-nothing-but-sense": within("training", window="eight"),
    "training-of-another-size": within("training", hidden_size=3),
    "training-of-another-cell": within("training", cell="gru"),
    "no-digest-of-the-text": missing_within("text", "sha256"),
    "state-of-other-rows": state_of_other_rows,
    "state-of-no-shape": state_of_no_shape,
    "an-optimizer-lost": an_optimizer_lost,
    "an-optimizer-unknown": an_optimizer_unknown,
}


@pytest.mark.parametrize("name", RESUMED)
def test_inconsistent_resume_file_is_refused(
    trained_run: Path,
    resume_file: bytes,
    tmp_path: Path,
    name: str,
) -> None:
    """Every entry is signed: a later version of charloom, or a joker, wrote it."""
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    (folder / RESUME_FILE).write_bytes(changed(resume_file, RESUMED[name]))
    before = contents(folder)
    text = str(trained_run.parent / "woods.txt")
    refused("train", text, "--out", str(folder), "--resume", "--steps", "9")
    assert contents(folder) == before
