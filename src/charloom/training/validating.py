"""Limit what a run of --steps or --epochs spends on validations, by counts instead of a clock.

All costs are counted in characters that are trained on.
"""

from __future__ import annotations

import math
from dataclasses import replace

from charloom.text.dataset import Dataset
from charloom.training.options import TrainingConfig
from charloom.training.planner import multiplications
from charloom.training.samples import SAMPLE_LENGTH
from charloom.training.schedule import steps_between_validations
from charloom.training.setup import VALIDATED_AT_ONCE, make_batches, total_steps

# Share of the time of all steps for validations. Loading their kernel takes as much as one of them:
# together they take about a tenth of a run. In runs of a second it is more.
MOST_BESIDE = 0.085
# Measured time to score and to sample a character, as shares of that to train on one.
SCORED, SAMPLED = 0.7, 1.0
FEWEST = 4  # validations of a run that can read all of the part, the first and the last included
LEAST_VALIDATED = 2_000  # characters, unless the part is shorter
# Multiplications of a training that take a moment: validations that need fewer are never limited.
NEGLIGIBLE = 2e10


def limit_validations(config: TrainingConfig, dataset: Dataset) -> TrainingConfig:
    """Return the options of a new run with validations that take about a tenth of its time.

    Where four of them would take longer, each reads a smaller part of the validation split. A run
    with `validate_every` or `validate_characters` has its validations as requested.
    """
    requested = config.validate_every is not None or config.validate_characters is not None
    if config.minutes is not None or requested:
        return config
    batches = make_batches(config, dataset)
    steps = total_steps(config, batches)
    assert steps is not None
    part = min(len(dataset.validation), VALIDATED_AT_ONCE)
    default = steps // steps_between_validations(steps) + 1
    default += _after_doubled_passes(steps_between_validations(steps), batches.steps_per_epoch)
    model = config.cell, config.hidden_size, config.layers, len(dataset.vocabulary)
    training = 3 * multiplications(*model, len(dataset.vocabulary) if config.read_counts else 0)
    if default * _cost(part) * training <= NEGLIGIBLE:
        return config
    most = MOST_BESIDE * steps * batches.rows * config.window
    if default * _cost(part) <= most:
        return config
    limited = None
    if most < FEWEST * _cost(part):
        limited = min(max(int((most / FEWEST - _cost(0)) / SCORED), LEAST_VALIDATED), part)
    validations = most / _cost(part if limited is None else limited)
    between = max(int(validations) - 1, 1)
    return replace(
        config, validate_every=math.ceil(steps / between), validate_characters=limited or None
    )


def _after_doubled_passes(between: int, steps_per_epoch: int) -> int:
    """Return the validations after 1, 2, 4, 8, … passes, before the first regular one."""
    return max(0, math.ceil(math.log2(between / steps_per_epoch)))


def _cost(characters: int) -> float:
    """Return the cost of a validation that reads n characters and samples."""
    return SCORED * characters + SAMPLED * SAMPLE_LENGTH
