"""SIMD vectors inside Numba kernels: arithmetic on as many numbers as fit a register.

LLVM vectorizes some of Numba's own loops and not others. Here vectors are explicit: `load` reads a
register full of neighboring numbers from a flat array, and `store` writes them. `+ - * /` and the
functions below work on all of them at once. Operations follow IEEE 754; NaN and infinity propagate.

A vector is 64 bytes wide where the processor has AVX-512, else 32; LLVM splits what the processor
cannot do in one piece.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from charloom.kernels.arrays import INT64
from charloom.kernels.sizes import lanes

INT32 = ir.IntType(32)


class Vector(types.Type):
    """Numba type of a vector of float32 or float64."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.lanes = lanes(dtype)
        super().__init__(name=f"vector({self.lanes} x {dtype})")


def float_type(dtype: types.Float) -> Any:
    """Return LLVM's type of a number."""
    return ir.FloatType() if dtype == types.float32 else ir.DoubleType()


def vector_type(dtype: types.Float) -> Any:
    """Return LLVM's type of a vector of such numbers."""
    return ir.VectorType(float_type(dtype), lanes(dtype))


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector_type(vector.dtype))


def _splat(builder: Any, value: Any, count: int) -> Any:
    one = builder.insert_element(
        ir.Constant(ir.VectorType(value.type, count), ir.Undefined), value, INT32(0)
    )
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(INT32, count), [0] * count))


def _as_vector(context: Any, builder: Any, value: Any, given: Any, vector: Vector) -> Any:
    """Return an operand as a vector: a vector unchanged, a number in every lane."""
    if isinstance(given, Vector):
        return value
    return _splat(builder, context.cast(builder, value, given, vector.dtype), vector.lanes)


def _operation(symbol: Any, emit: str) -> None:
    """Define a binary operator on two vectors, or on a vector and a number."""

    @infer_global(symbol)
    class Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            vectors = [a for a in args if isinstance(a, Vector)]
            if kws or len(args) != 2 or not vectors or vectors[0] != vectors[-1]:
                return None
            if not all(isinstance(a, (Vector, types.Number)) for a in args):
                return None
            return signature(vectors[0], *args)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, emit)(*filled(context, builder, sig, args))

    for pair in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(symbol, *pair)(lower)


for _symbol, _emit in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operation(_symbol, _emit)


@intrinsic
def width(context, array):
    """Return how many of the array's numbers a vector holds."""
    count = lanes(array.dtype)

    def emit(context, builder, sig, args):
        return ir.Constant(INT64, count)

    return types.intp(array), emit


@intrinsic
def load(context, array, index):
    """Return the vector that starts at an index of a flat array."""
    vector = Vector(array.dtype)

    def emit(context, builder, sig, args):
        address = builder.gep(args[0], [args[1]])
        value = builder.load(builder.bitcast(address, vector_type(array.dtype).as_pointer()))
        value.align = array.dtype.bitwidth // 8
        return value

    return vector(array, types.intp), emit


@intrinsic
def store(context, array, index, value):
    """Write a vector, or a number into every lane, at an index of a flat array."""
    vector = Vector(array.dtype)

    def emit(context, builder, sig, args):
        address = builder.gep(args[0], [args[1]])
        filled = _as_vector(context, builder, args[2], sig.args[2], vector)
        written = builder.store(
            filled, builder.bitcast(address, vector_type(array.dtype).as_pointer())
        )
        written.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, value), emit


def _mask(builder: Any, dtype: Any, count: Any) -> Any:
    """Return the mask of the first `count` lanes."""
    integers = ir.VectorType(INT64, lanes(dtype))
    numbers = ir.Constant(integers, list(range(lanes(dtype))))
    return builder.icmp_signed("<", numbers, _splat(builder, count, lanes(dtype)))


def _masked_load(builder: Any, dtype: Any, address: Any, mask: Any) -> Any:
    kind = vector_type(dtype)
    name = f"llvm.masked.load.v{lanes(dtype)}f{dtype.bitwidth}.p0"
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind.as_pointer(), INT32, mask.type, kind]),
        name,
    )
    align, zeros = INT32(dtype.bitwidth // 8), ir.Constant(kind, [0.0] * lanes(dtype))
    return builder.call(function, [builder.bitcast(address, kind.as_pointer()), align, mask, zeros])


def _masked_store(builder: Any, dtype: Any, address: Any, mask: Any, value: Any) -> None:
    kind = vector_type(dtype)
    name = f"llvm.masked.store.v{lanes(dtype)}f{dtype.bitwidth}.p0"
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [kind, kind.as_pointer(), INT32, mask.type]),
        name,
    )
    align = INT32(dtype.bitwidth // 8)
    builder.call(function, [value, builder.bitcast(address, kind.as_pointer()), align, mask])


@intrinsic
def load_first(context, array, index, count):
    """Return a vector of the first `count` numbers; the other lanes are zero."""

    def emit(context, builder, sig, args):
        address = builder.gep(args[0], [args[1]])
        mask = _mask(builder, array.dtype, args[2])
        return _masked_load(builder, array.dtype, address, mask)

    return Vector(array.dtype)(array, types.intp, types.intp), emit


@intrinsic
def store_first(context, array, index, value, count):
    """Write the first `count` lanes of a vector."""

    def emit(context, builder, sig, args):
        address = builder.gep(args[0], [args[1]])
        mask = _mask(builder, array.dtype, args[3])
        _masked_store(builder, array.dtype, address, mask, args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, value, types.intp), emit


@intrinsic
def widened(context, vector, upper):
    """Return half of a float32 vector as float64: the lower lanes, or the upper ones.

    A float64 vector has all its lanes in the lower half, and zeros above.
    """
    count = lanes(types.float64)

    def emit(context, builder, sig, args):
        kind = vector_type(types.float64)
        if vector.dtype == types.float64:
            return builder.select(args[1], ir.Constant(kind, [0.0] * count), args[0])
        indexes = ir.VectorType(INT32, count)
        lower = builder.shuffle_vector(args[0], args[0], ir.Constant(indexes, list(range(count))))
        higher = builder.shuffle_vector(
            args[0], args[0], ir.Constant(indexes, list(range(count, 2 * count)))
        )
        return builder.fpext(builder.select(args[1], higher, lower), kind)

    return Vector(types.float64)(vector, types.boolean), emit


def _transpose_function(module: Any, dtype: Any) -> Any:
    """Return LLVM's function for `transpose`: whole squares without masks, others with them."""
    name = f"charloom_transpose_{dtype}"
    if name in module.globals:
        return module.globals[name]
    count, kind = lanes(dtype), vector_type(dtype)
    address = float_type(dtype).as_pointer()
    function = ir.Function(
        module,
        ir.FunctionType(ir.VoidType(), [address, INT64, address, INT64, INT64, INT64, INT64, kind]),
        name,
    )
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    target, to_stride, source, stride, rows, columns, across, added = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    nothing = ir.Constant(ir.VectorType(ir.IntType(1), count), [0] * count)
    align = dtype.bitwidth // 8

    def part(mask: Any, index: int, of: Any) -> Any:
        """Return the mask if the index-th row exists, else one without lanes."""
        return builder.select(builder.icmp_signed("<", INT64(index), of), mask, nothing)

    def at(array: Any, step: Any, index: int) -> Any:
        return builder.gep(array, [builder.mul(step, INT64(index))])

    def transposed(square: list[Any]) -> list[Any]:
        # Exchange the halves of ever smaller blocks off the diagonal, of rows i and i + half.
        indexes = ir.VectorType(INT32, count)
        half = count // 2
        while half:
            first = [j if not j & half else j - half + count for j in range(count)]
            second = [j + half if not j & half else j + count for j in range(count)]
            for i in range(count):
                if not i & half:
                    a, b = square[i], square[i + half]
                    square[i] = builder.shuffle_vector(a, b, ir.Constant(indexes, first))
                    square[i + half] = builder.shuffle_vector(a, b, ir.Constant(indexes, second))
            half //= 2
        return square

    whole = builder.icmp_signed("==", rows, INT64(count))
    for number in (columns, across):
        whole = builder.and_(whole, builder.icmp_signed("==", number, INT64(count)))
    with builder.if_else(whole) as (without, with_masks):
        with without:
            square = []
            for i in range(count):
                place = builder.bitcast(at(source, stride, i), kind.as_pointer())
                square.append(builder.load(place))
                square[-1].align = align
            for j, row in enumerate(transposed(square)):
                place = builder.bitcast(at(target, to_stride, j), kind.as_pointer())
                builder.store(builder.fadd(row, added), place).align = align
        with with_masks:
            mask = _mask(builder, dtype, columns)
            square = [
                _masked_load(builder, dtype, at(source, stride, i), part(mask, i, rows))
                for i in range(count)
            ]
            mask = _mask(builder, dtype, across)
            for j, row in enumerate(transposed(square)):
                place = at(target, to_stride, j)
                row = builder.fadd(row, added)
                _masked_store(builder, dtype, place, part(mask, j, columns), row)
    builder.ret_void()
    return function


@intrinsic
def transpose(context, target, source, rows, columns, across, added):
    """Transpose a square of numbers, as many a side as a vector holds, from one tile to another.

    target(j, i) = source(i, j) + added[i]

    Args:
        target: Tile for the result, of which as many rows are written as the source has columns.
        source: Tile to transpose.
        rows: number of rows of the source; missing rows count as zero.
        columns: number of columns of the source; missing columns count as zero.
        across: how many numbers of each target row are written.
        added: a vector to add to each target row.
    """

    def emit(context, builder, sig, args):
        places = []
        for tile in args[:2]:
            array, offset, stride = (builder.extract_value(tile, index) for index in range(3))
            places += [builder.gep(array, [offset]), stride]
        function = _transpose_function(builder.module, source.types[0].dtype)
        builder.call(function, [*places, *args[2:]])
        return context.get_dummy_value()

    return types.void(target, source, *[types.intp] * 3, added), emit


@intrinsic
def total(context, vector):
    """Return the sum of a vector's numbers, in the order of the lanes."""

    def emit(context, builder, sig, args):
        result = builder.extract_element(args[0], INT32(0))
        for index in range(1, vector.lanes):
            result = builder.fadd(result, builder.extract_element(args[0], INT32(index)))
        return result

    return vector.dtype(vector), emit


@intrinsic
def trailing_zeros(context, value):
    """Return the number of zero bits below the lowest one of a uint64, 64 for zero."""

    def emit(context, builder, sig, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), emit


@intrinsic
def largest(context, vector):
    """Return the largest of a vector's numbers; NaN where the first is NaN."""

    def emit(context, builder, sig, args):
        result = builder.extract_element(args[0], INT32(0))
        for index in range(1, vector.lanes):
            other = builder.extract_element(args[0], INT32(index))
            result = builder.select(builder.fcmp_ordered("<", result, other), other, result)
        return result

    return vector.dtype(vector), emit


def filled(context: Any, builder: Any, sig: Any, args: Any) -> list[Any]:
    """Return the operands as vectors, with numbers in every lane."""
    return [
        _as_vector(context, builder, value, given, sig.return_type)
        for value, given in zip(args, sig.args, strict=True)
    ]
