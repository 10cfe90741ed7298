"""Conversion of request bodies to the types of `schema`, with errors that name the field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec.structs import FieldInfo

from charloom.errors import shortened
from charloom.serving.errors import ApiError
from charloom.serving.schema import UNSUPPORTED, convert_custom, schema_of_custom

Body = TypeVar("Body", bound=msgspec.Struct)
Schema = Mapping[str, Any]


def convert_body(body: Any, kind: type[Body]) -> Body:
    """Convert a JSON value to a request of that type.

    The fields are converted one by one, so that an error can name its field and the expected value
    without any parsing of msgspec's messages.

    Raises:
        ApiError: The value is not an object, or a field is unknown, invalid or missing.
    """
    if not isinstance(body, dict):
        raise ApiError(400, f"the body {shortened(body)} is not an object: send a JSON object")
    fields = _fields(kind)
    values = {name: _convert_field(name, value, fields) for name, value in body.items()}
    for name, field in fields.items():
        if field.required and name not in body:
            raise ApiError(400, f"{name} is missing: set it to {_expected(field)}", param=name)
    return kind(**values)


@cache
def _fields(kind: type[msgspec.Struct]) -> Mapping[str, FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _convert_field(name: str, value: Any, fields: Mapping[str, FieldInfo]) -> Any:
    if name not in fields:
        raise ApiError(
            400,
            f"unknown field {shortened(name)}: use only {', '.join(fields)}",
            param=shortened(name),
            code="unknown_parameter",
        )
    try:
        return msgspec.convert(value, fields[name].type, dec_hook=convert_custom)
    except (msgspec.ValidationError, UnicodeEncodeError):  # of half a surrogate pair in a name
        pass
    if name in UNSUPPORTED:
        message, code = f"{name} is not supported: omit it", "unsupported_parameter"
    else:
        expected = _expected(fields[name])
        message, code = f"invalid {name} {shortened(value)}: use {expected}", "invalid_value"
    raise ApiError(400, message, param=name, code=code)


def _expected(field: FieldInfo) -> str:
    """Return the values that a field accepts, in words."""
    (schema,), components = msgspec.json.schema_components(
        (field.type,), schema_hook=schema_of_custom
    )
    return _words(schema, components)


def _words(schema: Schema, components: Schema) -> str:
    """Return the values that a JSON schema accepts, in words, null aside."""
    if "$ref" in schema:
        return _words(components[schema["$ref"].rpartition("/")[2]], components)
    if "anyOf" in schema:
        return ", or ".join(_words(choice, components) for choice in _choices(schema))
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


def _choices(schema: Schema) -> Iterator[Schema]:
    """Yield the alternatives of a schema, those of its alternatives included, without null."""
    for choice in schema["anyOf"]:
        if "anyOf" in choice:
            yield from _choices(choice)
        elif choice.get("type") != "null":
            yield choice
