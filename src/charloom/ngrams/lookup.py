"""The kernel that looks up contexts in an n-gram table (see charloom.ngrams.table)."""

from __future__ import annotations


def look_up(first, characters, probabilities, weights, contexts, found, lengths, lambdas):
    """Compute `NGramTable.look_up`: contexts (N, K) to found (N, V), lengths (N,), lambdas (N,).

    The arrays of the table come first: first, characters, probabilities and weights.
    """
    size, longest = found.shape[1], contexts.shape[1]
    for row in range(len(contexts)):
        for w in range(size):
            found[row, w] = 1.0 / size
        lengths[row], lambdas[row] = 0, 1.0
        for k in range(longest + 1):
            node = 0
            for i in range(longest - k, longest):
                w = contexts[row, i]
                low, high = first[node], first[node + 1]
                while low < high:
                    middle = (low + high) // 2
                    if characters[middle] < w:
                        low = middle + 1
                    else:
                        high = middle
                if low == first[node + 1] or characters[low] != w:
                    node = -1
                    break
                node = low + 1
                if node >= len(weights):
                    node = -1
                    break
            if node < 0 or first[node] == first[node + 1]:
                break
            weight = weights[node]
            for w in range(size):
                found[row, w] *= weight
            for entry in range(first[node], first[node + 1]):
                found[row, characters[entry]] = probabilities[entry]
            lengths[row], lambdas[row] = k, weight
