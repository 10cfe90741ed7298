"""Training on a collection of documents: batches, validation, samples, the refit."""

import math
from typing import Any

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.errors import CharloomError
from charloom.evaluation.baselines import baselines_of_validation
from charloom.network.initialization import initialize
from charloom.text.batches import ShuffledDocuments
from charloom.text.dataset import Dataset, character_counts
from charloom.text.vocabulary import END, Vocabulary
from charloom.training.loop import train_steps
from charloom.training.options import TrainingConfig
from charloom.training.planner import plan
from charloom.training.samples import SAMPLE_LENGTH, validation_sample
from charloom.training.setup import make_batches, make_optimizer, model_config, validated_part
from charloom.training.state import TrainingState
from helpers.documents import dataset_of, shuffled_names

OPTIONS = {"hidden_size": 16, "batch_size": 4, "window": 16, "threads": 1}


def names(train: int = 200) -> Dataset:
    every = shuffled_names()
    return dataset_of(every[:train], every[train : train + 20], every[train + 20 :])


def train(dataset: Dataset, **options: Any) -> tuple[list[Any], TrainingState]:
    config = TrainingConfig.of({**OPTIONS, **options})
    parameters = initialize(model_config(config, dataset.vocabulary), config.seed)
    engine = Backend("auto", threads=1).open(parameters, seed=config.seed)
    state = TrainingState()
    return list(train_steps(engine, make_optimizer(config), dataset, config, state)), state


def test_documents_are_shuffled_by_the_seed_of_the_run() -> None:
    dataset = names()
    batches = make_batches(TrainingConfig.of({**OPTIONS, "seed": 7}), dataset)
    assert isinstance(batches, ShuffledDocuments)
    assert batches.seed == 7
    assert len(batches.ids) == len(dataset.train)
    refit = make_batches(TrainingConfig.of(OPTIONS), dataset, refit=True)
    assert isinstance(refit, ShuffledDocuments)
    assert len(dataset.train) < len(refit.ids) < dataset.boundaries[1]
    assert refit.ids[-1] == dataset.vocabulary.end_id


def test_a_validation_part_shorter_than_a_window_is_enough_for_documents() -> None:
    dataset = dataset_of(["anna", "otto"] * 9, ["o"])
    events, state = train(dataset, steps=3)
    assert state.step == 3
    assert next(e.validation.characters for e in events if e.kind == "validation") == 2
    assert plan(60, 1, dataset, {}).options["window"] == 64


def test_the_preset_classic_is_refused_for_documents() -> None:
    with pytest.raises(CharloomError, match=r"preset classic reads a text as one book.*--preset"):
        make_batches(TrainingConfig.of({"preset": "classic"}), names())


def test_a_collection_without_documents_to_train_on_is_refused() -> None:
    with pytest.raises(CharloomError, match="the training split has 1 of"):
        make_batches(TrainingConfig.of(OPTIONS), dataset_of([""], ["ab"]))


def test_a_refit_moves_whole_documents_and_leaves_one() -> None:
    for documents, expected in (
        (["aaa", "bbb", "ccc", "ddd", "eee"], ["eee"]),
        (["a", "b" * 9], ["b" * 9]),
        (["aaaaaaaaa", "b"], ["b"]),
        (["abcabcabc"], ["abcabcabc"]),
        ([], []),
    ):
        dataset = dataset_of(["abcde"], documents, ["e"])
        fit, holdout = dataset.fit_and_holdout(True)
        assert len(fit) + len(holdout) == dataset.boundaries[1]
        assert fit[-1] == dataset.vocabulary.end_id
        assert dataset.vocabulary.decode(holdout) == "".join(d + END for d in expected)


def test_a_long_validation_part_is_sampled_from_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charloom.training.setup.VALIDATED_AT_ONCE", 200)
    dataset = dataset_of(["x"], [f"{n:03}" for n in range(201)])
    assert len(dataset.validation) == 804
    text = dataset.vocabulary.decode(validated_part(dataset, dataset.validation))
    numbers = [int(number) for number in text.removesuffix(END).split(END)]
    assert 180 < len(text) <= 200
    assert max(np.diff([-1, *numbers, 201])) < 8
    short = dataset.validation[:48]
    assert (validated_part(dataset, short) == short).all()
    few = dataset_of(["x"], ["a" * 300, "bb", "c" * 200])
    text = few.vocabulary.decode(validated_part(few, few.validation))
    assert len(text) <= 200
    assert {"a", "c"} < set(text)
    book = Dataset("a", "", "", Vocabulary.of("ab"), np.zeros(900, np.uint8), (100, 900))
    assert len(validated_part(book, book.validation)) == 200


def test_validations_write_documents_as_lines() -> None:
    events, _ = train(names(), steps=20, validate_every=10)
    found = [e.sample for e in events if e.kind == "validation"]
    assert len(set(found)) == 3
    assert all(END not in sample for sample in found)
    assert all(len(sample) < SAMPLE_LENGTH for sample in found)
    assert max(sample.count("\n") for sample in found) > 3


class Scripted:
    """An engine that "samples" a text, and checks that a sample begins with END."""

    def __init__(self, vocabulary: Vocabulary, text: str) -> None:
        self.vocabulary, self.text = vocabulary, text

    def zero_state(self, rows: int) -> None:
        return None

    def generate(self, ids: Any, state: Any, settings: Any, uniforms: Any) -> tuple[Any, Any]:
        assert ids.tolist() == [self.vocabulary.end_id]
        return self.vocabulary.encode(self.text[: len(uniforms)])[:, None], state


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"anna{END}otto{END}mar", "anna\notto"),
        (f"anna{END}{END}otto{END}", "anna\notto"),
        ("annaotto", "annaotto"),  # no end was drawn
        (f"{END}ann", ""),
        (f"an\nna\n{END}otto{END}a\n", "an\nna\n<end>\notto\n<end>"),
        ("an\nna\n", "an\nna\n"),
    ],
)
def test_documents_of_a_sample_can_be_told_apart(text: str, shown: str) -> None:
    vocabulary = Vocabulary.of("anotmr" + END + ("\n" if "\n" in text else ""))
    sample = validation_sample(Scripted(vocabulary, text), vocabulary, 0, 0)  # type: ignore[arg-type]
    assert sample == shown


def test_samples_of_a_book_are_those_of_stream_text(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = ["a", "b\nb"]
    monkeypatch.setattr("charloom.training.samples.stream_text", lambda *_: iter(pieces))
    assert validation_sample(None, Vocabulary.of("ab"), 0, 0) == "ab\nb"  # type: ignore[arg-type]


def test_baselines_of_documents_compress_lines() -> None:
    dataset = dataset_of(["abab"] * 50, ["abab", "baba"])
    size = len(dataset.vocabulary)
    found = baselines_of_validation(
        dataset.vocabulary,
        dataset.train,
        dataset.validation,
        counts=character_counts(dataset.train, size),
        ngram=None,
        compressed=True,
    )
    assert found["uniform"].bits_per_character == math.log2(3)
    assert found["bzip2"].bits_per_character is not None
    counts = np.array([101, 101, 51])
    expected = -np.log2(counts / counts.sum())
    assert found["unigram"].bits_per_character == pytest.approx(
        (4 * expected[0] + 4 * expected[1] + 2 * expected[2]) / 10
    )
