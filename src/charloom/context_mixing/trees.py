"""The tree of a vocabulary: which characters a mixer divides from which others, and in what order.

A Huffman tree has the fewest decisions, but its nodes divide characters that have nothing in common
except how often they occur. If a node divides vowels from consonants, or letters from punctuation,
each of its decisions is evidence for all of them. Branches of the Huffman tree are therefore moved
as long as a sample of the text becomes more probable: see `_Arrangement`.

M: leaves of the part of the tree that is rearranged, K: contexts, N: characters of a text, V: those
of the vocabulary.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.context_mixing.functions import log
from charloom.context_mixing.layout import (
    BREAK,
    CLASSES,
    DEEPEST,
    END,
    LETTER,
    OTHER,
    SMALLEST,
    Floats,
    Tree,
)

SAMPLE = 300_000  # characters of the text that decide
MOST_CONTEXTS, MOST_LEAVES = 1024, 112  # K and M, at most
PRIOR = 0.1  # alpha of `_Arrangement`
LEAST_GAIN = 1e-6  # nats per character, for which a branch is moved
LEAST_PART = 0.1  # of the cost, that all moves together save: chance alone reaches 0.03
MOST_ROUNDS = 3  # through all branches
UNITS = 1 << 18  # of cost in a nat: whole numbers have the same sum in any order
NOTHING = -1  # instead of a node

Ids = NDArray[np.integer[Any]]
Doubles = NDArray[np.float64]
Indices = NDArray[np.intp]
# The children of each node, in an order in which every node comes after its children. Nodes are
# V or larger, characters 0 to V - 1.
Children = dict[int, tuple[int, int]]
Branches = list[tuple[int, int]]  # children of nodes M, M + 1 and so on, which precede their node


def make_tree(
    counts: NDArray[np.integer],
    characters: Sequence[str],
    end_id: int | None,
    text: Ids | None = None,
) -> Tree:
    """Return the tree of a vocabulary.

    Args:
        counts: of each character in the text, (V,).
        characters: the vocabulary, V of them.
        end_id: the id of END in a collection, else None.
        text: the ids of the text, (N,), or of its beginning, whose characters decide about the
            branches; None for the Huffman tree of the counts. This is the tree, too, if another
            would save too little, as for a short text.
    """
    if text is not None and len(characters) > 2:
        found = arranged(counts, text, MOST_LEAVES)
        if found.part >= LEAST_PART:
            try:
                return tree_with(found.branches, counts, characters, end_id)
            except ValueError:  # because it is too deep, as a Huffman tree of real counts never is
                pass
    return tree_with(None, counts, characters, end_id)


def tree_with(
    branches: Branches | None,
    counts: NDArray[np.integer],
    characters: Sequence[str],
    end_id: int | None,
) -> Tree:
    """Return the tree with these branches, or the Huffman tree without any.

    Args:
        branches: as in `Arranged`.
        counts, characters, end_id: as in `make_tree`.

    Raises:
        ValueError: if the tree is deeper than DEEPEST.
    """
    size = len(characters)
    weight = _weight(counts)
    children = _huffman(weight)
    if branches is not None:
        leaves, _ = _frequent(children, weight, len(branches) + 1)
        children = _joined(children, leaves, branches)
    total = _totals(children, weight)
    order = sorted(children, key=lambda node: (-total[node], -node))
    number = {node: place for place, node in enumerate(order)}
    below = np.zeros((max(size - 1, 0), 2), np.int32)
    prior = np.full(max(size - 1, 0), 0.5, np.float32)
    for node, place in number.items():
        a, b = children[node]
        below[place] = [number[n] if n >= size else -1 - n for n in (a, b)]
        prior[place] = min(total[b] / (total[a] + total[b]), 1 - SMALLEST)
    rank = np.empty(size, np.int32)
    rank[np.argsort(-weight, kind="stable")] = np.minimum(np.arange(size), CLASSES - 1)
    return tree_of(below, prior, rank, characters, end_id)


def tree_of(
    children: NDArray[np.int32],
    prior: Floats,
    rank: NDArray[np.int32],
    characters: Sequence[str],
    end_id: int | None,
) -> Tree:
    """Return the tree with these children, (V - 1, 2).

    Raises:
        ValueError: if they are not a tree in which every node and every character occurs once.
    """
    size = len(characters)
    paths: list[list[tuple[int, int]]] = [[] for _ in range(size)]
    waiting: list[tuple[int, list[tuple[int, int]]]] = [(0, [])] if size > 1 else []
    found = 0
    while waiting:
        place, steps = waiting.pop()
        found += 1
        if found >= size or len(steps) >= DEEPEST:
            raise ValueError("its tree has too many nodes, or is too deep")
        for turn in (0, 1):
            child, longer = int(children[place, turn]), [*steps, (place, turn)]
            if not -size <= child < size - 1 or (child < 0 and paths[-1 - child]):
                raise ValueError("its tree has wrong children")
            if child < 0:
                paths[-1 - child] = longer
            else:
                waiting.append((child, longer))
    if found != max(size - 1, 0):
        raise ValueError("its tree has too few nodes")
    deepest = max(1, max(map(len, paths)))
    path, turns = np.zeros((size, deepest), np.int32), np.zeros((size, deepest), np.int32)
    for i, steps in enumerate(paths):
        for j, (place, turn) in enumerate(steps):
            path[i, j], turns[i, j] = place, turn
    codes = [sum(turn << j for j, (_, turn) in enumerate(steps)) for steps in paths]
    known = {character: i for i, character in enumerate(characters)}
    kind = [
        END if i == end_id else BREAK if c == "\n" else LETTER if c.isalnum() else OTHER
        for i, c in enumerate(characters)
    ]
    folded = [known.get(c.lower(), i) for i, c in enumerate(characters)]
    return Tree(
        path,
        turns,
        np.array([len(steps) for steps in paths], np.int32),
        np.array(codes, np.uint64),
        children,
        prior,
        np.array(kind, np.int32),
        np.array(folded, np.int32),
        rank,
    )


def _weight(counts: NDArray[np.integer]) -> Doubles:
    return np.asarray(counts, np.float64) + 0.1


def _huffman(weight: Doubles) -> Children:
    """Return the Huffman tree of characters with these weights, (V,)."""
    heap = [(float(w), i, i) for i, w in enumerate(weight)]
    heapq.heapify(heap)
    children: Children = {}
    for node in range(len(weight), 2 * len(weight) - 1):
        (weight_a, _, a), (weight_b, _, b) = heapq.heappop(heap), heapq.heappop(heap)
        children[node] = a, b
        heapq.heappush(heap, (weight_a + weight_b, node, node))
    return children


def _totals(children: Children, weight: Doubles) -> dict[int, float]:
    """Return the weight of each character and node: the sum of those below it."""
    total = dict(enumerate(weight.tolist()))
    for node, (a, b) in children.items():
        total[node] = total[a] + total[b]
    return total


class Arranged(NamedTuple):
    """The branches with which a sample of a text is most probable.

    Leaves 0 to M - 1 are those that `stems` returns: single characters, and parts of the Huffman
    tree, which rare characters of a large vocabulary never leave.
    """

    branches: Branches  # M - 1 nodes
    gain: float  # nats by which the sample is more probable than in the Huffman tree
    part: float  # of the cost of the Huffman tree, which the branches save


def stems(counts: NDArray[np.integer], leaves: int) -> list[list[int]]:
    """Return the characters below each leaf of an arrangement, M lists in all, M up to V."""
    weight = _weight(counts)
    children = _huffman(weight)
    return [_below(leaf, children) for leaf in _frequent(children, weight, leaves)[0]]


def arranged(counts: NDArray[np.integer], text: Ids, most_leaves: int) -> Arranged:
    """Return the branches with which a text is most probable.

    Args:
        counts: of each character in the text, (V,), at least two.
        text: the ids, (N,), or the beginning of the text.
        most_leaves: the largest M.
    """
    weight = _weight(counts)
    children = _huffman(weight)
    leaves, above = _frequent(children, weight, min(len(weight), most_leaves))
    leaf_of = np.empty(len(weight), np.intp)
    for i, leaf in enumerate(leaves):
        leaf_of[_below(leaf, children)] = i
    place = {node: i for i, node in enumerate(leaves + above)}
    arrangement = _Arrangement(
        [(place[children[node][0]], place[children[node][1]]) for node in above],
        _counts_after_contexts(text[:SAMPLE], leaf_of, len(leaves)),
    )
    before = arrangement.cost
    arrangement.improve(int(LEAST_GAIN * UNITS * min(len(text), SAMPLE)))
    name = list(range(2 * len(leaves) - 1))
    branches: Branches = []
    for node, a, b in arrangement.nodes():
        name[node] = len(leaves) + len(branches)
        branches.append((name[a], name[b]))
    saved = before - arrangement.cost
    return Arranged(branches, saved / UNITS, saved / max(before, 1))


def _frequent(children: Children, weight: Doubles, count: int) -> tuple[list[int], list[int]]:
    """Return a number of leaves after the heaviest nodes were divided, and these nodes."""
    total = _totals(children, weight)
    leaves, above = [max(children)], list[int]()
    while len(leaves) < count:
        node = max((leaf for leaf in leaves if leaf in children), key=lambda leaf: total[leaf])
        leaves.remove(node)
        leaves += children[node]
        above.insert(0, node)
    return leaves, above


def _below(leaf: int, children: Children) -> list[int]:
    """Return the characters below a node, or the character itself."""
    found, waiting = [], [leaf]
    while waiting:
        node = waiting.pop()
        if node in children:
            waiting += children[node]
        else:
            found.append(node)
    return found


def _joined(children: Children, leaves: list[int], branches: Branches) -> Children:
    """Return a tree that has parts of another one at its branches, nodes after their children."""
    result, waiting = Children(), list(leaves)
    while waiting:
        node = waiting.pop()
        if node in children:
            result[node] = children[node]
            waiting += children[node]
    result = dict(sorted(result.items()))
    first = max(children) + 1
    name = [*leaves, *range(first, first + len(branches))]
    for node, (a, b) in enumerate(branches, first):
        result[node] = name[a], name[b]
    return result


def _counts_after_contexts(text: Ids, leaf_of: Indices, leaves: int) -> Indices:
    """Return how often each leaf has followed the most frequent contexts of a text, (K, M)."""
    ids = np.asarray(text, np.int64)
    contexts = ids[:-2] * len(leaf_of) + ids[1:-1]
    _, context, times = np.unique(contexts, return_inverse=True, return_counts=True)
    place = np.full(len(times), -1)
    frequent = np.argsort(-times, kind="stable")[:MOST_CONTEXTS]
    place[frequent] = np.arange(len(frequent))
    columns = place[context]
    cells = (columns * leaves + leaf_of[ids[2:]])[columns >= 0]
    counts = np.bincount(cells, minlength=len(frequent) * leaves)
    return counts.reshape(len(frequent), leaves).astype(np.intp)


class _Arrangement:
    """A tree of leaves 0 to M - 1 and nodes M to 2M - 2, whose branches move.

    Let a node be reached n times after a context, here the last two characters, with n₀ turns of
    one kind and n₁ of the other. A model of such counts alone, with a prior of α for either turn,
    gives these turns together the probability (Krichevsky & Trofimov 1981, for α = ½)

        Γ(n₀ + α) Γ(n₁ + α) Γ(2α) / (Γ(n + 2α) Γ(α)²)

    n₀ and n₁ are the n of the node's children, each of which has one parent. Minus the logarithm of
    the product is therefore a constant plus the sum of f(n) over all nodes and contexts, with

        f(n) = log Γ(n + 2α) Γ(α) / (Γ(n + α) Γ(2α)) = Σ log (i + 2α) / (i + α) for i < n

    The constant consists of terms of the root and of the leaves, which are the same in every tree.
    The sum is the cost of a tree. It is low if few nodes are reached after the same context.
    """

    def __init__(self, children: list[tuple[int, int]], counts: Indices) -> None:
        """Take the children of each node, which precede it, and the counts of leaves, (K, M)."""
        contexts, leaves = counts.shape
        self._children = [*([] for _ in range(leaves)), *map(list, children)]
        self._parent = [NOTHING] * len(self._children)
        self._root = len(self._children) - 1
        self._counts = np.concatenate([counts, np.zeros((contexts, leaves - 1), np.intp)], axis=1)
        for node in range(leaves, len(self._children)):
            for child in self._children[node]:
                self._parent[child] = node
                self._counts[:, node] += self._counts[:, child]
        n = np.arange(self._counts.max(initial=0))
        f = np.append(0, np.cumsum(log((n + 2 * PRIOR) / (n + PRIOR))))
        self._table = np.rint(f * UNITS).astype(np.int32)
        self._cost = self._costs(self._counts)

    @property
    def cost(self) -> int:
        """The cost of the tree, in units."""
        leaves = len(self._cost) // 2 + 1
        return int(self._cost[leaves:].sum())

    def improve(self, least: int) -> None:
        """Move branches as long as each move lowers the cost by more than `least` units."""
        for _ in range(MOST_ROUNDS):
            moved = [self._move(branch, least) for branch in range(len(self._children))]
            if not any(moved):
                return

    def nodes(self) -> Iterator[tuple[int, int, int]]:
        """Yield every node with its children, which are yielded before it."""
        found = [self._root]
        for node in found:
            found += self._children[node]
        for node in reversed(found):
            if self._children[node]:
                yield node, self._children[node][0], self._children[node][1]

    def _costs(self, counts: Indices) -> NDArray[np.int32]:
        """Return the sum of f over the contexts of counts (K, ·), in units, (·)."""
        # Faster with "clip". A count of `joint`, which is out of the tree, can be too large.
        found = self._table.take(counts, mode="clip")
        return np.asarray(found.sum(axis=0, dtype=np.int32))

    def _move(self, branch: int, least: int) -> bool:
        """Move a branch to where the tree costs least, and return whether it has another place."""
        joint = self._parent[branch]
        if joint == NOTHING:
            return False
        contexts = np.flatnonzero(self._counts[:, branch])
        moving = self._counts[contexts, branch][:, None]
        old = self._take_out(branch, joint)
        above = self._above(old)
        counts = self._counts[contexts]
        counts[:, above] -= moving
        more = self._costs(counts + moving) - self._costs(counts)
        cost = self._cost + more
        cost[above] = self._cost[above]  # because the branch is counted there already
        new = self._cheapest_place(cost.tolist(), more.tolist(), old, least)
        self._put_beside(new, branch, joint)
        if new == old:
            return False
        self._counts[contexts[:, None], above] -= moving
        self._counts[:, joint] = self._counts[:, new]
        now_above = self._above(branch)
        self._counts[contexts[:, None], now_above] += moving
        changed = np.append(above, now_above)
        self._cost[changed] = self._costs(self._counts[:, changed])
        return True

    def _cheapest_place(self, cost: list[int], more: list[int], old: int, least: int) -> int:
        """Return the node or leaf beside which a branch costs least.

        Args:
            cost: of each node if the branch is below it.
            more: of that, because of the branch.
            old: the place of the branch, which is left for another that saves more than `least`.
        """
        lowest = cost[old] + sum(more[node] for node in self._above(old)) - least
        best, found = old, [(self._root, 0)]
        for node, above in found:
            if above + cost[node] < lowest:
                best, lowest = node, above + cost[node]
            if (above := above + more[node]) < lowest:  # because no place below costs less
                found += [(child, above) for child in self._children[node]]
        return best

    def _above(self, node: int) -> Indices:
        """Return the nodes above a node or leaf."""
        found = []
        while (node := self._parent[node]) != NOTHING:
            found.append(node)
        return np.array(found, np.intp)

    def _take_out(self, branch: int, joint: int) -> int:
        """Remove a branch and its parent, whose other child takes its place. Return that child."""
        first, second = self._children[joint]
        other = second if first == branch else first
        self._replace(joint, other)
        return other

    def _put_beside(self, node: int, branch: int, joint: int) -> None:
        """Put `joint` where a node or leaf is, and the node and a branch below it."""
        self._replace(node, joint)
        self._children[joint] = [node, branch]
        self._parent[node] = self._parent[branch] = joint

    def _replace(self, node: int, other: int) -> None:
        """Put another node or leaf where a node is."""
        parent = self._parent[other] = self._parent[node]
        if parent == NOTHING:
            self._root = other
        else:
            children = self._children[parent]
            children[children.index(node)] = other
