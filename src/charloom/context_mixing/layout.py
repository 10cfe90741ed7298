"""The arrays of a context mixer, and the sizes of everything in them.

V: characters in the vocabulary; C: contexts; D: the largest depth of a character in the tree.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.context_mixing import groups
from charloom.context_mixing.functions import log, logistic

Floats = NDArray[np.float32]
Words = NDArray[np.uint32]
Longs = NDArray[np.uint64]
Integers = NDArray[np.int32]

# The contexts that a character is predicted from, in the order of the kernel's hashes.
CONTEXTS = (
    "1 character",
    "2 characters",
    "3 characters",
    "4 characters",
    "5 characters",
    "6 characters",
    "8 characters",
    "the word so far",
    "the word so far and the word before",
    "the word so far and two words before",
    "the word so far and the second word before",
    "the second and third character back",
    "the last character and the one above",
    "the word so far, the last character and the column",
    "the word so far and the last short line",
    "the word before and 2 characters",
    "the last character, the word's length and the kind of the second character back",
    "the column and the last character",
    "2 characters, the one above and the next one",
    "1 character and its latest followers",
    "2 characters and their latest followers",
    "2 characters and the latest followers of 3",
)
CONTEXT_COUNT = len(CONTEXTS)
ORDERS = 7  # the first contexts, which are the last characters and nothing else
INDIRECT = 3  # the last ones, which read what the first ones predict

INPUTS = 4  # of each context: see kernel.py
INPUT_COUNT = -(-(INPUTS * CONTEXT_COUNT + 1) // 16) * 16  # with a constant, whole vectors
FREE_INPUT = INPUTS * CONTEXT_COUNT + 1  # behind the constant; compression gives it a value
# Two inputs of chains of contexts, each of which knows more than the one before: the orders, and
# the first order with the contexts of the word. See `decisions.chain_contexts`.
OF_ORDERS, OF_WORDS = FREE_INPUT + 1, FREE_INPUT + 2
WORDS = 3  # contexts of the word, after the orders
CHAIN_PRIOR = 0.5  # the weight of the context before, for each kind of turn seen and one more

# Lists of the characters seen after a context, by capacity.
SHORT, LONG = 7, 63
SINGLE_WAYS, LIST_WAYS = 8, 4  # lists in a bucket
SHORT_WORDS, LONG_WORDS = SHORT + 1, LONG + 1  # with a check
LARGEST_VOCABULARY = 0xFFFF

COUNT_LEVELS, LOGIT_LEVELS = 16, 33
LEVEL_BEGINS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 20, 32, 64, 128, 256, 512)  # classes of counts
RECENT_LEVELS, SIDES = 16, 3
UNKNOWN = 2  # instead of a turn
ROW = 32  # numbers in a row of evidence: the contexts, and padding
GIVEN = INPUTS * ROW  # the place of the free input's value beside the inputs
NOWHERE = 255  # instead of a place in a list
RECENT_SHIFT = 16  # of a recent count, in a number of evidence
DEEPEST = 64  # decisions of a character, at most
PATH_ROWS = 2 * DEEPEST  # of evidence, see `evidence.gather_along`
CLASSES = 256  # of characters and of nodes, by frequency
WORD_LENGTHS, COLUMNS = 8, 64
# Weight sets, by the feature that chooses their row.
SETS = 5
SET_ROWS = ((ORDERS + 1) * 8, CLASSES, CLASSES, CLASSES * WORD_LENGTHS, COLUMNS * 8)
SET_BEGINS = tuple(int(n) for n in np.cumsum((0, *SET_ROWS)))
REFINED_LEVELS, REFINED_ROWS = 33, 1 << 14  # of each of the two last tables (SSE)

LINE = 64  # columns of the line above that are known
# A row's state: the last characters, words, lengths, two lines.
RECENT = 8
(WORD, WORD_BEFORE, WORD_BEFORE_THAT, SHORT_LINE, WORD_LENGTH, COLUMN, ABOVE_LENGTH) = range(
    RECENT, RECENT + 7
)
ABOVE = RECENT + 7
STATE = ABOVE + 2 * LINE

EARLIER, EARLIER_SLOTS = 3, 4  # characters of which the contexts are hashed earlier
BLOCK = 4096  # characters that are predicted before any of them is counted

# Counts are halved above, and recent counts stay below.
MOST, MOST_RECENT = 1023, 31

# Mixers of version 1 have Huffman's tree, and no chains of contexts among their inputs.
VERSION = 2

# How weights learn, and the limits of probabilities.
RATE, EARLY_RATE, EARLY = 0.0005, 0.02, 20_000.0  # of the sets, and its increase in the beginning
FINAL_RATE, REFINED_RATE = 0.0007, 0.02
MOST_SEEN = 1023
LEAST, SMALLEST = 0.0003, 1e-6
NEGLIGIBLE = 0.0002  # nodes reached with less are split as the whole text is

# Of the hash of contexts.
MULTIPLIERS = 0x7FB5D329728EA185, 0x81DADEF4BC2DD44D
HASH_SPREAD = 0x9E3779B97F4A7C15

# The kinds of a character.
OTHER, LETTER, BREAK, END = range(4)


class Tree(NamedTuple):
    """The vocabulary as a binary tree: a character is a path of decisions from the root.

    Nodes are numbered by falling frequency, the root is 0.
    """

    path: NDArray[np.int32]  # (V, D) the nodes of each character
    turns: NDArray[np.int32]  # (V, D) 0 or 1, the turn at each of them
    depth: NDArray[np.int32]  # (V,)
    codes: Longs  # (V,) the turns as bits, the first one in the lowest bit
    children: NDArray[np.int32]  # (V - 1, 2) a node, or -1 - the id of a character
    prior: Floats  # (V - 1,) probability of turn 1 by the counts of the whole text, below 1
    kind: NDArray[np.int32]  # (V,)
    folded: NDArray[np.int32]  # (V,) the id that counts as the same letter in a word
    rank: NDArray[np.int32]  # (V,) 0 for the most frequent character, below CLASSES


class Weights(NamedTuple):
    """The weights, the frequencies of turns and the tables that refine probabilities."""

    counts: Floats  # (C COUNT_LEVELS LOGIT_LEVELS,)
    counts_seen: Integers
    recent: Floats  # (C RECENT_LEVELS² SIDES²,)
    recent_seen: Integers
    sets: Floats  # (SET_BEGINS[-1] INPUT_COUNT,)
    final: Floats  # (CLASSES SETS,)
    refined: Floats  # (2 REFINED_ROWS REFINED_LEVELS,)
    steps: NDArray[np.int64]  # (1,)


class Constants(NamedTuple):
    """Tables of functions, so that every machine computes the same numbers."""

    stretch: Floats  # (4096,) log p / (1 - p)
    squash: Floats  # (4098,) 1 / (1 + e^-x) for x from -12 to 12
    logs: Floats  # (65536,) log(n + PRIOR_COUNT)
    recent_after: NDArray[np.int32]  # (64,) a recent count after another character


class Scratch(NamedTuple):
    """The memory of one call of a kernel. Rows of evidence: see `evidence`."""

    contexts: Longs  # (C,)
    entries: Words  # (TOGETHER, most_entries()) one list after another for each row
    used: NDArray[np.int32]  # (TOGETHER C,) entries of each
    ends: NDArray[np.int64]  # (TOGETHER,) where the lists of a row that are read end
    # Rows of nodes and leaves, and behind these 2 V those of a path.
    seen: NDArray[np.int32]  # (· ROW,) counts, and in the upper half recent counts
    first: NDArray[np.uint8]  # (· ROW,) the place of the latest character, or NOWHERE
    second: NDArray[np.uint8]  # (· ROW,) of the second latest one
    leaves: NDArray[np.int32]  # (V + 1,) characters with evidence
    marks: NDArray[np.uint8]  # (V,) 1 for these
    touched: Longs  # (V / 64 + 1,) bits of nodes with evidence
    nodes: NDArray[np.int32]  # (V + 1,) these nodes
    numbers: NDArray[np.int64]  # (2,) of leaves and nodes
    inputs: Floats  # (4 ROW,) INPUT_COUNT of them are used
    dots: Floats  # (SETS + 2,) the logit of each, the mixture of them, a position between levels
    keys: Longs  # (2,) hashes of the latest characters
    refined: NDArray[np.int64]  # (2 V,) the rows in both refining tables for each node
    reach: Floats  # (V + 1,) the probability of reaching each node
    chances: Floats  # (V + 1,) of turn 1 at nodes that are decided
    # Of a group of nodes:
    group: NDArray[np.int32]  # (GROUP + 1,)
    evidence: Longs  # (GROUP,) bits of the contexts with evidence: `decisions.count_evidence`
    group_inputs: Floats  # (GROUP 4 ROW,) INPUT_COUNT of each node's are used
    group_cells: NDArray[np.int32]  # (GROUP 2 ROW,) the places in both maps for each context
    group_counts: NDArray[np.int32]  # (GROUP 2 ROW,) of either turn at a node
    group_rows: NDArray[np.int64]  # (GROUP SETS,) the row of each set of weights
    logits: Floats  # (GROUP,)
    places: NDArray[np.int32]  # (2 GROUP,) in tables
    values: Floats  # (4 GROUP,) of tables
    shares: Floats  # (2 × 16,) of a context in its chain, and of those before
    ahead: Longs  # (STATE,) a state some characters later
    states: Longs  # (TOGETHER STATE,) of a row, one after another
    hashes: Longs  # (TOGETHER C,) of the contexts of rows, or before the characters until then
    parted: NDArray[np.uint8]  # (most_entries(),) the steps at which characters leave a path


class NotedLists(NamedTuple):
    """The lists of the contexts before each character of a block, and after it, N + 1 in all."""

    entries: Words  # one list after another
    used: NDArray[np.int32]  # (N + 1, C) entries of each
    begins: NDArray[np.int64]  # (N + 1,) the place of the first list before each character


PRIOR_COUNT = 0.3


@functools.cache
def make_constants() -> Constants:
    """Return the constants, which nothing changes."""
    p = (np.arange(4096) + 0.5) / 4096
    x = np.arange(4097) * (24 / 4096) - 12
    recent = [n if n <= 2 else n.bit_length() for n in range(64)]
    return Constants(
        log(p / (1 - p)).astype(np.float32),
        np.append(logistic(x), 1).astype(np.float32),
        log(np.arange(65536) + PRIOR_COUNT).astype(np.float32),
        np.array(recent, np.int32),
    )


def make_weights() -> Weights:
    """Return the weights before any text: each context is believed a little."""
    # Rounded before they are repeated, because there are only a few different numbers.
    logit = (np.arange(LOGIT_LEVELS) - 16) / 2
    counts = np.tile(logistic(logit).astype(np.float32), CONTEXT_COUNT * COUNT_LEVELS)
    a, b = np.meshgrid(np.arange(RECENT_LEVELS), np.arange(RECENT_LEVELS), indexing="ij")
    recent = ((b + 0.4) / (a + b + 0.8)).ravel().astype(np.float32)
    recent = np.tile(np.repeat(recent, SIDES * SIDES), CONTEXT_COUNT)
    row = np.zeros(INPUT_COUNT, np.float32)
    row[: INPUTS * CONTEXT_COUNT] = np.tile([0.15, 0, 0.15, 0.15], CONTEXT_COUNT)
    levels = logistic((np.arange(REFINED_LEVELS) - 16) / 2).astype(np.float32)
    return Weights(
        counts,
        np.zeros(len(counts), np.int32),
        recent,
        np.zeros(len(recent), np.int32),
        np.tile(row, SET_BEGINS[-1]),
        np.full(CLASSES * SETS, 1 / SETS, np.float32),
        np.tile(levels, 2 * REFINED_ROWS),
        np.zeros(1, np.int64),
    )


def with_logits(weights: Weights) -> Weights:
    """Return weights for predictions alone: their maps have the logits of the probabilities."""
    stretch = make_constants().stretch

    def logits_of(p: Floats) -> Floats:
        return stretch[np.minimum((p * np.float32(4096)).astype(np.int32), 4095)]

    return weights._replace(counts=logits_of(weights.counts), recent=logits_of(weights.recent))


def most_entries() -> int:
    """Return the most entries of a row's lists, with as many as are written behind them."""
    return CONTEXT_COUNT * LONG + LONG_WORDS


def make_scratch(size: int) -> Scratch:
    """Return scratch memory for a vocabulary of that size."""
    rows = (2 * size + PATH_ROWS) * ROW
    together, group = groups.TOGETHER, groups.GROUP
    return Scratch(
        np.zeros(CONTEXT_COUNT, np.uint64),
        np.zeros(together * most_entries(), np.uint32),
        np.zeros(together * CONTEXT_COUNT, np.int32),
        np.zeros(together, np.int64),
        np.zeros(rows, np.int32),
        np.full(rows, NOWHERE, np.uint8),
        np.full(rows, NOWHERE, np.uint8),
        np.zeros(size + 1, np.int32),
        np.zeros(size, np.uint8),
        np.zeros(size // 64 + 1, np.uint64),
        np.zeros(size + 1, np.int32),
        np.zeros(2, np.int64),
        np.zeros(GIVEN + 1, np.float32),
        np.zeros(SETS + 2, np.float32),
        np.zeros(2, np.uint64),
        np.zeros(2 * size, np.int64),
        np.zeros(size + 1, np.float32),
        np.zeros(size + 1, np.float32),
        np.zeros(group + 1, np.int32),
        np.zeros(group, np.uint64),
        np.zeros(group * INPUTS * ROW, np.float32),
        np.zeros(group * 2 * ROW, np.int32),
        np.zeros(group * 2 * ROW, np.int32),
        np.zeros(group * SETS, np.int64),
        np.zeros(group, np.float32),
        np.zeros(2 * group, np.int32),
        np.zeros(4 * group, np.float32),
        np.zeros(2 * group, np.float32),
        np.zeros(STATE, np.uint64),
        np.zeros(together * STATE, np.uint64),
        np.zeros(max(together, EARLIER_SLOTS) * CONTEXT_COUNT, np.uint64),
        np.zeros(most_entries(), np.uint8),
    )


def make_noted(characters: int, size: int) -> NotedLists:
    """Return memory for the lists of a block of a text.

    Memory is taken by lists that are written, and not before.

    Args:
        characters: of the block.
        size: of the vocabulary.
    """
    return NotedLists(
        np.empty((characters + 1) * CONTEXT_COUNT * min(size, LONG) + LONG_WORDS, np.uint32),
        np.empty((characters + 1) * CONTEXT_COUNT, np.int32),
        np.empty(characters + 1, np.int64),
    )
