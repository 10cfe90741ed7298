"""The branches of a mixer's tree in a file. Only a writer searches them, and a reader reads them.

A file has the number of leaves, which are single characters or parts of the Huffman tree, and then
a place for each. Leaves are sorted by how often they occur. The tree grows leaf by leaf: each is
put beside a leaf or node of the tree so far, below a new node. After i leaves, there are 2i - 1
such places. Every list of places is a tree, and every tree has one list. If all places were equally
probable, M leaves would take log2 (2M - 3)!! bits. They are more probable beside leaves, beside a
character of the same group, such as vowels, and beside the latest leaves and nodes.

M: leaves; V: characters of the alphabet; N: characters of a text.
"""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray

from charloom.compression.characters import Alphabet
from charloom.compression.layout import Damage
from charloom.compression.text_coder import BYTES_OF_DECISION, CODE_PREDICTED, Reader, Writer
from charloom.context_mixing.trees import Branches, arranged, stems

Ids = NDArray[np.int64]
# How many times as probable a place is: beside a leaf, beside the same group, beside the latest.
LEAF, SAME_GROUP, LATEST = 5.0, 5.0, 4.0
LATEST_LEAVES = 4
VOWELS = "aeiouyàáâäæèéêëìíîïòóôöøùúûüœаеёиіїоуыэюяєαεηιουω"
DEPTH_OF_PLACES = 8  # decisions of a number below 256
# Bytes that a tree saves, by estimate, for each byte by which the sample is more probable. Prose,
# source code, Russian, Chinese and a log of 20 kB or more never became longer by it.
SHARE = 0.6
LEAST_ALPHABET = 3  # characters, which have more than one tree
LEAST_CHARACTERS = 3_000  # of a text for which branches are tried
LEAST_SAVED = 2.0  # bytes by estimate, for which more leaves are written
MOST_LEAVES = 128  # of a tree in a file
NUMBERS_OF_LEAVES = 32, 48, 64, MOST_LEAVES  # that are tried


def code_branches(
    branches: Branches | None, alphabet: Alphabet, stream: Writer | Reader
) -> Branches:
    """Write branches, or read them, and return them in the order in which they are read.

    Args:
        branches: as in `context_mixing.trees`, None where they are read.
        alphabet: the characters, at least two.
        stream: the bytes.

    Raises:
        Damage: if a leaf has a place that is not in the tree.
    """
    most = min(len(alphabet.codes), MOST_LEAVES)
    number = np.array([len(branches) - 1 if branches else 0], np.int64)
    _code(number, np.ones((1, most - 1)), stream)
    leaves = int(number[0]) + 2
    parts = stems(alphabet.counts, leaves)
    total = [int(alphabet.counts[part].sum()) for part in parts]
    order = sorted(range(leaves), key=lambda leaf: (-total[leaf], leaf))
    places = np.zeros(leaves - 1, np.int64)
    if branches is not None:
        places[:] = _places_of(branches, order)
    groups = _groups_of(alphabet.characters)
    _code(places, _probabilities([groups[parts[leaf][0]] for leaf in order]), stream)
    if (places > 2 * np.arange(leaves - 1)).any():
        raise Damage
    return _branches_at(places.tolist(), order)


def worthwhile_branches(alphabet: Alphabet, ids: Ids) -> Branches | None:
    """Return branches that seem to save more than they take, or None.

    Args:
        alphabet: the characters.
        ids: the places of the text's characters in it, (N,).
    """
    if len(alphabet.codes) < LEAST_ALPHABET or len(ids) < LEAST_CHARACTERS:
        return None
    best, found = 0.0, None
    for leaves in sorted({min(len(alphabet.codes), count) for count in NUMBERS_OF_LEAVES}):
        branches, gain, _ = arranged(alphabet.counts, ids, leaves)
        writer = Writer()
        code_branches(branches, alphabet, writer)
        saved = SHARE * gain / (8 * np.log(2)) - len(writer.all_bytes())
        if saved <= best + LEAST_SAVED or not alphabet.has_tree(branches):
            break
        best, found = saved, branches
    return found


def _code(numbers: Ids, probabilities: NDArray[np.float64], stream: Writer | Reader) -> None:
    """Write or read numbers, (N,), by the probabilities of each, (N, K)."""
    buffer = stream.buffer(BYTES_OF_DECISION * DEPTH_OF_PLACES * len(numbers))
    CODE_PREDICTED(numbers, probabilities, stream.coder, buffer)
    stream.take_over(buffer)


def _probabilities(groups: list[str]) -> NDArray[np.float64]:
    """Return those of the places of each leaf but the first, (M - 1, 2M - 3), times a constant."""
    leaves = len(groups)
    found = np.zeros((leaves - 1, 2 * leaves - 3))
    for i in range(1, leaves):
        for j in range(i):
            weight = SAME_GROUP if groups[j] == groups[i] else 1.0
            if i - j <= LATEST_LEAVES:
                weight *= LATEST
            found[i - 1, j] = LEAF * weight
            if j > 0:
                found[i - 1, i + j - 1] = weight  # beside the node that was made for leaf j
    return found


def _groups_of(characters: tuple[str, ...]) -> list[str]:
    """Return a name of the group of each character, the same in every version of Python."""
    found = []
    for character in characters:
        category = unicodedata.ucd_3_2_0.category(character)
        vowel = category == "Ll" and character in VOWELS
        found.append("vowel" if vowel else category if category[0] == "L" else category[0])
    return found


def _places_of(branches: Branches, order: list[int]) -> list[int]:
    """Return the place of each leaf but the first, M - 1 of them.

    Places 0 to i - 1 of leaf i are those beside earlier leaves, the others those beside the nodes
    that were made for leaves 1 to i - 1. Leaves are removed from the last to the first.
    """
    leaves = len(order)
    turn = {leaf: i for i, leaf in enumerate(order)}
    parent, children = {}, {}
    for node, pair in enumerate(branches, leaves):
        children[node] = [turn.get(child, child) for child in pair]
        for child in children[node]:
            parent[child] = node
    beside, made_for = [0] * leaves, {}
    for i in range(leaves - 1, 0, -1):
        joint = parent[i]
        first, second = children[joint]
        beside[i] = second if first == i else first
        made_for[joint] = i
        if joint in parent:
            above = parent[joint]
            children[above][children[above].index(joint)] = beside[i]
            parent[beside[i]] = above
        else:
            parent.pop(beside[i], None)
    return [
        node if node < leaves else i + made_for[node] - 1 for i, node in enumerate(beside) if i > 0
    ]


def _branches_at(places: list[int], order: list[int]) -> Branches:
    """Return the branches whose leaves have these places, each node after its children."""
    leaves = len(order)
    children: dict[int, list[int]] = {}  # of node M + i - 1, made for leaf i
    parent: dict[int, int] = {}
    root = 0
    for i, place in enumerate(places, 1):
        beside = place if place < i else leaves + place - i
        joint = leaves + i - 1
        children[joint] = [beside, i]
        if beside == root:
            root = joint
        else:
            above = parent[joint] = parent[beside]
            children[above][children[above].index(beside)] = joint
        parent[beside] = parent[i] = joint
    nodes = [root]
    for node in nodes:
        nodes += [child for child in children[node] if child >= leaves]
    name = dict(enumerate(order))
    found: Branches = []
    for node in reversed(nodes):
        name[node] = leaves + len(found)
        first, second = children[node]
        found.append((name[first], name[second]))
    return found
