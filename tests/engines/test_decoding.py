"""Temperature, top-k, top-p, min-p, and the draw itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from charloom.engines.decoding import SamplingSettings, choose, probabilities
from charloom.errors import CharloomError

logit_rows = arrays(np.float32, st.integers(1, 12), elements=st.floats(-30, 30, width=32))


@given(logit_rows)
def test_plain_sampling_is_the_softmax(logits: np.ndarray) -> None:
    p = np.exp(logits.astype(float))
    np.testing.assert_allclose(probabilities(logits, SamplingSettings()), p / p.sum(), rtol=1e-9)


def test_rounding_ties_keep_the_likeliest() -> None:
    logits = np.array([0, 1e-38], dtype=np.float32)
    for settings in (SamplingSettings(top_p=0.5), SamplingSettings(top_k=1)):
        assert probabilities(logits, settings).tolist() == [0, 1]


@given(
    logit_rows,
    st.floats(0, 5),
    st.none() | st.integers(1, 15),
    st.none() | st.floats(0.01, 1),
    st.none() | st.floats(0, 1),
)
def test_every_setting_leaves_a_distribution_with_the_likeliest_in_it(
    logits: np.ndarray, temperature: float, k: int | None, p: float | None, m: float | None
) -> None:
    found = probabilities(logits, SamplingSettings(temperature, k, p, m))
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    assert found[np.argmax(logits)] == found.max() > 0
    if k is not None:
        assert (found > 0).sum() <= k


def test_top_k_top_p_min_p_narrow_the_choices() -> None:
    logits = np.log(np.array([0.4, 0.1, 0.3, 0.2]))

    def kept(**settings: float) -> list[int]:
        return np.flatnonzero(probabilities(logits, SamplingSettings(**settings))).tolist()  # type: ignore[arg-type]

    assert kept(top_k=2) == [0, 2]
    assert kept(top_p=0.39) == [0]
    assert kept(top_p=0.41) == [0, 2]  # the one that crosses belongs to it
    assert kept(top_p=1.0) == [0, 1, 2, 3]
    assert kept(min_p=0.6) == [0, 2]
    assert kept(top_k=3, min_p=0.6) == [0, 2]
    assert kept(temperature=0) == [0]
    # Temperature comes first: at 0.5 the first two hold (16 + 9) / 30 of the probability.
    assert kept(temperature=0.5, top_p=0.8) == [0, 2]
    assert kept(temperature=0.5, top_p=0.84) == [0, 2, 3]


def test_temperature_zero_takes_the_first_of_equals() -> None:
    assert choose(np.array([[1.0, 3, 3]]), SamplingSettings(0), np.array([0.99])).tolist() == [1]


@pytest.mark.parametrize("temperature", [1e-300, 1e-9, 1e300])
def test_extreme_temperatures_stay_finite(temperature: float) -> None:
    found = probabilities(np.array([1e4, -1e4, 0.0]), SamplingSettings(temperature))
    assert np.isfinite(found).all()


def test_draws_follow_the_distribution() -> None:
    logits = np.log(np.array([[0.5, 0.2, 0.3]]))
    uniforms = (np.arange(1000) + 0.5) / 1000
    drawn = [int(choose(logits, SamplingSettings(), np.array([u]))[0]) for u in uniforms]
    assert np.bincount(drawn).tolist() == [500, 200, 300]


@given(logit_rows, st.floats(0, 1, exclude_max=True))
def test_row_is_independent_of_its_batch(logits: np.ndarray, uniform: float) -> None:
    settings = SamplingSettings(0.8, top_p=0.9)
    alone = choose(logits[None], settings, np.array([uniform]))
    other = np.random.default_rng(0).normal(size=len(logits)).astype(np.float32)
    together = choose(np.stack([other, logits]), settings, np.array([0.3, uniform]))
    assert together[1] == alone[0]


def test_the_largest_number_takes_the_last_possible_character() -> None:
    settings = SamplingSettings(top_k=1)
    assert choose(np.array([[5.0, 1, 0]]), settings, np.array([np.nextafter(1, 0)])).tolist() == [0]


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_k": -3},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"min_p": -0.1},
        {"min_p": 2},
    ],
)
def test_invalid_setting_is_refused_by_name(settings: dict[str, float]) -> None:
    with pytest.raises(CharloomError, match=next(iter(settings))):
        SamplingSettings(**settings)  # type: ignore[arg-type]
