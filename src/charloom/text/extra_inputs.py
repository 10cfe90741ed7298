"""Extra inputs of a text: numbers that a network reads beside each character.

N is the number of ids of the text, E that of the numbers beside each id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def as_float32(rows: NDArray[Any]) -> Float32:
    """Return rows as they are stored, in float32."""
    return rows.astype(np.float32, copy=False)


@dataclass(frozen=True)
class ExtraInputs:
    """The extra inputs of a text: row i is read together with ids[i].

    Attributes:
        rows: (N, E), in memory or memory-mapped, of any type.
        decode: converts some of the rows, (…, E), to float32.
        places: the row of each id, if the ids are not consecutive ones of the text.
    """

    rows: NDArray[Any]
    decode: Callable[[NDArray[Any]], Float32] = as_float32
    places: NDArray[np.integer[Any]] | None = None

    def __len__(self) -> int:
        return len(self.rows if self.places is None else self.places)

    @property
    def size(self) -> int:
        """E."""
        return int(self.rows.shape[1])

    def gather(self, places: NDArray[np.integer[Any]]) -> Float32:
        """Return the extra inputs of the ids at these places, (…, E)."""
        return self.decode(self.rows[places if self.places is None else self.places[places]])

    def select(self, places: NDArray[np.integer[Any]]) -> ExtraInputs:
        """Return the extra inputs of the ids at these places alone."""
        return ExtraInputs(
            self.rows, self.decode, places if self.places is None else self.places[places]
        )
