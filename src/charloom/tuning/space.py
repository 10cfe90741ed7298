"""Search space: the range of each searched option."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from charloom.training.planner import FEWEST_UNITS, MOST_UNITS

FEW = 20  # combinations; a space of at most this size is searched exhaustively
# The learning rate is searched up and down by a factor. It is smaller around a rate that was fitted
# in experiments than around the usual rate of an optimizer without experiments.
RATE_FACTOR, UNFITTED_RATE_FACTOR = 3, 10


class Range(TypedDict, total=False):
    """The values of a searched option: choices; or low and high, with a step or a log scale."""

    choices: list[str]
    low: int | float
    high: int | float
    step: int | float
    log: bool


def ranges_around(
    planned: Mapping[str, Any], fixed: Mapping[str, Any], factor: float, validation: int | None
) -> dict[str, Range]:
    """Return the ranges to search, around the planner's choices.

    A search has too few trials for values that are rarely good. So rnn, more than two layers and
    far more units are tried only if the user fixes them.

    Args:
        planned: the planner's choices.
        fixed: options that are not searched.
        factor: of the learning rate, up and down.
        validation: characters of the validation split, which a window must not exceed; None for
            documents, which can be shorter than a window.
    """
    units, rate = planned["hidden_size"], planned["learning_rate"]
    longest = 128 if validation is None else min(128, validation // 16 * 16)
    found: dict[str, Range] = {
        "cell": {"choices": ["gru", "lstm"]},
        "hidden_size": {
            "low": max(FEWEST_UNITS, units // 32 * 16),
            "high": min(MOST_UNITS, 2 * units),
            "step": 16,
        },
        "layers": {"low": 1, "high": 2, "step": 1},
        "learning_rate": {"low": rate / factor, "high": rate * factor, "log": True},
        "dropout": _probabilities(planned["dropout"], 0.3),
        "weight_drop": _probabilities(planned["weight_drop"], 0.2),
        "batch_size": {"low": 8, "high": 32, "step": 8},
        "window": {"low": 32, "high": longest, "step": 16},
    }
    if planned["window"] % 16 or longest <= 32:  # the validation split is shorter than a window
        del found["window"]
    return {name: range_ for name, range_ in found.items() if name not in fixed}


def _probabilities(center: float, margin: float) -> Range:
    low, high = max(center - margin, 0.0), min(center + margin, 0.9)
    return {"low": round(low, 2), "high": round(high, 2), "step": 0.01}


def untried_combinations(
    ranges: Mapping[str, Range], tried: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]] | None:
    """Return the combinations of options without a trial, or None if the space has many."""
    values = [_values(range_) for range_ in ranges.values()]
    if any(v is None for v in values) or math.prod(len(v or ()) for v in values) > FEW:
        return None
    every = [
        rounded(dict(zip(ranges, chosen, strict=True)))
        for chosen in itertools.product(*(v or () for v in values))
    ]
    return [combination for combination in every if combination not in tried]


def _values(range_: Range) -> list[Any] | None:
    """Return all values of a range, or None if it is continuous."""
    if "choices" in range_:
        return list(range_["choices"])
    if "step" not in range_:
        return None
    count = round((range_["high"] - range_["low"]) / range_["step"]) + 1
    return [range_["low"] + i * range_["step"] for i in range(count)]


def rounded(options: Mapping[str, Any]) -> dict[str, Any]:
    """Round proposed options to the few digits that a person would type."""
    digits = {"learning_rate": 3, "dropout": 2, "weight_drop": 2}
    return {
        name: float(f"{value:.{digits[name]}g}") if name in digits else value
        for name, value in options.items()
    }
