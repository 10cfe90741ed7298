"""Texts while they are sampled under constraints.

V is the number of characters in the vocabulary, B that of the texts that are sampled side by side.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.protocol import UNLIMITED, Constraints
from charloom.engines.decoding import SamplingSettings, choose, probabilities

# An allowed character keeps at least this logit, so that one that the model finds impossible can
# still be chosen where nothing else can come.
LOWEST = -1e30


class ConstrainedText:
    """One sample under constraints.

    Attributes:
        over: whether the text has ended.
        ends_before_last: whether the last symbol ended the text and is not part of it.
    """

    def __init__(self, constraints: Constraints, length: int | None, end_id: int | None) -> None:
        self.over = False
        self.ends_before_last = False
        self._constraints, self._end_id = constraints, end_id
        self._left = UNLIMITED if length is None else length
        constraint = constraints.constraint
        self._state = None if constraint is None else constraint.start()
        self._end_with_pattern()

    def copy(self) -> ConstrainedText:
        """Return a copy, which continues by itself."""
        return copy.copy(self)  # states are never changed

    @property
    def may_end(self) -> bool:
        """Return whether the text can end here."""
        constraint = self._constraints.constraint
        return constraint is None or constraint.may_end(self._state)

    @property
    def bias(self) -> NDArray[np.float64] | None:
        """Additions to the logits, (V,), if any."""
        return self._constraints.bias

    def write_mask(self, mask: NDArray[np.bool_]) -> None:
        """Write the symbols that can come next into a mask of all, (V,)."""
        rules, constraint = self._constraints, self._constraints.constraint
        if constraint is None:
            return
        mask[:] = constraint.allowed(self._state, self._left)
        if rules.end_ids and constraint.may_end(self._state):
            mask[list(rules.end_ids)] = True

    def take(self, id_: int) -> bool:
        """Continue the text by a symbol. Return False if it could not end in time with it."""
        rules = self._constraints
        constraint = rules.constraint
        if constraint is None:
            self._left -= 1
            return True
        if id_ in rules.end_ids and not constraint.allowed(self._state, self._left)[id_]:
            self.over = self.ends_before_last = True
            return True
        state = constraint.advance(self._state, id_, self._left - 1)
        if state is None:
            return False
        self._state = state
        self._left -= 1
        self._end_with_pattern()
        return True

    def _end_with_pattern(self) -> None:
        """End the text if nothing can follow. A document then samples its end, if it has room."""
        rules, constraint = self._constraints, self._constraints.constraint
        if rules.whole and constraint is not None and (self._end_id is None or not self._left):
            self.over = constraint.must_end(self._state)


def restrict(
    texts: Sequence[ConstrainedText | None], logits: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return logits, (B, V), with the bias and without the characters that cannot come."""
    restricted = logits.astype(np.float64)
    masks = np.ones(restricted.shape, bool)
    rows = [row for row, text in enumerate(texts) if text is not None]
    for row in rows:
        text = texts[row]
        assert text is not None
        text.write_mask(masks[row])
        if text.bias is not None:
            restricted[row] += text.bias
    floored = np.maximum(restricted[rows], LOWEST) if rows else restricted[:0]
    floored[~masks[rows]] = -np.inf
    restricted[rows] = floored
    return restricted


def choose_next(
    texts: Sequence[ConstrainedText | None],
    restricted: NDArray[np.floating],
    settings: SamplingSettings,
    uniforms: NDArray[np.float64],
) -> NDArray[np.intp]:
    """Return the next symbol of each text, (B,), and continue the texts by them.

    Args:
        texts: the texts, None for rows without constraints.
        restricted: their logits, (B, V), as `restrict` returns them. A character with which a text
            could not end in time is excluded there.
        settings: the settings of sampling.
        uniforms: a random number for each, (B,).
    """
    ids = choose(restricted, settings, uniforms)
    for row, text in enumerate(texts):
        if text is None:
            continue
        uniform = float(uniforms[row])
        while not text.take(int(ids[row])):
            # The number, which fell in the interval of this character, is uniform inside it.
            p = probabilities(restricted[row], settings)
            before = float(p[: ids[row]].sum())
            uniform = min(max((uniform - before) / float(p[ids[row]]), 0.0), 1 - 2**-53)
            restricted[row, ids[row]] = -np.inf
            ids[row] = choose(restricted[row][None], settings, np.array([uniform]))[0]
    return ids
