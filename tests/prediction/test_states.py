"""Hidden states as features: after each character of a text, and pooled over lines."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import charloom
from charloom.engines.backend import Backend
from charloom.engines.protocol import Engine
from charloom.errors import CharloomError
from charloom.language_model import LanguageModel
from charloom.prediction.states import states_of_pieces, states_of_text
from charloom.text.vocabulary import END
from helpers.document_models import LETTERS, model_of_documents
from helpers.engines import make
from helpers.extras import needs

DOCUMENTS = ["abba", "", "h", "cab\nbed", "gehgehge" * 30, "a", "fade"]
END_ID = LETTERS.start_id
ENGINES = ["compiled", "reference", pytest.param("pytorch", marks=pytest.mark.torch)]


def one_by_one(engine: Engine, ids: Any, before: int) -> np.ndarray:  # type: ignore[type-arg]
    """Return the states after each of some ids, (N, F), read one at a time after `before`."""
    _, state = engine.step(np.array([before]), engine.zero_state(1))
    found = []
    for id_ in ids:
        _, state = engine.step(np.array([int(id_)]), state)
        found.append(state[0, :, 0].reshape(-1))
    return np.array(found).reshape(len(found), -1)


@pytest.mark.parametrize("at_once", [1 << 22, 400])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("name", ENGINES)
def test_states_of_a_text_equal_single_steps(name: str, cell: str, at_once: int) -> None:
    engine = make(name, cell, dtype="float32", threads=1)
    ids = np.random.default_rng(0).integers(0, 7, 50).astype(np.uint8)
    found = states_of_text(engine, ids, 2, numbers_at_once=at_once)
    assert found.dtype == np.float32
    assert found.shape == (50, 2 * 5)
    np.testing.assert_allclose(found, one_by_one(engine, ids, 2), rtol=1e-4, atol=1e-6)
    assert states_of_text(engine, ids[:0], 2).shape == (0, 10)


@pytest.mark.parametrize("at_once", [1 << 22, 3000, 9])
@pytest.mark.parametrize("name", ENGINES)
def test_states_of_documents_begin_anew_and_leave_out_their_ends(name: str, at_once: int) -> None:
    engine = Backend(name, threads=1).open(model_of_documents())
    ids = LETTERS.encode("".join(document + END for document in DOCUMENTS))
    found = states_of_text(engine, ids, END_ID, numbers_at_once=at_once)
    expected = [one_by_one(engine, LETTERS.encode(d), END_ID) for d in DOCUMENTS if d]
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-4, atol=1e-6)

    pieces = LETTERS.encode("".join(DOCUMENTS))
    lengths = np.array([len(document) for document in DOCUMENTS])
    calls: list[tuple[str, int, int | None]] = []
    for pooling in ("mean", "last"):
        pooled = states_of_pieces(
            engine,
            pieces,
            lengths,
            END_ID,
            pooling,  # type: ignore[arg-type]
            lambda *call: calls.append(call),
            numbers_at_once=at_once,
        )
        assert pooled.dtype == np.float32
        assert (pooled[1] == 0).all()
        whole = [states.mean(0) if pooling == "mean" else states[-1] for states in expected]
        np.testing.assert_allclose(np.delete(pooled, 1, 0), whole, rtol=1e-4, atol=1e-6)
    assert calls[-1][0] == "reading"
    assert calls[-1][1] == calls[-1][2]


# --- Of a model -----------------------------------------------------------------------------------

ENGLISH = ["the", "and", "that", "have", "for", "not", "with", "you", "this", "but", "from", "they"]
GERMAN = ["der", "und", "die", "das", "nicht", "mit", "ein", "ist", "auf", "sich", "über", "für"]


def lines_of(words: list[str], count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(words, 6)) for _ in range(count)]


@pytest.fixture(scope="module")
def bilingual() -> LanguageModel:
    text = "\n".join([*lines_of(ENGLISH, 300, 1), *lines_of(GERMAN, 300, 2)])
    return charloom.train(text, steps=60, hidden_size=32, seed=1, threads=1)


@pytest.fixture(scope="module")
def lines() -> tuple[list[str], np.ndarray]:  # type: ignore[type-arg]
    """New lines in two languages, and which of them are German."""
    both = [*lines_of(ENGLISH, 100, 3), *lines_of(GERMAN, 100, 4)]
    return both, np.repeat([False, True], 100)


def test_features_separate_two_languages(bilingual: LanguageModel, lines: Any) -> None:
    texts, german = lines
    features = bilingual.line_states(texts)
    assert features.shape == (200, 32)
    train = np.arange(200) % 2 == 0
    inputs = np.column_stack([features, np.ones(200)])
    weights, *_ = np.linalg.lstsq(inputs[train], 2.0 * german[train] - 1, rcond=0.01)
    assert ((inputs[~train] @ weights > 0) == german[~train]).mean() > 0.9


@needs("sklearn")
def test_features_in_a_pipeline_of_scikit_learn(bilingual: LanguageModel, lines: Any) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    texts, german = lines
    classifier = make_pipeline(FunctionTransformer(bilingual.line_states), LogisticRegression())
    assert cross_val_score(classifier, texts, german).mean() > 0.9
    classifier.fit(texts, german)
    again = pickle.loads(pickle.dumps(classifier))
    assert (again.predict(np.array(texts)) == classifier.predict(texts)).all()


def test_lines_agree_with_states_of_each_line(bilingual: LanguageModel) -> None:
    texts = ["die ist das", "you and", "über " * 40, "you", ""]
    mean, last = bilingual.line_states(texts), bilingual.line_states(texts, pooling="last")
    for number, text in enumerate(texts[:4]):
        states = bilingual.states(text)
        assert states.shape == (len(text), 32)
        np.testing.assert_allclose(mean[number], states.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(last[number], states[-1], rtol=1e-4, atol=1e-6)
    assert (mean[4] == 0).all()


def test_states_are_read_like_scores(bilingual: LanguageModel) -> None:
    # As in a prompt: the Unicode form and line ends.
    composed = bilingual.states("über\nfür")
    assert (bilingual.states("u\u0308ber\r\nfu\u0308r") == composed).all()
    with pytest.raises(charloom.UnknownCharacterError, match="'漢'"):
        bilingual.states("you 漢")
    with pytest.raises(charloom.UnknownCharacterError, match=r"line 2: .*'漢'"):
        bilingual.line_states(["you", "漢"])
    assert bilingual.line_states(["you", "漢"], skip_unknown=True)[1].tolist() == [0] * 32
    with pytest.raises(CharloomError, match="pass 'mean' or 'last'"):
        bilingual.line_states(["you"], pooling="max")  # type: ignore[arg-type]
    with pytest.raises(CharloomError, match="single string"):
        bilingual.line_states("you")
    assert bilingual.line_states(line for line in ["you"]).shape == (1, 32)


def test_states_of_bytes_and_of_documents() -> None:
    options: dict[str, Any] = {"steps": 2, "hidden_size": 8, "threads": 1, "window": 16}
    of_bytes = charloom.train("für\nüber\n" * 40, bytes=True, **options)
    assert of_bytes.states("für").shape == (4, 8)
    assert (of_bytes.states("für") == of_bytes.states("für".encode())).all()
    names = charloom.train("anna\nolivia\nava\n" * 40, lines=True, **options)
    both = names.states("anna\nava\n")
    assert both.shape == (7, 8)
    assert (both == names.states(["anna", "ava"])).all()
    np.testing.assert_allclose(both[4:], names.states("ava"), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(names.line_states(["ava"])[0], both[4:].mean(0), rtol=1e-4)


def test_a_model_can_be_copied_and_sent_to_another_process(bilingual: LanguageModel) -> None:
    assert copy.deepcopy(bilingual) is bilingual
    again = pickle.loads(pickle.dumps(bilingual))
    assert again.sample("you ", length=30) == bilingual.sample("you ", length=30)
    assert again.mixture is not None
    alone = LanguageModel(bilingual.checkpoint, network_only=True)
    assert pickle.loads(pickle.dumps(alone)).mixture is None
