"""SIMD vectors inside Numba kernels: arithmetic on as many numbers as fit a register.

Numba's own loops depend on LLVM to find the parallelism in them, which it does for some and not for
others. Here it is written down: `load` takes a register full of neighboring numbers from a flat
array, `+ - * /` and the functions below work on all of them at once, `store` puts them back.
Operations follow IEEE 754; NaN and infinity come through.

A vector is 64 bytes wide where the processor has AVX-512, else 32; LLVM splits what the processor
cannot do in one piece.
"""

from __future__ import annotations

import operator
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import (
    intrinsic,
    lower_builtin,
    models,
    overload,
    register_jitable,
    register_model,
)

_FEATURES = llvmlite.binding.get_host_cpu_features()
_MACHINE = llvmlite.binding.get_process_triple().split("-")[0]
VECTOR_BYTES = 64 if _FEATURES.get("avx512f", False) else 32
# How many vector registers of that width there are decides how large a block of a product fits.
VECTOR_REGISTERS = 16 if _MACHINE in ("x86_64", "i686") and VECTOR_BYTES == 32 else 32
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)


def lanes(dtype: Any) -> int:
    """How many numbers of that type a vector holds."""
    return VECTOR_BYTES // np.dtype(str(dtype)).itemsize


class Vector(types.Type):  # type: ignore[misc]
    """Numba's type of a vector of float32 or float64."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.lanes = lanes(dtype)
        super().__init__(name=f"vector({self.lanes} x {dtype})")


def float_type(dtype: types.Float) -> Any:
    """LLVM's type of a number."""
    return ir.FloatType() if dtype == types.float32 else ir.DoubleType()


def vector_type(dtype: types.Float) -> Any:
    """LLVM's type of a vector of such numbers."""
    return ir.VectorType(float_type(dtype), lanes(dtype))


@register_model(Vector)
class VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector_type(vector.dtype))


def _splat(builder: Any, value: Any, count: int) -> Any:
    one = builder.insert_element(
        ir.Constant(ir.VectorType(value.type, count), ir.Undefined), value, INT32(0)
    )
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(INT32, count), [0] * count))


def _as_vector(context: Any, builder: Any, value: Any, given: Any, vector: Vector) -> Any:
    """The operand of an operation: a vector as it is, a number in every lane."""
    if isinstance(given, Vector):
        return value
    return _splat(builder, context.cast(builder, value, given, vector.dtype), vector.lanes)


def _operation(symbol: Any, emit: str) -> None:
    """Defines a binary operator on two vectors, or on a vector and a number."""

    @infer_global(symbol)
    class Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            vectors = [a for a in args if isinstance(a, Vector)]
            if kws or len(args) != 2 or not vectors or vectors[0] != vectors[-1]:
                return None
            if not all(isinstance(a, (Vector, types.Number)) for a in args):
                return None
            return signature(vectors[0], *args)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (
            _as_vector(context, builder, value, given, sig.return_type)
            for value, given in zip(args, sig.args, strict=True)
        )
        return getattr(builder, emit)(left, right)

    for pair in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(symbol, *pair)(lower)


for _symbol, _emit in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operation(_symbol, _emit)


def _is_flat(array: Any) -> bool:
    return isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"


def pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """LLVM's pointer to an entry of a flat array."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [index])


@intrinsic
def width(context, array):  # type: ignore[no-untyped-def]
    """How many of the array's numbers a vector holds."""
    count = lanes(array.dtype)

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return ir.Constant(INT64, count)

    return types.intp(array), emit


@intrinsic
def load(context, array, index):  # type: ignore[no-untyped-def]
    """The vector that starts at an index of a flat array."""
    if not _is_flat(array):
        return None
    vector = Vector(array.dtype)

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        address = pointer(context, builder, sig.args[0], *args)
        value = builder.load(builder.bitcast(address, vector_type(array.dtype).as_pointer()))
        value.align = array.dtype.bitwidth // 8
        return value

    return vector(array, types.intp), emit


@intrinsic
def store(context, array, index, value):  # type: ignore[no-untyped-def]
    """Writes a vector, or a number into every lane, at an index of a flat array."""
    if not _is_flat(array):
        return None
    vector = Vector(array.dtype)

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        address = pointer(context, builder, sig.args[0], *args[:2])
        filled = _as_vector(context, builder, args[2], sig.args[2], vector)
        written = builder.store(
            filled, builder.bitcast(address, vector_type(array.dtype).as_pointer())
        )
        written.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, value), emit


def _function(name: str, operands: int) -> Any:
    """LLVM's function of that name on vectors; numbers are put in every lane."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = sig.return_type
        kind = vector_type(vector.dtype)
        full = f"llvm.{name}.v{vector.lanes}f{vector.dtype.bitwidth}"
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind] * operands), full
        )
        values = [
            _as_vector(context, builder, value, given, vector)
            for value, given in zip(args, sig.args, strict=True)
        ]
        return builder.call(function, values)

    return emit


def _common(*given: Any) -> Any:
    vectors = [g for g in given if isinstance(g, Vector)]
    return vectors[0] if vectors else None


@intrinsic
def fma(context, x, y, z):  # type: ignore[no-untyped-def]
    """x · y + z, rounded once."""
    vector = _common(x, y, z)
    return vector and (vector(x, y, z), _function("fma", 3))


@intrinsic
def sqrt(context, x):  # type: ignore[no-untyped-def]
    return x(x), _function("sqrt", 1)


@intrinsic
def absolute(context, x):  # type: ignore[no-untyped-def]
    return x(x), _function("fabs", 1)


@intrinsic
def copy_sign(context, x, sign):  # type: ignore[no-untyped-def]
    return x(x, sign), _function("copysign", 2)


@intrinsic
def where_less(context, x, y, a, b):  # type: ignore[no-untyped-def]
    """a where x < y, else b; b where either is NaN."""
    vector = _common(x, y, a, b)

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        x, y, a, b = (
            _as_vector(context, builder, value, given, vector)
            for value, given in zip(args, sig.args, strict=True)
        )
        return builder.select(builder.fcmp_ordered("<", x, y), a, b)

    return vector and (vector(x, y, a, b), emit)


@intrinsic
def lane(context, vector, index):  # type: ignore[no-untyped-def]
    """One of a vector's numbers."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.extract_element(args[0], builder.trunc(args[1], INT32))

    return vector.dtype(vector, types.intp), emit


@intrinsic
def _power_of_two(context, biased, magic):  # type: ignore[no-untyped-def]
    """2ⁿ for the whole number n in `biased` = n + magic, from the bits of the sum."""
    vector = biased
    bits, mantissa, bias = (32, 23, 127) if vector.dtype == types.float32 else (64, 52, 1023)
    integers = ir.VectorType(ir.IntType(bits), vector.lanes)

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        def constant(value: int) -> Any:
            return ir.Constant(integers, [value] * vector.lanes)

        base = _as_vector(context, builder, args[1], sig.args[1], vector)
        n = builder.sub(builder.bitcast(args[0], integers), builder.bitcast(base, integers))
        shifted = builder.shl(builder.add(n, constant(bias)), constant(mantissa))
        return builder.bitcast(shifted, vector_type(vector.dtype))

    return vector(vector, magic), emit


@intrinsic
def widened(context, vector, upper):  # type: ignore[no-untyped-def]
    """Half of a float32 vector as float64: the lower lanes, or the upper ones. A float64 vector
    has all its lanes in the lower half, and zeros above."""
    count = lanes(types.float64)

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        kind = vector_type(types.float64)
        if vector.dtype == types.float64:
            return builder.select(args[1], ir.Constant(kind, [0.0] * count), args[0])
        indexes = ir.VectorType(INT32, count)
        lower = builder.shuffle_vector(
            args[0], args[0], ir.Constant(indexes, list(range(count)))
        )
        higher = builder.shuffle_vector(
            args[0], args[0], ir.Constant(indexes, list(range(count, 2 * count)))
        )
        return builder.fpext(builder.select(args[1], higher, lower), kind)

    return Vector(types.float64)(vector, types.boolean), emit


@intrinsic
def transpose(context, target, to, to_stride, source, start, stride):  # type: ignore[no-untyped-def]
    """Transposes a square of numbers, as many a side as a vector holds, from one flat array to
    another: target[to + j·to_stride + i] = source[start + i·stride + j]."""
    count = lanes(source.dtype)

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        kind = vector_type(source.dtype)
        target, to, to_stride, source_, start, stride = args

        def at(array_type: Any, array: Any, index: Any) -> Any:
            address = pointer(context, builder, array_type, array, index)
            return builder.bitcast(address, kind.as_pointer())

        rows = []
        for i in range(count):
            row = builder.load(
                at(sig.args[3], source_, builder.add(start, builder.mul(stride, INT64(i))))
            )
            row.align = source.dtype.bitwidth // 8
            rows.append(row)
        # Exchange the halves of ever smaller blocks off the diagonal, between rows i and i + half.
        indexes = ir.VectorType(INT32, count)
        half = count // 2
        while half:
            first = [j if not j & half else j - half + count for j in range(count)]
            second = [j + half if not j & half else j + count for j in range(count)]
            for i in range(count):
                if not i & half:
                    a, b = rows[i], rows[i + half]
                    rows[i] = builder.shuffle_vector(a, b, ir.Constant(indexes, first))
                    rows[i + half] = builder.shuffle_vector(a, b, ir.Constant(indexes, second))
            half //= 2
        for j in range(count):
            written = builder.store(
                rows[j], at(sig.args[0], target, builder.add(to, builder.mul(to_stride, INT64(j))))
            )
            written.align = source.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(target, *[types.intp] * 2, source, *[types.intp] * 2), emit


@register_jitable
def total(vector):  # type: ignore[no-untyped-def]
    """The sum of a vector's numbers, in the order of the lanes."""
    result = lane(vector, 0)
    for index in range(1, lane_count(vector)):
        result += lane(vector, index)
    return result


@intrinsic
def lane_count(context, vector):  # type: ignore[no-untyped-def]
    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return ir.Constant(INT64, vector.lanes)

    return types.intp(vector), emit


# eʳ = 1 + r + r²·Q(r) for |r| ≤ log(2)/2; Q is the polynomial nearest to (eʳ − 1 − r)/r² there
# (Chebyshev; the largest error of eʳ is 8e-9 in float32 and 2e-19 in float64), highest power first.
_Q32 = (
    1.3926183587713494542e-3,
    8.3631790527225773704e-3,
    4.1666554617204574203e-2,
    1.6666576989698775683e-1,
    0.5,
)
_Q64 = (
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
)
_LOG2_E = 1.4426950408889634074
# log(2) in two parts, the first with zeros at its end so that n times it is exact.
_LN2_32 = (0.693145751953125, 1.42860682030941723212e-6)
_LN2_64 = (6.93147180369123816490e-1, 1.90821492927058770002e-10)


def _reduced(x):  # type: ignore[no-untyped-def]
    """x = n·log 2 + r: the numbers 2ⁿ and eʳ − 1, garbage outside the limits below.

    Adding the magic number 1.5·2^23 (2^52) rounds to a whole number and leaves it in the last bits.
    """


@overload(_reduced)
def _reduced_overload(x):  # type: ignore[no-untyped-def]
    if x.dtype == types.float32:
        magic = 1.5 * 2.0**23
        high, low = _LN2_32
        q0, q1, q2, q3, q4 = _Q32

        def reduced(x):  # type: ignore[no-untyped-def]
            biased = fma(x, _LOG2_E, magic)
            n = biased - magic
            r = fma(n, -low, fma(n, -high, x))
            q = fma(r, q0, q1)
            q = fma(q, r, q2)
            q = fma(q, r, q3)
            q = fma(q, r, q4)
            return _power_of_two(biased, magic), fma(q * r, r, r)

        return reduced
    magic = 1.5 * 2.0**52
    high, low = _LN2_64
    c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10 = _Q64

    def reduced(x):  # type: ignore[no-untyped-def]
        biased = fma(x, _LOG2_E, magic)
        n = biased - magic
        r = fma(n, -low, fma(n, -high, x))
        q = fma(r, c0, c1)
        q = fma(q, r, c2)
        q = fma(q, r, c3)
        q = fma(q, r, c4)
        q = fma(q, r, c5)
        q = fma(q, r, c6)
        q = fma(q, r, c7)
        q = fma(q, r, c8)
        q = fma(q, r, c9)
        q = fma(q, r, c10)
        return _power_of_two(biased, magic), fma(q * r, r, r)

    return reduced


@intrinsic
def _limits(context, x):  # type: ignore[no-untyped-def]
    """Where eˣ leaves the normal numbers below and above, and from where on tanh x is 1."""
    values = (-87.3, 88.3, 9.5) if x.dtype == types.float32 else (-708.3, 709.4, 19.5)

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return context.make_tuple(
            builder, sig.return_type, [ir.Constant(ir.DoubleType(), v) for v in values]
        )

    return types.UniTuple(types.float64, 3)(x), emit


# The largest errors over the whole range, in units in the last place, are measured and held by
# tests/test_vectors.py, and stand in docs/architecture.md.


@register_jitable
def exp(x):  # type: ignore[no-untyped-def]
    """eˣ; 0 below the lower limit, infinite above the upper one."""
    lowest, highest, _ = _limits(x)
    scale, m = _reduced(x)
    y = fma(m, scale, scale)
    y = where_less(highest, x, np.inf, y)
    return where_less(x, lowest, 0.0, y)


@register_jitable
def sigmoid(x):  # type: ignore[no-untyped-def]
    """σ(x) = 1 / (1 + e⁻ˣ)."""
    return 1.0 / (1.0 + exp(0.0 - x))


@register_jitable
def tanh(x):  # type: ignore[no-untyped-def]
    """tanh |x| = m / (m + 2) with m = e^(2|x|) − 1, which keeps its digits near 0."""
    _, _, one = _limits(x)
    a = absolute(x)
    a = where_less(one, a, one, a)
    scale, m = _reduced(a + a)
    m = fma(m, scale, scale - 1.0)
    return copy_sign(m / (m + 2.0), x)
