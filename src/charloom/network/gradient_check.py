"""A checker of hand-derived gradients, by central differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError


def check_gradients(
    loss: Callable[[], float],
    parameters: Mapping[str, NDArray[np.float64]],
    gradients: Mapping[str, NDArray[np.float64]],
    *,
    step: float = 1e-3,
    most: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Return the relative error ‖a − n‖ / (‖a‖ + ‖n‖) of each tensor's gradient a, by name.

    n is the fourth-order central difference (f(x−2h) − 8f(x−h) + 8f(x+h) − f(x+2h)) / 12h. Its
    error is about h⁴ and rounding, so a correct gradient in float64 has an error of about 1e-10.
    The error of two zero gradients is 0.

    Args:
        loss: computes the scalar from the arrays in `parameters`; it must be deterministic.
        parameters: float64 arrays of any shape, changed in place and restored exactly.
        gradients: the gradients to check, of the same names and shapes. They are copied first, so
            that `loss` can write to these arrays.
        step: h.
        most: check only this number of random entries of each tensor.
        seed: seed of the choice of entries.

    Raises:
        CharloomError: if names, shapes or types do not match.
    """
    if set(parameters) != set(gradients):
        odd = ", ".join(sorted(set(parameters) ^ set(gradients)))
        raise CharloomError(f"parameters and gradients have different names: {odd}")
    analytic_gradients = {name: np.array(values) for name, values in gradients.items()}
    generator = np.random.default_rng(seed)
    errors = {}
    for name, values in parameters.items():
        if values.dtype != np.float64:
            raise CharloomError(f"{name} is {values.dtype}: differences need float64")
        if analytic_gradients[name].shape != values.shape:
            raise CharloomError(
                f"{name} is {values.shape}, its gradient {analytic_gradients[name].shape}"
            )
        places = np.arange(values.size)
        if most is not None and most < values.size:
            places = generator.choice(values.size, most, replace=False)
        numeric = np.empty(len(places))
        for k, place in enumerate(places):
            index = np.unravel_index(place, values.shape)
            before = values[index]
            f = []
            try:
                for h in (-2 * step, -step, step, 2 * step):
                    values[index] = before + h
                    f.append(loss())
            finally:
                values[index] = before
            numeric[k] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)
        analytic = analytic_gradients[name].ravel()[places]
        size = float(np.linalg.norm(analytic) + np.linalg.norm(numeric))
        errors[name] = float(np.linalg.norm(analytic - numeric)) / size if size else 0.0
    return errors
