"""A gradient checker for anyone's hand-derived gradients: against central differences."""

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
    """The relative error ‖a − n‖ / (‖a‖ + ‖n‖) of each tensor's gradient a, by name.

    n is the fourth-order central difference (f(x−2h) − 8f(x−h) + 8f(x+h) − f(x+2h)) / 12h; its own
    error is about h⁴ and rounding, so a right gradient in float64 gives 1e-10 or so. Two zero
    gradients agree: 0.

    loss: computes the scalar from the arrays in `parameters` as they are; it must be deterministic.
    parameters: float64 arrays of any shape, moved in place and put back exactly.
    gradients: what is to be checked, of the same names and shapes; it is not changed, and is copied
    first, so that `loss` may write into the very arrays.
    most: check that many entries of each tensor, drawn with `seed`, instead of all.

    Raises CharloomError where names, shapes or types do not fit.
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
