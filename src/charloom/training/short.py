"""Short texts, which a network can only memorize.

After that, it predicts the validation split, some dozens of characters, worse than before it was
trained. A choice by that loss would keep an untrained network. A short text is therefore for
training alone, or at least the last weights are kept.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

from charloom.text.dataset import Dataset
from charloom.training.options import TrainingConfig

SHORT_TEXT = 5_000  # characters; a shorter text is memorized
# With one of these, the user decides on the validation split or on the weights that are kept.
DECIDING = ("split", "validation", "test", "refit", "keep")
WHOLE = "100/0/0"


def adapt_to_short_text(
    config: TrainingConfig, dataset: Dataset, fixed: Container[str]
) -> tuple[TrainingConfig, str] | None:
    """Return the options of a new run on a short text, and the sentence for the user.

    Args:
        config: the run's options.
        dataset: the text, split by these options.
        fixed: the options that stay as they are, by name.

    Returns:
        None for a long text, or if the user has decided. With another `split` than before, the
        text must be divided again.
    """
    characters = dataset.characters
    if characters >= SHORT_TEXT or any(name in fixed for name in DECIDING):
        return None
    unfit = dataset.vocabulary.end_id is None and len(dataset.validation) < config.window
    short = f"the text is short ({characters:,} characters): "
    if config.is_to_be_planned or unfit:
        return replace(config, split=WHOLE), (
            f"{short}the model trains on all of it and memorizes much of it, and no part is left "
            "to test on; --split 90/5/5 keeps one"
        )
    return replace(config, keep="last"), (
        f"{short}the last weights are kept, although they memorize much of it; --keep best keeps "
        "those with the best validation loss"
    )


def memorized_all(training: Mapping[str, Any]) -> bool:
    """Return True if a model was trained on all of its text, given its recorded options."""
    return training.get("split") == WHOLE
