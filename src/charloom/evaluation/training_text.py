"""Find a model's training text again, and check that it is the one the model was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError
from charloom.text.dataset import Dataset, Ids


@dataclass(frozen=True)
class TrainingParts:
    """Parts of a training text: what the network learned from, what was held against it, what of
    both the baselines may know; its training part, and the part on which things were chosen."""

    learned: Ids
    watched: Ids
    known: Ids
    train: Ids
    validation: Ids | None


def held_out_part(dataset: Dataset) -> tuple[str, NDArray[np.unsignedinteger], int]:
    """The part that is evaluated, its name, and the id of the character before it."""
    first, second = dataset.split.boundaries(len(dataset.ids))
    if len(dataset.test):
        return "test part", dataset.test, int(dataset.ids[second - 1])
    if len(dataset.validation):
        return "validation part", dataset.validation, int(dataset.ids[first - 1])
    raise CharloomError(
        "the run was trained on the whole text (--split 100/0/0): give another text to evaluate"
    )
