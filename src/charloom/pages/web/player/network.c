/* A recurrent network that reads one character: charloom.engines.reference defines it.

A step reads every weight once. The numbers of hidden units and of characters are padded to whole
blocks, with weights of 0. */

#include "engine.h"
#include "vectors.h"

enum { RNN, GRU, LSTM };
enum { RECURRENT, INPUT, DECODER }; /* a layer's weights, and the last one */

/* A weight in blocks of rows: a block has the first column of its rows, then the second one, and so
on. The first layer's products of a character are a column of its W_ih, so that this one lies
`by_columns`: those of the V characters, then those of the E extra inputs. */
typedef struct {
    int rows, columns, by_columns;
    float *values;
} Matrix;

typedef struct {
    Matrix recurrent, input;
    float *bias_ih, *bias_hh; /* (G, PADDED(H)) */
    float *gain_ih, *gain_hh; /* the same, only with normalized products */
} Layer;

Shape shape;
static Layer *layers;
static Matrix decoder;
static float *decoder_bias;
static float *state;             /* (2, L, PADDED(H)): hidden states, and for lstm cell states */
static float *inputs, *products; /* (G, PADDED(H)): of a layer's input, and of its state */
static float *zeros;             /* (G, PADDED(H)): the biases of products to be normalized */
static int *likely;              /* (E,) extra inputs that are not negligible */

static int gates(void) { return shape.cell == RNN ? 1 : shape.cell == GRU ? 3 : 4; }
static int padded(void) { return PADDED(shape.hidden); }

void EXPORT(set_network)(int cell, int hidden, int count, int vocabulary, int extra, int end_id,
                         int normalized) {
    shape = (Shape){cell, hidden, count, vocabulary, extra, end_id, normalized};
    int stacked = gates() * padded();
    layers = reserve(count * sizeof(Layer));
    for (int i = 0; i < count; i++) {
        layers[i].bias_ih = reserve(stacked * sizeof(float));
        layers[i].bias_hh = reserve(stacked * sizeof(float));
        if (normalized) {
            layers[i].gain_ih = reserve(stacked * sizeof(float));
            layers[i].gain_hh = reserve(stacked * sizeof(float));
        }
    }
    decoder_bias = reserve(PADDED(vocabulary) * sizeof(float));
    state = reserve(2 * count * padded() * sizeof(float));
    inputs = reserve(stacked * sizeof(float));
    products = reserve(stacked * sizeof(float));
    zeros = reserve(stacked * sizeof(float));
    likely = reserve(extra * sizeof(int));
}

float *EXPORT(network_state)(void) { return state; }

/* A weight comes in two steps, so that no copy of it is left in memory: a place for the packed one
is reserved, and then it is packed from where the caller has put it, for as long as that. */
static Matrix *coming;
static int part, parts; /* rows of each part, which is padded, and how many there are */

/* Reserve a weight's place.

Args:
    which: RECURRENT, INPUT or DECODER.
    layer: of the first two. */
void EXPORT(prepare_weight)(int which, int layer) {
    int by_columns = which == INPUT && layer == 0;
    part = which == DECODER ? shape.vocabulary : shape.hidden;
    parts = which == DECODER ? 1 : gates();
    coming = which == DECODER ? &decoder
             : which == INPUT ? &layers[layer].input
                              : &layers[layer].recurrent;
    coming->rows = parts * PADDED(part);
    coming->columns = by_columns ? shape.vocabulary + shape.extra : shape.hidden;
    coming->by_columns = by_columns;
    coming->values = reserve((uint32_t)coming->rows * coming->columns * sizeof(float));
}

/* Pack the weight whose place is reserved, from rows in PyTorch's order. */
void EXPORT(set_weight)(const float *values) {
    int columns = coming->columns;
    for (int i = 0; i < parts * part; i++) {
        int row = i / part * PADDED(part) + i % part;
        for (int k = 0; k < columns; k++) {
            int block = row / BLOCK_ROWS, in_block = row % BLOCK_ROWS;
            int place = coming->by_columns ? k * coming->rows + row
                                           : (block * columns + k) * BLOCK_ROWS + in_block;
            coming->values[place] = values[i * columns + k];
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

/* Take the gains of a layer's normalized products, (G H,) each. */
void EXPORT(set_gains)(int layer, const float *ih, const float *hh) {
    for (int i = 0; i < gates() * shape.hidden; i++) {
        int row = i / shape.hidden * padded() + i % shape.hidden;
        layers[layer].gain_ih[row] = ih[i];
        layers[layer].gain_hh[row] = hh[i];
    }
}

/* Take the decoder's bias, (V,). */
void EXPORT(set_decoder_bias)(const float *bias) {
    for (int i = 0; i < shape.vocabulary; i++)
        decoder_bias[i] = bias[i];
}

/* Write W x + b, (rows,). */
static void multiply(const Matrix *matrix, const float *x, const float *bias, float *out) {
    const float *w = matrix->values;
    for (int row = 0; row < matrix->rows; row += BLOCK_ROWS) {
        Vector a = load(bias + row), b = load(bias + row + LANES);
        Vector c = load(bias + row + 2 * LANES), d = load(bias + row + 3 * LANES);
        for (int k = 0; k < matrix->columns; k++, w += BLOCK_ROWS) {
            Vector here = wasm_v128_load32_splat(x + k);
            a = times_add(load(w), here, a);
            b = times_add(load(w + LANES), here, b);
            c = times_add(load(w + 2 * LANES), here, c);
            d = times_add(load(w + 3 * LANES), here, d);
        }
        store(out + row, a);
        store(out + row + LANES, b);
        store(out + row + 2 * LANES, c);
        store(out + row + 3 * LANES, d);
    }
}

/* Extra inputs whose sum is below this are left out: they change a product by less than its
rounding does. They are most of a large vocabulary's probabilities. */
#define NEGLIGIBLE_INPUTS 1e-7f

/* Write the products of the first layer's inputs: U[:, id] + U' extra + b. */
static void look_up(const Matrix *matrix, int id, const float *extra, const float *bias,
                    float *out) {
    int rows = matrix->rows, count = 0;
    for (int e = 0; e < shape.extra; e++)
        if (extra[e] > NEGLIGIBLE_INPUTS / shape.extra)
            likely[count++] = e;
    for (int row = 0; row < rows; row += BLOCK_ROWS) {
        Vector sums[BLOCK_ROWS / LANES];
        const float *column = matrix->values + id * rows + row;
        for (int j = 0; j < BLOCK_ROWS / LANES; j++)
            sums[j] = add(load(bias + row + j * LANES), load(column + j * LANES));
        for (int i = 0; i < count; i++) {
            column = matrix->values + (shape.vocabulary + likely[i]) * rows + row;
            Vector p = filled(extra[likely[i]]);
            for (int j = 0; j < BLOCK_ROWS / LANES; j++)
                sums[j] = times_add(load(column + j * LANES), p, sums[j]);
        }
        for (int j = 0; j < BLOCK_ROWS / LANES; j++)
            store(out + row + j * LANES, sums[j]);
    }
}

#define EPSILON 1e-3f /* beside a mean square */

/* Divide the products x of each gate, (G, PADDED(H)), by their root mean square, multiply them by
gains, and add biases: charloom.engines.reference_normalization. */
static void normalize(float *x, const float *gain, const float *bias) {
    int size = padded();
    for (int from = 0; from < gates() * size; from += size) {
        Vector sum = filled(0);
        for (int i = from; i < from + size; i += LANES)
            sum = times_add(load(x + i), load(x + i), sum);
        Vector square = filled(total(sum) / shape.hidden + EPSILON);
        Vector factor = divide(filled(1), wasm_f32x4_sqrt(square));
        for (int i = from; i < from + size; i += LANES)
            store(x + i, times_add(times(load(x + i), factor), load(gain + i), load(bias + i)));
    }
}

/* The cells change h, and lstm's also c, (PADDED(H),) each, by the products x of the inputs and a
of the state, (G, PADDED(H)), with their biases. */

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
        const float *of_input = shape.normalized ? zeros : layer->bias_ih;
        if (i == 0)
            look_up(&layer->input, id, extra, of_input, inputs);
        else
            multiply(&layer->input, h - size, of_input, inputs);
        multiply(&layer->recurrent, h, shape.normalized ? zeros : layer->bias_hh, products);
        if (shape.normalized) {
            normalize(inputs, layer->gain_ih, layer->bias_ih);
            normalize(products, layer->gain_hh, layer->bias_hh);
        }
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
