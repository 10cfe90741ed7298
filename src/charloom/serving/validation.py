"""Conversion of request bodies to the types of `schema`, with errors that name the field."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, get_args

import msgspec
from msgspec.structs import FieldInfo

from charloom.errors import printable, shortened
from charloom.serving.errors import ApiError, integer_if_whole
from charloom.serving.schema import (
    NUMBER_TEXT,
    PROMPTS_IN_WORDS,
    UNSUPPORTED,
    PromptField,
    Schema,
    alternatives,
    convert_custom,
    schema_of_custom,
    takes_number_text,
)

Body = TypeVar("Body", bound=msgspec.Struct)


def convert_body(
    body: Any, kind: type[Body], *, strict: bool = False
) -> tuple[Body, tuple[str, ...]]:
    """Convert a JSON value to a request of that type.

    The fields are converted one by one, so that an error can name its field and the expected value
    without any parsing of msgspec's messages.

    Args:
        body: The value.
        kind: The type.
        strict: Whether an unknown field is an error.

    Returns:
        The request, and the names of the unknown fields.

    Raises:
        ApiError: The value is not an object, or a field is invalid or missing.
    """
    if not isinstance(body, dict):
        raise ApiError(400, f"the body {shortened(body)} is not an object: send a JSON object")
    known, unknown = _known_fields(body, kind)
    if strict and unknown:
        raise _unknown_field(unknown[0], kind)
    fields = _fields(kind)
    values = {name: _convert_field(name, value, fields[name]) for name, value in known.items()}
    for name, field in fields.items():
        if field.required and name not in body:
            raise missing_field(name, f"set it to {_expected(field)}")
    return kind(**values), tuple(unknown)


def missing_field(name: str, remedy: str) -> ApiError:
    """Return the error for a field that the request needs."""
    message = f"{name} is missing: {remedy}"
    return ApiError(400, message, param=name, code="missing_required_parameter")


@cache
def _fields(kind: type[msgspec.Struct]) -> Mapping[str, FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _known_fields(
    body: Mapping[str, Any], kind: type[msgspec.Struct]
) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of a JSON object that a type has, and the paths of all others."""
    fields = _fields(kind)
    known: dict[str, Any] = {}
    unknown = []
    for name, value in body.items():
        if name not in fields:
            unknown.append(name)
            continue
        known[name] = value
        if isinstance(value, dict):
            inner = _struct_in(fields[name].type)
            if inner is not None:
                known[name], others = _known_fields(value, inner)
                unknown += [f"{name}.{other}" for other in others]
    return known, unknown


def _struct_in(hint: Any) -> type[msgspec.Struct] | None:
    """Return the struct of a type hint such as `Struct | None`, if it has one."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    return next(filter(None, map(_struct_in, get_args(hint))), None)


def _unknown_field(name: str, kind: type[msgspec.Struct]) -> ApiError:
    similar = difflib.get_close_matches(name[:60], _fields(kind), 1)
    remedy = f"use {similar[0]}, or omit it" if similar else "omit it"
    message = f"unknown field {shortened(name)}: {remedy}"
    return ApiError(400, message, param=printable(name[:60]), code="unknown_parameter")


def _convert_field(name: str, value: Any, field: FieldInfo) -> Any:
    converted = _number(value, field) if isinstance(value, str) else value
    try:
        return msgspec.convert(converted, field.type, dec_hook=convert_custom)
    except (msgspec.ValidationError, UnicodeEncodeError):  # of half a surrogate pair in a name
        pass
    if name in UNSUPPORTED:
        code = "unsupported_parameter"
        problem, remedy = "is not supported", f"omit it, or use {UNSUPPORTED[name]}"
        message = f"{name} {shortened(value)} {problem}: {remedy}"
    else:
        code = "invalid_value"
        message = f"invalid {name} {shortened(value)}: use {_expected(field)}"
    raise ApiError(400, message, param=name, code=code)


def _expected(field: FieldInfo) -> str:
    """Return the values that a field accepts, in words."""
    return PROMPTS_IN_WORDS if field.type == PromptField else _words(*_schema(field))


def _schema(field: FieldInfo) -> tuple[Schema, Schema]:
    """Return the JSON schema of a field, and the schemas that it refers to."""
    (schema,), components = msgspec.json.schema_components(
        (field.type,), schema_hook=schema_of_custom
    )
    return schema, components


def _number(text: str, field: FieldInfo) -> str | int | float:
    """Return the number that a text is, if the field takes numbers, or the text."""
    if not (re.fullmatch(NUMBER_TEXT, text) and takes_number_text(_schema(field)[0])):
        return text
    return integer_if_whole(float(text)) if "." in text else int(text)


def _words(schema: Schema, components: Schema) -> str:
    """Return the values that a JSON schema accepts, in words, null aside."""
    if "$ref" in schema:
        return _words(components[schema["$ref"].rpartition("/")[2]], components)
    if "anyOf" in schema:
        return ", or ".join(_words(choice, components) for choice in alternatives(schema))
    kind = schema["type"]
    if kind in ("integer", "number"):
        words = "an integer" if kind == "integer" else "a number"
        if "exclusiveMinimum" in schema:
            return f"{words} above {schema['exclusiveMinimum']} and at most {schema['maximum']}"
        if "maximum" in schema:
            return f"{words} from {schema['minimum']} to {schema['maximum']}"
        return f"{words} of {schema['minimum']} or more"
    if kind == "array":
        items = _words(schema["items"], components)
        return f"a list of {_size(schema, 'Items')} items, each {items}"
    if kind == "object":
        if "properties" not in schema:
            if not schema.get("additionalProperties"):
                return "an object"
            value = _words(schema["additionalProperties"], components)
            return f"an object of token ids, each with {value}"
        return f"an object with only {', '.join(schema['properties'])}"
    if kind == "string":
        limited = "minLength" in schema or "maxLength" in schema
        return "a string" + (f" of {_size(schema, 'Length')} characters" if limited else "")
    return "true or false"


def _size(schema: Schema, name: str) -> str:
    """Return the length that a schema's `minLength` and `maxLength`, or `…Items`, allow."""
    fewest, most = schema.get(f"min{name}"), schema.get(f"max{name}")
    if fewest is not None and most is not None:
        return f"{fewest:,} to {most:,}"
    if most is not None:
        return f"at most {most:,}"
    return f"at least {fewest or 0}"
