"""The tree of a vocabulary: a text moves its branches to where the text is most probable."""

from __future__ import annotations

from itertools import pairwise
from math import lgamma

import numpy as np
import pytest
from numpy.typing import NDArray

from charloom.context_mixing import trees
from charloom.context_mixing.layout import DEEPEST, Tree
from charloom.context_mixing.trees import PRIOR, make_tree
from charloom.text.vocabulary import END, Vocabulary


def text_of_two_kinds(length: int) -> NDArray[np.int64]:
    """Return ids of 0 to 3, 4 to 7 by turns, each at random: counts do not show these kinds."""
    rng = np.random.default_rng(3)
    ids = rng.choice(4, length, p=[0.4, 0.3, 0.2, 0.1])
    ids[1::2] += 4
    return ids


def nats(tree: Tree, ids: NDArray[np.int64]) -> float:
    """Return the cost of a text if each node learns its turns after every last two characters."""
    turns: dict[tuple[int, ...], list[int]] = {}
    for (a, b), character in zip(pairwise(ids.tolist()), ids[2:].tolist(), strict=False):
        for j in range(tree.depth[character]):
            counts = turns.setdefault((a, b, int(tree.path[character, j])), [0, 0])
            counts[int(tree.turns[character, j])] += 1
    constant = 2 * lgamma(PRIOR) - lgamma(2 * PRIOR)
    return sum(
        lgamma(m + n + 2 * PRIOR) - lgamma(m + PRIOR) - lgamma(n + PRIOR) + constant
        for m, n in turns.values()
    )


def characters(size: int) -> tuple[str, ...]:
    return tuple(chr(0x4E00 + i) for i in range(size))


def test_the_root_divides_characters_that_follow_different_contexts() -> None:
    ids = text_of_two_kinds(4000)
    tree = make_tree(np.bincount(ids), characters(8), None, ids)
    first = tree.turns[:, 0]
    assert len(set(first[:4])) == len(set(first[4:])) == 1
    assert first[0] != first[4]
    plain = make_tree(np.bincount(ids), characters(8), None)
    assert len(set(plain.turns[:4, 0])) == 2  # counts alone do not show it


@pytest.mark.parametrize("size", [3, 4, 30, 100])
def test_the_search_lowers_the_cost_of_its_definition(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "LEAST_PART", 0)
    rng = np.random.default_rng(size)
    follow = rng.dirichlet(np.full(size, 0.2), size)
    ids = np.zeros(3000, np.int64)
    for i in range(1, len(ids)):
        ids[i] = rng.choice(size, p=follow[ids[i - 1]])
    counts = np.bincount(ids, minlength=size)
    plain = make_tree(counts, characters(size), None)
    tree = make_tree(counts, characters(size), None, ids)
    assert nats(tree, ids) <= nats(plain, ids) * (0.995 if size > 4 else 1)


def test_costs_that_are_carried_along_stay_those_of_the_counts() -> None:
    ids = text_of_two_kinds(500)
    counts = trees._counts_after_contexts(ids, np.arange(8), 8)
    arrangement = trees._Arrangement(
        [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13)], counts
    )
    first = sum(arrangement._cost[8:])
    arrangement.improve(0)
    found = list(arrangement.nodes())
    below = {leaf: counts[:, leaf] for leaf in range(8)}
    for node, a, b in found:
        below[node] = below[a] + below[b]
        np.testing.assert_array_equal(arrangement._counts[:, node], below[node])
        assert arrangement._cost[node] == arrangement._table[below[node]].sum()
    assert len(found) == 7
    assert sum(arrangement._cost[8:]) < first


def test_a_branch_moves_to_the_cheapest_of_all_places() -> None:
    ids = text_of_two_kinds(300)
    counts = trees._counts_after_contexts(ids, np.arange(8), 8)
    children = [(0, 4), (1, 5), (8, 9), (2, 6), (10, 11), (3, 12), (7, 13)]
    moved = 0
    for branch in range(14):
        arrangement = trees._Arrangement(children, counts)
        places = [cost_beside(node, branch, children, counts) for node in range(15)]
        moved += arrangement._move(branch, 0)
        assert arrangement.cost == min(cost for cost in places if cost is not None)
    assert moved > 7


def cost_beside(
    node: int, branch: int, children: list[tuple[int, int]], counts: NDArray[np.intp]
) -> int | None:
    """Return the cost of a tree after a branch was put beside a node, None if it is not a tree."""
    arrangement = trees._Arrangement(children, counts)
    joint = arrangement._parent[branch]
    if node in (branch, joint) or branch in arrangement._above(node):
        return None
    arrangement._take_out(branch, joint)
    arrangement._put_beside(node, branch, joint)
    below = {leaf: counts[:, leaf] for leaf in range(8)}
    for place, a, b in arrangement.nodes():
        below[place] = below[a] + below[b]
    return sum(int(arrangement._table[below[place]].sum()) for place in range(8, 15))


def test_counts_are_of_characters_after_the_most_frequent_two_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trees, "MOST_CONTEXTS", 2)
    ids = np.array([0, 1, 2, 0, 1, 3, 0, 1, 2, 1, 2, 1])  # 0 1 and 1 2: three times
    counts = trees._counts_after_contexts(ids, np.array([0, 0, 1, 2]), 3)
    np.testing.assert_array_equal(counts, [[0, 2, 1], [3, 0, 0]])


def test_a_text_without_structure_keeps_the_huffman_tree() -> None:
    ids = np.random.default_rng(1).choice(50, 4000)
    counts = np.bincount(ids, minlength=50)
    tree = make_tree(counts, characters(50), None, ids)
    np.testing.assert_array_equal(tree.children, make_tree(counts, characters(50), None).children)


def test_a_tree_that_would_be_too_deep_is_the_huffman_tree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(2)
    ids = np.concatenate(  # context k is followed by characters up to k
        [(20 + k % 4, 24 + k % 3, rng.integers(0, k + 1)) for k in rng.integers(0, 20, 3000)]
    )
    counts = np.bincount(ids)
    plain = make_tree(counts, characters(27), None)
    deep = make_tree(counts, characters(27), None, ids)
    assert deep.depth.max() > plain.depth.max()
    for deepest, wanted in ((deep.depth.max(), deep), (deep.depth.max() - 1, plain)):
        monkeypatch.setattr(trees, "DEEPEST", int(deepest))
        found = make_tree(counts, characters(27), None, ids)
        np.testing.assert_array_equal(found.children, wanted.children)


def test_rare_characters_of_a_large_vocabulary_stay_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trees, "MOST_LEAVES", 9)
    ids = np.concatenate([text_of_two_kinds(3000), np.arange(8, 40)])
    tree = make_tree(np.bincount(ids), characters(40), None, ids)
    assert len(set(tree.turns[:4, 0])) == 1
    assert len(paths_of(tree)) == 40
    above = [set(tree.path[i, : tree.depth[i]].tolist()) for i in range(40)]
    assert set.intersection(*above[8:]) - set.union(*above[:8])  # a node of rare ones alone


def paths_of(tree: Tree) -> set[tuple[int, ...]]:
    return {tuple(t[:d]) for t, d in zip(tree.turns.tolist(), tree.depth.tolist(), strict=True)}


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_a_text_that_is_too_short_to_decide_has_a_tree(length: int) -> None:
    ids = np.arange(length, dtype=np.int64)
    tree = make_tree(np.ones(4, np.int64), characters(4), None, ids)
    assert len(paths_of(tree)) == 4


def test_the_tree_of_a_text_is_the_same_on_every_machine() -> None:
    ids = text_of_two_kinds(4000)
    tree = make_tree(np.bincount(ids), characters(8), None, ids)
    assert tree.children.tolist() == [
        [1, 2],
        [-5, 3],
        [-1, 4],
        [-6, 6],
        [-2, 5],
        [-3, -4],
        [-7, -8],
    ]


def test_documents_and_one_sided_texts_have_trees() -> None:
    vocabulary = Vocabulary(("a", "b", "c", END))
    ids = np.array([0, 1, 3] * 50)
    tree = make_tree(np.bincount(ids, minlength=4), vocabulary.characters, 3, ids)
    assert tree.depth.max() <= DEEPEST
    same = make_tree(np.bincount(ids, minlength=4), vocabulary.characters, 3, ids)
    np.testing.assert_array_equal(tree.children, same.children)
