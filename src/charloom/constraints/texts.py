"""Texts while they are sampled under constraints.

V: characters in the vocabulary; B: texts that are sampled side by side; T: characters of a call.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.automaton import Automaton
from charloom.constraints.protocol import UNLIMITED, Constraints
from charloom.engines.decoding import SamplingSettings, choose, probabilities
from charloom.engines.restrictions import (
    BIAS,
    CLASSES,
    COLUMNS,
    DISTANCES,
    ENDED,
    ENDED_BEFORE,
    ENDS,
    FLAGS,
    LEFT,
    LOWEST,
    RUNNING,
    SAMPLES_END,
    STATE,
    STEPS,
    TABLE,
    Restrictions,
    empty_restrictions,
)

Generate = Callable[[Restrictions], tuple[NDArray[np.intp], Any]]


class ConstrainedText:
    """One sample under constraints.

    Attributes:
        constraints: those of its request.
        over: whether the text has ended.
        ends_before_last: whether the last symbol ended the text and is not part of it.
        state: the state of the constraint.
        left: the number of characters left.
        samples_end: whether it samples the end of its document where nothing can follow.
    """

    def __init__(self, constraints: Constraints, length: int | None, end_id: int | None) -> None:
        self.over = False
        self.ends_before_last = False
        self.constraints = constraints
        self.samples_end = end_id is not None and end_id in constraints.end_ids
        self.left = UNLIMITED if length is None else length
        constraint = constraints.constraint
        self.state = None if constraint is None else constraint.start()
        self._end_with_pattern()

    def copy(self) -> ConstrainedText:
        """Return a copy, which continues by itself."""
        return copy.copy(self)  # states are never changed

    @property
    def may_end(self) -> bool:
        """Return whether the text can end here."""
        constraint = self.constraints.constraint
        return constraint is None or constraint.may_end(self.state)

    def write_mask(self, mask: NDArray[np.bool_]) -> None:
        """Write the symbols that can come next into a mask of all, (V,)."""
        rules, constraint = self.constraints, self.constraints.constraint
        if constraint is None:
            return
        mask[:] = constraint.allowed(self.state, self.left)
        if rules.end_ids and constraint.may_end(self.state):
            mask[list(rules.end_ids)] = True

    def take(self, id_: int) -> bool:
        """Continue the text by a symbol. Return False if it could not end in time with it."""
        rules = self.constraints
        constraint = rules.constraint
        if constraint is None:
            self.left -= 1
            return True
        if id_ in rules.end_ids and not constraint.allowed(self.state, self.left)[id_]:
            self.over = self.ends_before_last = True
            return True
        state = constraint.advance(self.state, id_, self.left - 1)
        if state is None:
            return False
        self.state = state
        self.left -= 1
        self._end_with_pattern()
        return True

    def _end_with_pattern(self) -> None:
        """End the text if nothing can follow. A document then samples its end, if it has room."""
        constraint = self.constraints.constraint
        if constraint is not None and (not self.samples_end or not self.left):
            self.over = constraint.must_end(self.state)


Texts = Sequence[ConstrainedText | None]


def restrict(texts: Texts, logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return logits, (B, V), with the bias and without the characters that cannot come."""
    restricted = logits.astype(np.float64)
    for rules, rows in _alike(texts).values():
        some = [text for row in rows if (text := texts[row]) is not None]
        inside = _allowed(rules, some, (len(rows), logits.shape[1]))
        restricted[rows] = restrict_rows(restricted[rows], inside, rules.bias, logits.dtype)
    return restricted


def restrict_rows(
    values: NDArray[np.float64],
    inside: NDArray[np.bool_],
    bias: NDArray[np.float64] | None,
    dtype: np.dtype[Any],
) -> NDArray[np.float64]:
    """Return logits, (B, V), with a bias and without the characters outside a mask, (B, V).

    Their dtype is that of the model. The sum is rounded to it as in the kernel, so that both choose
    the same.
    """
    if bias is not None:
        values = (values + bias).astype(dtype).astype(np.float64)
        inside = inside & (bias > -np.inf)
    return np.where(inside, np.maximum(values, LOWEST), -np.inf)


def _alike(texts: Texts) -> dict[int, tuple[Constraints, list[int]]]:
    """Return the rows of the texts of each request."""
    found: dict[int, tuple[Constraints, list[int]]] = {}
    for row, text in enumerate(texts):
        if text is not None:
            rules = text.constraints
            found.setdefault(id(rules), (rules, []))[1].append(row)
    return found


def _allowed(
    rules: Constraints, texts: Sequence[ConstrainedText], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Return the symbols that can come next in texts of a request, (B, V)."""
    constraint = rules.constraint
    if isinstance(constraint, Automaton):
        states = np.array([text.state for text in texts], np.intp)
        left = np.array([text.left for text in texts], np.int64)
        inside = constraint.allowed_in_rows(states, left)
        if rules.end_ids:
            can_end = constraint.accepting[states]
            for id_ in rules.end_ids:
                inside[:, id_] |= can_end
        return inside
    masks = np.ones(shape, bool)
    for text, mask in zip(texts, masks, strict=True):
        text.write_mask(mask)
    return masks


def choose_next(
    texts: Texts,
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
    for rules, rows in _alike(texts).values():
        if isinstance(rules.constraint, Automaton):
            some = [text for row in rows if (text := texts[row]) is not None]
            _take_all(rules.constraint, some, ids[rows])
            continue
        for row in rows:
            text = texts[row]
            assert text is not None
            uniform = float(uniforms[row])
            while not text.take(int(ids[row])):
                # The number, which fell in the interval of this character, is uniform inside it.
                p = probabilities(restricted[row], settings)
                before = float(p[: ids[row]].sum())
                uniform = min(max((uniform - before) / float(p[ids[row]]), 0.0), 1 - 2**-53)
                restricted[row, ids[row]] = -np.inf
                ids[row] = choose(restricted[row][None], settings, np.array([uniform]))[0]
    return ids


def _take_all(
    automaton: Automaton, texts: Sequence[ConstrainedText], ids: NDArray[np.intp]
) -> None:
    """Continue texts of one request by symbols that can come, (B,)."""
    states = np.array([text.state for text in texts], np.intp)
    after, far = automaton.advance_in_rows(states, ids)
    distance = far.tolist()
    stuck = automaton.stuck[after].tolist()
    for text, state, far, must_end in zip(texts, after.tolist(), distance, stuck, strict=True):
        text.left -= 1
        if far > text.left:  # then it is an end symbol
            text.over = text.ends_before_last = True
            continue
        text.state = state
        if must_end and (not text.samples_end or not text.left):
            text.over = True


def are_regular(texts: Texts) -> bool:
    """Return whether a kernel can restrict the texts, since all constraints are automata."""
    return all(text is None or text.constraints.is_regular for text in texts)


def generate_restricted(
    texts: Texts, generate: Generate
) -> tuple[NDArray[np.intp], NDArray[np.intp], Any]:
    """Sample characters of texts whose constraints are regular in one call of a kernel.

    Args:
        texts: the texts, None for rows without constraints. They continue by the characters.
        generate: samples characters under restrictions.

    Returns:
        The ids, (T, B), the number of each row that belong to it, (B,), as its text can have ended,
        and the state of the predictor.
    """
    restrictions, rows = empty_restrictions(len(texts))
    for row, text in zip(rows, texts, strict=True):
        if text is not None:
            _write_rules(row, text)
    ids, state = generate(restrictions)
    counts = np.full(len(texts), len(ids), np.intp)
    for place, (row, text) in enumerate(zip(rows.tolist(), texts, strict=True)):
        if text is None:
            continue
        text.left = row[LEFT]
        if text.constraints.constraint is not None:
            text.state = row[STATE]
        if row[ENDED] != RUNNING:
            counts[place] = row[STEPS]
            text.over, text.ends_before_last = True, row[ENDED] == ENDED_BEFORE
    return ids, counts, state


def _write_rules(row: NDArray[np.int64], text: ConstrainedText) -> None:
    """Write the entries of a text for the kernel."""
    rules = text.constraints
    if "row" not in rules.kept:
        rules.kept["row"] = _entries(rules, len(row))
    row[:] = rules.kept["row"]
    row[LEFT] = text.left
    if text.state is not None:
        row[STATE], row[SAMPLES_END] = text.state, text.samples_end


def _entries(rules: Constraints, fields: int) -> NDArray[np.int64]:
    """Return the entries that the texts of a request share, (FIELDS,)."""
    row = np.zeros(fields, np.int64)
    if rules.bias is not None:
        row[BIAS] = rules.bias.ctypes.data
    if isinstance(rules.constraint, Automaton):
        arrays = rules.constraint.arrays
        row[CLASSES] = arrays.classes.ctypes.data
        row[TABLE], row[DISTANCES] = arrays.table.ctypes.data, arrays.distances.ctypes.data
        row[FLAGS], row[COLUMNS] = arrays.flags.ctypes.data, arrays.table.shape[1]
        if rules.end_ids:
            ends = np.zeros(len(arrays.classes), np.int32)
            ends[list(rules.end_ids)] = 1
            rules.kept["ends"] = ends  # whose address the kernel reads
            row[ENDS] = ends.ctypes.data
    return row
