"""Elementary functions of SIMD vectors: exp, log, tanh, the logistic function, roots, division."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from charloom.kernels.sizes import ESTIMATES
from charloom.kernels.vectors import Vector, filled, vector_type

# eʳ = 1 + r + r²·Q(r) for |r| ≤ log(2)/2, where Q is the polynomial nearest to (eʳ − 1 − r)/r²
# (Chebyshev). The largest error of eʳ is 8e-9 in float32 and 2e-19 in float64. The coefficients are
# ordered from the highest power.
_Q = {
    32: (
        1.3926183587713494542e-3,
        8.3631790527225773704e-3,
        4.1666554617204574203e-2,
        1.6666576989698775683e-1,
        0.5,
    ),
    64: (
        2.0914686968086877233e-9,
        2.5105217004720745164e-8,
        2.7557273643110295328e-7,
        2.755725540020642443e-6,
        2.4801587325547741216e-5,
        1.9841269874820625271e-4,
        1.3888888888883748305e-3,
        8.3333333333261351258e-3,
        4.1666666666666669755e-2,
        1.6666666666666670991e-1,
        0.5,
    ),
}
_LOG2_E = 1.4426950408889634074
# log(2) in two parts, the first with zeros at its end so that n times it is exact.
_LN2 = {
    32: (0.693145751953125, 1.42860682030941723212e-6),
    64: (6.93147180369123816490e-1, 1.90821492927058770002e-10),
}
# log(1 + f) = f − f²/2 + s (f²/2 + R(s²)), s = f / (2 + f), where R(z) = 2z/3 + 2z²/5 + … is the
# series of log(1 + f) / s − 2. These are the numbers of its terms for |f| below √2 − 1.
_LOG_TERMS = {32: 6, 64: 11}
# The limits below and above which eˣ is not a normal number, and the one above which tanh x is 1.
_LIMITS = {32: (-87.3, 88.3, 9.5), 64: (-708.3, 709.4, 19.5)}


class _Emitter:
    """Arithmetic on vectors of one kind, as LLVM instructions."""

    def __init__(self, builder: Any, vector: Vector) -> None:
        self.builder = builder
        self.kind = vector_type(vector.dtype)
        self.count = vector.lanes
        self.bits = vector.dtype.bitwidth

    def number(self, value: float) -> Any:
        return ir.Constant(self.kind, [value] * self.count)

    def call(self, name: str, *values: Any) -> Any:
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(self.kind, [self.kind] * len(values)),
            f"llvm.{name}.v{self.count}f{self.bits}",
        )
        return self.builder.call(function, values)

    def where_less(self, x: Any, y: Any, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered("<", x, y), a, b)

    def reduced(self, x: Any) -> tuple[Any, Any]:
        """Return 2ⁿ and eʳ − 1 for x = n·log 2 + r; the result is invalid outside the limits.

        Adding the magic number 1.5·2^23 (2^52) rounds to a whole number and leaves it in the last
        bits, from where it goes into the exponent.
        """
        builder = self.builder
        mantissa, bias = (23, 127) if self.bits == 32 else (52, 1023)
        magic = self.number(1.5 * 2.0**mantissa)
        biased = self.call("fma", x, self.number(_LOG2_E), magic)
        n = builder.fsub(biased, magic)
        high, low = _LN2[self.bits]
        r = self.call("fma", n, self.number(-high), x)
        r = self.call("fma", n, self.number(-low), r)
        coefficients = _Q[self.bits]
        q = self.number(coefficients[0])
        for coefficient in coefficients[1:]:
            q = self.call("fma", q, r, self.number(coefficient))
        m = self.call("fma", builder.fmul(q, r), r, r)
        integers = ir.VectorType(ir.IntType(self.bits), self.count)
        whole = builder.sub(builder.bitcast(biased, integers), builder.bitcast(magic, integers))
        exponent = builder.add(whole, ir.Constant(integers, [bias] * self.count))
        shifted = builder.shl(exponent, ir.Constant(integers, [mantissa] * self.count))
        return builder.bitcast(shifted, self.kind), m

    def estimate(self, name: str, x: Any) -> Any:
        """Return AVX-512's estimate of 1/x or 1/√x, which has 14 bits."""
        mask = ir.IntType(16)
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(self.kind, [self.kind, self.kind, mask]),
            f"llvm.x86.avx512.{name}14.ps.512",
        )
        return self.builder.call(function, [x, self.number(0.0), mask(0xFFFF)])

    def divide(self, x: Any, y: Any) -> Any:
        """Return x / y for 2⁻¹²⁶ ≤ |y| < 2¹²⁶.

        Where the processor has estimates, one Newton step for the reciprocal and one for the
        quotient are as accurate as the division, and faster.
        """
        if not ESTIMATES or self.bits != 32:
            return self.builder.fdiv(x, y)
        minus = self.builder.fneg(y)
        r = self.estimate("rcp", y)
        r = self.call("fma", r, self.call("fma", minus, r, self.number(1.0)), r)
        q = self.builder.fmul(x, r)
        return self.call("fma", r, self.call("fma", minus, q, x), q)

    def root(self, x: Any) -> Any:
        """Return √x, in the same way; at most 2⁶³ (for x up to infinity)."""
        if not ESTIMATES or self.bits != 32:
            return self.call("sqrt", x)
        least, most = self.number(2.0**-126), self.number(2.0**126)
        x = self.where_less(most, x, most, x)
        r = self.estimate("rsqrt", self.where_less(x, least, least, x))
        y = self.builder.fmul(x, r)
        rest = self.call("fma", self.builder.fneg(y), y, x)
        return self.call("fma", self.builder.fmul(r, self.number(0.5)), rest, y)

    def inverse_root(self, x: Any) -> Any:
        """Return 1 / √x for x ≥ 2⁻¹²⁶, in the same way; at least 2⁻⁶³."""
        if not ESTIMATES or self.bits != 32:
            return self.builder.fdiv(self.number(1.0), self.call("sqrt", x))
        least, most = self.number(2.0**-126), self.number(2.0**126)
        x = self.where_less(most, x, most, x)
        x = self.where_less(x, least, least, x)
        r = self.estimate("rsqrt", x)
        half = self.builder.fmul(r, self.number(0.5))
        rest = self.call("fma", self.builder.fneg(self.builder.fmul(x, r)), r, self.number(1.0))
        return self.call("fma", half, rest, r)

    def log(self, x: Any) -> Any:
        """Return log x = k·log 2 + log(1 + f) for x = 2ᵏ (1 + f), 1 + f from √½ to √2."""
        builder, bits = self.builder, self.bits
        mantissa, least = (23, 2.0**-126) if bits == 32 else (52, 2.0**-1022)
        of_root = 0x3F3504F3 if bits == 32 else 0x3FE6A09E667F3BCD  # the bits of √½
        integers = ir.VectorType(ir.IntType(bits), self.count)

        def whole(value: int) -> Any:
            return ir.Constant(integers, [value] * self.count)

        # A subnormal number is multiplied by a power of two, so that its exponent is in its bits.
        normal = self.where_less(x, self.number(least), self.number(2.0**mantissa), self.number(1))
        shift = self.where_less(x, self.number(least), self.number(-mantissa), self.number(0))
        found = builder.bitcast(builder.fmul(x, normal), integers)
        k = builder.ashr(builder.sub(found, whole(of_root)), whole(mantissa))
        rest = builder.sub(found, builder.shl(k, whole(mantissa)))
        f = builder.fsub(builder.bitcast(rest, self.kind), self.number(1.0))
        k = builder.fadd(builder.sitofp(k, self.kind), shift)
        s = self.divide(f, builder.fadd(f, self.number(2.0)))
        z = builder.fmul(s, s)
        terms = _LOG_TERMS[bits]
        r = self.number(2 / (2 * terms + 1))
        for term in range(terms - 1, 0, -1):
            r = self.call("fma", r, z, self.number(2 / (2 * term + 1)))
        half = builder.fmul(builder.fmul(f, f), self.number(0.5))
        inner = self.call("fma", r, z, half)
        high, low = _LN2[bits]
        inner = self.call("fma", s, inner, builder.fmul(k, self.number(low)))
        y = builder.fsub(f, builder.fsub(half, inner))
        y = self.call("fma", k, self.number(high), y)
        infinite = self.number(float("inf"))
        y = builder.select(builder.fcmp_unordered(">=", x, infinite), x, y)
        y = self.where_less(x, self.number(0.0), self.number(float("nan")), y)
        nothing = builder.fcmp_ordered("==", x, self.number(0.0))
        return builder.select(nothing, self.number(float("-inf")), y)

    def exp(self, x: Any) -> Any:
        lowest, highest, _ = _LIMITS[self.bits]
        scale, m = self.reduced(x)
        y = self.call("fma", m, scale, scale)
        y = self.where_less(self.number(highest), x, self.number(float("inf")), y)
        return self.where_less(x, self.number(lowest), self.number(0.0), y)

    def sigmoid(self, x: Any) -> Any:
        lowest = _LIMITS[self.bits][0]
        x = self.builder.fneg(x)
        x = self.where_less(self.number(-lowest), x, self.number(-lowest), x)
        x = self.where_less(x, self.number(lowest), self.number(lowest), x)
        scale, m = self.reduced(x)
        e = self.call("fma", m, scale, scale)
        return self.divide(self.number(1.0), self.builder.fadd(self.number(1.0), e))

    def tanh(self, x: Any) -> Any:
        one = self.number(_LIMITS[self.bits][2])
        a = self.call("fabs", x)
        a = self.where_less(one, a, one, a)
        scale, m = self.reduced(self.builder.fadd(a, a))
        m = self.call("fma", m, scale, self.builder.fsub(scale, self.number(1.0)))
        y = self.divide(m, self.builder.fadd(m, self.number(2.0)))
        return self.call("copysign", y, x)


def _elementwise(emit_as: Any) -> Any:
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit_as(_Emitter(builder, sig.return_type), args[0])

    return emit


# tests/kernels/test_vectors.py measures and bounds the largest errors over the whole range, in
# units in the last place. docs/architecture.md states them. NaN gives NaN.


def _of_vectors(*given: Any) -> Any:
    """Return the vector type among the operands' types; None if all are numbers."""
    vectors = [g for g in given if isinstance(g, Vector)]
    return vectors[0] if vectors else None


@intrinsic
def fma(context, x, y, z):
    """Return x · y + z, rounded once."""
    vector = _of_vectors(x, y, z)

    def emit(context, builder, sig, args):
        return _Emitter(builder, vector).call("fma", *filled(context, builder, sig, args))

    return vector and (vector(x, y, z), emit)


@intrinsic
def where_less(context, x, y, a, b):
    """Return a where x < y, else b; b where either is NaN."""
    vector = _of_vectors(x, y, a, b)

    def emit(context, builder, sig, args):
        return _Emitter(builder, vector).where_less(*filled(context, builder, sig, args))

    return vector and (vector(x, y, a, b), emit)


@intrinsic
def exp(context, x):
    """Return eˣ; 0 below the lower limit, infinite above the upper one."""
    return x(x), _elementwise(_Emitter.exp)


@intrinsic
def log(context, x):
    """Return log x: infinite for 0, NaN below."""
    return x(x), _elementwise(_Emitter.log)


@intrinsic
def sigmoid(context, x):
    """Return σ(x) = 1 / (1 + e⁻ˣ)."""
    return x(x), _elementwise(_Emitter.sigmoid)


@intrinsic
def tanh(context, x):
    """Return tanh x, by tanh |x| = m / (m + 2), m = e^(2|x|) − 1, which is accurate near 0."""
    return x(x), _elementwise(_Emitter.tanh)


@intrinsic
def root(context, x):
    """Return √x."""
    return x(x), _elementwise(_Emitter.root)


@intrinsic
def inverse_root(context, x):
    """Return 1 / √x."""
    return x(x), _elementwise(_Emitter.inverse_root)


@intrinsic
def divide(context, x, y):
    """Return x / y for y neither tiny nor huge, see `_Emitter.divide`."""

    def emit(context, builder, sig, args):
        return _Emitter(builder, x).divide(*args)

    return x(x, y), emit
