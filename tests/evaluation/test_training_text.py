"""A model's training text: found again, verified, split; its absence is an error with a reason."""

from dataclasses import replace
from pathlib import Path

import pytest

from charloom.errors import CharloomError
from charloom.evaluation import training_text
from charloom.evaluation.training_text import TrainingText
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.storage.checkpoint import Checkpoint
from charloom.text.dataset import Dataset, Split, load_dataset
from charloom.text.source import text_from_string
from charloom.text.sources import texts_to_train_on

TEXT = "one two three four five six seven eight nine ten\n" * 8


def load(split: str = "80/10/10") -> Dataset:
    return load_dataset(text_from_string(TEXT), Split.parse(split))


def checkpoint_of(dataset: Dataset, origin: str = "", **metrics: object) -> Checkpoint:
    config = ModelConfig("rnn", 4, 1, len(dataset.vocabulary))
    checkpoint = Checkpoint(initialize(config, seed=1), dataset.vocabulary)
    checkpoint.text = {"name": dataset.name, "origin": origin, "sha256": dataset.sha256}
    checkpoint.training = {"split": "80/10/10"}
    checkpoint.metrics = dict(metrics)
    return checkpoint


def test_text_in_memory_is_used() -> None:
    dataset = load()
    training = TrainingText(checkpoint_of(dataset), dataset=dataset)
    assert training.problem == ""
    assert training.require("the test") is dataset
    held_out = training.held_out()
    assert (held_out.name, held_out.split) == ("test split", "test")
    assert dataset.vocabulary.decode(held_out.ids) == TEXT[-len(held_out.ids) :]
    assert held_out.before == dataset.ids[-len(held_out.ids) - 1]


def test_text_is_read_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.txt").write_text(TEXT + "x")
    training = TrainingText(checkpoint_of(load()), texts_to_train_on(tmp_path / "other.txt"))
    assert "is not the one that the run was trained on" in training.problem
    monkeypatch.setattr(training_text, "read_dataset", None)  # calling it would fail
    assert "is not the one that the run was trained on" in training.problem


def test_missing_text_is_an_error_with_purpose_and_reason(tmp_path: Path) -> None:
    missing = TrainingText(checkpoint_of(load(), str(tmp_path / "gone.txt")))
    unknown = TrainingText(replace(checkpoint_of(load()), text={}))
    for training, reason in ((missing, "gone.txt"), (unknown, "no record")):
        held_out = TrainingText(checkpoint_of(load()), dataset=load()).held_out()
        assert training.parts_beside(held_out.split) is None
        assert reason in training.problem
        with pytest.raises(CharloomError, match=f"^the test requires .*{reason}.*--training-text"):
            training.require("the test")
        with pytest.raises(CharloomError, match=f"{reason}.*pass a text to evaluate"):
            training.held_out()


def test_text_elsewhere_is_verified_and_used(tmp_path: Path) -> None:
    (tmp_path / "moved.txt").write_text(TEXT)
    checkpoint = checkpoint_of(load(), str(tmp_path / "gone.txt"))
    training = TrainingText(checkpoint, texts_to_train_on(tmp_path / "moved.txt"))
    assert (training.require("the test").ids == load().ids).all()
    assert len(training.index()) == len(TEXT)


def test_parts_depend_on_refit_and_on_the_evaluated_split() -> None:
    dataset = load("80/20/0")
    training = TrainingText(checkpoint_of(dataset), dataset=dataset)
    validation = training.held_out()
    assert (validation.name, validation.split) == ("validation split", "validation")
    parts = training.parts_beside(validation.split)
    assert parts is not None
    # Nothing is chosen on the text that is evaluated.
    assert (len(parts.holdout), parts.validation) == (0, None)
    assert len(parts.known) == len(parts.fit) == len(dataset.train)
    other = replace(validation, split=None)
    parts = training.parts_beside(other.split)
    assert parts is not None
    assert parts.validation is not None
    assert len(parts.holdout) == len(parts.validation) == len(dataset.validation)
    dataset = load()
    refitted = TrainingText(checkpoint_of(dataset, refit=True), dataset=dataset)
    parts = refitted.parts_beside(refitted.held_out())
    assert parts is not None
    assert len(parts.fit) > len(dataset.train)
    assert len(parts.known) == len(dataset.train) + len(dataset.validation)


def test_a_text_without_held_out_splits_has_nothing_to_evaluate() -> None:
    dataset = load("100/0/0")
    with pytest.raises(CharloomError, match="the whole text"):
        TrainingText(checkpoint_of(dataset), dataset=dataset).held_out()
