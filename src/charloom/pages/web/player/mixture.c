/* The mixture of the network and counts: charloom.ngrams.mixing defines it, and mixing_rows.py is
the same arithmetic in one pass. */

#include "engine.h"
#include "vectors.h"

#define LOG_2_HIGH 0.693147180369123816490
#define LOG_2_LOW 1.90821492927058770002e-10

/* e^x in 64 bits, as in charloom.context_mixing.functions. */
static double exp64(double x) {
    double k = __builtin_rint(x / 0.6931471805599453);
    double r = (x - k * LOG_2_HIGH) - k * LOG_2_LOW, sum = 1;
    for (int i = 16; i > 0; i--)
        sum = 1 + sum * r / i;
    union {
        uint64_t bits;
        double number;
    } power = {(uint64_t)((int64_t)k + 1023) << 52};
    return sum * power.number;
}

/* 1 / (1 + e^-x), between LEAST_WEIGHT and one less. */
static double weight_of(double x) {
    x = x < -40 ? -40 : x > 40 ? 40 : x;
    double g = 1 / (1 + exp64(-x));
    return g < LEAST_WEIGHT ? LEAST_WEIGHT : g;
}

static double log_of(float x) { return wasm_f32x4_extract_lane(log4(filled(x)), 0); }

/* Return the index of the first of the values that is `value`, else the last index. */
static int first_of(const float *values, int size, float value) {
    int i = 0;
    while (i < size - 1 && values[i] != value)
        i++;
    return i;
}

/* Replace the network's log-probabilities, (V,) and padding, by the mixture's.

Args:
    logs: the network's.
    found: what the counts predict.
    size: V.
    context: the largest `found->length`, K.
    theta: the parameters of the network's weight, (2 (K + 1) + 11,). */
void mix(float *logs, const Predictions *found, int size, int context, const double *theta) {
    const float *p = found->probabilities;
    Vector sum_n = filled(0), sum_c = sum_n, best = sum_n, most = load(logs);
    for (int i = 0; i < size; i += LANES) {
        Vector x = load(logs + i), y = load(p + i);
        sum_n = add(sum_n, times(exp4(x), x));
        sum_c = add(sum_c, where(wasm_f32x4_gt(y, filled(0)), times(y, log4(y)), filled(0)));
        most = largest(most, x);
        best = largest(best, y);
    }
    double h_n = -total(sum_n), h_c = -total(sum_c);
    float likeliest = largest_of(most), likely = largest_of(best);
    int guess = first_of(logs, size, likeliest), other = first_of(p, size, likely);
    double s_n = -likeliest, s_c = -log_of(likely);
    double logit = theta[0] + theta[1] * h_n + theta[2] * h_c + theta[3] * s_n + theta[4] * s_c +
                   theta[5] * (h_n * h_c / 3) + theta[6] * (h_n * h_n / 3) +
                   theta[7] * (h_c * h_c / 3) + theta[8] * (s_n * s_c) -
                   theta[9] * (log_of(p[guess]) / 3) - theta[10] * (logs[other] / 3.0) +
                   theta[11 + found->length] -
                   theta[12 + context + found->length] * (log_of(found->weight) / 3);
    Vector g = filled((float)weight_of(logit)), rest = filled((float)weight_of(-logit));
    for (int i = 0; i < size; i += LANES)
        store(logs + i, log4(times_add(exp4(load(logs + i)), g, times(load(p + i), rest))));
}
