"""Counts beside the network, and read by it, in everything that a predictor is used for."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from charloom.analysis.exploration import explore
from charloom.engines.protocol import Engine
from charloom.errors import CharloomError
from charloom.language_model import LanguageModel
from charloom.ngrams.table import NGramTable
from charloom.prediction import adaptive
from charloom.prediction.adaptive import choose_adaptation, score_adaptively
from charloom.prediction.mixture import MixedPredictor
from charloom.prediction.scoring import Protocol, Scores, score_ids
from charloom.storage.checkpoint import Checkpoint
from charloom.text.dataset import Dataset
from charloom.text.vocabulary import Vocabulary
from helpers.counts import KINDS, predictor_with_counts

PATTERN = "The cat sat on a mat.\nA dog is at the door of the shop.\n"
VOCABULARY = Vocabulary.of(PATTERN)
GENERATOR = np.random.default_rng(7)


def text_of(words: int) -> str:
    """Return a text of words in random order."""
    return " ".join(GENERATOR.choice(PATTERN.split(), words)) + "\n"


IDS = VOCABULARY.encode(text_of(700))
OTHER = VOCABULARY.encode("the door sat on the dog.\n" * 10)
READING = [kind for kind, (_, reads, _) in KINDS.items() if reads]


def network_of(predictor: MixedPredictor) -> MixedPredictor:
    """Return a predictor of its network alone, with the counts that it reads."""
    return MixedPredictor(predictor.engine, predictor.mixture, network_only=True)


@pytest.fixture(scope="module", params=KINDS)
def predictor(request: pytest.FixtureRequest) -> MixedPredictor:
    return predictor_with_counts(request.param, VOCABULARY, IDS)


@pytest.fixture(scope="module", params=READING)
def reading(request: pytest.FixtureRequest) -> MixedPredictor:
    return predictor_with_counts(request.param, VOCABULARY, IDS)


def test_a_network_reads_what_the_counts_predict(reading: MixedPredictor) -> None:
    inputs = IDS[:60].reshape(20, 3).astype(np.intp)
    alone = network_of(reading)
    found, _ = alone.log_probabilities(inputs, alone.zero_state(3))
    counts = reading.mixture.counts
    p = counts.predict(inputs, counts.zero_state(3))[0].probabilities.reshape(20, 3, -1)
    zeros = reading.engine.zero_state(3)
    expected, _ = reading.engine.log_probabilities(inputs, zeros, extra=p)
    np.testing.assert_array_equal(found, expected)
    other, _ = reading.engine.log_probabilities(inputs, zeros, extra=np.zeros_like(p))
    assert np.abs(found - other).max() > 0.01


def test_the_weight_of_a_network_that_reads_counts_is_nearly_constant() -> None:
    def largest(kind: str) -> float:
        theta = predictor_with_counts(kind, VOCABULARY, IDS).mixture.theta
        return float(np.abs(theta[1:]).max())

    assert largest("mixer-read") < largest("mixer") / 4
    assert largest("table-read") < largest("table") / 4


@pytest.mark.parametrize("protocol", ["carried", "cold-7", "cold-64"])
def test_scores_do_not_depend_on_the_pieces(predictor: MixedPredictor, protocol: str) -> None:
    parsed = Protocol.parse(protocol)
    whole = score_ids(predictor, OTHER, 0, parsed).log_probabilities
    numbers = predictor.config.numbers_per_position * 15
    pieces = score_ids(predictor, OTHER, 0, parsed, numbers_at_once=numbers)
    np.testing.assert_allclose(pieces.log_probabilities, whole, atol=1e-5)


def test_a_cold_window_starts_empty(predictor: MixedPredictor) -> None:
    scores = score_ids(predictor, OTHER, 0, Protocol.parse("cold-25")).log_probabilities
    alone = score_ids(predictor, OTHER[50:75], int(OTHER[49]), Protocol()).log_probabilities
    np.testing.assert_allclose(scores[50:75], alone, atol=1e-5)


def score(engine: Engine, ids: Any, chosen: adaptive.Adaptation) -> list[Scores | None]:
    found = list(score_adaptively(engine, [ids], 0, chosen))
    streams: tuple[Iterator[Scores | None], ...] = (
        (scores.mixture for scores in found),
        (scores.network for scores in found),
    )
    results: list[Scores | None] = []
    for stream in streams:
        parts = [scores for scores in stream if scores is not None]
        results.append(Scores.collected(parts, len(ids)) if parts else None)
    return results


def adaptation_of(predictor: MixedPredictor) -> adaptive.Adaptation:
    cut = len(IDS) * 3 // 4
    return choose_adaptation(
        predictor.engine,
        predictor.mixture,
        IDS[:cut],
        IDS[cut:],
        network_only=predictor.network_only,
    )


def test_a_model_adapts_to_a_text_and_forgets_it(
    predictor: MixedPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive, "MEASURED", 20)
    monkeypatch.setattr(adaptive, "CHOSEN_ON", 200)
    parameters = predictor.engine.parameters.flat.copy()
    before = score_ids(predictor, OTHER, 0, Protocol())
    chosen = replace(adaptation_of(predictor), refit_interval=100, rate=3e-3)
    mixture, network = score(predictor.engine, OTHER, chosen)
    assert (mixture is None) == predictor.network_only
    adapted = mixture or network
    assert adapted is not None
    assert adapted.nats_per_character < before.nats_per_character
    np.testing.assert_array_equal(predictor.engine.parameters.flat, parameters)
    after = score_ids(predictor, OTHER, 0, Protocol())
    np.testing.assert_array_equal(after.log_probabilities, before.log_probabilities)
    # Nothing is learned before it is scored, in pieces of any length.
    changed = OTHER.copy()
    changed[100:] = IDS[:150]
    monkeypatch.setattr(adaptive, "NUMBERS_AT_ONCE", len(VOCABULARY) * 40)
    found, of_network = score(predictor.engine, changed, chosen)
    again = found or of_network
    assert again is not None
    np.testing.assert_array_equal(again.log_probabilities[:100], adapted.log_probabilities[:100])


def test_counts_that_know_the_held_out_text_do_not_choose(
    reading: MixedPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive, "MEASURED", 20)
    monkeypatch.setattr(adaptive, "CHOSEN_ON", 60)
    chosen = adaptation_of(reading)
    assert chosen.mixture is not None
    assert chosen.evidence is not None
    if isinstance(reading.mixture.counts, NGramTable):  # counted again, without that text
        assert len(chosen.evidence.x) == 60
    else:
        assert chosen.rate == adaptive.READING_RATE
        assert len(chosen.evidence.x) == 0
        np.testing.assert_array_equal(chosen.mixture.theta, reading.mixture.theta)


def model_of(predictor: MixedPredictor, **settings: Any) -> LanguageModel:
    checkpoint = Checkpoint(predictor.engine.parameters, VOCABULARY, mixture=predictor.mixture)
    boundaries = len(IDS) * 3 // 4, len(IDS) - 200
    dataset = Dataset("text", "", "0" * 64, VOCABULARY, IDS, boundaries)
    checkpoint.text = {"name": "text", "characters": boundaries[0], "unseen": 0.001}
    return LanguageModel(checkpoint, dataset=dataset, **settings)


def test_a_model_of_counts_is_evaluated(reading: MixedPredictor) -> None:
    model = model_of(reading)
    for protocol in ("carried", "cold-64"):
        found = model.evaluate(protocol=protocol)
        alone = model_of(reading, network_only=True).evaluate(protocol=protocol)
        network = found.baselines["network"]
        assert found.model == "mixture"
        assert network.bits_per_character == pytest.approx(alone.bits_per_character)
        assert network.note == f"reads the {found.counts}"
        assert network.note in [row.note for row in alone.rows("gru")]
        assert alone.model == "network"
        assert alone.counts == found.counts


def test_states_and_units_are_those_of_the_network_that_reads(reading: MixedPredictor) -> None:
    model = model_of(reading)
    text = VOCABULARY.decode(OTHER[:40])
    state = model.network.zero_state(1)
    expected = []
    for id_ in [VOCABULARY.start_id, *OTHER[:40]]:
        _, state = model.network.step(np.array([id_]), state)
        expected.append(state.network[0, :, 0].ravel())
    np.testing.assert_allclose(model.states(text), expected[1:], atol=1e-6)
    np.testing.assert_allclose(
        model.line_states([text[:9], text[:30]], pooling="last")[1], expected[30], atol=1e-6
    )
    found = explore(model, text, with_activations=True)
    unit = found.units[0].unit
    activations = next(iter(found.activations.values()))
    assert len(activations) == 40
    assert found.units[0].mean == pytest.approx(
        np.mean([row[unit.number] for row in expected[1:]]), abs=1e-5
    )


def test_a_network_without_its_counts_is_refused(reading: MixedPredictor) -> None:
    checkpoint = Checkpoint(reading.engine.parameters, VOCABULARY)
    with pytest.raises(
        CharloomError, match="reads 20 extra inputs, and the model has no context mixer"
    ):
        LanguageModel(checkpoint)


def test_samples_and_clamps(reading: MixedPredictor) -> None:
    model, alone = model_of(reading), model_of(reading, network_only=True)
    settings: dict[str, Any] = {"length": 60, "seed": 3}
    assert model.sample("The ", **settings) == model.sample("The ", **settings)
    free = alone.sample("The ", **settings)
    clamped = alone.sample("The ", clamp="h2=0.9", **settings)
    assert len(free) == len(clamped) == 64
    assert free != clamped
    documents = model.sample_documents(5, prompt="The ", **settings)
    for index, document in enumerate(documents):
        assert document.text == model.sample("The ", index=index, **settings)
    guarded = model.sample("The ", max_overlap=6, **settings)
    assert model.overlap(guarded, drawn_from=4).length <= 6


def test_a_pickled_model_predicts_the_same_bytes(reading: MixedPredictor) -> None:
    model = model_of(reading)
    again = pickle.loads(pickle.dumps(model))
    text = VOCABULARY.decode(OTHER[:40])
    np.testing.assert_array_equal(
        again.score(text).log_probabilities, model.score(text).log_probabilities
    )
    alone = pickle.loads(pickle.dumps(model_of(reading, network_only=True)))
    assert alone.score(text).nats_per_character != model.score(text).nats_per_character
