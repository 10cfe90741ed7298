"""Baselines: worked by hand, and where one is missing, the reason."""

import bz2
import lzma
import math
from pathlib import Path

import numpy as np
import pytest

from charloom.evaluation import baselines as baselines_module
from charloom.evaluation.baselines import baselines
from charloom.evaluation.evaluation import find_overlap
from charloom.ngrams.kneser_ney import NGramModel
from charloom.prediction.scoring import Protocol
from charloom.text.corpora import open_text
from charloom.text.dataset import Split, load_dataset
from charloom.text.vocabulary import END, Vocabulary


def test_baselines_by_hand() -> None:
    vocabulary = Vocabulary(tuple("abc"))
    train = vocabulary.encode("abab" * 100 + "b")
    part = vocabulary.encode("abac")
    found = baselines(vocabulary, part, Protocol(), before=1, train=train)
    assert found["uniform"].bits_per_character == pytest.approx(math.log2(3))
    # 200 a's, 201 b's and no c, one added to each.
    p = np.array([201, 202, 201, 1]) / 404
    assert found["unigram"].bits_per_character == pytest.approx(-np.log2(p).mean())
    text = "abab" * 100 + "b"

    def xz(data: str) -> int:
        return len(lzma.compress(data.encode(), preset=9 | lzma.PRESET_EXTREME))

    assert found["xz"].bits_per_character == (xz(text + "abac") - xz(text)) * 8 / 4
    added = len(bz2.compress((text + "abac").encode())) - len(bz2.compress(text.encode()))
    assert found["bzip2"].bits_per_character == added * 8 / 4
    assert [found[name].protocol for name in ("xz", "bzip2", "ngram")] == [
        "adaptive",
        "adaptive",
        "carried",
    ]


def test_missing_training_text_is_given_as_reason() -> None:
    vocabulary = Vocabulary(tuple("abc"))
    found = baselines(vocabulary, vocabulary.encode("abc"), Protocol(7), reason="it is gone")
    assert found["uniform"].bits_per_character is not None
    for name in ("unigram", "ngram", "xz", "bzip2"):
        assert found[name].bits_per_character is None
        assert found[name].reason == "it is gone"
    assert found["ngram"].protocol == "cold-7"


def test_text_too_long_for_ngrams_is_given_as_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines_module, "LONGEST_FOR_BASELINES", 10)
    vocabulary = Vocabulary(tuple("abc"))
    ids = vocabulary.encode("abcabc")
    found = baselines(vocabulary, ids, Protocol(), train=ids)
    assert "longer than 10" in (found["xz"].reason or "")


@pytest.mark.parametrize("train", ["a", "ab", "abc"])
def test_the_shortest_texts_have_baselines(train: str) -> None:
    vocabulary = Vocabulary(tuple("abc"))
    found = baselines(
        vocabulary, vocabulary.encode("c"), Protocol(), train=vocabulary.encode(train)
    )
    assert all(b.bits_per_character is not None for b in found.values())


def test_the_n_gram_model_on_tiny_shakespeare(shakespeare: Path) -> None:
    """The order is chosen on the end of the training part; then 1.52 nats on the rest, carried."""
    data = load_dataset(open_text(shakespeare), Split.parse("90/10/0"))
    before = int(data.train[-1])
    found = baselines(data.vocabulary, data.validation, Protocol(), before=before, train=data.train)
    bits = found["ngram"].bits_per_character
    assert bits is not None
    assert bits * math.log(2) <= 1.52
    assert "6 characters of context" in found["ngram"].note


def test_the_baselines_of_a_collection_predict_the_ends_of_documents() -> None:
    vocabulary = Vocabulary.of("ab" + END)
    documents = ["ab" * 20, "b", "abba"] * 30
    train = vocabulary.encode("".join(document + END for document in documents))
    text = vocabulary.encode("ab" + END + END)
    found = baselines(vocabulary, text, Protocol(), before=vocabulary.end_id, train=train)
    assert found["uniform"].bits_per_character == pytest.approx(math.log2(3))
    p = (np.array([30 * 22, 30 * 23, 90]) + 1) / (30 * 45 + 90 + 3)
    assert found["unigram"].bits_per_character == pytest.approx(-np.log2(p)[text].mean())
    joined = "\n".join(documents) + "\n"
    added = len(bz2.compress((joined + "ab\n\n").encode())) - len(bz2.compress(joined.encode()))
    assert found["bzip2"].bits_per_character == added * 8 / 4
    assert "10% of the documents" in found["ngram"].note
    context = int(found["ngram"].note.split(", ")[1].split()[0])
    model = NGramModel.fit(train, 3, context, vocabulary.end_id)
    alone = [model.log_probabilities(vocabulary.encode(document)) for document in ("ab" + END, END)]
    assert found["ngram"].bits_per_character == pytest.approx(
        -np.concatenate(alone).mean() / math.log(2)
    )


def test_documents_of_bytes_are_compressed_too() -> None:
    vocabulary = Vocabulary.of("\xe9a" + END, as_bytes=True)
    train = vocabulary.encode(("\xe9a" + END) * 20)
    found = baselines(vocabulary, train[:6], Protocol(), before=vocabulary.end_id, train=train)
    assert all(b.bits_per_character is not None for b in found.values())


def test_an_overlap_is_inside_a_document() -> None:
    end = 5
    train = np.array([0, 1, 2, end, 3, 4, end, 0, 0, 1, end], np.uint8)
    text = np.array([1, 2, end, 3, 4, end], np.uint8)  # the training text contains all of it
    assert find_overlap(train, text) == (6, 0, 1)
    assert find_overlap(train, text, end) == (2, 0, 1)
    assert find_overlap(train, np.array([end, end], np.uint8), end) == (0, 0, 0)
