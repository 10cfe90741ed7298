"""Validate values against msgspec types, and describe the first mismatch in one line.

Types are written once, as annotations: `Annotated[int, Meta(ge=1, le=65_536)]`, `Literal["cpu",
"cuda"]`. Values are checked, never converted, so that a file written again has the same bytes.
"""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta, ValidationError
from msgspec import inspect as types

from charloom.errors import printable, shortened

Count = Annotated[int, Meta(ge=0, lt=10**15)]
Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]

_FULL_MESSAGE = re.compile(r"(.*?)(?: - at `([^`]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[([\d.]+)\]")


class Mismatch(NamedTuple):
    """The first place where a value does not fit its type."""

    path: str  # of the place within the value, such as `state.step`; empty for the value itself
    value: Any
    expected: str  # a noun phrase, such as "a whole number"; empty for a missing or unknown field
    problem: str  # the whole of it: "state.step is 'four', not a whole number"


def find_mismatch(value: Any, kind: Any) -> Mismatch | None:
    """Return the first mismatch between a value and a type, or None if it fits.

    Whole numbers are numbers; truth values are not. NaN never lies within limits.
    """
    if isinstance(value, float):
        value = float(value)  # NumPy's float64 is a float too
    try:
        msgspec.convert(value, kind)
    except ValidationError as error:
        return _mismatch(str(error), value, kind)
    return None


def find_wrong_field(record: Any) -> Mismatch | None:
    """Return the first field of a dataclass's instance that does not fit its annotation.

    The fields hold plain values: numbers, strings or truth values.
    """
    for name, kind in field_types(record.__class__).items():
        if mismatch := find_mismatch(getattr(record, name), kind):
            return _named(name, mismatch)
    return None


@cache
def field_types(record: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name, with their limits."""
    hints = get_type_hints(record, include_extras=True)
    return {field.name: hints[field.name] for field in fields(record)}


def _mismatch(message: str, value: Any, kind: Any) -> Mismatch:
    """Read msgspec's message, which gives the place but not the value."""
    full = _FULL_MESSAGE.fullmatch(message)
    text, where = (full[1], full[2] or "") if full else (message, "")
    try:
        path, value, info = _follow(where, value, types.type_info(kind))
    except (
        LookupError,
        StopIteration,
        ValueError,
    ):  # a mapping's key, or an unknown field's odd name
        return Mismatch("", value, "", printable(text[0].lower() + text[1:]))
    if found := _FIELD.fullmatch(text):
        name = printable(found[2])
        problem = (
            f"unknown entry {name}" if found[1] == "contains unknown" else f"{name} is missing"
        )
        return Mismatch(path, value, "", f"{path}: {problem}" if path else problem)
    return _named(path, Mismatch("", value, _expected(info), ""))


def _follow(where: str, value: Any, info: types.Type) -> tuple[str, Any, types.Type]:
    """Return a place's path, value and type. Raises LookupError, StopIteration or ValueError."""
    path = ""
    for name, index in _STEP.findall(where):
        if name:
            found = _one_that(info, "fields").fields
            info = next(field.type for field in found if field.encode_name == name)
            value, path = value[name], f"{path}.{name}" if path else name
        else:
            info, value = _one_that(info, "item_type").item_type, value[int(index)]
            path += f"[{index}]"
    return path, value, info


def _named(path: str, mismatch: Mismatch) -> Mismatch:
    value, expected = mismatch.value, mismatch.expected
    return Mismatch(path, value, expected, f"{path} is {shortened(value)}, not {expected}")


def _members(info: types.Type) -> tuple[types.Type, ...]:
    members = info.types if isinstance(info, types.UnionType) else (info,)
    return tuple(member for member in members if not isinstance(member, types.NoneType))


def _one_that(info: types.Type, attribute: str) -> Any:
    return next(member for member in _members(info) if hasattr(member, attribute))


def _expected(info: types.Type) -> str:
    return " or ".join(dict.fromkeys(_expected_member(member) for member in _members(info)))


def _expected_member(info: types.Type) -> str:
    match info:
        case types.LiteralType(values=(only,)):
            return repr(only)
        case types.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case types.IntType():
            return f"a whole number{_range(info)}"
        case types.FloatType(le=sys.float_info.max):
            return "a finite number"
        case types.FloatType():
            return f"a number{_range(info)}"
        case types.BoolType():
            return "true or false"
        case types.StrType():
            return "a string"
        case types.ListType():
            return "a list"
    return "an object"


def _range(info: types.IntType | types.FloatType) -> str:
    if info.ge is not None and info.le is not None:
        return f" from {_figure(info.ge)} to {_figure(info.le)}"
    limits = (
        ("above", info.gt),
        ("of at least", info.ge),
        ("below", info.lt),
        ("at most", info.le),
    )
    found = [f"{word} {_figure(limit)}" for word, limit in limits if limit is not None]
    return f" {' and '.join(found)}" if found else ""


def _figure(limit: float) -> str:
    return f"{int(limit):,}" if limit == int(limit) else f"{limit:g}"
