"""One kernel for a network and counts, beside the same predictor in NumPy."""

from typing import Any

import numpy as np
import pytest

from charloom.context_mixing.groups import TOGETHER
from charloom.engines.decoding import SamplingSettings
from charloom.network.units import Clamp, Unit
from charloom.prediction.mixture import MixedPredictor
from charloom.prediction.rows import rows_of
from charloom.text.vocabulary import END, Vocabulary
from helpers.counts import KINDS, predictor_with_counts

pytest.importorskip("numba", reason="the compiled engine needs Numba")

TEXT = "The cat sat on a mat. The dog is at the door of the shop.\n" * 12
GENERATOR = np.random.default_rng(5)
SETTINGS = (
    SamplingSettings(),
    SamplingSettings(0),
    SamplingSettings(1.5, top_k=9, top_p=0.9),
    SamplingSettings(0.6, min_p=0.05),
)
# Both paths take the same float32 logits and the same predictions of the counts. They differ in
# the rounding of sums of V numbers and of their logarithms, and a mixture's log p of at most 28 (as
# no weight is below 1e-12) has units in the last place of 2e-6.
CLOSE = {"float32": 2e-5, "float64": 2e-6}


def vocabulary_of(documents: bool) -> Vocabulary:
    return Vocabulary.of(TEXT + END if documents else TEXT)


def make(kind: str, documents: bool = False, **config: Any) -> MixedPredictor:
    text = TEXT.replace(". ", f".{END}") if documents else TEXT
    vocabulary = vocabulary_of(documents)
    ids = np.array([vocabulary.characters.index(c) for c in text])
    found = predictor_with_counts(kind, vocabulary, ids, engine="compiled", **config)
    found.engine.parameters.flat[:] *= 2
    found.engine.parameters_changed()
    return found


def in_numpy(predictor: MixedPredictor) -> MixedPredictor:
    """Return the predictor whose counts, mixture and choices are computed in Python."""
    plain = MixedPredictor(predictor.engine, predictor.mixture, network_only=predictor.network_only)
    plain.__dict__["_compiled"] = None
    return plain


def some_ids(predictor: MixedPredictor, *shape: int) -> Any:
    return GENERATOR.integers(0, predictor.config.vocabulary_size, shape)


def assert_equal_states(one: Any, other: Any) -> None:
    np.testing.assert_array_equal(one.network, other.network)
    np.testing.assert_array_equal(one.context, other.context)


@pytest.fixture(scope="module", params=KINDS)
def predictor(request: pytest.FixtureRequest) -> MixedPredictor:
    return make(request.param)


@pytest.fixture(scope="module", params=["table", "mixer-read"])
def of_documents(request: pytest.FixtureRequest) -> MixedPredictor:
    return make(request.param, documents=True, cell="lstm", layers=2)


def check(predictor: MixedPredictor) -> None:
    plain, close = in_numpy(predictor), CLOSE[predictor.config.dtype]
    ids = some_ids(predictor, 40, 3)
    found, state = predictor.log_probabilities(ids, predictor.zero_state(3))
    expected, end = plain.log_probabilities(ids, plain.zero_state(3))
    np.testing.assert_allclose(found, expected, rtol=close, atol=close)
    assert_equal_states(state, end)
    assert_equal_states(predictor.read(ids, predictor.zero_state(3)), end)
    clamps = (Clamp(Unit(0, 0, 3), 0.8),)
    found, state = predictor.step(ids[0], end, clamps)
    expected, after = plain.step(ids[0], end, clamps)
    np.testing.assert_allclose(found, expected, rtol=close, atol=close)
    assert_equal_states(state, after)
    for settings in SETTINGS:
        uniforms = GENERATOR.random((30, 3))
        sampled, state = predictor.generate(ids[0], end, settings, uniforms, clamps)
        same, after = plain.generate(ids[0], end, settings, uniforms, clamps)
        np.testing.assert_array_equal(sampled, same)
        assert_equal_states(state, after)


def test_a_kernel_computes_what_numpy_does(predictor: MixedPredictor) -> None:
    assert predictor._compiled is not None
    check(predictor)


def test_documents_in_a_kernel(of_documents: MixedPredictor) -> None:
    check(of_documents)


@pytest.mark.extended
@pytest.mark.parametrize("kind", ["table", "mixer-read"])
def test_a_kernel_in_float64(kind: str) -> None:
    check(make(kind, dtype="float64"))


def test_a_row_has_the_same_bytes_alone(predictor: MixedPredictor) -> None:
    rows = TOGETHER + 3
    ids, uniforms = some_ids(predictor, 20, 5), GENERATOR.random((25, 5))
    size = predictor.config.vocabulary_size
    ids = np.concatenate([ids, (ids + 1) % size, (ids + 2) % size], axis=1)[:, :rows]
    uniforms = np.concatenate([uniforms, uniforms[::-1], uniforms], axis=1)[:, :rows]
    state = predictor.read(ids, predictor.zero_state(rows))
    logits, after = predictor.step(ids[0], state)
    sampled, _ = predictor.generate(ids[0], state, SETTINGS[0], uniforms)
    for row in (0, TOGETHER - 1, TOGETHER, rows - 1):
        one = [row]
        alone = predictor.read(ids[:, one], predictor.zero_state(1))
        assert_equal_states(alone, rows_of(state, one))
        found, then = predictor.step(ids[0, one], alone)
        np.testing.assert_array_equal(found[0], logits[row])
        assert_equal_states(then, rows_of(after, one))
        found, _ = predictor.generate(ids[0, one], alone, SETTINGS[0], uniforms[:, one])
        np.testing.assert_array_equal(found[:, 0], sampled[:, row])


@pytest.mark.parametrize("rows", [1, 3])
def test_threads_leave_no_trace(predictor: MixedPredictor, rows: int) -> None:
    ids, uniforms = some_ids(predictor, 50, rows), GENERATOR.random((20, rows))
    found = []
    for threads in (1, 2):
        engine = type(predictor.engine)(predictor.engine.parameters, threads=threads)
        engine._multiplications = 1e6  # type: ignore[attr-defined]
        own = MixedPredictor(engine, predictor.mixture, network_only=predictor.network_only)
        log_p, state = own.log_probabilities(ids, own.zero_state(rows))
        sampled, after = own.generate(ids[0], state, SETTINGS[0], uniforms)
        found.append([log_p, *state, sampled, *after])
        shapes = engine._inference_windows  # type: ignore[attr-defined]
        assert {shape[-1] for shape in shapes} == {threads}
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_unknown_id_is_refused(predictor: MixedPredictor) -> None:
    ids = np.array([[predictor.config.vocabulary_size]])
    with pytest.raises(IndexError):
        predictor.log_probabilities(ids, predictor.zero_state(1))
    with pytest.raises(ValueError, match="rows"):
        predictor.step(ids[0] * 0, predictor.zero_state(2))
