"""The kernel that asks an n-gram table; see charloom.ngram_table."""

from __future__ import annotations

from charloom.kernels.compiling import Kernel


def ask(first, characters, probabilities, weights, contexts, answers, lengths, lambdas):
    """NGramTable.ask: contexts (N, K) to answers (N, V), lengths (N) and lambdas (N)."""
    size, longest = answers.shape[1], contexts.shape[1]
    for row in range(len(contexts)):
        for w in range(size):
            answers[row, w] = 1.0 / size
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
                answers[row, w] *= weight
            for entry in range(first[node], first[node + 1]):
                answers[row, characters[entry]] = probabilities[entry]
            lengths[row], lambdas[row] = k, weight


ASK = Kernel(ask, "counting")
