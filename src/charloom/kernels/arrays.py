"""Arrays inside Numba kernels, as plain addresses, and named tuples of them.

Numba's own arrays have seven entries each and a reference count, which makes them slow to compile
and to pass. A kernel therefore works on a `Flat` array, which is the address of its first entry.

A `Tile` is a view of rows in a flat array. `Numbers` are a named tuple of integers in an array.
`Buffers` are all the arrays that a kernel works on. A named tuple states each array's name and type
once; the caller passes it as `addresses`, and the kernel reads its fields by name.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import (
    AbstractTemplate,
    AttributeTemplate,
    infer_getattr,
    infer_global,
    signature,
)
from numba.extending import intrinsic, lower_builtin, models, register_model

from charloom.kernels.buffers import FLOATS, field_types

INT64 = ir.IntType(64)


class Flat(types.Type):
    """Numba type of a flat array: the address of its first entry."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"flat({dtype})")


@register_model(Flat)
class FlatModel(models.PrimitiveModel):
    """A pointer to the array's dtype."""

    def __init__(self, manager: Any, flat_type: Flat) -> None:
        entry = manager.lookup(flat_type.dtype).get_data_type()
        super().__init__(manager, flat_type, entry.as_pointer())


class Tile(NamedTuple):
    """Rows in a flat array: the first one starts at `offset`, the next one `stride` further on."""

    array: Any
    offset: int
    stride: int


@intrinsic
def as_flat(context, array):
    """Return a contiguous array as a flat one."""
    if not isinstance(array, types.Array) or array.layout != "C":
        return None

    def emit(context, builder, sig, args):
        return cgutils.create_struct_proxy(array)(context, builder, value=args[0]).data

    return Flat(array.dtype)(array), emit


@intrinsic
def as_flats(context, arrays):
    """Return a named tuple of contiguous arrays as the same named tuple of flat ones."""
    if any(not isinstance(array, types.Array) or array.layout != "C" for array in arrays.types):
        return None
    flats = types.BaseTuple.from_types(
        [Flat(array.dtype) for array in arrays.types], arrays.instance_class
    )

    def emit(context, builder, sig, args):
        places = [
            cgutils.create_struct_proxy(array)(
                context, builder, value=builder.extract_value(args[0], index)
            ).data
            for index, array in enumerate(arrays.types)
        ]
        return context.make_tuple(builder, flats, places)

    return flats(arrays), emit


@intrinsic
def flat_from(context, array, index):
    """Return the flat array that starts at an index of another one."""

    def emit(context, builder, sig, args):
        return builder.gep(args[0], [args[1]])

    return array(array, types.intp), emit


@intrinsic
def bytes_at(context, address):
    """Return the flat array of uint8 at an address."""
    return _at(types.uint8)


@intrinsic
def as_bytes(context, array):
    """Return the bytes of a flat array."""

    def emit(context, builder, sig, args):
        return builder.bitcast(args[0], context.get_value_type(sig.return_type))

    return Flat(types.uint8)(array), emit


@intrinsic
def integers_at(context, address):
    """Return the flat array of int32 at an address."""
    return _at(types.int32)


@intrinsic
def doubles_at(context, address):
    """Return the flat array of float64 at an address."""
    return _at(types.float64)


def _at(dtype: Any) -> Any:
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return Flat(dtype)(types.intp), emit


@infer_global(operator.getitem)
class FlatGet(AbstractTemplate):
    """Typing of array[index]."""

    def generic(self, args: Any, kws: Any) -> Any:
        array, index = args
        if isinstance(array, Flat) and isinstance(index, types.Integer):
            return signature(array.dtype, array, types.intp)
        return None


@infer_global(operator.setitem)
class FlatSet(AbstractTemplate):
    """Typing of array[index] = value."""

    def generic(self, args: Any, kws: Any) -> Any:
        array, index, _ = args
        if isinstance(array, Flat) and isinstance(index, types.Integer):
            return signature(types.none, array, types.intp, array.dtype)
        return None


@lower_builtin(operator.getitem, Flat, types.intp)
def _get(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.load(builder.gep(args[0], [args[1]]))


@lower_builtin(operator.setitem, Flat, types.intp, types.Any)
def _set(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    builder.store(args[2], builder.gep(args[0], [args[1]]))
    return context.get_dummy_value()


class Numbers(types.Type):
    """Numba type of a named tuple of integers in an int64 array."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        super().__init__(name=f"numbers({kind.__name__})")


class Buffers(types.Type):
    """Numba type of a named tuple of arrays: an int64 array of their addresses."""

    def __init__(self, kind: Any, floats: Any) -> None:
        self.kind = kind
        self.floats = floats
        super().__init__(name=f"buffers({kind.__name__}, {floats})")

    def field(self, name: str) -> Any:
        """Return the Numba type of a field's array; None for an unknown field."""
        found = field_types(self.kind).get(name)
        if found is None:
            return None
        if found == FLOATS:
            return Flat(self.floats)
        return Flat(getattr(types, found)) if isinstance(found, str) else Numbers(found)


@register_model(Numbers)
@register_model(Buffers)
class PlaceModel(models.PrimitiveModel):
    """A pointer to int64 entries."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, INT64.as_pointer())


@intrinsic
def as_buffers(context, kind, places, like):
    """Return an array of `addresses` as a named tuple of that kind.

    Its floats have the dtype of the array `like`.
    """

    def emit(context, builder, sig, args):
        return cgutils.create_struct_proxy(places)(context, builder, value=args[1]).data

    return Buffers(kind.instance_class, like.dtype)(kind, places, like), emit


def _constant(builder: Any, array: Any, index: int) -> Any:
    """Load an entry that never changes, so that the compiler can load it once."""
    loaded = builder.load(builder.gep(array, [INT64(index)]))
    loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
    return loaded


@infer_getattr
class NumbersAttributes(AttributeTemplate):
    """Typing of numbers.name."""

    key = Numbers

    def generic_resolve(self, numbers: Numbers, name: str) -> Any:
        return types.intp if name in numbers.kind._fields else None


@lower_getattr_generic(Numbers)
def _number(context: Any, builder: Any, numbers: Any, value: Any, name: str) -> Any:
    return _constant(builder, value, numbers.kind._fields.index(name))


@infer_getattr
class BuffersAttributes(AttributeTemplate):
    """Typing of buffers.name."""

    key = Buffers

    def generic_resolve(self, buffers: Buffers, name: str) -> Any:
        return buffers.field(name)


@lower_getattr_generic(Buffers)
def _buffer(context: Any, builder: Any, buffers: Any, value: Any, name: str) -> Any:
    place = _constant(builder, value, buffers.kind._fields.index(name))
    return builder.inttoptr(place, context.get_value_type(buffers.field(name)))
