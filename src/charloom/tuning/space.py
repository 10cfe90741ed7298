"""Search space: the range of each searched option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from charloom.training.planner import FEWEST_UNITS, MOST_UNITS
from charloom.tuning.settings import Range

FEW = 20  # combinations that are rather gone through one after the other
# How far from its first value the learning rate is searched: where experiments have fitted it, and
# where it is but the optimizer's usual one.
RATES, UNKNOWN_RATES = 3, 10


def ranges_of(
    planned: Mapping[str, Any], fixed: Mapping[str, Any], factor: float, validation: int
) -> dict[str, Range]:
    """What is searched, around what charloom would choose itself. factor: of the learning rate, up
    and down. A search has too few trials for what is seldom any good, so an rnn, more layers or
    far more units are only tried where they are given."""
    units, rate = planned["hidden_size"], planned["learning_rate"]

    def dropped(name: str, further: float) -> Range:
        about = planned[name]
        low, high = max(about - further, 0.0), min(about + further, 0.9)
        return {"low": round(low, 2), "high": round(high, 2), "step": 0.01}

    longest = min(128, validation // 16 * 16)
    found: dict[str, Range] = {
        "cell": {"choices": ["gru", "lstm"]},
        "hidden_size": {
            "low": max(FEWEST_UNITS, units // 32 * 16),
            "high": min(MOST_UNITS, 2 * units),
            "step": 16,
        },
        "layers": {"low": 1, "high": 2, "step": 1},
        "learning_rate": {"low": rate / factor, "high": rate * factor, "log": True},
        "dropout": dropped("dropout", 0.3),
        "weight_drop": dropped("weight_drop", 0.2),
        "batch_size": {"low": 8, "high": 32, "step": 8},
        "window": {"low": 32, "high": longest, "step": 16},
    }
    if planned["window"] % 16 or longest <= 32:  # the validation part is shorter than that
        del found["window"]
    return {name: range_ for name, range_ in found.items() if name not in fixed}


def values_of(found: Range) -> list[Any] | None:
    """All that a range holds; None where that is a continuum."""
    if "choices" in found:
        return list(found["choices"])
    if "step" not in found:
        return None
    count = round((found["high"] - found["low"]) / found["step"]) + 1
    return [found["low"] + i * found["step"] for i in range(count)]


def rounded(options: Mapping[str, Any]) -> dict[str, Any]:
    """Proposed options as a trial takes them: with no more digits than anybody wants to type."""
    digits = {"learning_rate": 3, "dropout": 2, "weight_drop": 2}
    return {
        name: float(f"{value:.{digits[name]}g}") if name in digits else value
        for name, value in options.items()
    }
