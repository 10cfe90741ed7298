"""The protocol `Counts`: predictions of the next character from counted contexts.

T is the number of time steps, B that of rows, V that of characters in the vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charloom.ngrams.table import NGramPredictions, NGramTable

NGRAM_MODEL, CONTEXT_MIXER = "n-gram model", "context mixer"  # kinds of counts, in messages

Ids = NDArray[np.integer[Any]]


class Counts(Protocol):
    """Characters counted after their contexts: an n-gram table, or a context mixer.

    A state is an array with one row for each text that is read side by side. No method changes the
    state that it receives, and a row's bytes do not depend on the other rows.
    """

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def context(self) -> int:
        """Return the largest `length` of a prediction."""
        ...

    @property
    def nbytes(self) -> int:
        """Return the size of the arrays in bytes."""
        ...

    def zero_state(self, rows: int) -> NDArray[Any]:
        """Return the state of a number of rows before any character, (B, ·)."""
        ...

    def read(self, ids: Ids, state: NDArray[Any]) -> NDArray[Any]:
        """Return the state after ids (T, B)."""
        ...

    def predict(self, ids: Ids, state: NDArray[Any]) -> tuple[NGramPredictions, NDArray[Any]]:
        """Return the predictions after each of the ids (T, B), and the state after them.

        Row t·B + b of the predictions is for the character after ids[t, b].
        """
        ...


def name_of(counts: Counts) -> str:
    """Return the kind of counts."""
    return NGRAM_MODEL if isinstance(counts, NGramTable) else CONTEXT_MIXER
