"""The documents of a collection as a set, for a lookup of whole documents.

N is the number of ids of the collection, D that of its documents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charloom.text.dataset import TextIds
from charloom.text.vocabulary import END, Vocabulary, code_points

IDS_AT_ONCE = 1 << 22


class DocumentSet:
    """The documents of a collection.

    It holds 8 bytes a document, a hash. Two different documents have the same hash with a
    probability of 2^-64.

    Args:
        ids: the collection, (N,), in which each document ends with the id of END.
        vocabulary: its characters.
    """

    def __init__(self, ids: TextIds, vocabulary: Vocabulary) -> None:
        codes = code_points("".join(vocabulary.characters)).astype("<u4")
        hashes = [np.zeros(0, np.int64)]
        rest = ""
        for begin in range(0, len(ids), IDS_AT_ONCE):
            block = codes[ids[begin : begin + IDS_AT_ONCE]].tobytes()
            *documents, rest = (rest + block.decode("utf-32-le", "surrogatepass")).split(END)
            hashes.append(np.fromiter(map(hash, documents), np.int64, len(documents)))
        self._hashes: NDArray[np.int64] = np.unique(np.concatenate(hashes))  # (D,)

    def __len__(self) -> int:
        """Return the number of distinct documents."""
        return len(self._hashes)

    def __contains__(self, document: str) -> bool:
        """Return whether a document is among them."""
        place = int(np.searchsorted(self._hashes, hash(document)))
        return place < len(self._hashes) and int(self._hashes[place]) == hash(document)
