"""A binary range coder as subroutines of kernels, in integers alone.

The coder holds an interval of 64-bit numbers. Each decision splits it by the probability of turn 1,
in 4,194,304ths, and one part remains. Bytes that both ends share are written. A reader holds the
number that the written bytes spell, which shows the part. Bytes after the end count as zero.

Source: Mahoney, "Data Compression Explained" (2013), with a wider interval.
"""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.compression.layout import (
    END,
    HIGH,
    LOW,
    PLACE,
    VALUE,
    WRITES,
)
from charloom.kernels.compiling import subroutine

PROBABILITY_BITS = np.uint64(22)
REST = np.uint64((1 << 22) - 1)
SCALE = np.float32(1 << 22)
MOST = (1 << 22) - 1
TOP, BYTE, ONE = np.uint64(56), np.uint64(8), np.uint64(1)
LOWEST_BYTE = np.uint64(255)


@subroutine(types.int64)
def code_turn(p, turn, coder, data):
    """Write a decision, or read one, and return it.

    Args:
        p: the probability of turn 1, float32.
        turn: the decision to be written; without effect where one is read.
        coder: see `layout`, changed.
        data: the bytes.
    """
    low, high = coder[LOW], coder[HIGH]
    share = np.uint64(min(max(int(p * SCALE), 1), MOST))
    span = high - low
    middle = (
        low + (span >> PROBABILITY_BITS) * share + (((span & REST) * share) >> PROBABILITY_BITS)
    )
    writes = coder[WRITES] != np.uint64(0)
    taken = turn
    if not writes:
        taken = 1 if coder[VALUE] <= middle else 0
    if taken == 1:
        high = middle
    else:
        low = middle + ONE
    while (low ^ high) >> TOP == np.uint64(0):
        place = int(coder[PLACE])
        if writes:
            data[place] = np.uint8(high >> TOP)
        else:
            following = np.uint64(0)
            if coder[PLACE] < coder[END]:
                following = np.uint64(data[place])
            coder[VALUE] = (coder[VALUE] << BYTE) | following
        coder[PLACE] += ONE
        low <<= BYTE
        high = (high << BYTE) | LOWEST_BYTE
    coder[LOW], coder[HIGH] = low, high
    return taken


@subroutine(types.int64)
def code_guessed(turn, guesses, place, coder, data):
    """Write or read a decision with a probability that adapts, in 65,536ths."""
    taken = code_turn(np.float32(guesses[place]) / np.float32(65536), turn, coder, data)
    if taken == 1:
        guesses[place] += (65535 - guesses[place]) >> 4
    else:
        guesses[place] -= guesses[place] >> 4
    return taken


@subroutine(types.int64)
def code_number(value, guesses, begin, coder, data):
    """Write or read a whole number from 1 on: its length in bits, then the bits below the first.

    Args:
        value: the number to be written.
        guesses: learned probabilities, GUESSES_OF_NUMBER of them from `begin` on.
        begin: where they begin.
        coder: see `layout`, changed.
        data: the bytes.
    """
    length = 0
    while length < 31:
        goes_on = 1 if (value >> (length + 1)) > 0 else 0
        if code_guessed(goes_on, guesses, begin + length, coder, data) == 0:
            break
        length += 1
    found = 1
    for i in range(length - 1, -1, -1):
        bit = (value >> i) & 1
        if i == length - 1:
            taken = code_guessed(bit, guesses, begin + 32 + length, coder, data)
        else:
            taken = code_turn(np.float32(0.5), bit, coder, data)
        found = found * 2 + taken
    return found
