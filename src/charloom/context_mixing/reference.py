"""The definition of a context mixer, in plain Python: readable from top to bottom, and slow.

The kernels must predict the same. They keep contexts in tables of a limited size; here they are
the keys of a dictionary. The two are equal until a kernel's table is full and loses a context.

A prediction takes these steps:

1. Find the contexts of the text before, and the list of characters that followed each (`contexts`).
2. Split every list into evidence about single decisions (`evidence`).
3. Turn the evidence at a decision into inputs (`inputs_of`).
4. Mix the inputs, then the mixtures, then refine the result (`decide`).
5. Multiply the decisions along the path to each character (`distribution`).

All numbers have 32 bits, as the kernels' have. Sums are in another order, so that a number can be
rounded differently, and then find the next entry of a table.

Symbols: V characters in the vocabulary, C contexts, N characters of a text, T of a row, B rows.

Sources: Cleary & Witten, "Data compression using adaptive coding and partial string matching"
(1984), for the characters after contexts of many lengths. Mahoney, "Adaptive weighing of context
models for lossless data compression" (2005), and "Data Compression Explained" (2013), for the
mixture and its refinement. docs/math.md derives the equations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.context_mixing.hashes import joined
from charloom.context_mixing.layout import (
    BLOCK,
    BREAK,
    CHAIN_PRIOR,
    CLASSES,
    COLUMNS,
    CONTEXT_COUNT,
    COUNT_LEVELS,
    EARLY,
    EARLY_RATE,
    END,
    FINAL_RATE,
    INDIRECT,
    INPUT_COUNT,
    INPUTS,
    LEAST,
    LETTER,
    LEVEL_BEGINS,
    LINE,
    LOGIT_LEVELS,
    LONG,
    MOST,
    MOST_RECENT,
    MOST_SEEN,
    NEGLIGIBLE,
    OF_ORDERS,
    OF_WORDS,
    ORDERS,
    OTHER,
    PRIOR_COUNT,
    RATE,
    RECENT,
    RECENT_LEVELS,
    REFINED_LEVELS,
    REFINED_RATE,
    REFINED_ROWS,
    SET_BEGINS,
    SETS,
    SIDES,
    SMALLEST,
    UNKNOWN,
    VERSION,
    WORD_LENGTHS,
    WORDS,
    Constants,
    Floats,
    Integers,
    Tree,
    Weights,
    make_constants,
    make_weights,
)
from charloom.context_mixing.trees import make_tree
from charloom.ngrams.table import NGramPredictions
from charloom.text.vocabulary import Vocabulary

Ids = NDArray[np.integer[Any]]
Word = tuple[int, ...]  # the ids of its letters
Context = tuple[object, ...]  # its number and its values

number = np.float32  # every constant too, so that a product has 32 bits in all versions of NumPy
ZERO, HALF, ONE, TWO = number(0), number(0.5), number(1), number(2)
SHORTEST_LONG_LINE, LAST_PLACE = 25, 100


class Follower(NamedTuple):
    """A character that has followed a context."""

    character: int
    times: int
    recent: int  # falls whenever another character follows


@dataclass(frozen=True)
class Reading:
    """The text before a character, as far as contexts know it."""

    latest: tuple[int, ...] = ()  # ids, the latest first
    word: Word = ()  # the letters since the last other character
    word_before: Word = ()
    word_before_that: Word = ()
    short_line: Word = ()  # the last word of the latest short line, as of a speaker's name
    column: int = 0
    line: tuple[int, ...] = ()  # the first ids of this line
    above: tuple[int, ...] = ()  # and of the line before

    def back(self, n: int) -> int | None:
        """Return the n-th id back, 1 for the last one; None before the beginning."""
        return self.latest[n - 1] if n <= len(self.latest) else None

    def over(self, column: int) -> int | None:
        """Return the id in a column of the line above."""
        return self.above[column] if column < len(self.above) else None

    def after(self, character: int, tree: Tree) -> Reading:
        """Return the reading after one more character. After END nothing is known."""
        kind = tree.kind[character]
        if kind == END:
            return Reading()
        now = replace(self, latest=(character, *self.latest)[:RECENT])
        if kind == LETTER:
            now = replace(now, word=(*self.word, int(tree.folded[character])))
        elif self.word:
            now = replace(now, word=(), word_before=self.word, word_before_that=self.word_before)
        if kind != BREAK:
            line = (*self.line, character)[:LINE]
            return replace(now, line=line, column=self.column + 1)
        is_short = 0 < self.column < SHORTEST_LONG_LINE
        if is_short and self.latest and tree.kind[self.latest[0]] != LETTER:
            now = replace(now, short_line=now.word_before)
        return replace(now, above=self.line, line=(), column=0)


def direct_contexts(reading: Reading, tree: Tree) -> list[Context]:
    """Return all contexts but the last ones, in the order of `layout.CONTEXTS`."""
    c1, c2, c3 = (reading.back(n) for n in (1, 2, 3))
    word, before, before_that = reading.word, reading.word_before, reading.word_before_that
    place = min(reading.column, LAST_PLACE)
    over, next_over = reading.over(reading.column), reading.over(reading.column + 1)
    kind = OTHER if c2 is None else int(tree.kind[c2])
    known: list[Context] = [
        *(reading.latest[:n] for n in (1, 2, 3, 4, 5, 6, 8)),
        (word,),
        (word, before),
        (word, before, before_that),
        (word, before_that),
        (c2, c3),
        (c1, over),
        (word, c1, place),
        (word, reading.short_line),
        (before, c1, c2),
        (c1, len(word), kind),
        (c1, place),
        (c1, c2, over, next_over),
    ]
    return [(c, *values) for c, values in enumerate(known)]


def faded(recent: int) -> int:
    """Return a recent count after another character followed: about its logarithm."""
    return recent if recent <= 2 else recent.bit_length()


def with_one_more(followers: list[Follower], character: int) -> list[Follower]:
    """Return a list after one more character followed: it comes first, the others fade.

    A full list loses the rarest character, except the latest one.
    """
    seen = Follower(character, 0, 0)
    others = []
    for follower in followers:
        if follower.character == character:
            seen = follower
        else:
            others.append(follower._replace(recent=faded(follower.recent)))
    if len(others) == LONG:
        others.remove(min(others[1:], key=lambda other: other.times))
    count, recent = seen.times + 1, min(seen.recent + 1, MOST_RECENT)
    if count > MOST and not others:
        count = MOST
    elif count > MOST:
        count = (count + 1) // 2
        others = [other._replace(times=(other.times + 1) // 2) for other in others]
    return [Follower(character, count, recent), *others]


@dataclass
class Evidence:
    """One context's evidence about a decision, for the turns 0 and 1."""

    counts: list[int] = field(default_factory=lambda: [0, 0])
    recent: list[int] = field(default_factory=lambda: [0, 0])
    latest: list[int] = field(default_factory=list)  # the turns of the characters, latest first


AllEvidence = dict[int, dict[int, Evidence]]  # of nodes, of contexts


@dataclass
class Decision:
    """The computation of one decision, as far as learning needs it."""

    node: int
    inputs: Floats  # (INPUT_COUNT,)
    cells: list[tuple[int, int]]  # of each context with evidence, in the maps of counts and recent
    rows: list[int]  # (SETS,) the row of each set of weights
    logits: list[np.float32]  # (SETS,) of each set of weights
    mixture: np.float32  # the logit of all sets together
    refined: list[int]  # the places in both refining tables, rounded down
    part: np.float32  # of the way to the next place
    p: np.float32  # the probability of turn 1


def level(count: int) -> int:
    """Return the class of a count, below COUNT_LEVELS."""
    return sum(count >= begin for begin in LEVEL_BEGINS)


def limited(x: np.float32, least: float, most: float) -> np.float32:
    return min(max(x, number(least)), number(most))


class ReferenceMixer:
    """Lists of the characters after contexts, and the weights that mix their predictions.

    Attributes:
        frozen: the weights for predictions without learning.
        adaptive: the weights for predictions of a text that is counted at once.
        reading: the state after the text so far.
        blocks: the number of blocks so far.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        counts: Ids,
        block: int = BLOCK,
        text: Ids | None = None,
        version: int = VERSION,
    ) -> None:
        """Make an empty mixer.

        Args:
            vocabulary: the characters.
            counts: how often each occurs in the text, (V,).
            block: characters that are predicted before any of them is counted.
            text: the ids of the text, (N,), which decides about the tree: see `make_tree`.
            version: see `layout.VERSION`.
        """
        decides = text if version > 1 else None
        self.tree = make_tree(counts, vocabulary.characters, vocabulary.end_id, decides)
        self.version = version
        self.block = block
        self.lists: dict[Context, list[Follower]] = {}
        self.frozen, self.adaptive = make_weights(), make_weights()
        self.reading = Reading()
        self.blocks = 0
        self._vocabulary_size = len(vocabulary)
        self._constants: Constants = make_constants()

    # What a text teaches.

    def learn(self, ids: Ids) -> tuple[Floats, Floats]:
        """Learn a text, the continuation of the text so far, in blocks.

        The lists do not change while a block changes the frozen weights, because these weights
        predict text that is not counted.

        Returns:
            The probability of each character before it changed any weight, (N,), by the frozen and
            by the adaptive weights.
        """
        frozen, adaptive = (np.empty(len(ids), np.float32) for _ in range(2))
        for begin in range(0, len(ids), self.block):
            block = [int(i) for i in ids[begin : begin + self.block]]
            reading = self.reading
            for i, character in enumerate(block, begin):
                found = self.contexts(reading)
                frozen[i] = self._learn_weights(character, found, reading, self.frozen)
                reading = reading.after(character, self.tree)
            for i, character in enumerate(block, begin):
                adaptive[i] = self._learn_character(character)
            self.blocks += 1
        return frozen, adaptive

    def follow(self, ids: Ids) -> Iterator[Floats]:
        """Yield the probabilities of each character, (V,), and then learn it."""
        for character in ids:
            found = self.contexts(self.reading)
            yield self.distribution(found, self.reading, self.adaptive)
            self._learn_character(int(character))

    def predict(self, ids: Ids, readings: list[Reading]) -> tuple[NGramPredictions, list[Reading]]:
        """Return the predictions after each of the ids (T, B), and the rows' readings after them.

        Nothing is counted, no weight changes. The predictions are (T · B, V) in the order (t, b).
        """
        p = np.empty((*ids.shape, self._vocabulary_size), np.float32)
        length, weight = np.zeros(ids.shape, np.int32), np.ones(ids.shape, np.float32)
        readings = list(readings)
        for t, b in np.ndindex(*ids.shape):
            readings[b] = readings[b].after(int(ids[t, b]), self.tree)
            found = self.contexts(readings[b])
            p[t, b] = self.distribution(found, readings[b], self.frozen)
            for order, context in enumerate(found[:ORDERS]):
                if context in self.lists:
                    length[t, b] = order + 1
                    count = sum(follower.times for follower in self.lists[context])
                    weight[t, b] = ONE / number(count + 1)
        flat = p.reshape(-1, self._vocabulary_size), length.ravel(), weight.ravel()
        return NGramPredictions(*flat), readings

    def _learn_character(self, character: int) -> np.float32:
        """Change adaptive weights by a character, and count it after its contexts."""
        found = self.contexts(self.reading)
        p = self._learn_weights(character, found, self.reading, self.adaptive)
        for context in found:
            self.lists[context] = with_one_more(self.lists.get(context, []), character)
        self.reading = self.reading.after(character, self.tree)
        return p

    # 1. Contexts.

    def contexts(self, reading: Reading) -> list[Context]:
        """Return all contexts of a reading. The last ones contain followers of the first ones."""
        found = direct_contexts(reading, self.tree)
        for i in range(INDIRECT):
            before = [follower.character for follower in self.lists.get(found[i], [])[:2]]
            found.append((len(found), reading.latest[: 1 if i == 0 else 2], tuple(before)))
        return found

    # 2. Evidence.

    def evidence(self, found: list[Context]) -> AllEvidence:
        """Return the evidence at the nodes of the tree.

        A character that has followed a context is evidence for its turn at every node of its path.
        """
        tree, result = self.tree, AllEvidence()
        for c, context in enumerate(found):
            for character, count, recent in self.lists.get(context, []):
                depth = tree.depth[character]
                path = zip(
                    tree.path[character, :depth].tolist(),
                    tree.turns[character, :depth].tolist(),
                    strict=True,
                )
                for node, turn in path:
                    one = result.setdefault(node, {}).setdefault(c, Evidence())
                    one.counts[turn] += count
                    one.recent[turn] += recent
                    one.latest.append(turn)
        return result

    # 3. Inputs.

    def inputs_of(
        self, node: int, evidence: dict[int, Evidence], weights: Weights
    ) -> tuple[Floats, list[tuple[int, int]]]:
        """Return the inputs at a node, (INPUT_COUNT,), and the cells in the maps of meanings.

        A context without evidence has inputs of 0, so that nothing follows from it.
        """
        x = np.zeros(INPUT_COUNT, np.float32)
        cells = []
        for c, one in evidence.items():
            n0, n1 = one.counts
            logit = self._constants.logs[n1] - self._constants.logs[n0]
            certainty = ZERO
            if n0 + n1 > 2:
                p = (number(n1) + number(PRIOR_COUNT)) / (number(n0 + n1) + number(2 * PRIOR_COUNT))
                certainty = (p - HALF) * number(3)
            step = min(max(int(logit * TWO + number(16.5)), 0), LOGIT_LEVELS - 1)
            first = (c * COUNT_LEVELS + level(n0 + n1)) * LOGIT_LEVELS + step

            r0, r1 = one.recent
            while max(r0, r1) >= RECENT_LEVELS:  # keeps their ratio, and a 1
                r0, r1 = (r0 + 1) // 2, (r1 + 1) // 2
            latest, second = (*one.latest, UNKNOWN, UNKNOWN)[:2]
            second_cell = ((c * RECENT_LEVELS + r0) * RECENT_LEVELS + r1) * SIDES + latest
            second_cell = second_cell * SIDES + second

            x[c * INPUTS : (c + 1) * INPUTS] = (
                logit,
                certainty,
                self.stretched(weights.counts[first]),
                self.stretched(weights.recent[second_cell]),
            )
            cells.append((first, second_cell))
        x[CONTEXT_COUNT * INPUTS] = number(0.3)
        if self.version > 1:
            orders, words = range(ORDERS), range(ORDERS, ORDERS + WORDS)
            x[OF_ORDERS] = self.stretched(self.chained(node, evidence, orders))
            x[OF_WORDS] = self.stretched(self.chained(node, evidence, (0, *words)))
        return x, cells

    def chained(
        self, node: int, evidence: dict[int, Evidence], contexts: Iterable[int]
    ) -> np.float32:
        """Return the probability of turn 1 that is handed on from each context to the next.

        A context adds its own turns. The probability of the one before has the weight of half a
        turn. Each kind of turn that the context has seen adds half a turn to this weight.
        """
        p: np.float32 = self.tree.prior[node]
        for c in contexts:
            n0, n1 = evidence[c].counts if c in evidence else (0, 0)
            weight = number(CHAIN_PRIOR) * number(1 + (n0 > 0) + (n1 > 0))
            whole = number(n0 + n1) + weight
            p = number(n1) / whole + weight / whole * p
        return p

    def stretched(self, p: np.float32) -> np.float32:
        """Return log p / (1 - p), from a table."""
        found: np.float32 = self._constants.stretch[min(int(p * number(4096)), 4095)]
        return found

    def squashed(self, x: np.float32) -> np.float32:
        """Return 1 / (1 + e^-x), from a table, between its entries linear."""
        table = self._constants.squash
        place = (x + number(12)) * number(4096 / 24)
        if place < 0 or place >= 4096:
            return number(table[0] if place < 0 else table[4096])
        i = int(place)
        return number(table[i] + (table[i + 1] - table[i]) * (place - number(i)))

    # 4. A decision.

    def rows_of(self, node: int, evidence: dict[int, Evidence], reading: Reading) -> list[int]:
        """Return the row of each set of weights: what it is that each of them knows."""
        orders = [evidence[c] for c in range(ORDERS) if c in evidence]
        certain = sum(0 in one.counts for one in orders)
        c1 = reading.back(1)
        last = CLASSES - 1 if c1 is None else int(self.tree.rank[c1])
        kind = min(node, CLASSES - 1)
        length = min(len(reading.word), WORD_LENGTHS - 1)
        column = min(reading.column, COLUMNS - 1)
        places = (
            len(orders) * 8 + certain, kind, last, kind * WORD_LENGTHS + length,
            column * 8 + len(orders),
        )  # fmt: skip
        return [begin + place for begin, place in zip(SET_BEGINS, places, strict=False)]

    def decide(
        self, node: int, evidence: dict[int, Evidence], reading: Reading, weights: Weights
    ) -> Decision:
        """Return the decision at a node with evidence."""
        x, cells = self.inputs_of(node, evidence, weights)
        rows = self.rows_of(node, evidence, reading)
        sets = weights.sets.reshape(-1, INPUT_COUNT)
        logits = [number(sets[row] @ x) for row in rows]
        final = weights.final.reshape(CLASSES, SETS)[min(node, CLASSES - 1)]
        mixture = ZERO
        for weight, logit in zip(final, logits, strict=True):
            mixture = mixture + weight * logit

        place = (limited(mixture, -7.99, 7.99) + number(8)) * TWO
        low = int(place)
        part = place - number(low)
        c1, c2 = (*(character + 1 for character in reading.latest[:2]), 0, 0)[:2]
        row = joined(c1, node, 200) % REFINED_ROWS
        second = joined(joined(c1, c2, 201), node, 201) % REFINED_ROWS + REFINED_ROWS
        refined = [row * REFINED_LEVELS + low, second * REFINED_LEVELS + low]
        a, b = (
            self.stretched(weights.refined[i] * (ONE - part) + weights.refined[i + 1] * part)
            for i in refined
        )
        p = self.squashed((mixture * TWO + a + b) / number(4))
        p = limited(p, SMALLEST, 1 - SMALLEST)
        return Decision(node, x, cells, rows, logits, mixture, refined, part, p)

    def learn_decision(
        self, turn: int, decision: Decision, weights: Weights, rate: np.float32
    ) -> None:
        """Change weights after the turn that was taken: down the gradient of -log p."""
        bit = number(turn)
        sets = weights.sets.reshape(-1, INPUT_COUNT)
        final = weights.final.reshape(CLASSES, SETS)[min(decision.node, CLASSES - 1)]
        error = (bit - self.squashed(decision.mixture)) * number(FINAL_RATE)
        for k, (row, logit) in enumerate(zip(decision.rows, decision.logits, strict=True)):
            sets[row] += (bit - self.squashed(logit)) * rate * decision.inputs
            final[k] += error * logit

        nearer = 0 if decision.part < HALF else 1
        for place in decision.refined:
            p = weights.refined[place + nearer]
            p = p + (bit - p) * number(REFINED_RATE)
            weights.refined[place + nearer] = limited(p, LEAST, 1 - LEAST)

        for first, second in decision.cells:
            move_towards(weights.counts, weights.counts_seen, first, bit)
            move_towards(weights.recent, weights.recent_seen, second, bit)

    # 5. Characters.

    def distribution(self, found: list[Context], reading: Reading, weights: Weights) -> Floats:
        """Return the probabilities of all characters, (V,)."""
        evidence, tree = self.evidence(found), self.tree
        p = np.ones(self._vocabulary_size, np.float32)
        waiting = [(0, ONE)] if self._vocabulary_size > 1 else []
        while waiting:
            node, reach = waiting.pop()
            one = self._turn_1(node, reach, evidence, reading, weights)[0]
            for turn, share in enumerate((reach * (ONE - one), reach * one)):
                child = int(tree.children[node, turn])
                if child < 0:
                    p[-1 - child] = share
                else:
                    waiting.append((child, share))
        return p

    def _turn_1(
        self,
        node: int,
        reach: np.float32,
        evidence: AllEvidence,
        reading: Reading,
        weights: Weights,
    ) -> tuple[np.float32, Decision | None]:
        """Return the probability of turn 1 at a node that is reached with probability `reach`.

        Where the node is hardly reached, or nothing is known, it is that of the whole text.
        """
        if reach < number(NEGLIGIBLE) or node not in evidence:
            return number(self.tree.prior[node]), None
        decision = self.decide(node, evidence[node], reading, weights)
        return decision.p, decision

    def _learn_weights(
        self, character: int, found: list[Context], reading: Reading, weights: Weights
    ) -> np.float32:
        """Return the probability of a character, and change weights by its decisions."""
        evidence, tree = self.evidence(found), self.tree
        rate = number(RATE + EARLY_RATE / (1 + weights.steps[0] / EARLY))
        weights.steps[0] += 1
        reach = ONE
        for j in range(tree.depth[character]):
            node, turn = int(tree.path[character, j]), int(tree.turns[character, j])
            p, decision = self._turn_1(node, reach, evidence, reading, weights)
            if decision is not None:
                self.learn_decision(turn, decision, weights, rate)
            reach = reach * (p if turn == 1 else ONE - p)
        return reach


def move_towards(values: Floats, seen: Integers, cell: int, bit: np.float32) -> None:
    """Move a learned probability towards a decision, less the more decisions it has seen."""
    seen[cell] = min(seen[cell] + 1, MOST_SEEN)
    p = values[cell] + (bit - values[cell]) / number(seen[cell] + 8)
    values[cell] = limited(p, LEAST, 1 - LEAST)
