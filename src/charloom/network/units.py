"""A network's units by name, and units that are held while sampling.

h17      unit 17 of the hidden state
c17      of an lstm's cell state
h1.17    in layer 1 of several; layers and units count from 0
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from charloom.errors import CharloomError, shortened
from charloom.network.parameters import STATES, ModelConfig

ARRAYS = "hc"
# A bound of held cell states; tanh is flat long before.
LARGEST_CELL = 100.0


class Unit(NamedTuple):
    """One number of a state (S, L, B, H): state[array, layer, :, number]."""

    array: int
    layer: int
    number: int


class Clamp(NamedTuple):
    """A unit, and the value that it is held at."""

    unit: Unit
    value: float


def unit_name(unit: Unit, config: ModelConfig) -> str:
    layer = f"{unit.layer}." if config.layers > 1 else ""
    return f"{ARRAYS[unit.array]}{layer}{unit.number}"


def parse_unit(name: str, config: ModelConfig) -> Unit:
    """Return the unit of that name. Raises CharloomError if the model lacks it."""
    found = re.fullmatch(r"([hc])(?:(\d{1,9})\.)?(\d{1,9})", name.strip(), re.ASCII)
    if found is None:
        raise CharloomError(
            f"{shortened(name)} is not a unit: pass one like h17, c17 for a cell state, or h1.17 "
            "in layer 1"
        )
    unit = Unit(ARRAYS.index(found[1]), int(found[2] or 0), int(found[3]))
    if unit.array >= STATES[config.cell]:
        raise CharloomError(f"there is no unit {name}: only an lstm has a cell state")
    if unit.layer >= config.layers or unit.number >= config.hidden_size:
        last = Unit(unit.array, config.layers - 1, config.hidden_size - 1)
        raise CharloomError(
            f"there is no unit {name}: they go from {unit_name(Unit(unit.array, 0, 0), config)} to "
            f"{unit_name(last, config)}"
        )
    return unit


def parse_clamps(
    clamps: Mapping[str, float] | Sequence[str] | str, config: ModelConfig
) -> tuple[Clamp, ...]:
    """Return units and their values from {"h17": 0.9} or ["h17=0.9"], cell states first.

    Raises CharloomError for an unknown unit, a value out of range, or a unit that is held twice.
    """
    if not isinstance(clamps, Mapping):
        clamps = _split([clamps] if isinstance(clamps, str) else clamps)
    held: dict[Unit, float] = {}
    for name, value in clamps.items():
        unit = parse_unit(name, config)
        largest = LARGEST_CELL if unit.array else 1.0
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise CharloomError(f"{name} is held at {shortened(value)}: pass a number")
        if not math.isfinite(value) or abs(value) > largest:
            raise CharloomError(
                f"{name}={value:g} is out of range: pass a number from {-largest:g} to {largest:g}"
            )
        if unit in held:
            raise CharloomError(f"unit {name} is held twice: pass it once")
        held[unit] = float(value)
    return tuple(Clamp(unit, held[unit]) for unit in sorted(held, key=lambda u: -u.array))


def _split(clamps: Sequence[str]) -> dict[str, float]:
    values = {}
    for text in clamps:
        name, equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise CharloomError(
                f"{shortened(text)} does not hold a unit: pass a unit and its value, like h17=0.9"
            )
        if name in values:
            raise CharloomError(f"unit {name} is held twice: pass it once")
        values[name] = number
    return values
