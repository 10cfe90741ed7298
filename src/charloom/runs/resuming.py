"""Resume a run: read its position, and check that the options are still its own."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError, printable
from charloom.network.optimizers import OPTIMIZERS
from charloom.network.parameters import ModelConfig
from charloom.storage.checkpoint import Checkpoint
from charloom.storage.folders import free_folder
from charloom.text.source import ORIGIN_SEPARATOR, Text
from charloom.training.options import (
    COMPUTE_OPTIONS,
    OPTIONS,
    RESUME_OPTIONS,
    STOP_OPTIONS,
    TrainingConfig,
    option_name,
    option_words,
    rename_earlier,
)
from charloom.training.position import compute_options, find_wrong_entry
from charloom.training.setup import model_config
from charloom.training.state import TrainingState

OWN_TEXTS = ("validation", "test")
READING_OPTIONS = (
    "bytes",
    "raw",
    "keep_newlines",
    "encoding",
    "encoding_errors",
    "split",
    *OWN_TEXTS,
)


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
        if name in OWN_TEXTS and None not in (value, before):
            continue  # the text has moved; its SHA-256 is compared
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
    kept = (*RESUME_OPTIONS, *OWN_TEXTS)
    return replace(stored, **{k: v for k, v in options.items() if k in kept})


def recorded_options(earlier: Checkpoint, config: TrainingConfig) -> dict[str, Any]:
    """Return the options of a resumed run as its checkpoint records them.

    Texts of --validation and --test can have moved, so their paths are those of `config`.
    """
    return earlier.training | {name: getattr(config, name) for name in OWN_TEXTS}


def further_command(text: Text, config: TrainingConfig, folder: Path) -> str:
    """Return the command that trains the model of a run further on another text.

    Args:
        text: the text.
        config: the options of the run. Options that decide how texts are read are used again.
        folder: the folder of the run.
    """
    sources = [_short_path(origin) for origin in text.origin.split(ORIGIN_SEPARATOR)]
    if text.origin in ("", "-"):
        return f"--from {shlex.quote(str(folder))} and another --out"
    options = {
        name: _short_path(value) if name in OWN_TEXTS else value
        for name in READING_OPTIONS
        if (value := getattr(config, name)) != OPTIONS[name].default
    }
    words = ["charloom", "train", *sources, *option_words(options)]
    words += ["--from", str(folder), "--out", str(free_folder(folder))]
    return f"`{printable(shlex.join(words))}`"


def _short_path(origin: str) -> str:
    """Return the path of a file as a user would type it: relative if it is inside this folder."""
    path = Path(origin)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else origin


def with_shape_of(
    base: ModelConfig, config: TrainingConfig, options: dict[str, Any]
) -> TrainingConfig:
    """Return the configuration with the shape of the model that is fine-tuned."""
    for name in ("cell", "hidden_size", "layers", "norm", "dtype"):
        before = getattr(base, name)
        if name in options and options[name] != before:
            raise CharloomError(
                f"{option_name(name)} is {options[name]}, but the model of --from has {before}: "
                "omit the option"
            )
        config = replace(config, **{name: before})
    if base.extra_inputs:
        if config.no_mix or options.get("counts", "context-mixing") != "context-mixing":
            raise CharloomError(
                "the network of --from reads the counts of context mixing: omit "
                + ("--no-mix" if config.no_mix else "--counts")
            )
        return replace(config, counts="context-mixing", read_counts=True)
    if config.read_counts:
        raise CharloomError(
            "the network of --from does not read counts, and cannot learn it: omit --read-counts"
        )
    return config
