/* The memory of the module, and a step of the whole model. */

#include "engine.h"

extern unsigned char __heap_base;
#define PAGE 65536u
#define NONE (~(uintptr_t)0)

static uintptr_t used, zeroed; /* the end of reserved memory, and of what was ever reserved */

/* Return memory of zeros, aligned to a vector. Where there is none, the module traps. */
void *EXPORT(reserve)(uint32_t bytes) {
    if (!used)
        used = zeroed = ((uintptr_t)&__heap_base + 63) & ~(uintptr_t)63;
    uint64_t end = ((uint64_t)used + bytes + 63) & ~(uint64_t)63;
    uint64_t has = (uint64_t)__builtin_wasm_memory_size(0) * PAGE;
    if (end > 0xFFFF0000u ||
        (end > has && __builtin_wasm_memory_grow(0, (end - has + PAGE - 1) / PAGE) == NONE))
        __builtin_trap();
    for (uintptr_t i = used; i < zeroed && i < end; i++)
        *(unsigned char *)i = 0;
    void *found = (void *)used;
    used = (uintptr_t)end;
    zeroed = used > zeroed ? used : zeroed;
    return found;
}

/* Give back a place and all that was reserved after it. */
void EXPORT(release)(void *place) { used = (uintptr_t)place; }

static int kind, mixes, context;
static const double *theta;
static float *logs;
static Predictions found;

/* Prepare a step, when the network's shape is known.

Args:
    counts_kind: NO_COUNTS, TABLE or MIXER.
    mixing: whether the predictions of both are mixed.
    longest: the counts' characters of context, K.
    parameters: of the network's weight; they stay where they are. */
void EXPORT(set_counts)(int counts_kind, int mixing, int longest, const double *parameters) {
    kind = counts_kind;
    mixes = mixing;
    context = longest;
    theta = parameters;
    logs = reserve(PADDED(shape.vocabulary) * sizeof(float));
    found.probabilities = reserve(PADDED(shape.vocabulary) * sizeof(float));
}

/* Return the place of a step's log-probabilities of the next character, (V,). */
float *EXPORT(results)(void) { return logs; }

/* Read a character after the states in memory, and change them. */
void EXPORT(step)(int id) {
    if (kind == TABLE) {
        table_read(id);
        table_predict(&found);
    } else if (kind == MIXER) {
        mixer_read(id);
        mixer_predict(&found);
    }
    read_character(id, found.probabilities);
    log_probabilities(logs);
    if (mixes)
        mix(logs, &found, shape.vocabulary, context, theta);
}
