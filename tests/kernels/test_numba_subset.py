"""Kernels need little of Numba, compute as Python does, and leave Numba to the user as it is."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="the compiled engine needs Numba")

from charloom.kernels.kernel import Kernel
from helpers.processes import in_a_new_process

NUMBERS = (0.0, -0.0, 1.5, -2.5, math.inf, math.nan)
SECOND = 7


def smallest_and_largest(results: Any, values: Any, count: int) -> None:
    for i in range(count):
        for j in range(count):
            place = 3 * (i * count + j)
            results[place] = min(values[i], values[j])
            results[place + 1] = max(values[i], values[j])
            results[place + 2] = min(values[i], values[j], SECOND)


def whole(results: Any, floats: Any, bytes_: Any, count: int) -> None:
    for i in range(count):
        results[2 * i] = int(floats[i])
        results[2 * i + 1] = int(bytes_[i]) - min(SECOND, count)


def test_min_and_max_are_those_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    values, count = np.array(NUMBERS), len(NUMBERS)
    results, expected = np.zeros(3 * count * count), np.zeros(3 * count * count)
    Kernel(smallest_and_largest, "a test")(results, values, count)
    smallest_and_largest(expected, NUMBERS, count)
    np.testing.assert_array_equal(results.view(np.uint64), expected.view(np.uint64))


def test_int_is_that_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    floats, bytes_ = np.array([2.9, -2.9, 1e15]), np.array([0, 200, 255], np.uint8)
    results, expected = np.zeros(6, np.int64), np.zeros(6, np.int64)
    Kernel(whole, "a test")(results, floats, bytes_, 3)
    whole(expected, floats.tolist(), bytes_.tolist(), 3)
    np.testing.assert_array_equal(results, expected)


@pytest.mark.slow
def test_kernels_load_little_of_numba_and_leave_it_to_the_user(tmp_path: Path) -> None:
    code = """
        import sys
        import numba
        import numpy as np
        from charloom.kernels.kernel import Kernel
        def add(place, value):
            for i in range(3):
                place[i] += max(value, i)
        place = np.zeros(3)
        Kernel(add, "a test")(place, 1)
        assert place.tolist() == [1, 1, 2]
        print("numba.np.arraymath" in sys.modules)  # which imports SciPy
        print(numba.njit(lambda x: max(x, 2) + np.sort(np.array([x]))[0])(5))
        Kernel(add, "a second test")(place, 1)
        print(numba.njit(lambda x: int(min(x, 2.5)))(5))
    """
    ran = in_a_new_process(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["False", "10", "2"]
