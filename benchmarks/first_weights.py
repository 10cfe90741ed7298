"""Make the first weights of `charloom.compression.weights` from Python's help.

    python -m benchmarks.first_weights

A mixer learns the text. The rows of each set are averaged by how much they have changed. Then the
inputs of a kind are averaged over contexts and sets.
"""

from __future__ import annotations

import itertools
import pydoc_data.topics

import numpy as np

from charloom.compression.characters import Alphabet, codes_of_characters
from charloom.compression.text_coder import TextCoder, Writer
from charloom.context_mixing.layout import (
    CONTEXT_COUNT,
    INPUT_COUNT,
    INPUTS,
    SET_BEGINS,
    make_weights,
)


def main() -> None:
    text = "\n".join(pydoc_data.topics.topics.values()).encode()[:500_000]
    codes = codes_of_characters(text.decode("utf-8", "ignore").encode())
    assert codes is not None
    alphabet, ids = Alphabet.of(codes, False)
    mixer, weights = alphabet.mixer(len(ids), 64_000_000), make_weights()
    TextCoder(mixer, weights).code(ids, Writer())
    before = make_weights().sets.reshape(-1, INPUT_COUNT)
    after = weights.sets.reshape(-1, INPUT_COUNT)
    means = []
    for begin, end in itertools.pairwise(SET_BEGINS):
        change = np.abs(after[begin:end] - before[begin:end]).sum(axis=1)
        means.append(change @ after[begin:end] / change.sum())
    kinds = np.stack(means)[:, : INPUTS * CONTEXT_COUNT].reshape(-1, INPUTS)
    print(kinds.mean(axis=0).round(3))


if __name__ == "__main__":
    main()
