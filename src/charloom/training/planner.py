"""What to train in the time there is: the options that a run ended by --minutes leaves open.

The rules come from experiments, which `benchmarks/learning.py` runs and records, and whose table
stands in docs/log.md. Speeds, units by time and learning rate are fitted to the records; the rest
was chosen by hand between them. They speak of time on the machine of the experiments;
`measure_speed` tells how much faster or slower this one is.

H: hidden units; L: layers; G: gates; V: characters in the vocabulary; N: characters to train on.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from charloom.engines.backend import Backend
from charloom.network.choices import Cell
from charloom.network.initialization import initialize
from charloom.network.optimizers import AdamW
from charloom.network.parameters import GATES, ModelConfig
from charloom.text.dataset import Dataset

# What a step costs on the machine of the experiments, in seconds for each character: a constant,
# and something for each multiplication of the forward pass.
SECONDS_PER_CHARACTER = 3.634e-8
SECONDS_PER_MULTIPLICATION = 2.749e-11
PROBE = ModelConfig("gru", 128, 1, 64)
PROBE_ROWS, PROBE_WINDOW = 16, 64
PROBED_FOR = 0.3  # seconds

# The rules. Seconds are of training, on the machine of the experiments; passes are over the text.
UNITS, UNITS_BY_TIME = 73.0, 0.40  # H = a · seconds^b
UNITS_BY_TEXT, TEXT_POWER = 51.0, 0.19  # H at most a · N^b
RATE, RATE_BY_UNITS = 0.346, -0.68  # learning rate = a · H^b
# What is dropped, of outputs and of recurrent weights: nothing up to so many passes, then so much
# more for each doubling of them, up to a most.
OUTPUTS_DROPPED = (3.0, 0.14, 0.45)
WEIGHTS_DROPPED = (4.0, 0.09, 0.35)
MOST_PASSES, ENOUGH_CHARACTERS = 60.0, 5e6  # the more of the two is the most that is read
FEWEST_UNITS, MOST_UNITS = 32, 1024
BATCH, WINDOW = 16, 64
# A run learns from the validation part in its last part, where that is long enough to choose on,
# and is not what the model will be evaluated on.
REFIT, LEAST_TO_REFIT = 0.5, 5_000


@dataclass(frozen=True)
class Plan:
    """Options of TrainingConfig by name, and the reason for them in a sentence."""

    options: dict[str, Any]
    reason: str


def multiplications(cell: Cell, hidden_size: int, layers: int, vocabulary_size: int) -> float:
    """For one character, on the way forward."""
    return float(GATES[cell] * hidden_size**2 * (2 * layers - 1) + hidden_size * vocabulary_size)


def measure_speed(backend: Backend) -> float:
    """Measure how fast a backend trains here, relative to the machine of the experiments."""
    probe = backend.open(initialize(PROBE, 0))
    optimizer = AdamW(1e-3, 1.0)
    ids = np.arange(PROBE_WINDOW * PROBE_ROWS).reshape(PROBE_WINDOW, PROBE_ROWS) * 7 % 64
    state = probe.zero_state(PROBE_ROWS)
    durations: list[float] = []
    began = time.perf_counter()
    while len(durations) < 3 or time.perf_counter() - began < PROBED_FOR:
        before = time.perf_counter()
        _, _, state = probe.train_step(ids, ids, state, optimizer)
        durations.append(time.perf_counter() - before)
        if len(durations) == 1:
            began = time.perf_counter()  # the first one may have compiled
    # The median: on a machine with other work to do, neither the best nor the worst moment counts.
    return _probe_seconds() / float(np.median(durations[1:]))


def _probe_seconds() -> float:
    work = multiplications(PROBE.cell, PROBE.hidden_size, 1, PROBE.vocabulary_size)
    each = SECONDS_PER_CHARACTER + SECONDS_PER_MULTIPLICATION * work
    return PROBE_ROWS * PROBE_WINDOW * each


def plan(seconds: float, speed: float, dataset: Dataset, given: dict[str, Any]) -> Plan:
    """The options for a text and so many seconds on a machine of that speed; what was given stays
    as it is."""
    characters, validation = len(dataset.train), len(dataset.validation)
    there = max(seconds * speed, 1.0)
    by_time = UNITS * there**UNITS_BY_TIME
    by_text = UNITS_BY_TEXT * characters**TEXT_POWER
    units = given.get("hidden_size", _round(min(by_time, by_text)))
    why = "the text holds no more" if by_text < by_time else "the time allows no more"
    cell, layers = given.get("cell", "gru"), given.get("layers", 1)
    work = multiplications(cell, units, layers, len(dataset.vocabulary))
    passes = there / (SECONDS_PER_CHARACTER + SECONDS_PER_MULTIPLICATION * work) / characters
    most = max(MOST_PASSES, ENOUGH_CHARACTERS / characters)
    options = {
        "cell": cell,
        "hidden_size": units,
        "layers": layers,
        "batch_size": BATCH,
        "window": min(WINDOW, validation) if validation else WINDOW,
        "dropout": _dropped(*OUTPUTS_DROPPED, min(passes, most)),
        "weight_drop": _dropped(*WEIGHTS_DROPPED, min(passes, most)),
        "refit": REFIT if dataset.split.test and validation >= LEAST_TO_REFIT else 0.0,
    }
    if given.get("optimizer", "adamw") in ("adam", "adamw"):  # for others nothing was fitted
        options["learning_rate"] = float(f"{RATE * units**RATE_BY_UNITS:.2g}")
    if passes > most:
        options["epochs"] = round(most, 1)
    options |= {name: value for name, value in given.items() if name in options}
    reason = (
        f"for {_duration(seconds)} of training at {speed:.2g} times the speed of the experiments: "
        f"{cell} of {units} units ({'as told' if 'hidden_size' in given else why}), some "
        f"{min(passes, most):,.0f} passes over {characters:,} characters"
        + (" (more gain nothing)" if passes > most else "")
        + f", so dropping {options['dropout']:.0%} of outputs and {options['weight_drop']:.0%} of "
        "recurrent weights"
    )
    return Plan(options, reason)


def _dropped(least: float, step: float, most: float, passes: float) -> float:
    return round(min(step * math.log2(max(passes / least, 1)), most), 2)


def _round(units: float) -> int:
    """To a size that the kernels like."""
    step = 16 if units < 128 else 32
    return int(min(max(round(units / step) * step, FEWEST_UNITS), MOST_UNITS))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.3g} min"


SHORT = 30.0  # seconds; in fewer it does not pay to compile first
