"""Restrict the next character inside the inference kernel, by an automaton for each row.

See `charloom.engines.restrictions` for the entries of a row. V is the number of characters.
"""

from __future__ import annotations

import math

from numba import types

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
    LEFT,
    LOWEST,
    MUST_END,
    RUNNING,
    SAMPLES_END,
    STATE,
    STEPS,
    TABLE,
)
from charloom.kernels.arrays import doubles_at, flat_from, integers_at
from charloom.kernels.compiling import subroutine


@subroutine()
def restrict_logits(w, at, count, rules, row):
    """Add a row's bias to its logits, and replace those of excluded characters by −∞.

    Args:
        w: flat array with the row's logits.
        at: where they start.
        count: V.
        rules: the restrictions of all rows.
        row: the row's number.
    """
    here = flat_from(rules, HEADER + row * FIELDS)
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


@subroutine(types.boolean)
def has_ended(rules, row):
    """Return whether a row's text has ended."""
    return rules[HEADER + row * FIELDS + ENDED] != RUNNING


@subroutine()
def take(rules, row, id_):
    """Continue a row's text by a character."""
    here = flat_from(rules, HEADER + row * FIELDS)
    here[STEPS] = here[STEPS] + 1
    here[LEFT] = here[LEFT] - 1
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
