"""The weights of a mixture are fitted where each of its two predictors is better."""

from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from charloom.ngrams.mixing import fit_theta


def synthetic(good: float, seed: int = 0) -> tuple[Any, Any, Any]:
    """Features, and what two predictors gave to 4,000 characters; where the first feature after the
    constant is positive the first one is `good` times as good, elsewhere the second."""
    generator = np.random.default_rng(seed)
    x = np.column_stack([np.ones(4_000), generator.standard_normal((4_000, 3))])
    base = generator.uniform(0.05, 0.5, 4_000)
    first = np.where(x[:, 1] > 0, base * good, base / good)
    return x, np.minimum(first, 1), base


def test_the_fit_finds_where_each_is_better() -> None:
    x, network, counts = synthetic(1.8)
    theta = fit_theta(x, network, counts)
    g = 1 / (1 + np.exp(-(x @ theta)))
    assert theta[1] > 1
    assert g[x[:, 1] > 1].mean() > 0.9
    assert g[x[:, 1] < -1].mean() < 0.1
    mixed = -np.log(g * network + (1 - g) * counts).mean()
    for weight in np.linspace(0, 1, 21):
        assert mixed < -np.log(weight * network + (1 - weight) * counts).mean() - 0.05


def test_a_predictor_that_knows_nothing_gets_no_weight() -> None:
    generator = np.random.default_rng(1)
    x = np.column_stack([np.ones(3_000), generator.standard_normal((3_000, 2))])
    theta = fit_theta(x, np.full(3_000, 1e-3), generator.uniform(0.2, 0.9, 3_000))
    assert (x @ theta).max() < -4


def blas_threads() -> set[int]:
    """Return the numbers of threads of NumPy's BLAS; other packages can load theirs at any time."""
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    own = [library for library in found if "numpy" in library["filepath"]]
    return {library["num_threads"] for library in own or found}


def test_the_fit_has_one_thread_and_leaves_the_limit_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, solve = [], np.linalg.solve

    def noted(*arguments: Any) -> Any:
        found.append(blas_threads())
        return solve(*arguments)

    monkeypatch.setattr(np.linalg, "solve", noted)
    with threadpool_limits(2, user_api="blas"):
        limit = blas_threads()
        fit_theta(*synthetic(1.8))
        assert blas_threads() == limit
    assert found
    assert all(threads == {1} for threads in found)
