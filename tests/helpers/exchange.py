"""Models to be exported, and the command that exports them."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest

from charloom.checkpoint import Checkpoint, save_checkpoint
from charloom.cli import main
from charloom.model import ModelConfig, Parameters, initialize
from charloom.vocabulary import Vocabulary

TEXT = "The woods are lovely, dark and deep, 'und' schön → 字\n" * 30


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


def run(*arguments: str) -> tuple[int, str, str]:
    """A command's status, and what it wrote on standard output and standard error."""
    with (
        contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        status = main(list(arguments))
    output.seek(0)
    return status, output.read(), errors.getvalue()


def refused(*arguments: str) -> str:
    """The one line of a command that is refused."""
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    (line,) = errors.splitlines()
    return line
