"""Restrict the next character inside the inference kernel, for each row.

An automaton, a bias and a training text can each exclude characters. See
`charloom.engines.restrictions` for the entries of a row. V is the number of characters.
"""

from __future__ import annotations

import math

from numba import types

from charloom.engines.compiled.copying import append, exclude_copies
from charloom.engines.restrictions import (
    BIAS,
    CAN_END,
    CLASSES,
    COLUMNS,
    DISTANCES,
    ENDED,
    ENDED_BEFORE,
    ENDS,
    FIELDS,
    FLAGS,
    HEADER,
    INDEXED,
    LEFT,
    LOWEST,
    MUST_END,
    RUNNING,
    SAMPLES_END,
    STATE,
    STEPS,
    STUCK,
    TABLE,
)
from charloom.kernels.arrays import doubles_at, flat_from, integers_at
from charloom.kernels.compiling import subroutine


@subroutine(types.boolean)
def restrict_logits(w, at, count, rules, row):
    """Add a row's bias to its logits, and replace those of excluded characters by −∞.

    Args:
        w: flat array with the row's logits.
        at: where they start.
        count: V.
        rules: the restrictions of all rows.
        row: the row's number.

    Returns:
        False if the row's text has ended, also where every character would copy too much.
    """
    here = flat_from(rules, HEADER + row * FIELDS)
    if here[ENDED] != RUNNING:
        return False
    if here[CLASSES] != 0 or here[BIAS] != 0:
        _constrain(w, at, count, here)
    if here[INDEXED] != 0 and not exclude_copies(w, at, count, here):
        here[ENDED] = STUCK
        return False
    return True


@subroutine()
def _constrain(w, at, count, here):
    """Apply a row's bias and automaton."""
    classes, bias = integers_at(here[CLASSES]), doubles_at(here[BIAS])
    limited, biased = here[CLASSES] != 0, here[BIAS] != 0
    ends, distances = integers_at(here[ENDS]), integers_at(here[DISTANCES])
    left, can_end = here[LEFT], False
    if limited:
        distances = flat_from(distances, here[STATE] * here[COLUMNS])
        flags = integers_at(here[FLAGS])[here[STATE]]
        can_end = here[ENDS] != 0 and flags & CAN_END != 0
    for j in range(count):
        inside = not limited or distances[classes[j]] < left or (can_end and ends[j] != 0)
        if biased:
            w[at + j] = w[at + j] + bias[j]
            inside = inside and bias[j] > -math.inf
        if not inside:
            w[at + j] = -math.inf
        elif w[at + j] < LOWEST:
            w[at + j] = LOWEST


@subroutine()
def take(rules, row, id_):
    """Continue a row's text by a character."""
    here = flat_from(rules, HEADER + row * FIELDS)
    here[STEPS] = here[STEPS] + 1
    here[LEFT] = here[LEFT] - 1
    if here[INDEXED] != 0:
        append(here, id_)
    if here[CLASSES] == 0:
        return
    place = here[STATE] * here[COLUMNS] + integers_at(here[CLASSES])[id_]
    if integers_at(here[DISTANCES])[place] > here[LEFT]:  # then it is an end symbol
        here[ENDED] = ENDED_BEFORE
        return
    state = integers_at(here[TABLE])[place]
    here[STATE] = state
    ends = here[SAMPLES_END] == 0 or here[LEFT] == 0
    if ends and integers_at(here[FLAGS])[state] & MUST_END != 0:
        here[ENDED] = 1
