/* What the parts of the compiled player share.

The player continues texts on an exported page. Its arithmetic is that of charloom.prediction.mixed
(kernel.py), of which it has the branch for one row: counts predict, the network reads, both are
mixed. Plain JavaScript beside it does the same where WebAssembly's SIMD is missing.

There is one model in a module's memory, and one text. compiled.js copies a text's state in before
each step and out after it, so a page can go on from any place.

V: characters in the vocabulary; H: hidden units; L: layers; G: gates (1 rnn, 3 gru, 4 lstm);
E: extra inputs; K: characters of context of an n-gram table. */

#ifndef ENGINE_H
#define ENGINE_H

#include <stdint.h>
#include <wasm_simd128.h>

/* Written by tools/build_player.py: the constants of charloom.context_mixing.layout. */
#include "constants.h"

#define EXPORT(name) __attribute__((export_name(#name))) name

#define LANES 4   /* numbers of a vector */
#define BLOCK_ROWS 16  /* rows of a product that are added up side by side */
#define PADDED(n) (((n) + BLOCK_ROWS - 1) / BLOCK_ROWS * BLOCK_ROWS)

enum { NO_COUNTS, TABLE, MIXER }; /* kinds of counts */

/* Memory, of which nothing is returned but by `release`. It is filled with zeros. */
void *reserve(uint32_t bytes);
void release(void *place);

/* What counts predict after a text. */
typedef struct {
    float *probabilities; /* (V,), and zeros up to PADDED(V) */
    int length;           /* characters of the longest context that they have seen */
    float weight;         /* 1 where it was hardly seen, and smaller the more often */
} Predictions;

/* network.c */
typedef struct {
    int cell, hidden, layers, vocabulary, extra, end_id; /* end_id: -1 without documents */
    int normalized; /* whether products are divided by their root mean square */
} Shape;
extern Shape shape;
void read_character(int id, const float *extra);
void log_probabilities(float *logs);

/* table.c */
void table_read(int id);
void table_predict(Predictions *found);

/* mixer.c */
void mixer_read(int id);
void mixer_predict(Predictions *found);

/* mixture.c */
void mix(float *logs, const Predictions *found, int size, int context, const double *theta);

#endif
