"""Validations of a run of steps: their number and size follow from counts."""

from dataclasses import replace

import numpy as np
import pytest

from charloom.text.dataset import Dataset
from charloom.text.vocabulary import Vocabulary
from charloom.training.options import TrainingConfig
from charloom.training.samples import SAMPLE_LENGTH
from charloom.training.schedule import steps_between_validations
from charloom.training.validating import SAMPLED, SCORED, limit_validations


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """A text of 280,000 characters, of which 28,000 are the validation split."""
    ids = np.zeros(280_000, np.uint8)
    return Dataset("a", "", "", Vocabulary.of("ab"), ids, (224_000, 252_000))


def limited(dataset: Dataset, **options: object) -> tuple[TrainingConfig, TrainingConfig]:
    config = TrainingConfig.of({"no_mix": True, "hidden_size": 512, **options})
    return config, limit_validations(config, dataset)


def beside(config: TrainingConfig, dataset: Dataset) -> float:
    """Return the characters that validations cost, over the characters of the training."""
    assert config.steps is not None
    every = config.validate_every or steps_between_validations(config.steps)
    read = min(config.validate_characters or 200_000, len(dataset.validation))
    cost = (1 + -(-config.steps // every)) * (SCORED * read + SAMPLED * SAMPLE_LENGTH)
    return cost / (config.steps * config.batch_size * config.window)


@pytest.mark.parametrize("steps", [60, 100, 400, 1_000, 3_000])
def test_validations_take_less_than_a_tenth(dataset: Dataset, steps: int) -> None:
    before, after = limited(dataset, steps=steps)
    assert beside(after, dataset) <= 0.09 < beside(before, dataset) or after == before
    assert (after == before) == (steps == 3_000)
    # All of the part where four validations can read it, else less.
    assert (after.validate_characters is None) == (steps >= 1_000)


def test_validations_of_the_first_passes_are_counted() -> None:
    """Count those after 1, 2 and 4 passes where 21 validations alone would be few enough."""
    ids = np.zeros(28_000, np.uint8)
    short = Dataset("a", "", "", Vocabulary.of("ab"), ids, (22_400, 25_200))
    steps = next(n for n in range(100, 3_000) if beside(limited(short, steps=n)[0], short) < 0.085)
    before, after = limited(short, steps=steps)
    assert after != before
    assert beside(after, short) < 0.085


def test_a_request_a_clock_or_a_small_network_is_left_alone(dataset: Dataset) -> None:
    for options in (
        {"steps": 60, "validate_every": 3},
        {"steps": 60, "validate_characters": 9_000},
        {"minutes": 1.0},
        {"steps": 60, "hidden_size": 16},
    ):
        before, after = limited(dataset, **options)
        assert after == before


def test_a_limited_run_resumes_with_its_own_limit(dataset: Dataset) -> None:
    _, after = limited(dataset, steps=60)
    assert limit_validations(replace(after, steps=6_000), dataset) == replace(after, steps=6_000)
