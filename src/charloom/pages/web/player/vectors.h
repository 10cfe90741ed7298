/* Elementary functions of vectors, by polynomials: charloom.kernels.vector_math defines them, and
says where the coefficients come from. Here every product is rounded before it is added. */

#ifndef VECTORS_H
#define VECTORS_H

#include <wasm_simd128.h>

typedef v128_t Vector; /* four numbers of 32 bits */

static inline Vector filled(float x) { return wasm_f32x4_splat(x); }
static inline Vector load(const float *place) { return wasm_v128_load(place); }
static inline void store(float *place, Vector x) { wasm_v128_store(place, x); }
static inline Vector add(Vector x, Vector y) { return wasm_f32x4_add(x, y); }
static inline Vector subtract(Vector x, Vector y) { return wasm_f32x4_sub(x, y); }
static inline Vector times(Vector x, Vector y) { return wasm_f32x4_mul(x, y); }
static inline Vector divide(Vector x, Vector y) { return wasm_f32x4_div(x, y); }
static inline Vector times_add(Vector x, Vector y, Vector z) { return add(times(x, y), z); }
static inline Vector where(Vector truth, Vector a, Vector b) {
    return wasm_v128_bitselect(a, b, truth);
}
static inline Vector largest(Vector x, Vector y) { return where(wasm_f32x4_lt(x, y), y, x); }

static inline float total(Vector x) {
    return (wasm_f32x4_extract_lane(x, 0) + wasm_f32x4_extract_lane(x, 2)) +
           (wasm_f32x4_extract_lane(x, 1) + wasm_f32x4_extract_lane(x, 3));
}

static inline float largest_of(Vector x) {
    x = largest(x, wasm_i32x4_shuffle(x, x, 2, 3, 0, 1));
    x = largest(x, wasm_i32x4_shuffle(x, x, 1, 0, 3, 2));
    return wasm_f32x4_extract_lane(x, 0);
}

/* Return 2^n, and write e^r - 1, for x = n log 2 + r between the limits. */
static inline Vector reduced(Vector x, Vector *rest) {
    const Vector magic = filled(0x1.8p23f); /* leaves a whole number in the last bits */
    Vector biased = times_add(x, filled(1.4426950408889634f), magic);
    Vector n = subtract(biased, magic);
    Vector r = subtract(x, times(n, filled(0.693145751953125f)));
    r = subtract(r, times(n, filled(1.42860682030941723212e-6f)));
    Vector q = filled(1.3926183587713494542e-3f);
    q = times_add(q, r, filled(8.3631790527225773704e-3f));
    q = times_add(q, r, filled(4.1666554617204574203e-2f));
    q = times_add(q, r, filled(1.6666576989698775683e-1f));
    q = times_add(q, r, filled(0.5f));
    *rest = times_add(times(q, r), r, r);
    Vector whole = wasm_i32x4_add(wasm_i32x4_sub(biased, magic), wasm_i32x4_splat(127));
    return wasm_i32x4_shl(whole, 23);
}

#define LOWEST_EXPONENT -87.3f
#define HIGHEST_EXPONENT 88.3f

/* e^x, 0 below the lower limit, infinite above the upper one. */
static inline Vector exp4(Vector x) {
    Vector rest, scale = reduced(x, &rest);
    Vector y = times_add(rest, scale, scale);
    y = where(wasm_f32x4_gt(x, filled(HIGHEST_EXPONENT)), filled(__builtin_inff()), y);
    return where(wasm_f32x4_lt(x, filled(LOWEST_EXPONENT)), filled(0), y);
}

/* 1 / (1 + e^-x) */
static inline Vector sigmoid4(Vector x) {
    x = wasm_f32x4_neg(x);
    x = wasm_f32x4_max(filled(LOWEST_EXPONENT), wasm_f32x4_min(x, filled(-LOWEST_EXPONENT)));
    Vector rest, scale = reduced(x, &rest);
    return divide(filled(1), add(filled(1), times_add(rest, scale, scale)));
}

/* m / (m + 2) with m = e^(2|x|) - 1, which is accurate near 0. */
static inline Vector tanh4(Vector x) {
    Vector a = wasm_f32x4_min(wasm_f32x4_abs(x), filled(9.5f));
    Vector rest, scale = reduced(add(a, a), &rest);
    Vector m = times_add(rest, scale, subtract(scale, filled(1)));
    Vector y = divide(m, add(m, filled(2)));
    return where(wasm_f32x4_splat(-0.0f), x, y); /* the sign of x */
}

/* log x for x >= 0. */
static inline Vector log4(Vector x) {
    const Vector of_root = wasm_i32x4_splat(0x3F3504F3); /* the bits of the root of 1/2 */
    Vector tiny = wasm_f32x4_lt(x, filled(0x1p-126f));
    Vector found = times(x, where(tiny, filled(0x1p23f), filled(1)));
    Vector k = wasm_i32x4_shr(wasm_i32x4_sub(found, of_root), 23);
    Vector f = subtract(wasm_i32x4_sub(found, wasm_i32x4_shl(k, 23)), filled(1));
    k = add(wasm_f32x4_convert_i32x4(k), where(tiny, filled(-23), filled(0)));
    Vector s = divide(f, add(f, filled(2))), z = times(s, s);
    Vector r = filled(2.0f / 13);
    r = times_add(r, z, filled(2.0f / 11));
    r = times_add(r, z, filled(2.0f / 9));
    r = times_add(r, z, filled(2.0f / 7));
    r = times_add(r, z, filled(2.0f / 5));
    r = times_add(r, z, filled(2.0f / 3));
    Vector half = times(times(f, f), filled(0.5f));
    Vector inner = times_add(r, z, half);
    inner = times_add(s, inner, times(k, filled(1.42860682030941723212e-6f)));
    Vector y = subtract(f, subtract(half, inner));
    y = times_add(k, filled(0.693145751953125f), y);
    y = where(wasm_f32x4_lt(x, filled(__builtin_inff())), y, x);
    return where(wasm_f32x4_eq(x, filled(0)), filled(-__builtin_inff()), y);
}

#endif
