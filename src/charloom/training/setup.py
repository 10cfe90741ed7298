"""Create what training needs from its options: optimizer, batches, network configuration."""

from __future__ import annotations

import math

from charloom.errors import CharloomError
from charloom.network.optimizers import OPTIMIZERS, AdaGrad, Optimizer
from charloom.network.parameters import ModelConfig
from charloom.text.batches import Batches, SlidingWindows, Streams
from charloom.text.dataset import Dataset
from charloom.training.options import TrainingConfig

CLASSIC_STRIDE = 10
VALIDATED_AT_ONCE = 200_000  # characters of the validation part that one validation reads


def make_optimizer(config: TrainingConfig) -> Optimizer:
    """The optimizer that a configuration names."""
    assert config.learning_rate is not None
    clip = config.clip or None
    if config.classic and config.optimizer == "adagrad":
        return AdaGrad(config.learning_rate, clip, epsilon=1e-8, epsilon_inside=True)
    return OPTIMIZERS[config.optimizer](config.learning_rate, clip)


def make_batches(config: TrainingConfig, dataset: Dataset, refit: bool = False) -> Batches:
    """The training windows that a configuration asks for; `refit`: in its last part.

    Raises CharloomError where a part of the text is too short.
    """
    train, validation = dataset.fit_and_holdout(refit)
    if len(train) < 2:
        raise CharloomError(
            f"the training part has {len(train)} of the text's {len(dataset.ids)} characters and "
            "needs at least 2: give a longer text or a larger first part in --split"
        )
    if 0 < len(validation) < config.window and not refit:
        raise CharloomError(
            f"the validation part has {len(validation):,} characters, less than one window of "
            f"{config.window}: give a longer text, a smaller --window, or --split 100/0/0 to go "
            "without"
        )
    if config.classic:
        return SlidingWindows(train, config.window, CLASSIC_STRIDE)
    return Streams(train, config.batch_size, config.window)


def model_config(config: TrainingConfig, vocabulary_size: int) -> ModelConfig:
    """The model that a training configuration describes."""
    return ModelConfig(
        cell=config.cell,
        hidden_size=config.hidden_size,
        layers=config.layers,
        vocabulary_size=vocabulary_size,
        dropout=float(config.dropout),
        weight_drop=float(config.weight_drop),
        dtype=config.dtype,
    )


def total_steps(config: TrainingConfig, batches: Batches) -> int | None:
    """The updates after which a run ends, if --steps or --epochs say so."""
    ends = []
    if config.steps is not None:
        ends.append(config.steps)
    if config.epochs is not None:
        ends.append(math.ceil(config.epochs * batches.steps_per_epoch))
    return min(ends, default=None)


def rows_of_validation(characters: int) -> int:
    """Rows in which a part of that length is read during training."""
    return max(1, min(32, characters // 512))
