"""The compiled engine's exp, log, tanh, logistic function and other arithmetic on vectors."""

from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest

from charloom.kernels import vector_math
from charloom.kernels import vectors as v
from charloom.kernels.arrays import Tile, as_flat

numba = pytest.importorskip("numba", reason="the compiled engine needs Numba")


# Units in the last place, over the whole range where the result is a normal number; the largest
# ones found over all numbers of float32: 1.09, 2.48 and 2.52 (docs/log.md).
LARGEST = {"exp": 1.2, "log": 1.2, "sigmoid": 2.6, "tanh": 2.7}


LOWEST = {"float32": -87.3, "float64": -708.3}


@numba.njit
def apply(kind, x, y):  # type: ignore[no-untyped-def]
    x_, y_ = as_flat(x), as_flat(y)
    for i in range(0, len(x), v.width(x_)):
        value = v.load(x_, i)
        if kind == 0:
            v.store(y_, i, vector_math.exp(value))
        elif kind == 1:
            v.store(y_, i, vector_math.sigmoid(value))
        elif kind == 2:
            v.store(y_, i, vector_math.tanh(value))
        elif kind == 3:
            v.store(y_, i, vector_math.root(value))
        elif kind == 4:
            v.store(y_, i, vector_math.inverse_root(value))
        else:
            v.store(y_, i, vector_math.log(value))


KINDS = ("exp", "sigmoid", "tanh", "root", "inverse_root", "log")


def computed(name: str, x: np.ndarray) -> np.ndarray:
    padded = np.zeros(-(-len(x) // 16) * 16, x.dtype)
    padded[: len(x)] = x
    y = np.empty_like(padded)
    apply(KINDS.index(name), padded, y)
    return y[: len(x)]


def numbers(dtype: str) -> np.ndarray:
    """Numbers of every size and both signs, within what a logit or a gate's sum may be."""
    generator = np.random.default_rng(3)
    limit = -LOWEST[dtype] * 0.999
    sizes = 10.0 ** generator.uniform(-30, np.log10(limit), 100_000)
    x = np.concatenate([sizes, -sizes, generator.normal(0, 3, 200_000)])
    return x.astype(dtype)


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh"])
def test_the_largest_error_in_float32(name: str) -> None:
    x = numbers("float32")
    exact: Callable[[np.ndarray], np.ndarray] = {
        "exp": np.exp,
        "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
        "tanh": np.tanh,
    }[name]
    expected = exact(x.astype(np.float64))
    unit = np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64)
    errors = np.abs(computed(name, x) - expected) / unit
    assert errors.max() <= LARGEST[name]
    assert errors.max() > 0.5  # or nothing was measured


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh"])
def test_the_largest_error_in_float64(name: str) -> None:
    x = np.random.default_rng(4).permutation(numbers("float64"))[:3_000]
    y = computed(name, x)
    worst = 0.0
    with localcontext() as context:
        context.prec = 60
        for a, b in zip(x.tolist(), y.tolist(), strict=True):
            e = Decimal(a).exp()
            expected = {
                "exp": lambda e=e: e,
                "sigmoid": lambda e=e: e / (1 + e),
                "tanh": lambda e=e: (e * e - 1) / (e * e + 1),
            }[name]()
            if expected == 0:
                assert b == 0
                continue
            unit = Decimal(float(np.spacing(abs(float(expected)))))
            worst = max(worst, float(abs(Decimal(b) - expected) / unit))
    assert worst <= LARGEST[name]
    assert worst > 0.4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_largest_error_of_the_logarithm(dtype: str) -> None:
    generator = np.random.default_rng(6)
    least, most = np.log10(np.finfo(dtype).smallest_subnormal), np.log10(np.finfo(dtype).max)
    x = np.concatenate(
        [10.0 ** generator.uniform(least + 1, most, 100_000), generator.normal(1, 0.3, 100_000)]
    ).astype(dtype)
    x = x[x > 0]
    exact = np.log(x.astype(np.longdouble))
    unit = np.spacing(np.abs(exact).astype(dtype)).astype(np.longdouble)
    errors = np.abs(computed("log", x) - exact) / unit
    assert 0.5 < errors.max() <= LARGEST["log"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_non_finite_values_propagate(dtype: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e5, -1e5], dtype)
    np.testing.assert_array_equal(computed("exp", x), [np.nan, np.inf, 0, 1, 1, np.inf, 0])
    log = computed("log", x[:6])
    np.testing.assert_array_equal(log, [np.nan, np.inf, np.nan, -np.inf, -np.inf, log[5]])
    tanh = computed("tanh", x)
    np.testing.assert_array_equal(tanh, [np.nan, 1, -1, 0, 0, 1, -1])
    assert np.signbit(tanh[4])
    sigmoid = computed("sigmoid", x)
    np.testing.assert_allclose(sigmoid, [np.nan, 1, 0, 0.5, 0.5, 1, 0], atol=1e-37)
    assert np.isnan(computed("root", x)[0])
    assert np.isnan(computed("inverse_root", x)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_roots(dtype: str) -> None:
    x = (10.0 ** np.random.default_rng(5).uniform(-30, 30, 50_000)).astype(dtype)
    unit = np.finfo(dtype).eps
    exact = np.sqrt(x.astype(np.longdouble))
    assert np.abs(computed("root", x) / exact - 1).max() <= unit
    assert np.abs(computed("inverse_root", x) * exact - 1).max() <= 1.5 * unit
    zeros = np.zeros(3, dtype)
    assert (computed("root", zeros) == 0).all()


@numba.njit
def move(target, source, rows, columns, across, stride, to_stride):  # type: ignore[no-untyped-def]
    added = v.load(as_flat(source), 0)
    v.transpose(
        Tile(as_flat(target), 0, to_stride),
        Tile(as_flat(source), 0, stride),
        rows,
        columns,
        across,
        added,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_transposing_squares_and_their_parts(dtype: str) -> None:
    side = v.lanes(dtype)
    source = np.random.default_rng(6).random((side, side + 3)).astype(dtype)
    for rows in (1, side // 2, side - 1, side):
        for columns in (1, side // 2 + 1, side):
            for across in (1, side):
                target = np.full((side, side + 1), -1, dtype)
                move(target.ravel(), source.ravel(), rows, columns, across, side + 3, side + 1)
                expected = np.full((side, side + 1), -1, dtype)
                square = np.zeros((side, side), dtype)
                square[:rows, :columns] = source[:rows, :columns]
                square = square.T + source[0, :side]
                expected[:columns, :across] = square[:columns, :across]
                np.testing.assert_array_equal(target, expected)
