"""Resume a run: read its position, and check that the options are still its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError
from charloom.network.optimizers import OPTIMIZERS
from charloom.network.parameters import ModelConfig
from charloom.storage.checkpoint import Checkpoint
from charloom.training.options import (
    COMPUTE_OPTIONS,
    RESUME_OPTIONS,
    STOP_OPTIONS,
    TrainingConfig,
    option_name,
    rename_earlier,
)
from charloom.training.position import compute_options, find_wrong_entry
from charloom.training.setup import model_config
from charloom.training.state import TrainingState


def resume_position(
    path: Path, checkpoint: Checkpoint
) -> tuple[TrainingConfig, TrainingState, dict[str, Any]]:
    """Return the configuration, the state and the position of a run from its resume file.

    Raises:
        CharloomError: if they do not match, for example because another version wrote the file.
    """
    try:
        position = checkpoint.position
        if position is None or checkpoint.state is None:
            raise ValueError("the position is missing")
        if mismatch := find_wrong_entry(position):
            raise ValueError(mismatch.problem)
        computed = compute_options(position)
        training = dict(checkpoint.training)
        rename_earlier(training)
        config = TrainingConfig(**training, **position["ends"], **computed)
        state = TrainingState(**position["state"], hidden=checkpoint.state)
        rows = checkpoint.state.shape[2] if checkpoint.state.ndim == 4 else 0
        if config.learning_rate is None:
            raise ValueError("the learning rate is missing")
        if model_config(config, checkpoint.vocabulary) != checkpoint.config:
            raise ValueError("the options describe a different network")
        if checkpoint.state.shape != checkpoint.config.zero_state(rows).shape:
            raise ValueError("the hidden state has the wrong shape")
        if rows not in (1, config.batch_size) and rows > config.batch_size:
            raise ValueError("the hidden state has too many rows")
        if set(checkpoint.optimizer) != set(OPTIMIZERS[config.optimizer].slot_names):
            raise ValueError("the state of the optimizer is that of a different one")
        if "sha256" not in checkpoint.text:
            raise ValueError("the SHA-256 of the text is missing")
    except (KeyError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise CharloomError(
            f"cannot resume from {path} ({what}): start a new run with another --out"
        ) from None
    return config, state, position


def continued_config(stored: TrainingConfig, options: dict[str, Any]) -> TrainingConfig:
    """Return the configuration of a resumed run.

    Raises:
        CharloomError: if the options are not those of the run; it names the first difference.
    """
    TrainingConfig.of(options)  # refuses invalid options
    for name, value in options.items():
        before = getattr(stored, name)
        if name in COMPUTE_OPTIONS or value == before:
            continue
        if name not in STOP_OPTIONS:
            raise CharloomError(
                f"{option_name(name)} is {value}, but the run has {before}: omit the option to "
                "resume with it, or pass another --out"
            )
        if before is not None and value < before:
            raise CharloomError(
                f"{option_name(name)} {value} is less than the run's {before:g}: raise it or omit "
                "it"
            )
    return replace(stored, **{k: v for k, v in options.items() if k in RESUME_OPTIONS})


def with_shape_of(
    base: ModelConfig, config: TrainingConfig, options: dict[str, Any]
) -> TrainingConfig:
    """Return the configuration with the shape of the model that is fine-tuned."""
    for name in ("cell", "hidden_size", "layers", "dtype"):
        before = getattr(base, name)
        if name in options and options[name] != before:
            raise CharloomError(
                f"{option_name(name)} is {options[name]}, but the model of --from has {before}: "
                "omit the option"
            )
        config = replace(config, **{name: before})
    return config
