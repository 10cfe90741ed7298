"""Resume a run: read its position, and check that the options are still its own."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from charloom.engines.backend import Backend
from charloom.errors import CharloomError
from charloom.network.optimizers import OPTIMIZERS
from charloom.network.parameters import ModelConfig
from charloom.storage.checkpoint import Checkpoint
from charloom.training.options import TrainingConfig, option_name
from charloom.training.setup import model_config
from charloom.training.state import TrainingState

# The options that can change when a run resumes: its end, which can be raised, and its computation.
ENDS = ("steps", "epochs", "minutes")
HOW = ("engine", "threads", "device", "bf16", "compile", "rank_timeout")


def resume_position(
    path: Path, checkpoint: Checkpoint
) -> tuple[TrainingConfig, TrainingState, dict[str, Any]]:
    """What a resume file holds of a run: its configuration, its state, and its position as it is.

    Raises CharloomError where they make no sense together: another version may have written it.
    """
    try:
        position = checkpoint.position
        if position is None or checkpoint.state is None:
            raise ValueError("it holds no position")
        backend = Backend.from_checkpoint(position)
        how = asdict(backend) | {"rank_timeout": position.get("rank_timeout", 300.0)}
        config = TrainingConfig(**checkpoint.training, **position["ends"], **how)
        state = TrainingState(**position["state"], hidden=checkpoint.state)
        rows = checkpoint.state.shape[2] if checkpoint.state.ndim == 4 else 0
        counts = (state.recent_steps, position["metrics_lines"], position["samples_bytes"])
        if not all(isinstance(count, int) and 0 <= count < 10**15 for count in counts):
            raise ValueError("its counts are none")
        for f in fields(state):
            value, kinds = getattr(state, f.name), str(f.type)
            if f.name == "hidden" or (value is None and "None" in kinds):
                continue
            number = isinstance(value, int if "int" in kinds else (int, float))
            if not number or isinstance(value, bool) or not math.isfinite(value):
                raise ValueError(f"its {f.name} is no number")
        if state.step < 0 or config.learning_rate is None:
            raise ValueError("its step or learning rate is none")
        if model_config(config, len(checkpoint.vocabulary)) != checkpoint.config:
            raise ValueError("its options describe another model")
        if checkpoint.state.shape != checkpoint.config.zero_state(rows).shape:
            raise ValueError("its hidden state has another shape")
        if rows not in (1, config.batch_size) and rows > config.batch_size:
            raise ValueError("its hidden state has too many rows")
        if set(checkpoint.optimizer) != set(OPTIMIZERS[config.optimizer].slot_names):
            raise ValueError("its optimizer is another one")
        if "sha256" not in checkpoint.text:
            raise ValueError("it does not say what text it was trained on")
    except (KeyError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise CharloomError(
            f"{path} cannot be gone on from ({what}): start again with another --out"
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
        if name in HOW or value == before:
            continue
        if name not in ENDS:
            raise CharloomError(
                f"{option_name(name)} is {value}, but the run has {before}: omit the option to "
                "resume with it, or pass another --out"
            )
        if before is not None and value < before:
            raise CharloomError(
                f"{option_name(name)} {value} is less than the run's {before:g}: raise it or omit "
                "it"
            )
    return replace(stored, **{k: v for k, v in options.items() if k in (*ENDS, *HOW)})


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
