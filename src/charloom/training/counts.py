"""Limits of context mixing, and the text that decides the weights of a mixture."""

from __future__ import annotations

import numpy as np

from charloom.errors import CharloomError
from charloom.text.dataset import Dataset
from charloom.text.vocabulary import Vocabulary
from charloom.training.options import TrainingConfig

MOST_MIXED = 4096  # characters of the vocabulary of a context mixer
MOST_READ = 512  # of that of a network that reads its predictions


def mixes_contexts(config: TrainingConfig) -> bool:
    """Return whether a run learns its text by context mixing."""
    return config.counts == "context-mixing" and not config.no_mix


def can_mix() -> bool:
    """Return whether the kernels of context mixing can be imported."""
    try:
        from charloom.context_mixing.mixer import LEARN

        LEARN.require_compiler()
    except Exception:  # Numba raises all kinds of errors
        return False
    return True


def mixer_is_compiled() -> bool:
    """Return whether the kernels of context mixing are in the cache."""
    from charloom.context_mixing.mixer import LEARN, LOOK_UP, PREDICT, RECORD

    return all(kernel.is_kept() for kernel in (LOOK_UP, LEARN, RECORD, PREDICT))


def compile_mixer() -> None:
    """Compile the kernels of context mixing, so that compilation does not count as learning."""
    from charloom.context_mixing.mixer import ContextMixer

    ids = np.arange(2)
    mixer = ContextMixer.empty(Vocabulary(("a", "b")), ids, len(ids))
    mixer.learn(ids, np.empty((2, 2), np.uint8))
    mixer.predict(ids[:, None], mixer.zero_state(1))


def refuse_if_impossible(config: TrainingConfig, vocabulary_size: int) -> None:
    """Raise CharloomError if this machine or this text cannot have a configuration's counts."""
    if not mixes_contexts(config):
        return
    if not can_mix():
        raise CharloomError(
            "--counts context-mixing needs Numba, which cannot be imported: pip install numba, or "
            "use --counts kneser-ney"
        )
    if vocabulary_size > MOST_MIXED:
        raise CharloomError(
            f"--counts context-mixing is for at most {MOST_MIXED:,} distinct characters, and the "
            f"text has {vocabulary_size:,}: use --counts kneser-ney"
        )
    if config.read_counts and vocabulary_size > MOST_READ:
        raise CharloomError(
            f"--read-counts is for at most {MOST_READ} distinct characters, and the text has "
            f"{vocabulary_size:,}: omit it, or use --bytes"
        )


def validation_decides(config: TrainingConfig, dataset: Dataset) -> bool:
    """Return whether the mixture's weights are fitted on the validation split."""
    return config.keep == "best" and len(dataset.validation) > 0
