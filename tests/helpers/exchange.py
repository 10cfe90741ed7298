"""Models to be exported, and the command that exports them."""

from pathlib import Path

import numpy as np
import pytest

from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig, Parameters
from charloom.storage.checkpoint import Checkpoint, save_checkpoint
from charloom.text.vocabulary import END, Vocabulary

CHARACTERS = tuple("\n abcdé字")
OF_DOCUMENTS = (*CHARACTERS, END)


every_cell = pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])


every_depth = pytest.mark.parametrize("layers", [1, 2, 3])


def some_model(
    cell: str,
    layers: int = 1,
    dtype: str = "float32",
    hidden: int = 13,
    characters: tuple[str, ...] = CHARACTERS,
    extra_inputs: int = 0,
    norm: str = "none",
) -> Parameters:
    end_id = Vocabulary(characters).end_id
    config = ModelConfig(
        cell, hidden, layers, len(characters), dtype=dtype, end_id=end_id,
        extra_inputs=extra_inputs, norm=norm,
    )  # fmt: skip
    parameters = initialize(config, seed=4)
    # As large as they come from training: with larger ones a state is chaotic, rounding grows.
    parameters.flat[:] += np.random.default_rng(5).normal(0, 1 / hidden, parameters.flat.shape)
    return parameters


def kept(parameters: Parameters, path: str = "model.safetensors") -> str:
    characters = CHARACTERS if parameters.config.end_id is None else OF_DOCUMENTS
    save_checkpoint(Path(path), Checkpoint(parameters, Vocabulary(characters)))
    return path
