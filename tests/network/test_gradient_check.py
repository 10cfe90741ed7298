"""The check of gradients by central differences: exact, and strict about what it is given."""

import numpy as np
import pytest

from charloom.errors import CharloomError
from charloom.network.gradient_check import check_gradients


def test_the_checker_refuses_what_it_cannot_check() -> None:
    x = np.zeros(3)
    with pytest.raises(CharloomError, match="different names: b"):
        check_gradients(lambda: 0.0, {"a": x}, {"a": x, "b": x})
    with pytest.raises(CharloomError, match="float64"):
        check_gradients(lambda: 0.0, {"a": x.astype("float32")}, {"a": x})
    with pytest.raises(CharloomError, match=r"\(3,\)"):
        check_gradients(lambda: 0.0, {"a": x}, {"a": x[:2]})


def test_the_checker_is_exact_for_a_known_function_and_puts_values_back() -> None:
    x = np.array([0.3, -2.0, 5.0])
    parameters = {"x": x}
    errors = check_gradients(lambda: float(np.sin(x).sum()), parameters, {"x": np.cos(x)})
    assert errors["x"] < 1e-11
    assert x.tolist() == [0.3, -2.0, 5.0]
    assert check_gradients(lambda: 1.0, parameters, {"x": np.zeros(3)}, most=2) == {"x": 0.0}
