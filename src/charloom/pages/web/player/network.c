/* A recurrent network that reads one character: charloom.engines.reference defines it.

A step reads all weights once. Those that the page has in 8 bits are widened to 16 bits, and become
floating-point numbers in the product: row i of such a matrix is scale[i] times whole numbers. */

#include "engine.h"
#include "vectors.h"

enum { RNN, GRU, LSTM };
enum { BYTES = 1, FLOATS = 4 };     /* kinds of numbers in the page */
enum { RECURRENT, INPUT, DECODER }; /* a layer's matrices, and the last one */

/* A matrix in blocks of BLOCK rows: a block has the first column of its rows, then the second one,
and so on. The first layer's products of a character are a column of its W_ih, so that this one lies
`by_columns`: those of the V characters, then those of the E extra inputs. */
typedef struct {
    int rows, columns, kind, by_columns;
    void *values;
    float *scales; /* (rows,) */
} Matrix;

typedef struct {
    Matrix recurrent, input;
    float *bias_ih, *bias_hh; /* (G, PADDED(H)) */
} Layer;

Shape shape;
static Layer *layers;
static Matrix decoder;
static float *decoder_bias;
static float *state;   /* (2, L, PADDED(H)): the hidden states, and for lstm the cell states */
static float *inputs;  /* (G, PADDED(H)): the products of the input, of the state ... */
static float *products;
static int *likely; /* (E,) extra inputs that are not negligible */

static int gates(void) { return shape.cell == RNN ? 1 : shape.cell == GRU ? 3 : 4; }
static int padded(void) { return PADDED(shape.hidden); }

void EXPORT(set_network)(int cell, int hidden, int count, int vocabulary, int extra, int end_id) {
    shape = (Shape){cell, hidden, count, vocabulary, extra, end_id};
    int stacked = gates() * padded();
    layers = reserve(count * sizeof(Layer));
    for (int i = 0; i < count; i++) {
        layers[i].bias_ih = reserve(stacked * sizeof(float));
        layers[i].bias_hh = reserve(stacked * sizeof(float));
    }
    decoder_bias = reserve(PADDED(vocabulary) * sizeof(float));
    state = reserve(2 * count * padded() * sizeof(float));
    inputs = reserve(stacked * sizeof(float));
    products = reserve(stacked * sizeof(float));
    likely = reserve((extra + 1) * sizeof(int));
}

float *EXPORT(network_state)(void) { return state; }

/* Weights come in two steps, so that no copy of them is left in memory: a place for the packed ones
is reserved, then they are packed into it from where the caller has put them, for as long as that. */
static Matrix *coming;
static int size_of_part; /* rows of a part of `coming`, which is padded; rows of the whole: */
static int rows_coming;
static int columns_coming;

/* Reserve a weight's place.

Args:
    which: RECURRENT, INPUT or DECODER.
    layer: of the first two. The first layer's INPUT has columns of characters.
    kind: of its numbers, BYTES or FLOATS. */
void EXPORT(prepare_weight)(int which, int layer, int kind) {
    int parts = which == DECODER ? 1 : gates();
    int by_columns = which == INPUT && layer == 0;
    size_of_part = which == DECODER ? shape.vocabulary : shape.hidden;
    rows_coming = parts * size_of_part;
    columns_coming = by_columns ? shape.vocabulary + shape.extra : shape.hidden;
    coming = which == DECODER ? &decoder
             : which == INPUT ? &layers[layer].input
                              : &layers[layer].recurrent;
    int rows = parts * PADDED(size_of_part);
    *coming = (Matrix){rows, columns_coming, kind, by_columns, 0, 0};
    coming->values = reserve((uint32_t)rows * columns_coming * (kind == BYTES ? 2 : 4));
    coming->scales = reserve(rows * sizeof(float));
}

/* Pack the weight whose place is reserved.

Args:
    values: row by row, with the gates in PyTorch's order.
    scales: a row's scale, 0 for 1. */
void EXPORT(set_weight)(const void *values, const float *scales) {
    for (int i = 0; i < rows_coming; i++) {
        int row = i / size_of_part * PADDED(size_of_part) + i % size_of_part;
        coming->scales[row] = scales ? scales[i] : 1;
        for (int k = 0; k < columns_coming; k++) {
            int from = i * columns_coming + k;
            int to = coming->by_columns ? k * coming->rows + row
                                        : (row / BLOCK * columns_coming + k) * BLOCK + row % BLOCK;
            if (coming->kind == BYTES)
                ((int16_t *)coming->values)[to] = ((const int8_t *)values)[from];
            else
                ((float *)coming->values)[to] = ((const float *)values)[from];
        }
    }
}

/* Take the biases of a layer, (G H,) each. */
void EXPORT(set_biases)(int layer, const float *ih, const float *hh) {
    for (int i = 0; i < gates() * shape.hidden; i++) {
        int row = i / shape.hidden * padded() + i % shape.hidden;
        layers[layer].bias_ih[row] = ih[i];
        layers[layer].bias_hh[row] = hh[i];
    }
}

void EXPORT(set_decoder_bias)(const float *bias) {
    for (int i = 0; i < PADDED(shape.vocabulary); i++)
        decoder_bias[i] = i < shape.vocabulary ? bias[i] : 0;
}

static inline Vector whole4(const int16_t *place) {
    return wasm_f32x4_convert_i32x4(wasm_i32x4_load16x4(place));
}

/* Write W x + b, (rows,). */
static void multiply(const Matrix *matrix, const float *x, const float *bias, float *out) {
    int count = matrix->columns;
    for (int row = 0; row < matrix->rows; row += BLOCK) {
        Vector a = filled(0), b = a, c = a, d = a;
        if (matrix->kind == FLOATS) {
            const float *w = (const float *)matrix->values + row * count;
            for (int k = 0; k < count; k++, w += BLOCK) {
                Vector here = wasm_v128_load32_splat(x + k);
                a = times_add(load(w), here, a);
                b = times_add(load(w + LANES), here, b);
                c = times_add(load(w + 2 * LANES), here, c);
                d = times_add(load(w + 3 * LANES), here, d);
            }
        } else {
            const int16_t *w = (const int16_t *)matrix->values + row * count;
            for (int k = 0; k < count; k++, w += BLOCK) {
                Vector here = wasm_v128_load32_splat(x + k);
                a = times_add(whole4(w), here, a);
                b = times_add(whole4(w + LANES), here, b);
                c = times_add(whole4(w + 2 * LANES), here, c);
                d = times_add(whole4(w + 3 * LANES), here, d);
            }
        }
        const float *scale = matrix->scales + row;
        store(out + row, times_add(a, load(scale), load(bias + row)));
        store(out + row + LANES, times_add(b, load(scale + LANES), load(bias + row + LANES)));
        store(out + row + 2 * LANES,
              times_add(c, load(scale + 2 * LANES), load(bias + row + 2 * LANES)));
        store(out + row + 3 * LANES,
              times_add(d, load(scale + 3 * LANES), load(bias + row + 3 * LANES)));
    }
}

/* Extra inputs below this one are left out: all of them together change a product by less than
the rounding of the weights. */
#define NEGLIGIBLE_INPUT 1e-8f

static inline Vector column4(const Matrix *matrix, int place) {
    return matrix->kind == FLOATS ? load((const float *)matrix->values + place)
                                  : whole4((const int16_t *)matrix->values + place);
}

/* Write the products of the first layer's inputs: U[:, id] + U' extra + b. */
static void look_up(const Matrix *matrix, int id, const float *extra, const float *bias,
                    float *out) {
    int stacked = matrix->rows, count = 0;
    for (int e = 0; e < shape.extra; e++)
        if (extra[e] > NEGLIGIBLE_INPUT)
            likely[count++] = e;
    for (int row = 0; row < stacked; row += BLOCK) {
        Vector sums[BLOCK / LANES];
        for (int j = 0; j < BLOCK / LANES; j++)
            sums[j] = column4(matrix, id * stacked + row + j * LANES);
        for (int i = 0; i < count; i++) {
            int begin = (shape.vocabulary + likely[i]) * stacked + row;
            Vector p = filled(extra[likely[i]]);
            for (int j = 0; j < BLOCK / LANES; j++)
                sums[j] = times_add(column4(matrix, begin + j * LANES), p, sums[j]);
        }
        for (int j = 0; j < BLOCK / LANES; j++) {
            int at = row + j * LANES;
            store(out + at, times_add(sums[j], load(matrix->scales + at), load(bias + at)));
        }
    }
}

/* The cells change h, and lstm's also c, (PADDED(H),) each, by the products x of the inputs and a of
the state, (G, PADDED(H)), with their biases. */

static void advance_rnn(const float *x, const float *a, float *h) {
    for (int i = 0; i < padded(); i += LANES)
        store(h + i, tanh4(add(load(x + i), load(a + i))));
}

static void advance_gru(const float *x, const float *a, float *h) {
    int size = padded();
    for (int i = 0; i < size; i += LANES) {
        Vector r = sigmoid4(add(load(x + i), load(a + i)));
        Vector z = sigmoid4(add(load(x + size + i), load(a + size + i)));
        Vector n = tanh4(times_add(r, load(a + 2 * size + i), load(x + 2 * size + i)));
        store(h + i, add(times(subtract(filled(1), z), n), times(z, load(h + i))));
    }
}

static void advance_lstm(const float *x, const float *a, float *h, float *c) {
    int size = padded();
    for (int at = 0; at < size; at += LANES) {
        Vector i = sigmoid4(add(load(x + at), load(a + at)));
        Vector f = sigmoid4(add(load(x + size + at), load(a + size + at)));
        Vector g = tanh4(add(load(x + 2 * size + at), load(a + 2 * size + at)));
        Vector o = sigmoid4(add(load(x + 3 * size + at), load(a + 3 * size + at)));
        Vector now = times_add(f, load(c + at), times(i, g));
        store(c + at, now);
        store(h + at, times(o, tanh4(now)));
    }
}

/* Read a character, beside extra inputs, (E,): change the state. */
void read_character(int id, const float *extra) {
    int size = padded(), all = shape.layers * size;
    if (id == shape.end_id)
        for (int i = 0; i < 2 * all; i++)
            state[i] = 0;
    for (int i = 0; i < shape.layers; i++) {
        Layer *layer = layers + i;
        float *h = state + i * size;
        if (i == 0)
            look_up(&layer->input, id, extra, layer->bias_ih, inputs);
        else
            multiply(&layer->input, h - size, layer->bias_ih, inputs);
        multiply(&layer->recurrent, h, layer->bias_hh, products);
        if (shape.cell == RNN)
            advance_rnn(inputs, products, h);
        else if (shape.cell == GRU)
            advance_gru(inputs, products, h);
        else
            advance_lstm(inputs, products, h, h + all);
    }
}

/* Write the log-probabilities of the next character, (V,), and numbers up to PADDED(V) that are so
low that e to their power is 0. */
void log_probabilities(float *logs) {
    int size = shape.vocabulary, end = PADDED(size);
    multiply(&decoder, state + (shape.layers - 1) * padded(), decoder_bias, logs);
    for (int i = size; i < end; i++)
        logs[i] = -1e30f;
    Vector most = load(logs);
    for (int i = LANES; i < end; i += LANES)
        most = largest(most, load(logs + i));
    Vector shift = filled(largest_of(most)), sum = filled(0);
    for (int i = 0; i < end; i += LANES)
        sum = add(sum, exp4(subtract(load(logs + i), shift)));
    shift = add(shift, log4(filled(total(sum))));
    for (int i = 0; i < end; i += LANES)
        store(logs + i, subtract(load(logs + i), shift));
}
