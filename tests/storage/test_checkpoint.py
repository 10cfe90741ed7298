"""Saving a checkpoint: readable by others, whole or not at all."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charloom
from charloom.errors import CharloomError
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig, Parameters
from charloom.storage import atomic
from charloom.storage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charloom.text.vocabulary import Vocabulary
from helpers.checkpoints import EXOTIC


def test_a_header_of_any_length_can_be_read(tmp_path: Path) -> None:
    """A file begins with its header's length, whatever those bytes look like: 0x0580 looks like a
    pickle's first two."""
    path = tmp_path / "model"
    checkpoint = Checkpoint(Parameters(ModelConfig("rnn", 1, 1, 1)), Vocabulary(("a",)))
    lengths = set()
    for padding in range(0, 4096, 8):
        checkpoint.text["name"] = "x" * padding
        save_checkpoint(path, checkpoint)
        lengths.add(path.read_bytes()[:2])
        assert load_checkpoint(path).text == checkpoint.text
    assert {b"\x80\x04", b"\x80\x05"} <= lengths


def test_every_exotic_character_survives(tmp_path: Path) -> None:
    config = ModelConfig("gru", 1, 1, len(EXOTIC))
    checkpoint = Checkpoint(Parameters(config), Vocabulary(tuple(EXOTIC)), text={"name": EXOTIC})
    save_checkpoint(tmp_path / "exotic", checkpoint)
    loaded = load_checkpoint(tmp_path / "exotic")
    assert loaded.vocabulary.characters == tuple(EXOTIC)
    assert loaded.text == {"name": EXOTIC}


def test_weights_in_half_precision_are_declared(tmp_path: Path) -> None:
    checkpoint = Checkpoint(initialize(ModelConfig("gru", 4, 1, 2), 0), Vocabulary(("a", "b")))
    full, half = tmp_path / "full", tmp_path / "half"
    save_checkpoint(full, checkpoint)
    save_checkpoint(half, checkpoint, half=True)
    loaded = load_checkpoint(half)
    flat = checkpoint.parameters.flat
    assert np.array_equal(loaded.parameters.flat, flat.astype(np.float16).astype(np.float32))
    assert loaded.config == checkpoint.config
    assert len(half.read_bytes()) < len(full.read_bytes())
    assert b'"float16"' in half.read_bytes()
    half.write_bytes(half.read_bytes().replace(b'"float16"', b'"float32"', 1))
    with pytest.raises(CharloomError, match="damaged"):
        load_checkpoint(half)


def test_a_model_saved_by_hand_is_the_same_file(trained_run: Path, tmp_path: Path) -> None:
    model = charloom.load(trained_run)
    model.save(tmp_path)
    model.save(tmp_path / "other.safetensors")
    expected = (trained_run / "model.safetensors").read_bytes()
    assert (tmp_path / "model.safetensors").read_bytes() == expected
    assert (tmp_path / "other.safetensors").read_bytes() == expected


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_checkpoint_permissions_follow_the_umask(trained_run: Path) -> None:
    usual = trained_run.parent / "woods.txt"
    assert (trained_run / "model.safetensors").stat().st_mode == usual.stat().st_mode


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_numbers_are_not_saved(tmp_path: Path, value: float) -> None:
    path = tmp_path / "model"
    config = ModelConfig("rnn", 2, 1, 2)
    checkpoint = Checkpoint(Parameters(config), Vocabulary(("a", "b")))
    save_checkpoint(path, checkpoint)
    before = path.read_bytes()
    checkpoint.parameters.flat[3] = value
    with pytest.raises(CharloomError, match="NaN or infinity"):
        save_checkpoint(path, checkpoint)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("function", ["fsync", "fdopen"])
def test_a_save_that_fails_leaves_the_old_file_and_no_other(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    model = charloom.load(trained_run)
    target = tmp_path / "model.safetensors"
    target.write_bytes(b"the old file")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, function, fail)
    with pytest.raises(CharloomError, match="No space left"):
        model.save(target)
    assert target.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [target]
