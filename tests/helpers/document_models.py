"""Tiny models of collections of documents."""

from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig, Parameters
from charloom.text.vocabulary import END, Vocabulary

LETTERS = Vocabulary.of("\nabcdefgh" + END)


def model_of_documents(
    vocabulary: Vocabulary = LETTERS, *, hidden_size: int = 8, end_bias: float = 0.0
) -> Parameters:
    """Return a network with random weights; a larger `end_bias` makes its documents shorter."""
    config = ModelConfig("gru", hidden_size, 1, len(vocabulary), end_id=vocabulary.end_id)
    parameters = initialize(config, seed=3)
    parameters.flat[:] *= 3
    parameters["decoder.bias"][vocabulary.end_id] += end_bias
    return parameters
