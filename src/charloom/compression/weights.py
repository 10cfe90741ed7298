"""The mixer's weights before any text.

A mixer that has learned another text starts better than one that believes each context a little.
Few numbers are enough for nearly all of it: the mean weight of each kind of input, made by
`benchmarks/first_weights.py` from Python's help.
"""

from __future__ import annotations

import numpy as np

from charloom.context_mixing.layout import (
    CONTEXT_COUNT,
    FREE_INPUT,
    INPUT_COUNT,
    INPUTS,
    Weights,
    make_weights,
)

OF_INPUTS = 0.055, -0.055, 0.06, 0.075  # the logit, certainty, and both maps of a context
OF_NETWORK = 0.3  # of a network's logit


def first_weights(of_network: float = 0.0) -> Weights:
    """Return weights before any text. The logit of a network has the weight `of_network`."""
    weights = make_weights()
    row = np.zeros(INPUT_COUNT, np.float32)
    row[: INPUTS * CONTEXT_COUNT] = np.tile(np.array(OF_INPUTS, np.float32), CONTEXT_COUNT)
    row[FREE_INPUT] = of_network
    weights.sets.reshape(-1, INPUT_COUNT)[:] = row
    return weights
