"""Set up the computation of a run: memory limits, parameters, engine, kernels, threads."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, replace

import numpy as np

from charloom.engines.backend import is_compiled
from charloom.engines.process_group import ProcessGroup, StartMessage
from charloom.engines.protocol import Engine, available_cores
from charloom.errors import CharloomError
from charloom.kernels.kernel import finish_compiling
from charloom.network.initialization import grow_vocabulary, initialize, initialize_classic
from charloom.network.optimizers import OPTIMIZERS, Optimizer
from charloom.network.parameters import ModelConfig, Parameters
from charloom.ngrams.mixing import Mixture
from charloom.prediction.mixture import MixedPredictor, fit_ngram_table
from charloom.runs.distributed import shared_arrays
from charloom.runs.material import PreparedText
from charloom.runs.start import Start
from charloom.text.batches import Batches
from charloom.text.dataset import Dataset
from charloom.training.options import TrainingConfig
from charloom.training.planner import SHORT
from charloom.training.setup import make_batches, make_optimizer, model_config, open_engine


class TooLargeError(CharloomError):
    """A run would need more memory than the machine has."""


@dataclass(frozen=True)
class Setup:
    """The parts of a run that compute.

    Attributes:
        engine: the engine, with the run's parameters.
        optimizer: the optimizer, with its slots where the run resumes.
        batches: the batches before a refit.
        threads: the number of threads, those of NumPy included.
    """

    engine: Engine
    optimizer: Optimizer
    batches: Batches
    threads: int


def open_setup(
    start: Start, prepared: PreparedText, config: TrainingConfig, process_group: ProcessGroup
) -> Setup:
    """Open the engine with the run's parameters, at all ranks alike.

    Raises:
        CharloomError: if the text is too short for the options.
        TooLargeError: if the run would need more memory than the machine has.
    """
    batches = make_batches(config, prepared.dataset)
    process_group.split(batches.rows)
    model = model_config(config, prepared.dataset.vocabulary)
    refuse_if_too_large(model, config, -(-batches.rows // process_group.size))
    parameters = _initial_parameters(start, prepared, config, model)
    optimizer = make_optimizer(config)
    if start.earlier is not None:
        optimizer.slots.update(start.earlier.optimizer)
        optimizer.step_count = start.state.step
    hidden = start.state.hidden
    process_group.send_start(
        StartMessage(
            asdict(config),
            start.state.step,
            start.state.refit_step,
            None if hidden is None else hidden.shape[2],
            prepared.mixer_version,
        ),
        shared_arrays(parameters, optimizer, hidden),
    )
    engine = open_engine(config, parameters, process_group)
    threads = engine.threads
    if engine.name == "reference" and config.threads is None:
        threads = numpy_threads(model, batches.rows)
    return Setup(engine, optimizer, batches, threads)


def _initial_parameters(
    start: Start, prepared: PreparedText, config: TrainingConfig, model: ModelConfig
) -> Parameters:
    if start.earlier is not None:
        return start.earlier.parameters
    if start.base is not None:
        return grow_vocabulary(start.base.parameters, model)
    if config.classic:
        return initialize_classic(model, config.seed)
    parameters = initialize(model, config.seed)
    # Start from the characters' frequencies, so that they need not be learned step by step.
    assert prepared.counts is not None
    seen = prepared.counts + 1.0
    parameters["decoder.bias"][:] = np.log(seen / seen.sum())
    return parameters


def with_engine_for_budget(config: TrainingConfig) -> tuple[TrainingConfig, str | None]:
    """Choose the reference engine if a short run has no time to compile kernels.

    Returns:
        The options, and a note for the user if they changed.
    """
    assert config.minutes is not None
    if config.minutes * 60 >= SHORT or config.engine != "auto" or is_compiled():
        return config, None
    return (
        replace(config, engine="reference"),
        "the kernels are not compiled yet, so the reference engine trains, several times slower: "
        "set a longer --minutes once to compile them",
    )


def compile_kernels(engine: Engine, counted: Dataset | None, read: Mixture | None = None) -> None:
    """Compile the kernels of inference up front, so that compilation does not count as training.

    Args:
        engine: the engine.
        counted: the text of an n-gram model, whose kernels are compiled too.
        read: the counts that the network reads, with which it samples during the training.
    """
    nothing, config = np.zeros((1, 1), np.intp), engine.config
    extra = np.zeros((1, 1, config.extra_inputs), config.dtype) if config.extra_inputs else None
    engine.log_probabilities(nothing, engine.zero_state(1), extra=extra)
    if counted is not None:
        size = len(counted.vocabulary)
        table = fit_ngram_table(counted.train[:2], size, 1, math.inf)
        table.look_up(np.zeros((1, 1), np.int32))
    if read is not None and engine.config.extra_inputs:
        both = MixedPredictor(engine, read, network_only=True)
        both.read(nothing, both.zero_state(1))
    finish_compiling()


def refuse_if_too_large(model: ModelConfig, config: TrainingConfig, rows: int) -> None:
    """Raise TooLargeError if a run would need more memory than the machine has."""
    try:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return  # the system does not report its memory
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
    """Return the threads for NumPy's products: one if they are too small to divide."""
    work = rows * model.gates * model.hidden_size**2  # of one recurrent product
    return 1 if work < 1_000_000 else available_cores()
