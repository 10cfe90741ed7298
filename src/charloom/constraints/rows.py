"""Texts of one request in the rows of a batch.

V is the number of characters in the vocabulary, B that of the rows, Q that of the states of an
automaton.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.automaton import Automaton
from charloom.constraints.protocol import UNLIMITED, Constraints
from charloom.constraints.texts import ConstrainedText, choose_next, restrict, restrict_rows
from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.restrictions import LOWEST

MOST_ADDITIONS = 1 << 22  # numbers that are kept for the states of a request's automaton


class ConstrainedRows(Protocol):
    """The constrained texts of a batch's rows. A row without a text is free.

    Attributes:
        over: whether each row's text has ended, (B,).
        ends_before_last: whether its last symbol ended it and is not part of it, (B,).
    """

    over: NDArray[np.bool_]
    ends_before_last: NDArray[np.bool_]

    def begin(self, rows: Sequence[int]) -> None:
        """Begin a text in some rows."""
        ...

    def end(self, row: int) -> None:
        """Remove the text of a row."""
        ...

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Remove all other rows."""
        ...

    def restrict(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return logits, (B, V), without the characters that cannot come."""
        ...

    def choose(
        self,
        restricted: NDArray[np.floating],
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
    ) -> NDArray[np.intp]:
        """Return the next symbol of each row, (B,), and continue the texts by them."""
        ...


def constrained_rows(
    constraints: Constraints, length: int | None, end_id: int | None, rows: int
) -> ConstrainedRows:
    """Return rows without texts."""
    first = ConstrainedText(constraints, length, end_id)
    regular = isinstance(constraints.constraint, Automaton)
    return _RegularRows(first, rows) if regular else _SeparateRows(first, rows)


class _SeparateRows:
    """Rows for constraints of any kind, each a `ConstrainedText`."""

    def __init__(self, first: ConstrainedText, rows: int) -> None:
        self.over, self.ends_before_last = np.zeros(rows, bool), np.zeros(rows, bool)
        self._first = first
        self._texts: list[ConstrainedText | None] = [None] * rows

    def begin(self, rows: Sequence[int]) -> None:
        for row in rows:
            self._texts[row] = self._first.copy()
        self._update()

    def end(self, row: int) -> None:
        self._texts[row] = None
        self.over[row] = False

    def keep(self, rows: NDArray[np.intp]) -> None:
        self._texts = [self._texts[row] for row in rows]
        self._update()

    def restrict(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        return restrict(self._texts, logits)

    def choose(
        self,
        restricted: NDArray[np.floating],
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
    ) -> NDArray[np.intp]:
        ids = choose_next(self._texts, restricted, settings, uniforms)
        self._update()
        return ids

    def _update(self) -> None:
        self.over = np.array([text is not None and text.over for text in self._texts], bool)
        self.ends_before_last = np.array(
            [text is not None and text.ends_before_last for text in self._texts], bool
        )


class _RegularRows:
    """Rows whose constraint is an automaton: all of them continue in a few array operations."""

    def __init__(self, first: ConstrainedText, rows: int) -> None:
        automaton = first.constraints.constraint
        assert isinstance(automaton, Automaton)
        self._first, self._rules, self._automaton = first, first.constraints, automaton
        self._additions = _additions(first.constraints, automaton)
        self._busy = np.zeros(rows, bool)  # rows with a text
        self._state = np.zeros(rows, np.intp)
        self._left = np.zeros(rows, np.int64)
        self.over, self.ends_before_last = np.zeros(rows, bool), np.zeros(rows, bool)

    def begin(self, rows: Sequence[int]) -> None:
        chosen = list(rows)
        assert self._first.state is not None
        self._busy[chosen], self.ends_before_last[chosen] = True, False
        self._state[chosen], self._left[chosen] = self._first.state, self._first.left
        self.over[chosen] = self._first.over

    def end(self, row: int) -> None:
        self._busy[row] = self.over[row] = False

    def keep(self, rows: NDArray[np.intp]) -> None:
        self._busy, self._state, self._left = (
            self._busy[rows], self._state[rows], self._left[rows],
        )  # fmt: skip
        self.over, self.ends_before_last = self.over[rows], self.ends_before_last[rows]

    def restrict(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        bias = self._rules.bias
        if bias is None:
            restricted: NDArray[np.float64] = np.maximum(logits, LOWEST, dtype=np.float64)
        else:
            everywhere = np.ones(logits.shape, bool)
            restricted = restrict_rows(logits.astype(np.float64), everywhere, bias, logits.dtype)
        if self._additions is None:
            return np.where(self._inside(self._state, self._left), restricted, -np.inf)
        restricted += self._additions.take(self._state, axis=0)
        near = self._left <= self._automaton.farthest
        if near.any():  # the length excludes characters that the pattern allows
            rows = np.flatnonzero(near)
            outside = ~self._inside(self._state[rows], self._left[rows])
            restricted[rows] = np.where(outside, -np.inf, restricted[rows])
        return restricted

    def _inside(self, states: NDArray[np.intp], left: NDArray[np.int64]) -> NDArray[np.bool_]:
        return _allowed_in(self._rules, self._automaton, states, left)

    def choose(
        self,
        restricted: NDArray[np.floating],
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
    ) -> NDArray[np.intp]:
        ids = choose(restricted, settings, uniforms)
        after, far = self._automaton.advance_in_rows(self._state, ids)
        self._left -= 1
        self.ends_before_last = (far > self._left) & self._busy  # by an end symbol
        stuck = self._automaton.stuck.take(after)
        if self._first.samples_end:
            stuck &= self._left == 0
        self.over = (self.ends_before_last | stuck) & self._busy
        self._state = np.maximum(after, 0, dtype=np.intp)
        return ids


def _allowed_in(
    rules: Constraints,
    automaton: Automaton,
    states: NDArray[np.intp],
    left: NDArray[np.int64] | int,
) -> NDArray[np.bool_]:
    """Return the symbols that can come next after states, (B,), as (B, V)."""
    inside = automaton.allowed_in_rows(states, np.broadcast_to(left, states.shape))
    for id_ in rules.end_ids:
        inside[:, id_] |= automaton.accepting[states]
    return inside


def _additions(rules: Constraints, automaton: Automaton) -> NDArray[np.float64] | None:
    """Return additions to the logits after each state, (Q, V): 0, or −∞ for excluded characters.

    They hold where the rest of the text can have any length. None if they would be too large.
    """
    if "additions" not in rules.kept:
        size = len(automaton.accepting) * len(automaton.classes)
        states = np.arange(len(automaton.accepting))
        rules.kept["additions"] = None
        if size <= MOST_ADDITIONS:
            inside = _allowed_in(rules, automaton, states, UNLIMITED)
            # In the order of states, because `take` copies another order as a whole.
            rules.kept["additions"] = np.where(np.ascontiguousarray(inside), 0.0, -np.inf)
    found: NDArray[np.float64] | None = rules.kept["additions"]
    return found
