"""A tiny model of documents with random weights, in which documents end soon."""

from typing import Any

from charloom.language_model import LanguageModel
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.storage.checkpoint import Checkpoint
from charloom.text.vocabulary import END, Vocabulary

VOCABULARY = Vocabulary.of("\n abcdefghij<" + END)


def model_of_documents(bias: float = 1.0, **text: Any) -> LanguageModel:
    """Return a model whose documents are shorter, the larger the bias of their end."""
    end_id = VOCABULARY.end_id
    assert end_id is not None
    parameters = initialize(ModelConfig("gru", 16, 1, len(VOCABULARY), end_id=end_id), seed=3)
    parameters.flat[:] *= 2
    parameters["decoder.bias"][end_id] = bias
    checkpoint = Checkpoint(parameters, VOCABULARY)
    checkpoint.text = {"name": "letters", "characters": 1_000, "documents": 50} | text
    return LanguageModel(checkpoint)
