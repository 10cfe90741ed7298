"""The network for which there is time."""

from __future__ import annotations

import time

import numpy as np

from charloom.compression.network import (
    GATES,
    MOST_READ,
    MULTIPLE,
    WORKERS,
    NetworkPlan,
    is_too_large,
)
from charloom.compression.replay import Replay
from charloom.engines.protocol import available_cores

# Networks, and tenths of passes over the text, the best first. On a text of 1.1 million characters,
# larger networks are worse.
PLANS = ((320, 80), (256, 80), *((hidden, 40) for hidden in (256, 192, 128, 64)))
MOST_UNITS, MOST_PASSES = (max(column) for column in zip(*PLANS, strict=True))
MIXER_SECONDS = 30e-6  # for a character, of both sets of weights
CODED = 1.5  # times of a character in a step, for the network's prediction of one
PART = 0.85  # of the time limit that is planned
TRIAL = NetworkPlan(256)
TRIAL_CHARACTERS = 64
TRIAL_STEPS = 4


def plan_for(length: int, characters: int, seconds: float) -> NetworkPlan:
    """Return the largest network for which there is time on this machine.

    Args:
        length: characters of the text.
        characters: those of its list.
        seconds: the time limit.
    """
    if length * (MIXER_SECONDS + _products(PLANS[-1][0], characters) * 1e-10) > seconds:
        return NetworkPlan()
    of_product, threads = seconds_of_product(), min(WORKERS, available_cores())
    for hidden, passes in PLANS:
        plan = NetworkPlan(hidden, passes)
        each = _products(hidden, characters) * of_product
        # One thread codes, while the other one learns, and helps it after that.
        coding, learning = MIXER_SECONDS + CODED * each, each * passes / 10
        needed = max(coding, (coding + learning) / threads)
        if length * needed < PART * seconds and not is_too_large(characters, plan):
            return plan
    return NetworkPlan()


def seconds_of_product() -> float:
    """Return a thread's time of a step for each of its characters and weights, as measured."""
    replay = Replay(np.arange(TRIAL_CHARACTERS), 4096, TRIAL, available_cores())
    ids = np.zeros(4096, np.int64)
    taken = []
    for _ in range(TRIAL_STEPS):
        began = time.perf_counter()
        replay.step(ids, len(ids))
        taken.append(time.perf_counter() - began)
    replay.close()
    positions = WORKERS * TRIAL.rows * TRIAL.steps
    return min(taken) / positions / _products(TRIAL.hidden, TRIAL_CHARACTERS)


def _products(hidden: int, characters: int) -> int:
    """Return the weights of a network that every character is multiplied with."""
    classes = -(-characters // MULTIPLE) * MULTIPLE
    return hidden * (GATES * (hidden + 2 * min(characters, MOST_READ)) + classes)
