"""Tiny models with random weights, by the text whose characters they know."""

import unicodedata
from typing import Any

from charloom.language_model import LanguageModel
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.storage.checkpoint import Checkpoint
from charloom.text.vocabulary import Vocabulary

FRENCH = 'le café est à l’été, "oui" n\'est-ce pas\n'


def model_of(text: str, *, as_bytes: bool = False, **training: Any) -> LanguageModel:
    """Return a model of a text's characters, with options of its training."""
    if as_bytes:
        text = text.encode().decode("latin-1")
    vocabulary = Vocabulary.of(text, as_bytes=as_bytes)
    parameters = initialize(ModelConfig("gru", 12, 1, len(vocabulary)), seed=3)
    parameters.flat[:] *= 2
    checkpoint = Checkpoint(parameters, vocabulary)
    checkpoint.training = training
    return LanguageModel(checkpoint)


MODELS = {
    "LF": model_of(FRENCH),
    "CRLF": model_of(FRENCH + "\r", keep_newlines=True),
    "NFD": model_of(unicodedata.normalize("NFD", FRENCH)),
    "mark": model_of(FRENCH + "\ufeff", raw=True),
    "bytes": model_of(FRENCH, as_bytes=True),
    "all bytes": model_of("".join(map(chr, range(0x800))) + "“”🦉", as_bytes=True),
}
