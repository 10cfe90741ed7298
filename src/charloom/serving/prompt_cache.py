"""A cache of the states after prompts."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.prediction.rows import rows_of, state_bytes

CACHE_BYTES = 64_000_000  # of states
MOST_CACHED = 4_096  # states, because a prompt is compared with every cached length


class PromptCache:
    """States after the beginnings of prompts, by the ids read; the least recently used go first."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._states: OrderedDict[bytes, tuple[int, Any]] = OrderedDict()
        self._lengths: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._states)

    def put(self, read: NDArray[np.intp], state: Any) -> None:
        """Keep a copy of the state, of one row, after ids (N,) were read."""
        size = state_bytes(state)
        if size > self.most_bytes:
            return
        key = _digest(read)
        if key in self._states:
            self._states.move_to_end(key)
            return
        while self._states and (
            self.bytes + size > self.most_bytes or len(self._states) >= MOST_CACHED
        ):
            _, (length, old) = self._states.popitem(last=False)
            self.bytes -= state_bytes(old)
            self._lengths[length] -= 1
            if not self._lengths[length]:
                del self._lengths[length]
        self._states[key] = len(read), rows_of(state, [0])
        self._lengths[len(read)] += 1
        self.bytes += size

    def longest(self, ids: NDArray[np.intp]) -> tuple[int, Any]:
        """Return the length of the longest cached beginning of ids, (N,), and the state after it.

        Without such a beginning, return 0 and None.
        """
        found, begin, digest = None, 0, hashlib.blake2b(digest_size=16)
        for length in sorted(self._lengths):
            if length > len(ids):
                break
            digest.update(ids[begin:length].tobytes())
            begin = length
            if (key := digest.digest()) in self._states:
                found = key
        if found is None:
            return 0, None
        self._states.move_to_end(found)
        return self._states[found]


def _digest(ids: NDArray[np.intp]) -> bytes:
    return hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
