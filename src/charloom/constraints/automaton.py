"""Deterministic automata over a vocabulary, from which every state can reach an end.

V is the number of characters in the vocabulary, Q that of the states, C that of the classes of
characters between which no state distinguishes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.engines.restrictions import CAN_END, MUST_END
from charloom.errors import CharloomError

MOST_STATES = 20_000
SECONDS = 5.0  # that the construction of an automaton can take
MASK_BYTES = 1 << 26  # of the masks that are kept
NEVER = np.iinfo(np.int32).max  # the distance of a state from which no end can be reached


class TooLargeError(CharloomError):
    """A pattern whose automaton has too many states, or takes too long to construct."""


class Deadline:
    """The time and the number of states that a construction can use.

    It is the time of the thread on a processor, so that other work on the machine does not count.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._end = time.thread_time() + seconds

    @property
    def over(self) -> bool:
        return time.thread_time() > self._end

    def check(self, states: int = 0) -> None:
        """Raise TooLargeError if the time is over or the states are too many."""
        if states > MOST_STATES:
            raise TooLargeError(
                f"the pattern needs more than {MOST_STATES:,} states: use smaller repetitions"
            )
        if self.over:
            raise TooLargeError(
                "the pattern takes too long to compile: use smaller repetitions or fewer choices"
            )


class KernelArrays(NamedTuple):
    """The arrays of an automaton, see `charloom.engines.restrictions`."""

    classes: NDArray[np.int32]  # (V,)
    table: NDArray[np.int32]  # (Q, C + 1)
    distances: NDArray[np.int32]  # (Q, C + 1)
    flags: NDArray[np.int32]  # (Q,)


class Automaton:
    """A deterministic automaton: a Constraint whose states are integers, and 0 is the first.

    States from which no end can be reached are removed, so that a text never gets stuck.

    Args:
        classes: the class of each character, (V,), -1 for one that no text contains.
        table: the next state after each state and class, (Q, C), -1 without one.
        accepting: the states in which a text can end, (Q,).

    Attributes:
        distance: the smallest number of characters from each state to an end, (Q,).
        farthest: the largest of these numbers.
    """

    is_regular = True

    def __init__(
        self,
        classes: NDArray[np.intp],
        table: NDArray[np.int32],
        accepting: NDArray[np.bool_],
        deadline: Deadline | None = None,
    ) -> None:
        distance = _distances(table, accepting, deadline or Deadline())
        alive = np.asarray(distance < NEVER)
        table = np.where((table >= 0) & alive[table], table, -1).astype(np.int32)
        self.classes, self.table = classes, table
        self.accepting: NDArray[np.bool_] = accepting
        self.distance = np.asarray(distance)
        self.least = int(distance[0])
        # A column more, for characters that no text contains, whose class is -1. The rows are
        # contiguous, because `take` copies another order as a whole.
        padded = np.concatenate([table, np.full((len(table), 1), -1, np.int32)], axis=1)
        padded = np.ascontiguousarray(padded)
        self._after: NDArray[np.int32] = np.where(
            padded >= 0, distance[padded], NEVER
        )  # (Q, C + 1)
        self._padded = padded
        self.farthest = int(distance[alive].max(initial=0))
        self._masks: dict[int, NDArray[np.bool_]] = {}
        self.stuck: NDArray[np.bool_] = np.asarray((padded < 0).all(axis=1))  # (Q,)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_masks": {}}

    @property
    def is_empty(self) -> bool:
        """Return whether the set is empty."""
        return self.least == NEVER

    def start(self) -> int:
        return 0

    def allowed(self, state: int, left: int) -> NDArray[np.bool_]:
        if left > self.farthest:  # every character can come next that leads to a state
            mask = self._masks.get(state)
            if mask is None:
                if len(self._masks) * len(self.classes) > MASK_BYTES:
                    self._masks.clear()
                mask = self._masks[state] = self._mask(state, left)
            return mask
        return self._mask(state, left)

    def _mask(self, state: int, left: int) -> NDArray[np.bool_]:
        inside = np.asarray(np.less(self._after[state], left))
        return np.asarray(inside[self.classes])

    def advance(self, state: int, id_: int, left: int = 0) -> int:
        return int(self._padded[state, self.classes[id_]])

    def may_end(self, state: int) -> bool:
        return bool(self.accepting[state])

    def must_end(self, state: int) -> bool:
        return bool(self.stuck[state])

    def allowed_in_rows(
        self, states: NDArray[np.intp], left: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return `allowed` for states and numbers of characters left, (B,), as (B, V)."""
        inside = self._after[states] < left[:, None]
        return np.asarray(inside[:, self.classes])

    def advance_in_rows(
        self, states: NDArray[np.intp], ids: NDArray[np.intp]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the states after characters and their distances, (B,).

        Where a character cannot come, they are -1 and NEVER.
        """
        columns = self._padded.shape[1]
        places = states * columns + self.arrays.classes.take(ids)
        return self._padded.take(places), self._after.take(places)

    def continues(self, id_: int) -> bool:
        """Return whether a text that can end can also continue by a character."""
        ends = np.flatnonzero(self.accepting)
        _, far = self.advance_in_rows(ends, np.full(len(ends), id_))
        return bool((far < NEVER).any())

    @cached_property
    def arrays(self) -> KernelArrays:
        """The arrays of the automaton as a kernel reads them."""
        columns = self._padded.shape[1]
        classes = np.where(self.classes < 0, columns - 1, self.classes).astype(np.int32)
        flags = CAN_END * self.accepting + MUST_END * self.stuck
        return KernelArrays(
            classes,
            np.ascontiguousarray(self._padded),
            np.ascontiguousarray(self._after),
            flags.astype(np.int32),
        )

    def without(self, ids: Sequence[int]) -> Automaton:
        """Return the automaton of the texts that have none of some characters."""
        classes = self.classes.copy()
        classes[list(ids)] = -1
        left = np.unique(classes[classes >= 0])  # the classes that still have characters
        order = np.full(self.table.shape[1] + 1, -1, np.intp)
        order[left] = np.arange(len(left))
        table = self.table[:, left] if len(left) else np.full((len(self.table), 1), -1, np.int32)
        return Automaton(order[classes], table, self.accepting)

    def contains(self, ids: Iterable[int]) -> bool:
        """Return whether the set contains a text."""
        state = 0
        for id_ in ids:
            if id_ < 0 or (state := self.advance(state, id_)) < 0:
                return False
        return self.may_end(state)


def _distances(
    table: NDArray[np.int32], accepting: NDArray[np.bool_], deadline: Deadline
) -> NDArray[np.int32]:
    """Return the smallest number of characters from each state to an end, NEVER without one."""
    sources, columns = np.nonzero(table >= 0)
    targets = table[sources, columns]
    order = np.argsort(targets, kind="stable")
    sources = sources[order]
    begins = np.searchsorted(targets[order], np.arange(len(table) + 1))
    distance = np.full(len(table), NEVER, np.int32)
    waiting = deque(np.flatnonzero(accepting).tolist())
    distance[accepting] = 0
    visited = 0
    while waiting:
        state = waiting.popleft()
        visited += 1
        if visited % 1000 == 0:
            deadline.check()
        before = np.unique(sources[begins[state] : begins[state + 1]])
        new = before[distance[before] == NEVER]
        distance[new] = distance[state] + 1
        waiting.extend(new.tolist())
    return distance


def everything(size: int) -> Automaton:
    """Return the automaton of all texts of V characters."""
    return Automaton(np.zeros(size, np.intp), np.zeros((1, 1), np.int32), np.ones(1, bool))


def containing(text: Sequence[int], size: int, *, contains: bool = True) -> Automaton:
    """Return the automaton of the texts that contain a text, or of all other texts.

    Its states are the number of characters of the text that have just been read (Knuth, Morris,
    Pratt, "Fast pattern matching in strings", 1977).

    Args:
        text: the ids, (N,), N >= 1.
        size: V.
        contains: whether the texts contain it.
    """
    letters = sorted(set(text))
    classes = np.full(size, len(letters), np.intp)
    classes[letters] = np.arange(len(letters))
    table = np.zeros((len(text) + 1, len(letters) + 1), np.int32)
    table[0, classes[text[0]]] = 1
    restart = 0  # the state after the characters read so far, without the first of the text
    for place, id_ in enumerate(text[1:], 1):
        table[place] = table[restart]
        table[place, classes[id_]] = place + 1
        restart = int(table[restart, classes[id_]])
    table[len(text)] = len(text)
    accepting = np.zeros(len(table), bool)
    accepting[len(text)] = True
    return Automaton(classes, table, accepting if contains else ~accepting)


def intersection(parts: Sequence[Automaton]) -> Automaton:
    """Return the automaton of the texts that all automata contain."""
    found, *others = parts
    deadline = Deadline()
    for other in others:
        found = _product(found, other, deadline)
    return found


def _product(one: Automaton, other: Automaton, deadline: Deadline) -> Automaton:
    pairs, classes = np.unique(np.stack([one.classes, other.classes]), axis=1, return_inverse=True)
    classes = classes.reshape(-1).astype(np.intp)
    usable = np.asarray((pairs >= 0).all(axis=0))
    states: dict[tuple[int, int], int] = {(0, 0): 0}
    rows: list[NDArray[np.int32]] = []
    waiting = deque([(0, 0)])
    while waiting:
        deadline.check(len(states))
        a, b = waiting.popleft()
        next_a, next_b = one.table[a][pairs[0]], other.table[b][pairs[1]]
        row = np.full(len(usable), -1, np.int32)
        for column in np.flatnonzero(usable & (next_a >= 0) & (next_b >= 0)).tolist():
            pair = int(next_a[column]), int(next_b[column])
            if pair not in states:
                states[pair] = len(states)
                waiting.append(pair)
            row[column] = states[pair]
        rows.append(row)
    accepting = np.array([one.accepting[a] and other.accepting[b] for a, b in states], bool)
    return Automaton(np.where(usable[classes], classes, -1), np.array(rows), accepting, deadline)


def shortest(automaton: Automaton) -> Iterator[int]:
    """Yield the ids of one of the shortest texts of an automaton that is not empty."""
    state = 0
    while not automaton.may_end(state):
        id_ = int(np.flatnonzero(automaton.allowed(state, int(automaton.distance[state])))[0])
        yield id_
        state = automaton.advance(state, id_)
