/* The look-up of contexts in an n-gram table: charloom.ngrams.lookup defines it.

Entry e of the trie is node e + 1, and node 0 the root. A text's state are the nodes of its last 1
to K characters, -1 where they were never seen. */

#include "engine.h"

typedef struct {
    int size, context, nodes; /* V, K, and the number of nodes that can have children */
    const int32_t *first;     /* (nodes + 1,) the entry where a node's children begin */
    const uint32_t *characters;
    const float *probabilities;
    const float *weights; /* (nodes,) */
} Trie;

static Trie trie;
static int32_t *state; /* (K,) */

/* Take a table, whose arrays stay where they are. */
void EXPORT(set_table)(int context, int nodes, const int32_t *first, const uint32_t *characters,
                       const float *probabilities, const float *weights) {
    trie = (Trie){shape.vocabulary, context, nodes, first, characters, probabilities, weights};
    state = reserve((context + 1) * sizeof(int32_t));
}

int32_t *EXPORT(table_state)(void) { return state; }

/* Return a node's child for a character, -1 where one is missing. */
static int child(int node, uint32_t id) {
    int low = trie.first[node], end = trie.first[node + 1], high = end;
    while (low < high) {
        int middle = (low + high) / 2;
        if (trie.characters[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < end && trie.characters[low] == id && low + 1 < trie.nodes ? low + 1 : -1;
}

void table_read(int id) {
    for (int k = trie.context - 1; k >= 0; k--) {
        int shorter = k > 0 ? state[k - 1] : 0;
        state[k] = shorter >= 0 ? child(shorter, id) : -1;
    }
}

void table_predict(Predictions *found) {
    float *p = found->probabilities;
    found->length = 0;
    found->weight = 1;
    for (int i = 0; i < trie.size; i++)
        p[i] = (float)(1.0 / trie.size);
    for (int k = 0; k <= trie.context; k++) {
        int node = k > 0 ? state[k - 1] : 0;
        if (node < 0 || trie.first[node] == trie.first[node + 1])
            break;
        float weight = trie.weights[node];
        for (int i = 0; i < trie.size; i++)
            p[i] *= weight;
        for (int entry = trie.first[node]; entry < trie.first[node + 1]; entry++)
            p[trie.characters[entry]] = trie.probabilities[entry];
        found->length = k;
        found->weight = weight;
    }
}
