"""Samples that are taken side by side equal samples that are taken alone."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.network.units import parse_clamps
from charloom.ngrams.mixing import Mixture, feature_count
from charloom.prediction import side_by_side
from charloom.prediction.mixture import MixedPredictor, fit_ngram_table
from charloom.prediction.sampling import OverlapGuard, SampleRequest, stream_text
from charloom.prediction.side_by_side import (
    SampledDocument,
    choose_documents,
    rows_for,
    sample_side_by_side,
)
from charloom.text.document_set import DocumentSet
from charloom.text.overlap import TrainingIndex
from charloom.text.vocabulary import END, Vocabulary
from helpers.counts import predictor_with_counts
from helpers.document_models import LETTERS, model_of_documents

BOOK = Vocabulary(tuple("\nabcdefgh"))
NAMES = "".join(
    "".join(name) + END for name in itertools.permutations("abcde", 3) if "ab" not in "".join(name)
)


def of_documents(engine: str) -> Predictor:
    return Backend(engine).open(model_of_documents())


def of_a_book(engine: str) -> Predictor:
    parameters = initialize(ModelConfig("gru", 8, 1, len(BOOK)), seed=3)
    parameters.flat[:] *= 3
    return Backend(engine).open(parameters)


def mixed(engine: str) -> Predictor:
    table = fit_ngram_table(LETTERS.encode(NAMES), len(LETTERS), 3, math.inf)
    theta = np.zeros(feature_count(table.context))
    return MixedPredictor(Backend(engine).open(model_of_documents()), Mixture(table, theta))


def reading(engine: str) -> Predictor:
    ids = LETTERS.encode(NAMES)
    return predictor_with_counts("mixer-read", LETTERS, ids, engine)


def alone(predictor: Predictor, vocabulary: Vocabulary, request: SampleRequest, index: int) -> str:
    return "".join(stream_text(predictor, vocabulary, replace(request, index=index)))


def together(
    predictor: Predictor,
    vocabulary: Vocabulary,
    request: SampleRequest,
    count: int,
    rows: int,
) -> list[SampledDocument]:
    return list(sample_side_by_side(predictor, vocabulary, request, range(count), rows))


MODELS = {
    "documents": (of_documents, LETTERS),
    "a book": (of_a_book, BOOK),
    "mixture": (mixed, LETTERS),
    "reading": (reading, LETTERS),
}
REQUESTS = {
    "plain": SampleRequest(length=300, seed=7),
    "short": SampleRequest(length=5, seed=7),
    "nothing": SampleRequest(length=0, seed=7),
    "stop texts": SampleRequest(length=200, seed=7, stop=("cab", "ab", "h\nz", "§", "gg")),
    "prompt": SampleRequest(prompt=LETTERS.encode("abc"), length=100, seed=1),
    "prompt of a character": SampleRequest(prompt=LETTERS.encode("d"), length=50, seed=1),
    "settings": SampleRequest(
        length=80, seed=2**70, settings=SamplingSettings(0.7, top_k=5, top_p=0.9, min_p=0.1)
    ),
    "greedy": SampleRequest(length=40, settings=SamplingSettings(0)),
    "clamps": SampleRequest(
        length=60,
        seed=3,
        clamps=tuple(parse_clamps("h2=0.9", ModelConfig("gru", 8, 1, len(LETTERS)))),
    ),
}


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", REQUESTS)
def test_a_sample_does_not_depend_on_the_others(engine: str, model: str, name: str) -> None:
    make, vocabulary = MODELS[model]
    predictor, request = make(engine), REQUESTS[name]
    expected = [alone(predictor, vocabulary, request, index) for index in range(9)]
    singly = together(predictor, vocabulary, request, 9, rows=1)
    assert [document.text for document in singly] == expected
    for rows in (2, 5, 9):
        assert together(predictor, vocabulary, request, 9, rows) == singly
    (last,) = sample_side_by_side(predictor, vocabulary, request, [8], 1)
    assert last == singly[8]


def test_samples_come_in_their_order_and_only_as_far_as_they_are_taken() -> None:
    predictor, request = of_documents("auto"), SampleRequest(length=500, seed=1)
    begun: list[int] = []

    def indices() -> Iterator[int]:
        for index in itertools.count():
            begun.append(index)
            yield index

    documents = sample_side_by_side(predictor, LETTERS, request, indices(), 4)
    taken = list(itertools.islice(documents, 30))
    assert [document.index for document in taken] == list(range(30))
    assert len({len(document.text) for document in taken}) > 3
    assert len(begun) < 100


def test_few_samples_wait_for_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, request = of_documents("auto"), SampleRequest(length=500, seed=1)
    expected = together(predictor, LETTERS, request, 40, rows=1)
    monkeypatch.setattr(side_by_side, "MOST_WAITING", 3)
    assert together(predictor, LETTERS, request, 40, rows=5) == expected


@pytest.mark.parametrize("model", MODELS)
def test_the_log_probability_is_the_models_own(model: str) -> None:
    make, vocabulary = MODELS[model]
    predictor = make("auto")
    prompt = vocabulary.encode("ba")
    for settings in (SamplingSettings(), SamplingSettings(0.5, top_k=3)):
        request = SampleRequest(
            prompt=prompt, length=60, settings=settings, seed=4, stop=("ed", "c\n", "c")
        )
        documents = together(predictor, vocabulary, request, 30, rows=8)
        reasons = set()
        for document in documents:
            end = alone_ended(predictor, vocabulary, request, document.index)
            text = "ba" + document.text
            ids = vocabulary.encode(text + END * end).astype(int)
            inputs = np.concatenate([[vocabulary.start_id], ids[:-1]])[:, None]
            log_p, _ = predictor.log_probabilities(inputs, predictor.zero_state(1))
            expected = log_p[np.arange(len(ids)), 0, ids].sum(dtype=np.float64)
            assert document.log_probability == pytest.approx(expected, rel=1e-4)
            reasons.add((document.finish_reason, end))
        assert ("stop", False) in reasons
        if vocabulary.end_id is not None:
            assert ("stop", True) in reasons


def alone_ended(
    predictor: Predictor, vocabulary: Vocabulary, request: SampleRequest, index: int
) -> bool:
    """Return whether a sample alone ends with the end of its document."""
    if vocabulary.end_id is None:
        return False
    text = alone(predictor, vocabulary, request, index)
    whole = alone(predictor, vocabulary, replace(request, stop=()), index)
    return text == whole and len(whole) < (request.length or 0)


def test_the_finish_reason() -> None:
    predictor, request = of_documents("auto"), SampleRequest(length=12, seed=4)
    documents = together(predictor, LETTERS, request, 60, rows=8)
    assert {document.finish_reason for document in documents} == {"stop", "length"}
    for document in documents:
        stream = stream_text(predictor, LETTERS, replace(request, index=document.index))
        assert stream.finish_reason is None
        assert "".join(stream) == document.text
        assert stream.finish_reason == document.finish_reason
        assert (document.finish_reason == "length") <= (len(document.text) == 12)
        assert END not in document.text
    endless = together(predictor, LETTERS, replace(request, length=None), 60, rows=8)
    assert {document.finish_reason for document in endless} == {"stop"}
    assert [d.text[:12] for d in endless] == [d.text for d in documents]


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("vocabulary", [LETTERS, BOOK], ids=["documents", "a book"])
def test_under_a_guard_it_is_the_same_too(vocabulary: Vocabulary, most: int) -> None:
    predictor = of_documents("auto") if vocabulary is LETTERS else of_a_book("auto")
    training = "".join(np.random.default_rng(1).choice(list("abcdefgh"), 30))
    guard = OverlapGuard(TrainingIndex(vocabulary.encode(training), len(vocabulary)), most)
    request = SampleRequest(prompt=vocabulary.encode("a"), length=40, seed=1, guard=guard)
    documents = together(predictor, vocabulary, request, 20, rows=6)
    assert [d.text for d in documents] == [
        alone(predictor, vocabulary, request, index) for index in range(20)
    ]
    unguarded = together(predictor, vocabulary, replace(request, guard=None), 20, rows=6)
    assert [d.text for d in unguarded] != [d.text for d in documents]


def test_a_guard_without_a_choice_ends_a_book_and_lets_a_document_end() -> None:
    training = "".join("h" + character + "a" for character in "\nabcdefgh")
    for vocabulary, predictor in ((BOOK, of_a_book("auto")), (LETTERS, of_documents("auto"))):
        ids = vocabulary.encode(training + END * (vocabulary is LETTERS))
        guard = OverlapGuard(TrainingIndex(ids, len(vocabulary)), 1)
        request = SampleRequest(length=9999, seed=1, guard=guard)
        if vocabulary is BOOK:
            with pytest.raises(CharloomError) as caught:
                together(predictor, vocabulary, request, 3, rows=2)
            with pytest.raises(CharloomError) as expected:
                alone(predictor, vocabulary, request, 0)
            assert str(caught.value) == str(expected.value)
        else:
            documents = together(predictor, vocabulary, request, 20, rows=5)
            assert all("h" not in document.text[:-1] for document in documents)
            assert any(document.text.endswith("h") for document in documents)


def test_the_number_of_rows_is_bounded() -> None:
    names = ModelConfig("gru", 256, 1, 28)
    assert rows_for(names, 3) == 3
    assert 200 <= rows_for(names, 10**9) <= side_by_side.MOST_ROWS
    assert rows_for(ModelConfig("lstm", 2048, 3, 100), 1000) == side_by_side.FEWEST_ROWS
    assert rows_for(ModelConfig("rnn", 4, 1, 0x110000), 1000) == 1


def documents_of(*texts: str) -> Iterator[SampledDocument]:
    return (SampledDocument(text, -1.0, "stop", 1, index, text) for index, text in enumerate(texts))


def test_distinct_and_new_documents_are_chosen_in_their_order() -> None:
    known = DocumentSet(LETTERS.encode(f"ab{END}c{END}"), LETTERS)
    drawn = ("ab", "d", "", "e", "d", "c", "f", "")

    def chosen(count: int, unique: bool, documents: DocumentSet | None) -> list[str]:
        found = choose_documents(documents_of(*drawn), count, unique, documents)
        return [document.text for document in found]

    assert chosen(99, True, None) == ["ab", "d", "", "e", "c", "f"]
    assert chosen(99, False, known) == ["d", "e", "d", "f"]
    assert chosen(99, True, known) == ["d", "e", "f"]
    assert chosen(2, True, known) == ["d", "e"]
    with pytest.raises(CharloomError, match="none of 2 samples is a new document"):
        list(choose_documents(documents_of("ab", ""), 1, True, known))
