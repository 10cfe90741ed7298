"""The adaptive protocol: nothing is learned before it is scored, and all is forgotten."""

from dataclasses import replace

import numpy as np
import pytest

from charloom.engines.backend import Backend
from charloom.engines.protocol import Engine
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.prediction import adaptive, following
from charloom.prediction.adaptive import RATES, Adaptation, AdaptiveScores, choose_adaptation
from charloom.prediction.following import DISCOUNT, PRIOR, RecentCounts
from charloom.prediction.mixture import MixedPredictor, fit_mixture, fit_ngram_table
from charloom.prediction.scoring import Protocol, Scores, score_ids

SIZE = 6


GENERATOR = np.random.default_rng(5)


IDS = GENERATOR.choice(SIZE, 1_500, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05]).astype(np.uint8)


OTHER = np.tile(np.array([0, 3, 1, 5, 2], np.uint8), 200)  # nothing like the text


@pytest.fixture(params=["auto", "reference"])
def engine(request: pytest.FixtureRequest) -> Engine:
    config = ModelConfig("gru", 12, 1, SIZE, dropout=0.3)
    return Backend(request.param).open(initialize(config, seed=2))


def adaptation(engine: Engine, rate: float = 3e-3) -> Adaptation:
    return Adaptation(rate, adaptive._mean_squares(engine, IDS), None)


def score_adaptively(
    engine: Engine, ids: np.ndarray, before: int, chosen: Adaptation
) -> AdaptiveScores:
    stream = list(adaptive.score_adaptively(engine, [ids], before, chosen))
    mixture = None
    if chosen.mixture is not None:
        mixture = Scores.collected((s.mixture for s in stream if s.mixture), len(ids))
    return AdaptiveScores(mixture, Scores.collected((s.network for s in stream), len(ids)))


def test_it_learns_from_what_it_scores_and_forgets_it(engine: Engine) -> None:
    before = engine.parameters.flat.copy()
    carried = score_ids(engine, OTHER, 0, Protocol())
    learning = score_adaptively(engine, OTHER, 0, adaptation(engine)).network
    assert learning.nats_per_character < carried.nats_per_character - 0.3
    np.testing.assert_array_equal(engine.parameters.flat, before)
    again = score_adaptively(engine, OTHER, 0, adaptation(engine)).network
    np.testing.assert_array_equal(again.log_probabilities, learning.log_probabilities)


def test_with_no_rate_it_is_carried(engine: Engine) -> None:
    ids = OTHER[:130]
    still = score_adaptively(engine, ids, 4, adaptation(engine, 0.0)).network
    carried = score_ids(engine, ids, 4, Protocol())
    np.testing.assert_allclose(still.log_probabilities, carried.log_probabilities, atol=1e-5)
    np.testing.assert_array_equal(still.guessed, carried.guessed)


def test_nothing_is_learned_before_it_is_scored(engine: Engine) -> None:
    """What comes later changes nothing of what came before, window by window."""
    changed = OTHER.copy()
    changed[100:] = IDS[100 : len(OTHER)]
    one = score_adaptively(engine, OTHER, 0, adaptation(engine)).network.log_probabilities
    other = score_adaptively(engine, changed, 0, adaptation(engine)).network.log_probabilities
    np.testing.assert_array_equal(one[:100], other[:100])
    assert not np.allclose(one[100:], other[100:])


def test_the_rate_and_the_weights_are_chosen_on_the_watched_part(engine: Engine) -> None:
    table = fit_ngram_table(IDS, SIZE, 2, 1e6)
    mixture = fit_mixture(engine, table, IDS[1000:], 0, 1)
    chosen = choose_adaptation(engine, mixture, IDS, OTHER)
    assert chosen.rate == max(RATES)  # so much is to be learned
    assert chosen.mixture is not None
    assert not np.array_equal(chosen.mixture.theta, mixture.theta)
    # The counts that the choice was made with are not those that were given.
    assert chosen.mixture.counts is table
    scores = score_adaptively(engine, OTHER, 0, chosen)
    assert scores.mixture is not None
    unfit = Adaptation(chosen.rate, chosen.mean_squares, mixture)
    worse = score_adaptively(engine, OTHER, 0, unfit).mixture
    assert worse is not None
    assert scores.mixture.nats_per_character < worse.nats_per_character


def test_with_nothing_to_choose_on_a_usual_rate_is_taken(engine: Engine) -> None:
    assert choose_adaptation(engine, None, IDS, IDS[:0]).rate == adaptive.DEFAULT_RATE


def test_counts_that_know_the_watched_part_do_not_decide(engine: Engine) -> None:
    """The weights are fitted with counts of what was learned, not with those that saw it all."""
    knowing = fit_mixture(engine, fit_ngram_table(np.tile(OTHER, 3), SIZE, 4, 1e6), IDS, 0, 1)
    chosen = choose_adaptation(engine, knowing, IDS, OTHER, prior={})  # nor do they count on
    assert chosen.mixture is not None
    assert chosen.mixture.counts is knowing.counts
    counts = knowing.counts.look_up(np.array([[3, 1, 5, 2]], np.int32))
    network = np.full((1, SIZE), -np.log(SIZE), np.float32)
    assert counts.probabilities.max() > 0.99  # it knows all of it
    assert chosen.mixture.weight(chosen.mixture.features(network, counts))[0] > 0.3


def test_recent_counts_are_those_of_the_formula() -> None:
    generator = np.random.default_rng(6)
    text = np.concatenate([np.full(5, -1), generator.integers(0, 2, 60)]).astype(np.int32)
    recent, base = RecentCounts(5), np.array([0.5, 0.3, 0.2])
    for i in range(5, len(text)):
        context = text[i - 5 : i]
        found = base.astype(np.float32)
        recent.refine(found, context)
        expected = base.copy()
        for k in (4, 5):
            after = [
                int(text[j]) for j in range(5, i) if (text[j - k : j] == context[5 - k :]).all()
            ]
            counts = np.bincount(after, minlength=3).astype(float)
            kinds, whole = (counts > 0).sum(), counts.sum() + PRIOR[k]
            if len(after):
                expected = (
                    np.maximum(counts - DISCOUNT, 0) + (PRIOR[k] + DISCOUNT * kinds) * expected
                ) / whole
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert found.sum() == pytest.approx(1, abs=1e-5)
        recent.add(context, int(text[i]))
    assert not np.allclose(found, base)  # something was counted by then


def test_counts_go_on_counting_and_weights_are_fitted_again(engine: Engine) -> None:
    mixture = fit_mixture(engine, fit_ngram_table(IDS, SIZE, 4, 1e6), IDS[1000:], 0, 1)
    chosen = choose_adaptation(engine, mixture, IDS, OTHER[:300])
    fitted = score_adaptively(engine, OTHER, 0, chosen).mixture
    assert fitted is not None
    chosen = replace(chosen, refit_interval=10**9)
    never = score_adaptively(engine, OTHER, 0, chosen).mixture
    assert never is not None
    np.testing.assert_array_equal(fitted.log_probabilities, never.log_probabilities)  # too short
    chosen = replace(chosen, refit_interval=400)
    often = score_adaptively(engine, OTHER, 0, chosen).mixture
    assert often is not None
    np.testing.assert_array_equal(often.log_probabilities[:400], never.log_probabilities[:400])
    assert not np.array_equal(often.log_probabilities[400:], never.log_probabilities[400:])
    chosen = replace(chosen, prior={})
    static = score_adaptively(engine, OTHER, 0, chosen).mixture
    assert static is not None
    assert often.nats_per_character < static.nats_per_character


END = SIZE - 1


def documents_of(words: list[list[int]], count: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    chosen = (words[i] for i in generator.integers(0, len(words), count))
    return np.array([w for word in chosen for w in (*word, END)], np.uint8)


WORDS = [[0, 1, 2], [3], [4, 4, 0, 2, 1, 3, 2], [], [2, 0, 2, 0, 1]]


@pytest.fixture(params=["auto", "reference"])
def engine_of_documents(request: pytest.FixtureRequest) -> Engine:
    parameters = initialize(ModelConfig("gru", 12, 1, SIZE, end_id=END), seed=2)
    return Backend(request.param).open(parameters)


def test_recent_counts_do_not_reach_across_an_end(engine_of_documents: Engine) -> None:
    """A document is counted from its END on, whatever the one before it is."""
    known = documents_of([[0, 1], [2, 3, 4]], 40, 1)
    table = fit_ngram_table(known, SIZE, 5, 1e6, END)
    mixture = fit_mixture(engine_of_documents, table, known, END, 1)
    still = np.full_like(adaptation(engine_of_documents).mean_squares, np.inf)  # no step is taken
    adapting = Adaptation(1e-9, still, mixture)
    new = [4, 4, 0, 2, 1, END]
    found = []
    for before in ([0, 1, END], [2, 3, 4, END]):
        ids = np.array(new + before + new, np.uint8)
        scores = score_adaptively(engine_of_documents, ids, END, adapting).mixture
        assert scores is not None
        found.append(scores.log_probabilities[[*range(6), *range(-6, 0)]])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    # From the fourth visible character on, END included, it has been counted.
    gain = found[0][6:] - found[0][:6]
    np.testing.assert_allclose(gain[:3], 0, atol=1e-6)
    assert (gain[3:] > 0.05).all()


def test_a_collection_is_scored_adaptively(engine_of_documents: Engine) -> None:
    fitted = documents_of([[0, 1], [2, 3, 4]], 200, 1)
    text = documents_of(WORDS, 300, 2)
    mixture = fit_mixture(
        engine_of_documents, fit_ngram_table(fitted, SIZE, 5, 1e6, END), fitted, END, 1
    )
    chosen = choose_adaptation(engine_of_documents, mixture, fitted, documents_of(WORDS, 50, 3))
    assert chosen.mixture is not None
    assert chosen.mixture.counts is mixture.counts
    adapted = score_adaptively(engine_of_documents, text, END, chosen).mixture
    assert adapted is not None
    predictor = MixedPredictor(engine_of_documents, mixture)
    carried = score_ids(predictor, text, END, Protocol())
    assert adapted.nats_per_character < carried.nats_per_character - 0.5


def test_an_adaptation_is_chosen_on_whole_documents(
    engine_of_documents: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive, "CHOSEN_ON", 500)
    fitted, held_out = documents_of(WORDS, 200, 1), documents_of(WORDS, 200, 2)
    read = []

    class Watched(adaptive._AdaptiveScorer):
        def score(self, blocks, *reporting):  # type: ignore[no-untyped-def]
            read.append((blocks[0], self._last))
            return super().score(blocks, *reporting)

    monkeypatch.setattr(adaptive, "_AdaptiveScorer", Watched)
    choose_adaptation(engine_of_documents, None, fitted, held_out)
    ids, before = read[0]
    assert before == END
    assert 480 < len(ids) <= 500
    documents = "".join(map(str, ids)).split(str(END))[:-1]
    assert set(documents) <= {"".join(map(str, word)) for word in WORDS}


@pytest.mark.parametrize("size", [1, 7, 100])
def test_blocks_of_a_text_change_nothing(engine_of_documents: Engine, size: int) -> None:
    text = documents_of(WORDS, 100, 2)
    mixture = fit_mixture(
        engine_of_documents, fit_ngram_table(text, SIZE, 5, 1e6, END), text, END, 1
    )
    chosen = adaptation(engine_of_documents)
    chosen = replace(chosen, mixture=mixture, refit_interval=60)
    whole = score_adaptively(engine_of_documents, text, END, chosen)
    blocks = [text[i : i + size] for i in range(0, len(text), size)]
    stream = list(adaptive.score_adaptively(engine_of_documents, blocks, END, chosen))
    found = np.concatenate([s.mixture.log_probabilities for s in stream if s.mixture is not None])
    assert whole.mixture is not None
    np.testing.assert_array_equal(found, whole.mixture.log_probabilities)


def test_the_visible_part_of_a_context_begins_with_the_last_end(
    engine_of_documents: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = fit_ngram_table(documents_of(WORDS, 50, 1), SIZE, 3, 1e6, END)
    mixture = fit_mixture(engine_of_documents, table, np.zeros(0, np.uint8), END, 1)
    visible = []
    monkeypatch.setattr(RecentCounts, "add", lambda self, context, w: visible.append(len(context)))
    ids = np.array([2, END, 3, END, END, 4, 0, 1, 2], np.uint8)
    chosen = replace(adaptation(engine_of_documents), mixture=mixture)
    score_adaptively(engine_of_documents, ids, 1, chosen)
    assert visible == [1, 2, 1, 2, 1, 1, 2, 3, 3]


def test_contexts_that_occurred_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the text began later, for every context that has not occurred in between."""
    monkeypatch.setattr(following, "MOST_CONTEXTS", 100)
    generator = np.random.default_rng(7)
    recent, counted = RecentCounts(5), 0
    text = generator.integers(0, 4, 600).astype(np.int32)
    for i in range(5, len(text)):
        recent.add(text[i - 5 : i], int(text[i]))
        counted = sum(len(c[k]) for c in (recent._counts, recent._earlier) for k in (4, 5))
        assert counted <= 104
    uniform = np.full(4, 0.25, np.float32)
    newest = uniform.copy()
    recent.refine(newest, text[-6:-1])
    assert not np.allclose(newest, uniform)
    whole = RecentCounts(5)
    monkeypatch.setattr(following, "MOST_CONTEXTS", 10_000)
    for i in range(5, len(text)):
        whole.add(text[i - 5 : i], int(text[i]))
    changed = 0
    for i in range(5, len(text)):
        one, other = uniform.copy(), uniform.copy()
        recent.refine(one, text[i - 5 : i])
        whole.refine(other, text[i - 5 : i])
        changed += not np.array_equal(one, other)
    assert changed > 100
