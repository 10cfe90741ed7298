"""The compiled engine's matrix products, for all shapes of blocks and remainders."""

import numpy as np
import pytest

from charloom.kernels import products, sizes, vectors
from charloom.kernels.arrays import Tile, as_flat

numba = pytest.importorskip("numba", reason="the compiled engine needs Numba")


@numba.njit
def packed_product(c, ldc, a, packed, source, k, n, m, by_rows, add, tail):  # type: ignore[no-untyped-def]
    """c (M, N) = or += a (M, K) b, with b given as (K, N), or as its transpose (N, K)."""
    c_, a_, p_, s_ = as_flat(c), as_flat(a), as_flat(packed), as_flat(source)
    lanes = vectors.width(c_)
    across = 2 * lanes
    panels = (n + across - 1) // across
    b = products.Panels(p_, 0, across * k, across, tail)
    products.pack(b, Tile(s_, 0, n if by_rows else k), by_rows, k, n, k, 0, panels)
    count = (n + lanes - 1) // lanes
    products.product(Tile(c_, 0, ldc), Tile(a_, 0, k), b, m, count, k, add)


@numba.njit
def outer(c, ldc, a, lda, b, ldb, m, n, k, add, scratch):  # type: ignore[no-untyped-def]
    c_ = as_flat(c)
    count = (n + vectors.width(c_) - 1) // vectors.width(c_)
    products.outer_product(
        Tile(c_, 0, ldc),
        Tile(as_flat(a), 0, lda),
        Tile(as_flat(b), 0, ldb),
        as_flat(scratch),
        m,
        count,
        k,
        add,
    )


def padded(n: int, dtype: str) -> int:
    lanes = vectors.lanes(dtype)
    return -(-n // lanes) * lanes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("by_rows", [True, False])
def test_products_of_all_shapes(dtype: str, by_rows: bool) -> None:
    generator = np.random.default_rng(1)
    lanes = vectors.lanes(dtype)
    for m in (*range(1, 27), 40):
        for n in (1, lanes - 1, lanes, 3 * lanes + 2, 5 * lanes, 17 * lanes + 1):
            k = int(generator.integers(1, 40))
            a = generator.normal(size=(m, k)).astype(dtype)
            b = generator.normal(size=(k, n)).astype(dtype)
            c = generator.normal(size=(m, padded(n, dtype))).astype(dtype)
            expected = a.astype("f8") @ b.astype("f8") + c[:, :n]
            across = 2 * lanes
            packed = np.full(-(-n // across) * across * k, 7, dtype)
            source = b if by_rows else np.ascontiguousarray(b.T)
            packed_product(
                c.ravel(), c.shape[1], a.ravel(), packed, source.ravel(), k, n, m, by_rows, 1,
                across,
            )  # fmt: skip
            tolerance = 1e-4 if dtype == "float32" else 1e-12
            np.testing.assert_allclose(c[:, :n], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("by_rows", [True, False])
def test_a_narrow_last_panel(by_rows: bool) -> None:
    """Rows close together: the columns that there are come out the same, to the byte."""
    generator = np.random.default_rng(2)
    lanes = vectors.lanes("float32")
    n, k = 2 * lanes + 3, 21
    b = generator.normal(size=(k, n)).astype("float32")
    source = b if by_rows else np.ascontiguousarray(b.T)
    for m in (1, 2, 5, 9, 30):
        a = generator.normal(size=(m, k)).astype("float32")
        results = []
        for tail in (2 * lanes, 4):
            c = np.zeros((m, 3 * lanes), "float32")
            packed = np.zeros(2 * 2 * lanes * k, "float32")
            packed_product(
                c.ravel(), 3 * lanes, a.ravel(), packed, source.ravel(), k, n, m, by_rows, 0, tail
            )
            results.append(c[:, :n].copy())
        np.testing.assert_array_equal(*results)
        np.testing.assert_allclose(results[0], a @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_entry_is_independent_of_the_number_of_rows_to_the_byte(dtype: str) -> None:
    generator = np.random.default_rng(3)
    lanes = vectors.lanes(dtype)
    n, k = 9 * lanes + 5, 77
    a = generator.normal(size=(30, k)).astype(dtype)
    b = generator.normal(size=(k, n)).astype(dtype)
    whole = None
    for m in (30, 1, 2, 3, 4, 6, 7, 12, 13, 25):
        c = np.zeros((m, padded(n, dtype)), dtype)
        packed = np.zeros(-(-n // (2 * lanes)) * 2 * lanes * k, dtype)
        packed_product(
            c.ravel(), c.shape[1], a[:m].ravel(), packed, b.ravel(), k, n, m, True, 0, 2 * lanes
        )
        whole = c if whole is None else whole
        assert c.tobytes() == whole[:m].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_outer_products(dtype: str) -> None:
    generator = np.random.default_rng(4)
    lanes = vectors.lanes(dtype)
    for m in (1, 2, 5, 7, 12, 13, 40):
        for n in (lanes, 3 * lanes, 8 * lanes, 11 * lanes):
            for k in (1, 25, products.OUTER_PIECE, products.OUTER_PIECE + 1, 300):
                # Rows far apart are copied together first, see outer_product.
                apart = products.FAR_APART if k > 25 and n != lanes else m
                a = generator.normal(size=(k, apart)).astype(dtype)
                b = generator.normal(size=(k, n)).astype(dtype)
                c = generator.normal(size=(m, n)).astype(dtype)
                scratch = np.empty(sizes.outer_scratch(n + lanes, lanes), dtype)
                for add in (1, 0):
                    expected = a[:, :m].astype("f8").T @ b.astype("f8") + (c if add else 0)
                    outer(c.ravel(), n, a.ravel(), apart, b.ravel(), n, m, n, k, add, scratch)
                    tolerance = 1e-3 if dtype == "float32" else 1e-11
                    np.testing.assert_allclose(c, expected, rtol=tolerance, atol=tolerance)
