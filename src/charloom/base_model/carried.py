"""Load the model that a run starts from: the carried base model, or the model of another run.

`english.safetensors` is an ordinary model file with weights in half precision. docs/base_model.md
is its card. It is read only where a run can start from it.

H is the number of hidden units, V that of characters in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from charloom.base_model.choices import ENGLISH
from charloom.network.initialization import reduce_vocabulary
from charloom.storage.checkpoint import Checkpoint, load_checkpoint
from charloom.storage.folders import model_path
from charloom.text.vocabulary import Vocabulary

CARRIED = Path(__file__).with_name("english.safetensors")


def load_base(name: str) -> Checkpoint:
    """Return the model that a run starts from.

    Args:
        name: ENGLISH for the carried one, otherwise a run's folder or a checkpoint file.

    Raises:
        CharloomError: if the model is missing or damaged.
    """
    return load_checkpoint(CARRIED if name == ENGLISH else model_path(name))


def with_characters_of(base: Checkpoint, characters: Iterable[str]) -> Checkpoint:
    """Return a base model without the characters that a text does not contain.

    Args:
        base: the base model.
        characters: those of the text. If the model knows none of them, it keeps its own.
    """
    wanted = set(characters)
    kept = [i for i, c in enumerate(base.vocabulary.characters) if c in wanted]
    if not kept or base.config.extra_inputs:
        return base
    vocabulary = Vocabulary(tuple(base.vocabulary.characters[i] for i in kept))
    return replace(base, parameters=reduce_vocabulary(base.parameters, kept), vocabulary=vocabulary)
