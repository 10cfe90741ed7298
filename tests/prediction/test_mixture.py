"""The mixture: its weights, its fitting, and that it scores and samples as it should."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charloom.engines.backend import Backend
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Engine
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.ngrams.mixing import Mixture, feature_count, features
from charloom.prediction.mixture import (
    MixedPredictor,
    choose_ngram_context,
    contexts_before,
    fit_mixture,
    fit_mixture_on_training_text,
    fit_ngram_table,
)
from charloom.prediction.scoring import Protocol, score_ids

SIZE = 9


IDS = np.random.default_rng(3).choice(SIZE, 4_000, p=np.arange(9, 0, -1) / 45).astype(np.uint8)


IDS[2000:3000] = IDS[:1000]


@pytest.fixture(params=["auto", "reference"])
def engine(request: pytest.FixtureRequest) -> Engine:
    parameters = initialize(ModelConfig("gru", 8, 1, SIZE), seed=1)
    return Backend(request.param).open(parameters)


def predictor(engine: Engine) -> MixedPredictor:
    table = fit_ngram_table(IDS[:3000], SIZE, 3, 1e6)
    return MixedPredictor(engine, fit_mixture(engine, table, IDS[3000:], int(IDS[2999]), 2))


def test_it_is_a_distribution_between_its_parts(engine: Engine) -> None:
    mixed = predictor(engine)
    inputs = IDS[:40].reshape(20, 2).astype(np.intp)
    log_p, _ = mixed.log_probabilities(inputs, mixed.zero_state(2))
    network, _ = engine.log_probabilities(inputs, engine.zero_state(2))
    np.testing.assert_allclose(np.exp(log_p).sum(axis=2), 1, atol=1e-5)
    for row in range(2):
        contexts = contexts_before(np.append(inputs[:, row], 0), 3)
        counts = mixed.mixture.counts.look_up(contexts).probabilities
        low, high = (
            np.minimum(np.exp(network[:, row]), counts),
            np.maximum(np.exp(network[:, row]), counts),
        )
        p = np.exp(log_p[:, row])
        assert ((low - 1e-6 <= p) & (p <= high + 1e-6)).all()


@pytest.mark.parametrize("protocol", [Protocol(), Protocol(16)])
def test_scoring_resets_the_counts_context_with_the_state(
    engine: Engine, protocol: Protocol
) -> None:
    mixed = predictor(engine)
    ids = IDS[3000:3100]
    scores = score_ids(mixed, ids, 5, protocol).log_probabilities
    window = protocol.window or len(ids)
    for begin in range(0, len(ids), window):
        state = mixed.zero_state(1)
        for i in range(begin, min(begin + window, len(ids))):
            logits, state = mixed.step(np.array([5 if i == 0 else int(ids[i - 1])]), state)
            assert scores[i] == pytest.approx(logits[0, ids[i]], abs=2e-5)


def test_the_context_is_all_that_was_read_and_no_more() -> None:
    contexts = contexts_before(np.array([7, 8, 9, 10]), 3)
    assert contexts.tolist() == [[-1, -1, 7], [-1, 7, 8], [7, 8, 9]]
    assert contexts_before(np.array([7, 8]), 0).shape == (1, 0)


def test_with_nothing_to_fit_on_both_weigh_the_same(engine: Engine) -> None:
    table = fit_ngram_table(IDS, SIZE, 2, 1e6)
    mixture = fit_mixture(engine, table, IDS[:0], 0, 1)
    assert not mixture.theta.any()
    network = np.log(np.full((1, SIZE), 1 / SIZE, np.float32))
    counts = table.look_up(np.array([[1, 2]], np.int32))
    assert mixture.weight(mixture.features(network, counts)) == 0.5


class Memorizing:
    """A network that gives the next character of IDS this probability."""

    window_equals_steps = True

    def __init__(self, ids: NDArray[np.uint8], certain: float, end_id: int | None = None) -> None:
        self.config = ModelConfig("gru", 8, 1, SIZE, end_id=end_id)
        self._next = {tuple(ids[i - 6 : i].tolist()): int(ids[i]) for i in range(6, len(ids))}
        self._certain = certain

    def zero_state(self, rows: int) -> NDArray[np.int64]:
        return np.full((rows, 6), -1)

    def log_probabilities(
        self, inputs: NDArray[np.intp], state: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        p = np.full((*inputs.shape, SIZE), (1 - self._certain) / (SIZE - 1), np.float32)
        for time, ids in enumerate(inputs):
            state = np.concatenate([state[:, 1:], ids[:, None]], axis=1)
            for row, read in enumerate(state.tolist()):
                if (found := self._next.get(tuple(read))) is not None:
                    p[time, row, found] = self._certain
        return np.log(p / p.sum(axis=2, keepdims=True)), state


RANDOM = np.random.default_rng(5).integers(0, SIZE - 1, 1_500).astype(np.uint8)


@pytest.mark.parametrize("end_id", [None, SIZE - 1])
def test_a_network_that_has_memorized_its_text_stays_alone(end_id: int | None) -> None:
    text = RANDOM.copy()
    text[9::10] = SIZE - 1  # ends of documents, in the one case
    alone: Any = Memorizing(text, 0.9, end_id)
    assert fit_mixture_on_training_text(alone, text, 4, 1e6, end_id) is None
    # Less certain, it is not worse than the n-gram model either, so it has nearly all the weight.
    leaning: Any = Memorizing(text, 0.3, end_id)
    mixture = fit_mixture_on_training_text(leaning, text, 4, 1e6, end_id)
    assert mixture is not None
    assert mixture.counts.context == 4
    network, _ = leaning.log_probabilities(text[None, :300].T.astype(np.intp), np.full((1, 6), -1))
    ngram = mixture.counts.look_up(contexts_before(text[:301], 4))
    assert mixture.weight(mixture.features(network[:, 0], ngram)).mean() > 0.8


def test_without_another_text_the_places_are_not_counted_that_weights_are_fitted_on(
    engine: Engine,
) -> None:
    # The n-gram model has counted every place of the text, and would seem certain there.
    counted = fit_mixture(engine, fit_ngram_table(RANDOM, SIZE, 4, 1e6), RANDOM, 0, 1)
    fitted = fit_mixture_on_training_text(engine, RANDOM, 4, 1e6)
    assert fitted is not None
    new = np.random.default_rng(6).integers(0, SIZE - 1, 600).astype(np.uint8)
    losses = [
        score_ids(MixedPredictor(engine, mixture), new, 0, Protocol()).nats_per_character
        for mixture in (counted, fitted)
    ]
    assert losses[1] < losses[0] - 0.01


@pytest.mark.parametrize("length", [2, 3, 11, 150])
def test_the_shortest_texts_have_weights_too(engine: Engine, length: int) -> None:
    mixture = fit_mixture_on_training_text(engine, RANDOM[:length], 2, 1e6)
    assert mixture is not None
    assert np.isfinite(mixture.theta).all()


def test_probabilities_of_zero_do_no_harm() -> None:
    table = fit_ngram_table(IDS, SIZE, 2, 1e6)
    mixture = Mixture(table, np.ones(feature_count(2)) * 0.1)
    network = np.full((1, SIZE), -200.0, np.float32)  # e^-200 is 0 in float32
    network[0, 3] = 0
    counts = table.look_up(np.array([[1, 2]], np.int32))
    assert np.isfinite(features(network, counts, 2)).all()
    assert np.isfinite(mixture.mix(network, counts)).all()


def test_neither_part_is_ever_left_out(engine: Engine) -> None:
    mixed = predictor(engine).mixture
    contexts = contexts_before(IDS[:6], 3)[:5]
    sure = np.full((5, SIZE), -900.0, np.float32)  # of one character, and wrong
    sure[:, 0] = 0
    for side in (-1e4, 1e4):
        theta = np.zeros_like(mixed.theta)
        theta[0] = side
        mixture = replace(mixed, theta=theta)
        log_p = mixture.mix(sure, mixture.counts.look_up(contexts))
        assert np.isfinite(log_p).all()


def test_the_context_is_chosen_on_the_validation_part() -> None:
    # Each character is drawn by the one before it: one tells all there is, and one more is taken.
    generator = np.random.default_rng(7)
    following = np.array(
        [[3, 1, 4], [0, 2, 5], [1, 3, 6], [2, 0, 5], [6, 1, 0], [4, 3, 1], [5, 2, 0]]
    )
    text = np.zeros(6_000, np.uint8)
    for i in range(1, len(text)):
        text[i] = following[text[i - 1], generator.integers(3)]
    context, nats = choose_ngram_context(text[:5_000], text[5_000:], 7)
    assert context == 2
    assert nats == pytest.approx(np.log(3), abs=0.02)


END = 8


@pytest.fixture(params=["auto", "reference"])
def mixed_documents(request: pytest.FixtureRequest) -> MixedPredictor:
    """A mixture trained on a collection: IDS, whose rarest character ends a document."""
    parameters = initialize(ModelConfig("gru", 8, 1, SIZE, end_id=END), seed=1)
    engine = Backend(request.param).open(parameters)
    table = fit_ngram_table(IDS[:3000], SIZE, 4, 1e6, END)
    return MixedPredictor(engine, fit_mixture(engine, table, IDS[3000:], END, 2))


def test_reading_an_end_empties_the_context(mixed_documents: MixedPredictor) -> None:
    """Window, steps and reading predict the same after END, whatever the ids before it."""
    before, document = [3, END, 0, 1, 2], [END, 0, 1, 0, 2, 1]
    start = mixed_documents.zero_state(1)
    alone, _ = mixed_documents.log_probabilities(np.array(document)[:, None], start)
    after_all, _ = mixed_documents.log_probabilities(np.array(before + document)[:, None], start)
    np.testing.assert_array_equal(after_all[len(before) :], alone)
    state = mixed_documents.read(np.array([*before, END])[:, None], start)
    for i, id_ in enumerate(document[1:], start=1):
        logits, state = mixed_documents.step(np.array([id_]), state)
        np.testing.assert_allclose(logits[0], alone[i, 0], atol=2e-5)
    scores = [
        score_ids(mixed_documents, np.array(ids, np.uint8), END, Protocol()).log_probabilities
        for ids in (document[1:], before + document)
    ]
    np.testing.assert_allclose(scores[1][len(before) + 1 :], scores[0], atol=2e-5)


def test_a_sample_after_an_end_is_that_of_a_new_text(mixed_documents: MixedPredictor) -> None:
    uniforms = np.random.default_rng(1).random((30, 1))
    settings = SamplingSettings()
    start = mixed_documents.zero_state(1)
    used = mixed_documents.read(np.array([3, 0, 1, 2])[:, None], start)
    expected, _ = mixed_documents.generate(np.array([END]), start, settings, uniforms)
    sampled, _ = mixed_documents.generate(np.array([END]), used, settings, uniforms)
    np.testing.assert_array_equal(sampled, expected)
    assert (expected[:-1] == END).any()  # documents ended on the way


def test_the_weights_of_a_mixture_know_a_context_of_a_whole_beginning() -> None:
    # Documents that no network knows: the n-gram model remembers them from their first character.
    generator = np.random.default_rng(2)
    words = [generator.integers(0, 8, 6) for _ in range(30)]
    text = np.concatenate([[*words[generator.integers(30)], END] for _ in range(600)])
    table = fit_ngram_table(text[:3000], SIZE, 5, 1e6, END)
    engine = Backend("reference").open(initialize(ModelConfig("gru", 8, 1, SIZE, end_id=END), 1))
    mixture = fit_mixture(engine, table, text[3000:], END, 1)
    found = score_ids(MixedPredictor(engine, mixture), text[3000:], END, Protocol())
    alone = table.look_up(contexts_before(np.concatenate([[END], text[3000:]]), 5))
    nats = -np.log(alone.probabilities[np.arange(len(text) - 3000), text[3000:]]).mean()
    assert found.nats_per_character < nats + 0.01
