"""Models to be exported, and the command that exports them."""

from pathlib import Path

import numpy as np
import pytest

from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig, Parameters
from charloom.storage.checkpoint import Checkpoint, save_checkpoint
from charloom.text.vocabulary import Vocabulary

CHARACTERS = tuple("\n abcdé字")


every_cell = pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])


every_depth = pytest.mark.parametrize("layers", [1, 2, 3])


def some_model(cell: str, layers: int = 1, dtype: str = "float32", hidden: int = 13) -> Parameters:
    config = ModelConfig(cell, hidden, layers, len(CHARACTERS), dtype=dtype)
    parameters = initialize(config, seed=4)
    # As large as they come from training: with larger ones a state is chaotic, rounding grows.
    parameters.flat[:] += np.random.default_rng(5).normal(0, 1 / hidden, parameters.flat.shape)
    return parameters


def kept(parameters: Parameters, path: str = "model.safetensors") -> str:
    save_checkpoint(Path(path), Checkpoint(parameters, Vocabulary(CHARACTERS)))
    return path
