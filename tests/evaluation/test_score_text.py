"""Scores of a text in stretches: the same however it is cut, with unknown characters in it."""

from pathlib import Path

import numpy as np
import pytest

import charloom
from charloom.analysis.surprisal_stream import APART, Places, _Ranking
from charloom.evaluation import score_text
from charloom.evaluation.score_text import score_blocks
from charloom.evaluation.scored_text import ScoredText, TextEncoder
from charloom.language_model import LanguageModel
from charloom.prediction import scoring
from charloom.prediction.scoring import Protocol, Scores, Total, regrouped, total_of
from charloom.text.source import Text
from charloom.text.vocabulary import END
from helpers.documents import shuffled_names
from helpers.runs import train_tiny

NAMES = shuffled_names()[:120]


@pytest.fixture(scope="module", params=["book", "collection"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    options = ["--steps=10", "--hidden-size=8", "--threads=1", "--seed=1"]
    options += ["--lines"] if request.param == "collection" else []
    run = train_tiny(tmp_path_factory.mktemp(request.param), "\n".join(NAMES * 3) + "\n", *options)
    return charloom.load(run, threads=1)


def text_of(model: LanguageModel) -> str:
    """Unknown characters at the beginning, in a row, alone in a line, and at the end."""
    last = "\n" if model.vocabulary.end_id is None else END
    return "字" + last.join([*NAMES[:20], "字字", "an字lia", "字" * 40, *NAMES[20:40]]) + "字字"


@pytest.mark.parametrize("protocol", [None, "cold-7", "adaptive"])
@pytest.mark.parametrize("size", [1, 5, 64, 10_000])
def test_stretches_of_any_size_have_the_same_scores(
    model: LanguageModel, protocol: str | None, size: int
) -> None:
    chosen = Protocol.choose(protocol, model.config.end_id)
    text = text_of(model)
    if model.vocabulary.end_id is not None:
        text += END
    read = ScoredText.of("text", text, model.vocabulary, model.unseen)
    training = model.find_training_text(None)
    whole = Scores.collected(
        (scores for scores, _ in score_text.score_text(model, read, chosen, training, likeliest=3)),
        len(text),
        3,
    )
    encoder = TextEncoder(model.vocabulary, model.unseen, skip_unknown=False)
    blocks = (encoder.encode(text[begin : begin + size]) for begin in range(0, len(text), size))
    stream = list(
        score_blocks(model, blocks, chosen, training, model.unseen, likeliest=3, both=True)
    )
    found = Scores.collected((scores for scores, _ in stream), len(text), 3)
    for name in Scores.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert (found.ids < 0).sum() == text.count("字") == 46
    for scores, network in stream:
        assert network is not None
        assert len(network) == len(scores)


def test_a_text_that_is_read_is_that_in_memory(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = text_of(model).replace(END, "\n")
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(scoring, "DOCUMENTS_AT_ONCE", 50)
    monkeypatch.setattr(score_text, "KNOWN_AT_ONCE", 33)
    in_memory, read = model.evaluate(text), model.evaluate(path)
    assert in_memory.as_dict() == {**read.as_dict(), "text": "text"}
    assert in_memory.unknown_characters == 46
    skipped = model.evaluate(path, skip_unknown=True)
    assert skipped.as_dict() == model.evaluate(text, skip_unknown=True).as_dict()
    assert (skipped.skipped_characters, skipped.unknown_characters) == (46, 0)
    several = Text("text", "", False, lambda: iter([text[:9], "", text[9:]]))
    if model.vocabulary.end_id is None:
        assert model.evaluate(several).as_dict() == in_memory.as_dict()


def test_documents_of_any_length_are_scored_in_stretches(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    if model.vocabulary.end_id is None:
        pytest.skip("a book has no documents")
    documents = ["anlia", "jo" * 300, "", "beth" * 40, "a", "jo" * 31, "an"]
    ids = model.encode("")
    ids = np.concatenate(
        [np.append(model.encode(document), np.uint8(model.config.end_id)) for document in documents]
    ).astype(ids.dtype)
    expected = scoring.score_ids(
        model.predictor, ids, model.vocabulary.start_id, Protocol(documents=True)
    )
    for size in (1, 2, 60, 161, 601):
        monkeypatch.setattr(scoring, "DOCUMENTS_AT_ONCE", size)
        found = scoring.score_ids(
            model.predictor, ids, model.vocabulary.start_id, Protocol(documents=True)
        )
        np.testing.assert_array_equal(found.log_probabilities, expected.log_probabilities)


def test_a_sum_does_not_depend_on_the_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=10_007)
    assert total_of(values) == values.sum()  # as for every text of at most a million characters
    monkeypatch.setattr(scoring, "SUMMED_AT_ONCE", 100)
    whole = total_of(values)
    for size in (1, 7, 100, 101, 5_000):
        total = Total()
        for begin in range(0, len(values), size):
            total.add(values[begin : begin + size])
        assert total.value == whole


def test_blocks_are_regrouped() -> None:
    ids = np.arange(20, dtype=np.uint8)
    blocks = [ids[:1], ids[1:1], ids[1:9], ids[9:12], ids[12:]]
    found = list(regrouped(blocks, 4))
    assert [len(block) for block in found] == [8, 4, 8]
    assert np.concatenate(found).tolist() == ids.tolist()
    assert [len(block) for block in regrouped([ids[:7]], 4)] == [4, 3]
    assert list(regrouped([], 4)) == []


@pytest.mark.parametrize("size", [1, 13, 400])
def test_the_ranking_of_places_is_that_of_all(size: int) -> None:
    generator = np.random.default_rng(size)
    bits = generator.integers(0, 6, 400).astype(float)  # with many equal ones
    order = np.argsort(-bits, kind="stable").tolist()
    expected: list[int] = []
    for place in order:
        if all(abs(place - other) > APART for other in expected):
            expected.append(place)
    for count in (1, 3, 8, 100):
        ranking = _Ranking(count)
        for begin in range(0, len(bits), size):
            places = np.arange(begin, min(begin + size, len(bits)))
            part = bits[places]
            none = np.zeros((len(places), 0))
            ranking.add(
                Places(
                    places, places, places, part, part.astype(np.float32),
                    none.astype(np.intp), none.astype(np.uint16),
                )
            )  # fmt: skip
        assert ranking.chosen(count).place.tolist() == expected[:count]
