/* The predictions of a context mixer whose weights and lists are frozen.

charloom.context_mixing.reference defines them; the names here are those of its kernels (contexts,
lists, evidence, decisions). All numbers are added up in the kernels' order, so that the
probabilities have the same bits. */

#include "engine.h"
#include "vectors.h"

#define WORDS_OF_ROW 24  /* the contexts, and padding: numbers of a row of counts */
#define BYTES_OF_ROW 32  /* and of places */
#define MOVED 0xFFFFu    /* instead of a character: the list has moved to a longer one */
#define FIRST_SALT 200
#define SECOND_SALT 201
#define LARGEST_COUNT 65536 /* no sum of the counts of a list reaches it */
#define LARGEST_RECENT 2048 /* nor this one a sum of recent counts */

#define TABLES 3

typedef uint64_t Hash;
static const Hash multipliers[] = MULTIPLIERS;

/* A table of lists, of the occupied ones alone. A bucket's are those from begins[bucket] up to
begins[bucket + 1], and a list's entries are found by `offsets` in the same way. */
typedef struct {
    uint32_t buckets;
    const uint32_t *begins; /* (buckets + 1,) */
    const uint16_t *checks; /* (lists,) */
    const uint32_t *offsets, *entries;
} Lists;

/* The arrays of counts.js, which stay where they are. */
static struct {
    const int32_t *children; /* (V - 1, 2) a node, or -1 - the id of a character */
    const float *prior;      /* (V - 1,) */
    const int32_t *kind, *folded, *rank; /* (V,) */
    const float *counts, *recent, *sets, *final, *refined; /* see Weights in layout.py */
    const float *stretch, *squash, *logs;                  /* see Constants there */
    Lists tables[TABLES]; /* singles, shorts, longs */
} m;

static int size, probing;          /* V; see `read_list` */
static uint8_t *levels, *halvings; /* classes of counts, and how often recent counts are halved */
static int32_t *parent; /* (2 V,) of node i, and of character i at V + i; the root has -1 */

/* A text's state: see charloom.context_mixing.layout. */
static Hash *state;

/* Scratch memory. */
static Hash hashes[CONTEXT_COUNT], keys[2];
static uint32_t entries[CONTEXT_COUNT * LONG + LONG_WORDS];
static int used[CONTEXT_COUNT];
static int32_t *seen;           /* (2 V, WORDS_OF_ROW) counts, in the upper half recent counts */
static uint8_t *first, *second; /* (2 V, BYTES_OF_ROW) places of the latest two characters */
static int32_t *leaves, *nodes, leaf_count, node_count;
static uint8_t *marks;
static uint64_t *touched;
static float inputs[INPUT_COUNT] __attribute__((aligned(16)));
static int32_t *stack;
static float *reach;

Hash *EXPORT(mixer_state)(void) { return state; }

/* Return the bytes of a state. */
int EXPORT(mixer_state_size)(void) { return STATE * sizeof(Hash); }

/* Return the place for the fields of a mixer, each of 32 bits. */
void *EXPORT(mixer_fields)(void) { return &m; }

/* Prepare predictions by the mixer whose fields are set; `probes`: see `read_list`. */
void EXPORT(set_mixer)(int probes) {
    static const int level_begins[] = LEVEL_BEGINS;
    size = shape.vocabulary;
    probing = probes;
    int rows = 2 * size;
    levels = reserve(LARGEST_COUNT);
    for (int i = 0; i < LARGEST_COUNT; i++)
        for (int j = 0; j < COUNT_LEVELS - 1; j++)
            levels[i] += i >= level_begins[j];
    halvings = reserve(LARGEST_RECENT);
    for (int i = 0; i < LARGEST_RECENT; i++)
        for (int j = 0; j < 8; j++)
            halvings[i] += i > (RECENT_LEVELS - 1) << j;
    parent = reserve(rows * sizeof(int32_t));
    for (int i = 0; i < rows; i++)
        parent[i] = -1;
    for (int node = 0; node < size - 1; node++)
        for (int turn = 0; turn < 2; turn++) {
            int child = m.children[2 * node + turn];
            parent[child >= 0 ? child : size - 1 - child] = node;
        }
    state = reserve(STATE * sizeof(Hash));
    seen = reserve(rows * WORDS_OF_ROW * sizeof(int32_t));
    first = reserve(rows * BYTES_OF_ROW);
    second = reserve(rows * BYTES_OF_ROW);
    for (int i = 0; i < rows * BYTES_OF_ROW; i++)
        first[i] = second[i] = NOWHERE;
    leaves = reserve((size + 1) * sizeof(int32_t));
    nodes = reserve((size + 1) * sizeof(int32_t));
    marks = reserve(size);
    touched = reserve((size / 64 + 1) * sizeof(uint64_t));
    stack = reserve((size + 1) * sizeof(int32_t));
    reach = reserve((size + 1) * sizeof(float));
}

/* Contexts. */

static inline Hash mixed(Hash x) {
    x ^= x >> 31;
    x *= multipliers[0];
    x ^= x >> 27;
    x *= multipliers[1];
    return x ^ (x >> 33);
}

static inline Hash joined(Hash a, Hash b, int salt) {
    return mixed(mixed(a * HASH_SPREAD + (Hash)(salt + 1)) + b * multipliers[0]);
}

void mixer_read(int id) {
    int kind = m.kind[id];
    if (kind == END) {
        for (int i = 0; i < STATE; i++)
            state[i] = 0;
        return;
    }
    for (int i = RECENT - 1; i > 0; i--)
        state[i] = state[i - 1];
    Hash before = state[1];
    state[0] = id + 1;
    if (kind == LETTER) {
        state[WORD] = mixed(state[WORD] * 271 + (Hash)(m.folded[id] + 1));
        state[WORD_LENGTH]++;
    } else {
        state[WORD_LENGTH] = 0;
        if (state[WORD]) {
            state[WORD_BEFORE_THAT] = state[WORD_BEFORE];
            state[WORD_BEFORE] = state[WORD];
            state[WORD] = 0;
        }
    }
    Hash column = state[COLUMN];
    if (kind == BREAK) {
        if (0 < column && column < 25 && before && m.kind[before - 1] != LETTER)
            state[SHORT_LINE] = state[WORD_BEFORE];
        int length = column < LINE ? (int)column : LINE;
        for (int i = 0; i < length; i++)
            state[ABOVE + i] = state[ABOVE + LINE + i];
        state[ABOVE_LENGTH] = length;
        state[COLUMN] = 0;
    } else {
        if (column < LINE)
            state[ABOVE + LINE + column] = id + 1;
        state[COLUMN]++;
    }
}

static Hash above(Hash column) {
    return column < state[ABOVE_LENGTH] ? state[ABOVE + column] : 0;
}

static void hash_contexts(void) {
    Hash c1 = state[0], c2 = state[1], c3 = state[2], column = state[COLUMN];
    Hash word = state[WORD], before = state[WORD_BEFORE], before_that = state[WORD_BEFORE_THAT];
    Hash place = column < 100 ? column : 100, value = 0;
    Hash over = above(column), next_over = above(column + 1);
    for (int i = 0, n = 0; i < RECENT; i++) {
        value = mixed(value * HASH_SPREAD + state[i] + 1);
        if (i != 6) {
            hashes[n] = joined(value, 0, n);
            n++;
        }
    }
    Hash kind = c2 ? m.kind[c2 - 1] : 0, both = joined(c1, c2, 100);
    hashes[7] = joined(word, 0, 7);
    hashes[8] = joined(word, before, 8);
    hashes[9] = joined(joined(word, before, 9), before_that, 9);
    hashes[10] = joined(word, before_that, 10);
    hashes[11] = joined(c2, c3, 11);
    hashes[12] = joined(c1, over, 12);
    hashes[13] = joined(word, c1 * 128 + place, 13);
    hashes[14] = joined(word, state[SHORT_LINE], 14);
    hashes[15] = joined(before, both, 15);
    hashes[16] = joined(c1, state[WORD_LENGTH] * 8 + kind, 16);
    hashes[17] = joined(c1, place, 17);
    hashes[18] = joined(both, joined(over, next_over, 101), 18);
}

/* Lists. */

/* Return the first entry of a context's list, 0 if it is missing, and its end. */
static const uint32_t *find_list(const Lists *lists, Hash value, uint32_t check,
                                 const uint32_t **end) {
    uint32_t bucket = (uint32_t)(((value & 0xFFFFFFFFu) * lists->buckets) >> 32);
    for (uint32_t i = lists->begins[bucket]; i < lists->begins[bucket + 1]; i++)
        if (lists->checks[i] == check) {
            *end = lists->entries + lists->offsets[i + 1];
            return lists->entries + lists->offsets[i];
        }
    return 0;
}

/* Copy the list of a context, and return how long it is. A list that was full is in the next table,
by another hash. Its entry there leads on, or where a page has left these out, a missing one. */
static int read_list(Hash value, uint32_t *to) {
    for (int t = 0; t < TABLES; t++) {
        if (t > 0)
            value = mixed(value);
        uint32_t check = (uint32_t)(value >> 48) | (t > 0);
        const uint32_t *end, *list = find_list(m.tables + t, value, check, &end);
        if (!list && !probing)
            return 0;
        if (list && *list >> 16 != MOVED) {
            int length = 0;
            while (list < end)
                to[length++] = *list++;
            return length;
        }
    }
    return 0;
}

static void find_contexts(void) {
    uint32_t *end = entries, *begins[INDIRECT];
    hash_contexts();
    for (int c = 0; c < CONTEXT_COUNT - INDIRECT; c++) {
        if (c < INDIRECT)
            begins[c] = end;
        used[c] = read_list(hashes[c], end);
        end += used[c];
    }
    for (int i = 0; i < INDIRECT; i++) {
        int c = CONTEXT_COUNT - INDIRECT + i;
        Hash latest = used[i] > 0 ? (begins[i][0] >> 16) + 1 : 0;
        Hash next = used[i] > 1 ? (begins[i][1] >> 16) + 1 : 0;
        Hash known = joined(state[0], i > 0 ? state[1] : 0, 102);
        hashes[c] = joined(known, joined(latest, next, 103), c);
        used[c] = read_list(hashes[c], end);
        end += used[c];
    }
}

/* Evidence. */

static inline int row_of(int child) { return child >= 0 ? child : size - 2 - child; }

static void merge(int node) {
    int a = row_of(m.children[2 * node]), b = row_of(m.children[2 * node + 1]);
    for (int i = 0; i < WORDS_OF_ROW; i += LANES) {
        Vector x = wasm_v128_load(seen + a * WORDS_OF_ROW + i);
        Vector y = wasm_v128_load(seen + b * WORDS_OF_ROW + i);
        wasm_v128_store(seen + node * WORDS_OF_ROW + i, wasm_i32x4_add(x, y));
    }
    for (int i = 0; i < BYTES_OF_ROW; i += 16) {
        int at = a * BYTES_OF_ROW + i, bt = b * BYTES_OF_ROW + i, to = node * BYTES_OF_ROW + i;
        Vector first_a = wasm_v128_load(first + at), first_b = wasm_v128_load(first + bt);
        Vector nearer = wasm_u8x16_lt(first_a, first_b);
        Vector after = where(nearer, wasm_v128_load(second + at), wasm_v128_load(second + bt));
        wasm_v128_store(first + to, wasm_u8x16_min(first_a, first_b));
        wasm_v128_store(second + to, wasm_u8x16_min(wasm_u8x16_max(first_a, first_b), after));
    }
}

static void gather(void) {
    const uint32_t *entry = entries;
    leaf_count = node_count = 0;
    for (int c = 0; c < CONTEXT_COUNT; c++)
        for (int i = 0; i < used[c]; i++, entry++) {
            int id = *entry >> 16, row = size - 1 + id;
            seen[row * WORDS_OF_ROW + c] =
                (*entry >> 6 & 1023) | (*entry & 63) << RECENT_SHIFT;
            first[row * BYTES_OF_ROW + c] = i;
            leaves[leaf_count] = id;
            leaf_count += 1 - marks[id];
            marks[id] = 1;
        }
    /* A node's number is larger than its parent's, and `touched` has a bit for each, the last
    first. */
    for (int i = 0; i < leaf_count; i++) {
        marks[leaves[i]] = 0;
        for (int node = parent[size + leaves[i]]; node >= 0; node = parent[node]) {
            uint64_t *word = touched + ((size - 2 - node) >> 6);
            uint64_t bit = 1ull << ((size - 2 - node) & 63);
            if (*word & bit)
                break;
            *word |= bit;
        }
    }
    for (int word = 0; word < (size + 63) >> 6; word++) {
        uint64_t rest = touched[word];
        touched[word] = 0;
        for (; rest; rest &= rest - 1) {
            int node = size - 2 - (word * 64 + __builtin_ctzll(rest));
            merge(node);
            nodes[node_count++] = node;
        }
    }
}

static void clear_row(int row) {
    Vector nothing = filled(0), nowhere = wasm_i8x16_splat((int8_t)NOWHERE);
    for (int i = 0; i < WORDS_OF_ROW; i += LANES)
        wasm_v128_store(seen + row * WORDS_OF_ROW + i, nothing);
    for (int i = 0; i < BYTES_OF_ROW; i += 16) {
        wasm_v128_store(first + row * BYTES_OF_ROW + i, nowhere);
        wasm_v128_store(second + row * BYTES_OF_ROW + i, nowhere);
    }
}

static void clear(void) {
    for (int i = 0; i < leaf_count; i++)
        clear_row(size - 1 + leaves[i]);
    for (int i = 0; i < node_count; i++)
        clear_row(nodes[i]);
}

/* Decisions. */

static inline float stretched(float p) {
    int place = (int)(p * 4096.0f);
    return m.stretch[place < 4095 ? place : 4095];
}

static inline float squashed(float x) {
    float place = (x + 12.0f) * (float)(4096.0 / 24);
    if (place < 0)
        return m.squash[0];
    if (place >= 4096)
        return m.squash[4096];
    int i = (int)place;
    float part = place - (float)i;
    return m.squash[i] + (m.squash[i + 1] - m.squash[i]) * part;
}

static inline int limited(int x, int most) { return x < 0 ? 0 : x > most ? most : x; }

/* Compute the inputs of a context at a node. */
static void fill_inputs_of(int c, int a, int b) {
    uint32_t both0 = seen[a * WORDS_OF_ROW + c], both1 = seen[b * WORDS_OF_ROW + c];
    int n0 = both0 & 0xFFFF, n1 = both1 & 0xFFFF, n = n0 + n1;
    float certainty = 0;
    if (n > 2) {
        float p = ((float)n1 + (float)PRIOR_COUNT) / ((float)n + (float)(2 * PRIOR_COUNT));
        certainty = (p - 0.5f) * 3.0f;
    }
    float logit = m.logs[n1] - m.logs[n0];
    int step = limited((int)(logit * 2.0f + 16.5f), LOGIT_LEVELS - 1);
    int cell = (c * COUNT_LEVELS + levels[n]) * LOGIT_LEVELS + step;

    int r0 = both0 >> RECENT_SHIFT, r1 = both1 >> RECENT_SHIFT;
    int shift = halvings[r0 < r1 ? r1 : r0], rest = (1 << shift) - 1;
    r0 = (r0 + rest) >> shift;
    r1 = (r1 + rest) >> shift;
    int first0 = first[a * BYTES_OF_ROW + c], first1 = first[b * BYTES_OF_ROW + c];
    int nearer = first0 < first1;
    int latest = nearer ? 0 : first1 < NOWHERE ? 1 : UNKNOWN;
    int one = nearer ? second[a * BYTES_OF_ROW + c] : first0;
    int other = nearer ? first1 : second[b * BYTES_OF_ROW + c];
    int after = one < other ? 0 : other < NOWHERE ? 1 : UNKNOWN;
    int recent = (c * RECENT_LEVELS + r0) * RECENT_LEVELS + r1;
    recent = (recent * SIDES + latest) * SIDES + after;

    store(inputs + c * INPUTS, wasm_f32x4_make(logit, certainty, stretched(m.counts[cell]),
                                               stretched(m.recent[recent])));
}

/* Compute the inputs of both chains of contexts at a node. A mixer of version 1 has weights of 0 for
them. */
static void fill_chains(int node, int a, int b) {
    enum { CHAINED = (ORDERS + WORDS + LANES - 1) / LANES * LANES };
    float own[CHAINED], before[CHAINED];
    const Vector lower = wasm_i32x4_splat(0xFFFF), nothing = filled(0);
    for (int c = 0; c < CHAINED; c += LANES) {
        Vector n0 = wasm_v128_and(wasm_v128_load(seen + a * WORDS_OF_ROW + c), lower);
        Vector n1 = wasm_v128_and(wasm_v128_load(seen + b * WORDS_OF_ROW + c), lower);
        Vector kinds = wasm_i32x4_sub(wasm_i32x4_splat(1), wasm_i32x4_gt(n0, nothing));
        kinds = wasm_i32x4_sub(kinds, wasm_i32x4_gt(n1, nothing));
        Vector weight = times(wasm_f32x4_convert_i32x4(kinds), filled((float)CHAIN_PRIOR));
        Vector all = add(wasm_f32x4_convert_i32x4(wasm_i32x4_add(n0, n1)), weight);
        store(own + c, divide(wasm_f32x4_convert_i32x4(n1), all));
        store(before + c, divide(weight, all));
    }
    float first = own[0] + before[0] * m.prior[node], p = first;
    for (int c = 1; c < ORDERS; c++)
        p = own[c] + before[c] * p;
    inputs[OF_ORDERS] = stretched(p);
    p = first;
    for (int c = ORDERS; c < ORDERS + WORDS; c++)
        p = own[c] + before[c] * p;
    inputs[OF_WORDS] = stretched(p);
}

/* Compute the inputs at a node.

Returns:
    Bits: the contexts with evidence, and from bit 32 on those with evidence for one turn only. */
static uint64_t fill_inputs(int node) {
    int a = row_of(m.children[2 * node]), b = row_of(m.children[2 * node + 1]);
    const Vector lower = wasm_i32x4_splat(0xFFFF), nothing = filled(0);
    uint32_t found = 0, sided = 0;
    for (int i = 0; i < WORDS_OF_ROW; i += LANES) {
        Vector n0 = wasm_v128_and(wasm_v128_load(seen + a * WORDS_OF_ROW + i), lower);
        Vector n1 = wasm_v128_and(wasm_v128_load(seen + b * WORDS_OF_ROW + i), lower);
        Vector none = wasm_i32x4_eq(wasm_i32x4_add(n0, n1), nothing);
        Vector either = wasm_i32x4_eq(wasm_i32x4_min(n0, n1), nothing);
        found |= (wasm_i32x4_bitmask(none) ^ 15u) << i;
        sided |= wasm_i32x4_bitmask(wasm_v128_andnot(either, none)) << i;
    }
    for (int i = 0; i < INPUT_COUNT; i += LANES)
        store(inputs + i, nothing);
    inputs[CONTEXT_COUNT * INPUTS] = 0.3f;
    fill_chains(node, a, b);
    for (uint32_t rest = found; rest; rest &= rest - 1)
        fill_inputs_of(__builtin_ctz(rest), a, b);
    return found | (uint64_t)sided << 32;
}

/* Return the mixture of all sets of weights. Sixteen sums side by side, as in the kernels. */
static float mix_sets(const int *rows, const float *shares) {
    Vector mixture[4] = {filled(0), filled(0), filled(0), filled(0)};
    for (int k = 0; k < SETS; k++) {
        const float *w = m.sets + rows[k] * INPUT_COUNT;
        Vector share = filled(shares[k]), sums[4];
        for (int j = 0; j < 4; j++)
            sums[j] = times(load(w + j * LANES), load(inputs + j * LANES));
        for (int i = 16; i < INPUT_COUNT; i += 16)
            for (int j = 0; j < 4; j++)
                sums[j] = times_add(load(w + i + j * LANES), load(inputs + i + j * LANES), sums[j]);
        for (int j = 0; j < 4; j++)
            mixture[j] = times_add(sums[j], share, mixture[j]);
    }
    return total(add(add(mixture[0], mixture[2]), add(mixture[1], mixture[3])));
}

/* Return the probability after one of the latest characters at a node, between two levels. */
static float refined(int which, int node, int low, float part) {
    uint32_t row = (uint32_t)mixed(keys[which] + (Hash)node * multipliers[0]) % REFINED_ROWS;
    const float *p = m.refined + (row + which * REFINED_ROWS) * REFINED_LEVELS + low;
    return p[0] * (1.0f - part) + p[1] * part;
}

/* Return the probability of turn 1 at a node. */
static float decide(int node) {
    uint64_t found = fill_inputs(node);
    if (!found)
        return m.prior[node];
    int orders = __builtin_popcount((uint32_t)found & ((1 << ORDERS) - 1));
    int certain = __builtin_popcount((uint32_t)(found >> 32) & ((1 << ORDERS) - 1));
    int last = state[0] ? m.rank[state[0] - 1] : CLASSES - 1;
    int kind = node < CLASSES - 1 ? node : CLASSES - 1;
    int length = state[WORD_LENGTH] < WORD_LENGTHS ? (int)state[WORD_LENGTH] : WORD_LENGTHS - 1;
    int column = state[COLUMN] < COLUMNS ? (int)state[COLUMN] : COLUMNS - 1;
    static const int begins[] = SET_BEGINS;
    int rows[SETS] = {
        begins[0] + orders * 8 + certain, begins[1] + kind,       begins[2] + last,
        begins[3] + kind * WORD_LENGTHS + length, begins[4] + column * 8 + orders,
    };
    float logit = mix_sets(rows, m.final + kind * SETS);
    float bounded = logit < -7.99f ? -7.99f : logit > 7.99f ? 7.99f : logit;
    float place = (bounded + 8.0f) * 2.0f;
    int low = (int)place;
    float part = place - (float)low;
    float a = refined(0, node, low, part), b = refined(1, node, low, part);
    float p = squashed((logit * 2.0f + stretched(a) + stretched(b)) / 4.0f);
    const float least = (float)SMALLEST, most = (float)(1 - SMALLEST);
    return p < least ? least : p > most ? most : p;
}

static void distribute(float *probabilities) {
    gather();
    keys[0] = mixed(state[0] * HASH_SPREAD + FIRST_SALT + 1);
    keys[1] = mixed(joined(state[0], state[1], SECOND_SALT) * HASH_SPREAD + SECOND_SALT + 1);
    int waiting = size > 1;
    stack[0] = 0;
    reach[0] = 1;
    probabilities[0] = 1; /* of a vocabulary of one character */
    while (waiting > 0) {
        waiting--;
        int node = stack[waiting];
        float here = reach[waiting];
        float p = here >= (float)NEGLIGIBLE ? decide(node) : m.prior[node];
        for (int turn = 0; turn < 2; turn++) {
            float share = here * (turn ? p : 1.0f - p);
            int child = m.children[2 * node + turn];
            if (child < 0) {
                probabilities[-1 - child] = share;
            } else {
                stack[waiting] = child;
                reach[waiting++] = share;
            }
        }
    }
    clear();
}

void mixer_predict(Predictions *found) {
    find_contexts();
    const uint32_t *entry = entries;
    int orders = 0, n = 0;
    for (int c = 0; c < ORDERS; c++) {
        if (used[c]) {
            orders = c + 1;
            n = 0;
        }
        for (int i = 0; i < used[c]; i++, entry++)
            n += *entry >> 6 & 1023;
    }
    found->length = orders;
    found->weight = 1.0f / (float)(n + 1);
    distribute(found->probabilities);
}
