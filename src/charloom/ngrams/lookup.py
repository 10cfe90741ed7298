"""The kernel that looks up contexts in an n-gram table (see charloom.ngrams.table).

V is the number of characters in the vocabulary, K that of the table's characters of context.
"""

from __future__ import annotations

import numpy as np
from numba import types

from charloom.kernels.arrays import as_flat, as_flats, flat_from
from charloom.kernels.compiling import subroutine
from charloom.kernels.vectors import load, store, width


@subroutine(types.intp)
def _child(trie, node, w):
    """Return a node's child for a character, -1 where one is missing."""
    first, characters = trie.first, trie.characters
    low, end = int(first[node]), int(first[node + 1])
    high = end
    while low < high:
        middle = (low + high) // 2
        if characters[middle] < w:
            low = middle + 1
        else:
            high = middle
    if low == end or characters[low] != w or low + 1 >= trie.sizes[2]:
        return -1
    return low + 1


@subroutine()
def advance_nodes(state, trie, w):
    """Read a character: update the nodes of a row's last 1 to K characters, (K,)."""
    for k in range(trie.sizes[1] - 1, -1, -1):
        shorter = int(state[k - 1]) if k > 0 else 0
        if shorter >= 0:
            shorter = _child(trie, shorter, w)
        state[k] = np.int32(shorter)


@subroutine()
def predict_after(state, trie, place, found, lengths, lambdas):
    """Write the predictions after a row's state, (K,), at a place of N.

    Args:
        state: the nodes of its last 1 to K characters.
        trie: Trie, in flat arrays.
        place: index of the predictions.
        found: the probabilities, (N V,).
        lengths: the characters of the longest context seen, (N,).
        lambdas: λ of that context, (N,).
    """
    size, p = trie.sizes[0], flat_from(found, place * trie.sizes[0])
    lanes = width(found)
    whole = size // lanes * lanes
    lengths[place], lambdas[place] = np.int32(0), np.float32(1)
    for w in range(size):
        p[w] = np.float32(1.0 / size)
    for k in range(trie.sizes[1] + 1):
        node = int(state[k - 1]) if k > 0 else 0
        if node < 0 or trie.first[node] == trie.first[node + 1]:
            break
        weight = trie.weights[node]
        for w in range(0, whole, lanes):
            store(p, w, load(p, w) * weight)
        for w in range(whole, size):
            p[w] = p[w] * weight
        for entry in range(int(trie.first[node]), int(trie.first[node + 1])):
            p[int(trie.characters[entry])] = trie.probabilities[entry]
        lengths[place], lambdas[place] = np.int32(k), weight


def look_up(trie_, texts, states, first, found_, lengths_, lambdas_):
    """Read texts, (B, T), and predict the next character after each but the first ones.

    Args:
        trie_: Trie.
        texts: ids; none matches an id below 0.
        states: the nodes of the last 1 to K characters of each row, (B, K), changed.
        first: the number of characters of each text that are only read.
        found_: written: the probabilities, (N V,), where N is B times the other characters.
            Predictions t·B + row follow the character t of a row, counted from `first`.
        lengths_: written: characters of the longest context seen, (N,).
        lambdas_: written: λ of that context, (N,).
    """
    trie, found = as_flats(trie_), as_flat(found_)
    lengths, lambdas = as_flat(lengths_), as_flat(lambdas_)
    rows, steps = texts.shape
    for row in range(rows):
        state = flat_from(as_flat(states), row * trie.sizes[1])
        for t in range(steps):
            advance_nodes(state, trie, int(texts[row, t]))
            if t >= first:
                predict_after(state, trie, (t - first) * rows + row, found, lengths, lambdas)
