"""Open the engine of a run: memory limits, kernels, NumPy's threads."""

from __future__ import annotations

import math
import os

import numpy as np

from charloom.engines.process_group import Ranks
from charloom.engines.protocol import Engine, available_cores
from charloom.errors import CharloomError
from charloom.network.optimizers import OPTIMIZERS
from charloom.network.parameters import ModelConfig, Parameters
from charloom.prediction.mixture import fit_ngram_table
from charloom.text.dataset import Dataset
from charloom.training.options import TrainingConfig


class TooLargeError(CharloomError):
    """A run would need more memory than the machine has."""


def compile_kernels(engine: Engine, counted: Dataset | None) -> None:
    """Lets the kernels of inference be compiled, and of counting where a text is counted: nobody
    should take their time for that of training."""
    nothing = np.zeros((1, 1), np.intp)
    engine.log_probabilities(nothing, engine.zero_state(1))
    if counted is not None:
        size = len(counted.vocabulary)
        table = fit_ngram_table(counted.train[:2], size, 1, math.inf)
        table.look_up(np.zeros((1, 1), np.int32))


def open_run_engine(config: TrainingConfig, parameters: Parameters, ranks: Ranks | None) -> Engine:
    """The engine that a configuration trains with."""
    return config.backend.open(parameters, seed=config.seed, classic=config.classic, ranks=ranks)


def refuse_if_too_large(model: ModelConfig, config: TrainingConfig, rows: int) -> None:
    """Raises CharloomError where a run would need more memory than the machine has."""
    try:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return  # the system does not say
    # Parameters, gradients, the optimizer's slots and scratch, and one more copy while saving.
    copies = 5 + len(OPTIMIZERS[config.optimizer].slot_names)
    numbers = model.parameter_count * copies
    numbers += model.numbers_per_position * rows * config.window
    needed = numbers * np.dtype(model.dtype).itemsize
    if needed > available:
        raise TooLargeError(
            f"this model and batch need about {needed / 2**30:,.0f} GiB of memory, more than the "
            f"machine's {available / 2**30:,.0f}: use a smaller --hidden-size, --layers, "
            "--batch-size or --window"
        )


def numpy_threads(model: ModelConfig, rows: int) -> int:
    """Threads for the matrix products: one where they are too small to share out."""
    work = rows * model.gates * model.hidden_size**2  # of one recurrent product
    return 1 if work < 1_000_000 else available_cores()
