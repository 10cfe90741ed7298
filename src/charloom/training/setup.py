"""Create the parts of a training from its options: optimizer, batches, network, engine."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from charloom.engines.process_group import ProcessGroup
from charloom.engines.protocol import Engine
from charloom.errors import CharloomError, plural
from charloom.network.optimizers import OPTIMIZERS, AdaGrad, Optimizer
from charloom.network.parameters import ModelConfig, Parameters
from charloom.text.batches import Batches, ShuffledDocuments, SlidingWindows, Streams
from charloom.text.dataset import Dataset, TextIds
from charloom.text.excerpt import excerpt, excerpt_places
from charloom.text.extra_inputs import ExtraInputs
from charloom.text.vocabulary import Vocabulary
from charloom.training.options import TrainingConfig

CLASSIC_STRIDE = 10
RESETS = 1  # makes the random numbers of resets different from those of samples
VALIDATED_AT_ONCE = 200_000  # characters of the validation split that one validation reads


def make_optimizer(config: TrainingConfig) -> Optimizer:
    """Return the optimizer of a configuration."""
    assert config.learning_rate is not None
    clip = config.clip or None
    if config.classic and config.optimizer == "adagrad":
        return AdaGrad(config.learning_rate, clip, epsilon=1e-8, epsilon_inside=True)
    return OPTIMIZERS[config.optimizer](config.learning_rate, clip)


def make_batches(config: TrainingConfig, dataset: Dataset, refit: bool = False) -> Batches:
    """Return the training windows of a configuration, with `refit` those of its last part.

    Raises:
        CharloomError: if a split of the text is too short, or the preset is not for documents.
    """
    train, validation = dataset.fit_and_holdout(refit)
    end_id = dataset.vocabulary.end_id
    if len(train) < 2:
        raise CharloomError(
            f"the training split has {len(train)} of the text's "
            f"{plural(len(dataset.ids), 'character')} and needs at least 2: use a longer text or "
            "a larger first part in --split"
        )
    if end_id is not None:
        if config.classic:
            raise CharloomError(
                "the preset classic reads a text as one book, not as documents: use another "
                "--preset, or omit the option that cuts the text into documents"
            )
        return ShuffledDocuments(
            train, end_id, config.batch_size, config.window, config.seed, dataset.extra
        )
    if 0 < len(validation) < config.window and not refit:
        raise CharloomError(
            f"the validation split has {plural(len(validation), 'character')}, less than one "
            f"window of {config.window}: use a longer text, a smaller --window, or --split "
            "100/0/0 to train without validation"
        )
    if config.classic:
        return SlidingWindows(train, config.window, CLASSIC_STRIDE, extra=dataset.extra)
    return Streams(train, config.batch_size, config.window, dataset.extra)


def reset_rows(config: TrainingConfig, step: int, rows: int) -> NDArray[np.bool_]:
    """Return which rows of a step's batch begin at a zero state by chance, (B,).

    A carried state is zero only at the start of a pass. Every prompt and cold window, however,
    begins at a zero state, so that a network without resets has hardly seen such beginnings.
    """
    generator = np.random.Generator(np.random.PCG64([config.seed, step, RESETS]))
    return generator.random(rows) < config.reset_state


def validated_part(dataset: Dataset, holdout: TextIds, characters: int | None = None) -> TextIds:
    """Return the part of a holdout, (N,), that one validation reads.

    Of a long collection these are documents from all of the holdout. The part has about
    `characters`, by default VALIDATED_AT_ONCE.
    """
    characters = characters or VALIDATED_AT_ONCE
    end_id = dataset.vocabulary.end_id
    if end_id is None:
        return holdout[:characters]
    return excerpt(holdout, characters, end_id)


def validated_extra(
    dataset: Dataset, fit: TextIds, holdout: TextIds, characters: int | None = None
) -> ExtraInputs | None:
    """Return the extra inputs with which `validated_part` is scored, if there are any.

    They are those of the last id of `fit`, which is the first input, and of the part, (N + 1, E).
    """
    if dataset.extra is None:
        return None
    return dataset.extra.select(validated_places(dataset, fit, holdout, characters))


def validated_places(
    dataset: Dataset, fit: TextIds, holdout: TextIds, characters: int | None = None
) -> NDArray[np.intp]:
    """Return the indices of the ids from which `validated_part` is predicted.

    They are those of the last id of `fit`, which is the first input, and of the part, (N + 1,).
    """
    characters = characters or VALIDATED_AT_ONCE
    end_id, places = dataset.vocabulary.end_id, np.arange(min(len(holdout), characters))
    if end_id is not None:
        places = excerpt_places(holdout, characters, end_id)
    inputs: NDArray[np.intp] = len(fit) + np.append(-1, places)
    return inputs


def model_config(
    config: TrainingConfig, vocabulary: Vocabulary, extra_inputs: int | None = None
) -> ModelConfig:
    """Return the network that a training configuration describes.

    By default it has the extra inputs that its configuration describes: a network that reads counts
    has one for each character.
    """
    if extra_inputs is None:
        extra_inputs = len(vocabulary) if config.read_counts else 0
    return ModelConfig(
        cell=config.cell,
        hidden_size=config.hidden_size,
        layers=config.layers,
        norm=config.norm,
        vocabulary_size=len(vocabulary),
        dropout=float(config.dropout),
        weight_drop=float(config.weight_drop),
        dtype=config.dtype,
        end_id=vocabulary.end_id,
        extra_inputs=extra_inputs,
    )


def open_engine(
    config: TrainingConfig, parameters: Parameters, process_group: ProcessGroup
) -> Engine:
    """Open the engine that a configuration trains with."""
    return config.backend.open(
        parameters, seed=config.seed, classic=config.classic, process_group=process_group
    )


def total_steps(config: TrainingConfig, batches: Batches) -> int | None:
    """Return the step that ends a run with --steps or --epochs; None without both."""
    ends = []
    if config.steps is not None:
        ends.append(config.steps)
    if config.epochs is not None:
        ends.append(math.ceil(config.epochs * batches.steps_per_epoch))
    return min(ends, default=None)


def rows_of_validation(characters: int) -> int:
    """Return the number of rows in which a validation reads n characters."""
    return max(1, min(32, characters // 512))
