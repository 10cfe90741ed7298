"""Sixteen numbers side by side inside Numba kernels, on every machine.

A vector of `vectors` is as wide as the processor's registers. A sum over such vectors is therefore
rounded differently on another machine. `Lanes` are always 16 numbers. The same kernel then
computes the same bits everywhere, because LLVM splits lanes where registers are shorter, and never
joins a product with a sum.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from charloom.kernels.vectors import INT32

COUNT = 16
BIT = ir.IntType(1)
_TYPES = {
    types.float32: ir.FloatType(),
    types.int32: INT32,
    types.uint32: INT32,
    types.uint8: ir.IntType(8),
    types.boolean: BIT,
}


class Lanes(types.Type):
    """Numba type of 16 numbers of float32 or int32, or of 16 truth values."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"lanes({dtype})")


FLOATS, INTEGERS, TRUTHS = Lanes(types.float32), Lanes(types.int32), Lanes(types.boolean)


def _kind(dtype: Any) -> Any:
    return ir.VectorType(_TYPES[dtype], COUNT)


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, _kind(lanes.dtype))


def _constant(dtype: Any, values: list[Any]) -> Any:
    return ir.Constant(_kind(dtype), values)


def _filled(context: Any, builder: Any, value: Any, given: Any, lanes: Lanes) -> Any:
    """Return lanes unchanged, and a number in every lane."""
    if isinstance(given, Lanes):
        return value
    value = context.cast(builder, value, given, lanes.dtype)
    one = builder.insert_element(ir.Constant(_kind(lanes.dtype), ir.Undefined), value, INT32(0))
    return builder.shuffle_vector(one, one, _constant(types.int32, [0] * COUNT))


def _lanes_of(args: Any) -> Lanes | None:
    """Return the type of lanes among the types of operands; None unless it is one type."""
    found = [a for a in args if isinstance(a, Lanes)]
    if not found or any(a != found[0] for a in found):
        return None
    return found[0] if all(isinstance(a, (Lanes, types.Number)) for a in args) else None


def _operation(symbol: Any, emit: Any, truth: bool = False) -> None:
    """Define a binary operator on two lanes, or on lanes and a number."""

    @infer_global(symbol)
    class Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            lanes = None if kws or len(args) != 2 else _lanes_of(args)
            return lanes and signature(TRUTHS if truth else lanes, *args)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = _lanes_of(sig.args)
        assert lanes is not None
        values = [
            _filled(context, builder, value, given, lanes)
            for value, given in zip(args, sig.args, strict=True)
        ]
        return emit(builder, lanes.dtype == types.float32, *values)

    for pair in ((Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)):
        lower_builtin(symbol, *pair)(lower)


def _arithmetic(symbol: Any, floats: str, integers: str) -> None:
    _operation(symbol, lambda b, is_float, x, y: getattr(b, floats if is_float else integers)(x, y))


def _comparison(symbol: Any, name: str) -> None:
    def emit(builder: Any, is_float: bool, x: Any, y: Any) -> Any:
        compare = builder.fcmp_ordered if is_float else builder.icmp_signed
        return compare(name, x, y)

    _operation(symbol, emit, truth=True)


_arithmetic(operator.add, "fadd", "add")
_arithmetic(operator.sub, "fsub", "sub")
_arithmetic(operator.mul, "fmul", "mul")
_arithmetic(operator.truediv, "fdiv", "sdiv")
_arithmetic(operator.and_, "and_", "and_")
_arithmetic(operator.or_, "or_", "or_")
_arithmetic(operator.lshift, "shl", "shl")
_arithmetic(operator.rshift, "lshr", "lshr")
for _symbol, _name in ((operator.lt, "<"), (operator.gt, ">"), (operator.eq, "==")):
    _comparison(_symbol, _name)


def _address(builder: Any, array: Any, index: Any, kind: Any) -> Any:
    return builder.bitcast(builder.gep(array, [index]), kind.as_pointer())


def _lanes_in(array: Any) -> Any:
    """Return the type of lanes that an array's entries become."""
    return FLOATS if array.dtype == types.float32 else INTEGERS


@intrinsic
def load16(context, array, index):
    """Return 16 entries of a flat array from an index on: of float32, 32 bits or uint8."""
    kind = _kind(array.dtype)

    def emit(context, builder, sig, args):
        value = builder.load(_address(builder, *args, kind))
        value.align = array.dtype.bitwidth // 8
        return builder.zext(value, _kind(types.int32)) if array.dtype == types.uint8 else value

    return _lanes_in(array)(array, types.intp), emit


@intrinsic
def store16(context, array, index, value):
    """Write lanes, or one number 16 times, from an index of a flat array on."""
    kind, lanes = _kind(array.dtype), _lanes_in(array)

    def emit(context, builder, sig, args):
        filled = _filled(context, builder, args[2], sig.args[2], lanes)
        if array.dtype == types.uint8:
            filled = builder.trunc(filled, kind)
        written = builder.store(filled, _address(builder, args[0], args[1], kind))
        written.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, value), emit


@intrinsic
def where16(context, truths, a, b):
    """Return a in the lanes that are true, else b; two numbers become float32 or int32."""
    lanes = _lanes_of([a, b]) or (FLOATS if isinstance(a, types.Float) else INTEGERS)

    def emit(context, builder, sig, args):
        values = [
            _filled(context, builder, value, given, lanes)
            for value, given in zip(args[1:], sig.args[1:], strict=True)
        ]
        return builder.select(args[0], *values)

    return lanes(truths, a, b), emit


@intrinsic
def filled16(context, number):
    """Return a number in every lane: float32, or else int32."""
    lanes = FLOATS if isinstance(number, types.Float) else INTEGERS

    def emit(context, builder, sig, args):
        return _filled(context, builder, args[0], number, lanes)

    return lanes(number), emit


@intrinsic
def numbers16(context, first):
    """Return the integers from the first one on."""

    def emit(context, builder, sig, args):
        begin = _filled(context, builder, args[0], first, INTEGERS)
        return builder.add(begin, _constant(types.int32, list(range(COUNT))))

    return INTEGERS(first), emit


@intrinsic
def moved_up(context, lanes):
    """Return lanes in which each has the number of the one before; the first stays."""

    def emit(context, builder, sig, args):
        places = _constant(types.int32, [0, *range(COUNT - 1)])
        return builder.shuffle_vector(args[0], args[0], places)

    return lanes(lanes), emit


@intrinsic
def moved_down(context, lanes):
    """Return lanes in which each has the number of the one after; the last stays."""

    def emit(context, builder, sig, args):
        places = _constant(types.int32, [*range(1, COUNT), COUNT - 1])
        return builder.shuffle_vector(args[0], args[0], places)

    return lanes(lanes), emit


def _places(width: int) -> list[int]:
    """Return for each byte of 16 lanes its place in 8 words of a width, or behind them."""
    words = [[8 * width] * 4 for _ in range(COUNT)]
    for i in range(8):
        words[i][:width] = range(i * width, (i + 1) * width)
    return [place for word in words for place in word]


@intrinsic
def load_words(context, array, index, width):
    """Return 8 words of 3 or 4 bytes, from a byte of a flat array on, and 8 zeros."""
    byte = ir.IntType(8)

    def loaded(builder: Any, args: Any, count: int) -> Any:
        kind = ir.VectorType(byte, 8 * count)
        value = builder.load(_address(builder, args[0], args[1], kind))
        value.align = 1
        nothing = ir.Constant(kind, [0] * 8 * count)
        order = ir.Constant(ir.VectorType(INT32, 4 * COUNT), _places(count))
        return builder.bitcast(builder.shuffle_vector(value, nothing, order), _kind(types.int32))

    def emit(context, builder, sig, args):
        found = cgutils.alloca_once(builder, _kind(types.int32))
        is_narrow = builder.icmp_signed("==", args[2], args[2].type(3))
        with builder.if_else(is_narrow) as (narrow, wide):
            with narrow:
                builder.store(loaded(builder, args, 3), found)
            with wide:
                builder.store(loaded(builder, args, 4), found)
        return builder.load(found)

    return INTEGERS(array, types.intp, types.intp), emit


@intrinsic
def store_words(context, array, index, width, words):
    """Write the first 8 lanes as words of 3 or 4 bytes, from a byte of a flat array on."""
    byte = ir.IntType(8)

    def stored(builder: Any, args: Any, count: int) -> None:
        order = [place for i in range(8) for place in range(4 * i, 4 * i + count)]
        parts = builder.bitcast(args[3], ir.VectorType(byte, 4 * COUNT))
        value = builder.shuffle_vector(
            parts, parts, ir.Constant(ir.VectorType(INT32, 8 * count), order)
        )
        builder.store(value, _address(builder, args[0], args[1], value.type)).align = 1

    def emit(context, builder, sig, args):
        is_narrow = builder.icmp_signed("==", args[2], args[2].type(3))
        with builder.if_else(is_narrow) as (narrow, wide):
            with narrow:
                stored(builder, args, 3)
            with wide:
                stored(builder, args, 4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, words), emit


@intrinsic
def equal8(context, array, index, wanted):
    """Compare 8 entries of a flat array of uint16 from an index on, and return a bit for each."""
    half = ir.IntType(16)
    kind = ir.VectorType(half, 8)

    def emit(context, builder, sig, args):
        value = builder.load(_address(builder, args[0], args[1], kind))
        value.align = 2
        short = builder.trunc(args[2], half)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), short, INT32(0))
        places = ir.Constant(ir.VectorType(INT32, 8), [0] * 8)
        found = builder.icmp_unsigned("==", value, builder.shuffle_vector(one, one, places))
        return builder.zext(builder.bitcast(found, ir.IntType(8)), ir.IntType(64))

    return types.uint64(array, types.intp, types.uint64), emit


@intrinsic
def half_at(context, array, index):
    """Return the number of 16 bits that begins with a byte of a flat array."""
    return _unsigned(types.uint16, array)


@intrinsic
def word_at(context, array, index):
    """Return the number of 32 bits that begins with a byte of a flat array."""
    return _unsigned(types.uint32, array)


def _unsigned(kind: Any, array: Any) -> Any:
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = builder.load(_address(builder, args[0], args[1], ir.IntType(kind.bitwidth)))
        value.align = 1
        return value

    return kind(array, types.intp), emit


@intrinsic
def put_unsigned(context, array, index, value):
    """Write a number, of the bits that it has, from a byte of a flat array on."""

    def emit(context, builder, sig, args):
        address = _address(builder, args[0], args[1], ir.IntType(value.bitwidth))
        builder.store(args[2], address).align = 1
        return context.get_dummy_value()

    return types.void(array, types.intp, value), emit


@intrinsic
def as_floats(context, integers):
    def emit(context, builder, sig, args):
        return builder.sitofp(args[0], _kind(types.float32))

    return FLOATS(integers), emit


@intrinsic
def as_integers(context, floats):
    """Return numbers in the range of int32 without their fractions."""

    def emit(context, builder, sig, args):
        return builder.fptosi(args[0], _kind(types.int32))

    return INTEGERS(floats), emit


@intrinsic
def exponents(context, floats):
    """Return the exponents of positive numbers: of x those of 2^e ≤ x < 2^(e + 1); -127 of 0."""

    def emit(context, builder, sig, args):
        bits = builder.bitcast(args[0], _kind(types.int32))
        shifted = builder.lshr(bits, _constant(types.int32, [23] * COUNT))
        return builder.sub(shifted, _constant(types.int32, [127] * COUNT))

    return INTEGERS(floats), emit


@intrinsic
def bits_of(context, truths):
    """Return truth values as bits, the first lane in the lowest."""

    def emit(context, builder, sig, args):
        return builder.zext(builder.bitcast(args[0], ir.IntType(COUNT)), ir.IntType(64))

    return types.uint64(truths), emit


@intrinsic
def ones(context, bits):
    """Return the number of ones in 64 bits."""

    def emit(context, builder, sig, args):
        return builder.ctpop(args[0])

    return types.int64(types.uint64), emit


@intrinsic
def total16(context, lanes):
    """Return the sum of lanes i and i + 8, of these i and i + 4, and so on."""
    added = "fadd" if lanes == FLOATS else "add"

    def emit(context, builder, sig, args):
        value = args[0]
        half = COUNT // 2
        while half:
            places = ir.VectorType(INT32, half)
            lower, upper = (
                builder.shuffle_vector(
                    value, value, ir.Constant(places, list(range(begin, begin + half)))
                )
                for begin in (0, half)
            )
            value = getattr(builder, added)(lower, upper)
            half //= 2
        return builder.extract_element(value, INT32(0))

    return lanes.dtype(lanes), emit


@intrinsic
def store_fours(context, array, index, a, b, c, d):
    """Write a, b, c, d of the first lane from an index on, then those of the next lane, …"""

    def emit(context, builder, sig, args):
        def joined(x, y, order):
            count = len(order)
            return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(INT32, count), order))

        ab = joined(args[2], args[3], list(range(32)))
        cd = joined(args[4], args[5], list(range(32)))
        for part in range(4):
            order = [16 * k + part * 4 + i for i in range(4) for k in range(4)]
            value = joined(ab, cd, order)
            place = builder.add(args[1], args[1].type(part * 16))
            address = _address(builder, args[0], place, value.type)
            builder.store(value, address).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, a, b, c, d), emit


@intrinsic
def prefetch(context, array, index):
    """Fetch the cache line of an entry that will be needed soon."""

    def emit(context, builder, sig, args):
        address = _address(builder, args[0], args[1], ir.IntType(8))
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [address.type, INT32, INT32, INT32]),
            "llvm.prefetch.p0",
        )
        builder.call(function, [address, INT32(0), INT32(3), INT32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


def reaching(*limits: int) -> Any:
    """Return a function of lanes of integers from 0 on: how many of these limits each reaches."""
    first = 0  # limits 1, 2, 3, …, of which a number has reached as many as it is
    while first < len(limits) and limits[first] == first + 1:
        first += 1

    @intrinsic
    def reached(context, integers):
        def emit(context, builder, sig, args):
            kind = _kind(types.int32)
            most, one = ir.Constant(kind, [first] * COUNT), ir.Constant(kind, [1] * COUNT)
            total = most
            if first:
                below = builder.icmp_signed("<", args[0], most)
                total = builder.select(below, args[0], most)
            for limit in limits[first:]:
                below = builder.icmp_signed("<", args[0], ir.Constant(kind, [limit] * COUNT))
                total = builder.select(below, total, builder.add(total, one))
            return total

        return INTEGERS(integers), emit

    return reached
