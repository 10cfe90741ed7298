"""Named tuples of arrays that a kernel gets as addresses, see `charloom.kernels.arrays`."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

# An array's type in the field list of `Buffers`: the second argument of Annotated is its dtype, or
# the named tuple of its integers. FLOATS is the model's dtype, float32 or float64.
FLOATS = "floats"
Floats = Annotated[NDArray[np.floating], FLOATS]
Integers = Annotated[NDArray[np.int64], "int64"]
Unsigned = Annotated[NDArray[np.uint64], "uint64"]
Doubles = Annotated[NDArray[np.float64], "float64"]


@cache
def field_types(kind: Any) -> dict[str, Any]:
    """Return the second argument of each field's `Annotated`."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: get_args(hints[name])[1] for name in kind._fields}


def addresses(buffers: Any, floats: np.dtype[Any]) -> NDArray[np.int64]:
    """Return the arrays' addresses in the order of the fields, as `as_buffers` reads them.

    The caller keeps the arrays alive as long as a kernel can read the addresses.

    Args:
        buffers: a named tuple whose fields are annotated with `Floats`, `Integers` and so on.
        floats: the dtype of the fields annotated with `Floats`.

    Raises:
        TypeError: if an array is not contiguous, aligned and writable, or has another dtype.
    """
    kind_of: Any = type(buffers)
    places, found = [], field_types(kind_of)
    for (name, kind), array in zip(found.items(), buffers, strict=True):
        if kind == FLOATS:
            expected = floats
        else:
            expected = np.dtype(kind if isinstance(kind, str) else "int64")
        if array.dtype != expected or not array.flags.carray:
            raise TypeError(f"{name} is not a contiguous array of {expected}")
        places.append(array.ctypes.data)
    return np.array(places, dtype=np.int64)
