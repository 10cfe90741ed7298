"""Collections of documents in memory, and a tiny model of documents with random weights."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from charloom.language_model import LanguageModel
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.storage.checkpoint import Checkpoint
from charloom.text.dataset import Dataset
from charloom.text.format import TextFormat, open_texts
from charloom.text.source import Text
from charloom.text.vocabulary import END, Vocabulary

NAMES = [
    first + middle + last
    for first in ("an", "be", "el", "jo", "ma", "ro", "su", "vi")
    for middle in ("", "li", "ra", "to", "nna")
    for last in ("a", "e", "n", "s", "th", "ka")
]
VOCABULARY = Vocabulary.of("\n abcdefghij<" + END)


def collection(documents: Sequence[str], name: str = "names") -> Text:
    """Return documents as a text, each followed by END."""
    return Text(name, "", False, lambda: iter([document + END for document in documents]), True)


def documents_of(string: str, format: TextFormat) -> list[str]:
    """Return the documents of a string, as the format cuts them."""
    text = open_texts([format.text_of(string)], replace(format, collection=True))
    return list(text.documents())


def shuffled_names(seed: int = 0) -> list[str]:
    names = list(NAMES)
    random.Random(seed).shuffle(names)
    return names


def dataset_of(
    train: Sequence[str],
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
    vocabulary: Vocabulary | None = None,
) -> Dataset:
    """Return a dataset of documents in three parts."""
    parts = [END.join([*documents, ""]) for documents in (train, validation, test)]
    vocabulary = vocabulary or Vocabulary.of("".join(parts))
    ids = [vocabulary.encode(part) for part in parts]
    first, second = np.cumsum([len(part) for part in ids[:2]])
    return Dataset(
        "names",
        "",
        "0" * 64,
        vocabulary,
        np.concatenate(ids),
        (int(first), int(second)),
        documents=len(train) + len(validation) + len(test),
        pieces=(len(train), len(validation), len(test)),
    )


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
