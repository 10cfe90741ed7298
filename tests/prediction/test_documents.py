"""Documents scored whole: by brute force, one character at a time from an empty state."""

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError
from charloom.prediction import scoring
from charloom.prediction.mixture import MixedPredictor, fit_mixture, fit_ngram_table
from charloom.prediction.scoring import (
    Protocol,
    Scores,
    document_lengths,
    score_ids,
    score_pieces,
    total_of_pieces,
)
from charloom.prediction.unseen import UnseenCharacters
from charloom.text.vocabulary import END, Vocabulary
from helpers.counts import predictor_with_counts
from helpers.document_models import LETTERS, model_of_documents

DOCUMENTS = ["abba", "", "h", "cab\nbed", "gehgehge" * 40, "a", "", "fade"] * 9
END_ID = LETTERS.start_id


def encoded(documents: list[str]) -> np.ndarray:  # type: ignore[type-arg]
    return LETTERS.encode("".join(document + END for document in documents))


@pytest.fixture(params=["compiled", "reference", "mixture", "reading"])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    if request.param == "reading":
        ids = encoded(["abba", "babe", "head", "a", "bed", "cafe"] * 20)
        return predictor_with_counts("mixer-read", LETTERS, ids, "compiled")
    name = "compiled" if request.param == "mixture" else request.param
    engine = Backend(name, threads=1).open(model_of_documents())
    if request.param != "mixture":
        return engine
    ids = encoded(["abba", "babe", "head", "a", "bed", "cafe"] * 20)
    table = fit_ngram_table(ids, len(LETTERS), 3, np.inf, END_ID)
    return MixedPredictor(engine, fit_mixture(engine, table, ids, END_ID, 1))


def one_by_one(predictor: Predictor, document: str) -> np.ndarray:  # type: ignore[type-arg]
    """log p of each character of a document and of its end, from an empty state."""
    last, state = END_ID, predictor.zero_state(1)
    found = []
    for id_ in LETTERS.encode(document + END).tolist():
        logits, state = predictor.step(np.array([last]), state)
        x = logits[0].astype(np.float64)
        found.append(x[id_] - np.log(np.exp(x).sum()))
        last = id_
    return np.array(found)


@pytest.mark.parametrize("at_once", [1 << 22, 3000, 9])
def test_documents_equal_brute_force(predictor: Predictor, at_once: int) -> None:
    ids = encoded(DOCUMENTS)
    protocol = Protocol.parse("documents")
    scores = score_ids(predictor, ids, END_ID, protocol, numbers_at_once=at_once)
    expected = [one_by_one(predictor, document) for document in DOCUMENTS[:8]]
    np.testing.assert_allclose(
        scores.log_probabilities, np.concatenate(expected * 9), rtol=1e-4, atol=1e-5
    )
    assert (scores.ids == ids).all()


def test_a_stream_in_one_row_gives_the_same_because_ends_empty_the_state(
    predictor: Predictor,
) -> None:
    ids = encoded(DOCUMENTS)
    documents = score_ids(predictor, ids, END_ID, Protocol(documents=True), likeliest=3)
    stream = score_ids(predictor, ids, END_ID, Protocol(), likeliest=3)
    np.testing.assert_allclose(
        documents.log_probabilities, stream.log_probabilities, rtol=1e-4, atol=1e-5
    )
    assert (documents.likeliest == stream.likeliest).mean() > 0.99


def test_scores_do_not_depend_on_the_documents_beside() -> None:
    engine = Backend("compiled", threads=1).open(model_of_documents())
    ids = encoded(DOCUMENTS)
    whole = score_ids(engine, ids, END_ID, Protocol(documents=True)).log_probabilities
    lengths = document_lengths(ids, END_ID)
    begin = 0
    for length in lengths[:8].tolist():
        piece = ids[begin : begin + length]
        alone = score_ids(engine, piece, END_ID, Protocol(documents=True)).log_probabilities
        assert alone.tobytes() == whole[begin : begin + length].tobytes()
        begin += length


def test_long_document_does_not_slow_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Backend("compiled", threads=1).open(model_of_documents())
    read = 0
    ask = engine.log_probabilities

    def counted(inputs, state):  # type: ignore[no-untyped-def]
        nonlocal read
        read += inputs.size
        return ask(inputs, state)

    monkeypatch.setattr(engine, "log_probabilities", counted)
    ids = encoded(["a" * 20_000, *["abba", "cafe", "h"] * 1_000])
    reports = []
    score_ids(engine, ids, END_ID, Protocol(documents=True), lambda *now: reports.append(now))
    assert read < 1.5 * len(ids)
    assert reports[-1] == ("scoring", len(ids), len(ids))
    assert [now[1] for now in reports] == sorted(now[1] for now in reports)


def test_lengths_of_documents() -> None:
    ids = encoded(["ab", "", "c"])
    assert document_lengths(ids, END_ID).tolist() == [3, 1, 2]
    assert document_lengths(ids[:-1], END_ID).tolist() == [3, 1, 1]
    assert document_lengths(ids[:0], END_ID).tolist() == []


@pytest.mark.parametrize("at_once", [1 << 22, 3000, 9])
def test_totals_of_pieces_are_sums_of_their_scores(predictor: Predictor, at_once: int) -> None:
    ids, empty = encoded(DOCUMENTS), 2
    lengths = np.insert(document_lengths(ids, END_ID), empty, 0)
    scores = score_pieces(predictor, ids, lengths, END_ID, numbers_at_once=at_once)
    totals = total_of_pieces(predictor, ids, lengths, END_ID, numbers_at_once=at_once)
    assert totals[empty] == 0
    piece = np.repeat(np.arange(len(lengths)), lengths)
    np.testing.assert_array_equal(totals, np.bincount(piece, scores.log_probabilities))


def test_no_pieces_have_no_scores() -> None:
    engine = Backend("compiled", threads=1).open(model_of_documents())
    none = score_pieces(engine, encoded([]), np.zeros(0, np.intp), END_ID)
    assert len(none.log_probabilities) == 0
    empty = score_pieces(engine, encoded([]), np.zeros(3, np.intp), END_ID)
    assert len(empty.log_probabilities) == 0


def test_the_default_protocol_is_that_of_the_model() -> None:
    assert str(Protocol.choose(None, None)) == "carried"
    assert str(Protocol.choose(None, 3)) == "documents"
    assert str(Protocol.choose("cold-4", 3)) == "cold-4"
    assert str(Protocol.choose("adaptive", 3)) == "adaptive"
    with pytest.raises(CharloomError, match="use documents"):
        Protocol.choose("carried", 3)
    with pytest.raises(CharloomError, match="use carried, adaptive or cold-N"):
        Protocol.choose("documents", None)


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("start", ["", "a", "abba", "cab\nb"])
def test_probabilities_of_all_characters_add_up_to_one(start: str, as_bytes: bool) -> None:
    """After any beginning: those of the known ones, of the end, and of the rest of Unicode."""
    vocabulary = Vocabulary(LETTERS.characters, as_bytes)
    unseen = UnseenCharacters.of({"characters": 500, "unseen": 0.01}, vocabulary)
    assert unseen is not None
    engine = Backend("compiled", threads=1).open(model_of_documents())
    total = 0.0
    # One step further with each known symbol, and with one that is unknown.
    for id_ in range(len(vocabulary)):
        ids = np.append(vocabulary.encode(start), np.uint8(id_))
        scores = score_ids(engine, ids, END_ID, Protocol())
        known = np.ones(len(ids), dtype=bool)
        total += float(np.exp(scores.with_unknown(known, unseen).log_probabilities[-1]))
    ids = np.append(vocabulary.encode(start), np.uint8(END_ID))
    known = np.array([*[True] * len(start), False])
    of_one = np.exp(
        score_ids(engine, ids, END_ID, Protocol()).with_unknown(known, unseen).log_probabilities
    )[-1]
    others = (256 if as_bytes else 0x110000 - 0x800) - (len(vocabulary) - 1)
    assert total + others * of_one == pytest.approx(1, abs=1e-6)
    assert total == pytest.approx(0.99, abs=1e-6)


def test_the_state_does_not_read_an_unknown_character() -> None:
    unseen = UnseenCharacters(0.02, 1_000_000)
    engine = Backend("compiled", threads=1).open(model_of_documents())
    ids = encoded(["abba", "cab"])
    plain: Scores = score_ids(engine, ids, END_ID, Protocol(documents=True), likeliest=2)
    known = np.array([True, False, False, *[True] * 4, False, *[True] * 4])
    scores = plain.with_unknown(known, unseen)
    np.testing.assert_allclose(
        scores.log_probabilities[known], plain.log_probabilities + np.log(0.98), rtol=1e-12
    )
    assert scores.log_probabilities[~known] == pytest.approx(np.log(0.02 / 1_000_000))
    assert scores.ids[known].tolist() == ids.tolist()
    assert scores.ids[~known].tolist() == [-1, -1, -1]
    assert not scores.guessed[~known].any()
    assert (scores.likeliest[[1, 2]] == scores.likeliest[3]).all()
    assert (scores.likeliest_probabilities < 0.98).all()
    assert scoring.PIECES_AT_ONCE > 1
