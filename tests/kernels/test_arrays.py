"""Arrays of a kernel by name: each field at its own address, and wrong arrays are rejected."""

from typing import NamedTuple

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="the compiled engine needs Numba")

from charloom.kernels import arrays  # noqa: E402
from charloom.kernels.buffers import (  # noqa: E402
    Doubles,
    Floats,
    Integers,
    Unsigned,
    addresses,
)


class Sample(NamedTuple):
    ids: Integers
    weights: Floats
    keys: Unsigned
    numbers: Doubles


@numba.njit
def write(places, like):  # type: ignore[no-untyped-def]
    buffers = arrays.as_buffers(Sample, places, like)
    buffers.numbers[0] = buffers.ids[1] + 10.0 * buffers.keys[0]
    buffers.weights[1] = 7.5


def sample(dtype: str) -> Sample:
    return Sample(
        ids=np.array([1, 2]),
        weights=np.zeros(2, dtype),
        keys=np.array([3], np.uint64),
        numbers=np.zeros(1),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernel_reads_arrays_by_name(dtype: str) -> None:
    buffers = sample(dtype)
    write(addresses(buffers, np.dtype(dtype)), buffers.weights)
    assert buffers.numbers.tolist() == [32.0]
    assert buffers.weights.tolist() == [0.0, 7.5]
    assert buffers.ids.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("ids", np.zeros(2, np.int32)),
        ("weights", np.zeros(2, np.float64)),
        ("weights", np.zeros(4, np.float32)[::2]),
        ("numbers", np.zeros(1, np.float32)),
        ("keys", np.zeros(1, np.int64)),
    ],
)
def test_wrong_array_is_rejected(name: str, array: np.ndarray) -> None:
    with pytest.raises(TypeError, match=name):
        addresses(sample("float32")._replace(**{name: array}), np.dtype("float32"))
