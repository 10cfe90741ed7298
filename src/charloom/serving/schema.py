"""Schemas of the JSON requests, their limits, and their validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from typing import Any

from charloom.errors import shortened
from charloom.serving.errors import ApiError

MOST_PROMPT = 131_072  # characters of one prompt
MOST_DRAWN = 32_768  # characters of one text
MOST_TEXTS_EACH = 16  # texts after one prompt
MOST_ALTERNATIVES = 5
MOST_STOPS, LONGEST_STOP = 4, 1_000
LARGEST_SEED = 2**63 - 1
SHORTEST_TEXT = 16  # characters, where max_tokens is not given: OpenAI's default

Schema = Mapping[str, Any]


# What may be asked.


def _optional(schema: Schema) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _whole(low: int, high: int, **more: Any) -> dict[str, Any]:
    return _optional({"type": "integer", "minimum": low, "maximum": high}) | more


_TRUTH = _optional({"type": "boolean"})
_TEXT = {"type": "string", "maxLength": MOST_PROMPT}
_ID = {"type": "integer", "minimum": 1}
IDS = {"type": "array", "items": _ID, "minItems": 1, "maxItems": MOST_PROMPT}
_STOP = {"type": "string", "minLength": 1, "maxLength": LONGEST_STOP}

REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["model"],
    "additionalProperties": False,
    "properties": {
        "model": {"type": "string"},
        "prompt": {
            "description": "What the texts go on from: text, ids, or a list of either.",
            "anyOf": [
                _TEXT,
                {"type": "array", "items": _TEXT, "minItems": 1},
                IDS,
                {"type": "array", "items": IDS, "minItems": 1},
                {"type": "null"},
            ],
        },
        "max_tokens": _whole(0, MOST_DRAWN, default=SHORTEST_TEXT),
        "temperature": _optional({"type": "number", "minimum": 0, "maximum": 2}) | {"default": 1},
        "top_p": _optional({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
        "top_k": _optional({"type": "integer", "minimum": 1}),
        "min_p": _optional({"type": "number", "minimum": 0, "maximum": 1}),
        "n": _whole(1, MOST_TEXTS_EACH, default=1),
        "stop": {
            "anyOf": [
                _STOP,
                {"type": "array", "items": _STOP, "maxItems": MOST_STOPS},
                {"type": "null"},
            ]
        },
        "seed": _whole(
            0,
            LARGEST_SEED,
            description="Choice i is what charloom sample draws as sample i of this seed.",
        ),
        "logprobs": _whole(0, MOST_ALTERNATIVES),
        "echo": _TRUTH,
        "stream": _TRUTH,
        "stream_options": _optional(
            {
                "type": "object",
                "properties": {"include_usage": _TRUTH},
                "additionalProperties": False,
            }
        ),
        "user": _optional({"type": "string"}) | {"description": "Changes nothing."},
        # What is not done is refused, except where it asks for nothing.
        "suffix": {"enum": [None, ""]},
        "best_of": {"enum": [None, 1]},
        "presence_penalty": {"enum": [None, 0]},
        "frequency_penalty": {"enum": [None, 0]},
        "logit_bias": {"enum": [None, {}]},
    },
}
TOKENIZE: dict[str, Any] = {
    "type": "object",
    "required": ["prompt"],
    "additionalProperties": False,
    "properties": {
        "model": _optional({"type": "string"}),
        "prompt": _TEXT,
        "add_special_tokens": _TRUTH
        | {"description": "Whether the newline that stands before a text comes first."},
    },
}
DETOKENIZE: dict[str, Any] = {
    "type": "object",
    "required": ["tokens"],
    "additionalProperties": False,
    "properties": {
        "model": _optional({"type": "string"}),
        "tokens": {"type": "array", "items": _ID, "maxItems": MOST_PROMPT},
    },
}


def check(body: Any, schema: Schema) -> dict[str, Any]:
    """A body that is an object as the schema has it. Raises ApiError, which names the field."""
    if not isinstance(body, dict):
        raise ApiError(400, f"the body is {shortened(body)}: give a JSON object")
    properties: Mapping[str, Schema] = schema["properties"]
    for name, value in body.items():
        if name not in properties:
            raise ApiError(
                400,
                f"there is no field {shortened(name)} here: give only {', '.join(properties)}",
                param=shortened(name),
                code="unknown_parameter",
            )
        if not _fits(value, properties[name]):
            if "enum" in properties[name]:
                raise ApiError(
                    400,
                    f"{name} is not supported: leave it out",
                    param=name,
                    code="unsupported_parameter",
                )
            raise ApiError(
                400,
                f"{name} is {shortened(value)}: give {_words(properties[name])}",
                param=name,
                code="invalid_value",
            )
    for name in schema["required"]:
        if name not in body:
            words = _words(properties[name])
            raise ApiError(400, f"{name} is missing: give {words}", param=name)
    return body


def _fits(value: Any, schema: Any) -> bool:
    """Whether a value is as a schema says, of the words that are used here."""
    if "anyOf" in schema:
        return any(_fits(value, choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return not isinstance(value, bool) and value in schema["enum"]
    kind = schema["type"]
    if kind == "null" or value is None:
        return kind == "null" and value is None
    if kind == "boolean" or isinstance(value, bool):
        return kind == "boolean" and isinstance(value, bool)
    if kind in ("integer", "number"):
        if not isinstance(value, int | float) or (kind == "integer" and value != value // 1):
            return False
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        return bool(low <= value <= high and value > schema.get("exclusiveMinimum", -math.inf))
    if kind == "string":
        return isinstance(value, str) and _has_length(value, schema, "Length")
    if kind == "array":
        fits = isinstance(value, list) and _has_length(value, schema, "Items")
        return fits and all(_fits(item, schema["items"]) for item in value)
    known = schema["properties"]
    return isinstance(value, dict) and all(
        name in known and _fits(item, known[name]) for name, item in value.items()
    )


def _has_length(value: Sized, schema: Any, what: str) -> bool:
    low, high = schema.get(f"min{what}", 0), schema.get(f"max{what}", math.inf)
    return bool(low <= len(value) <= high)


def _words(schema: Any) -> str:
    """What a schema asks for, in words."""
    if "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if choice["type"] != "null"]
        return ", or ".join(_words(choice) for choice in choices)
    kind = schema["type"]
    if kind in ("integer", "number"):
        words = "a whole number" if kind == "integer" else "a number"
        if "exclusiveMinimum" in schema:
            return f"{words} above {schema['exclusiveMinimum']} and at most {schema['maximum']}"
        if "maximum" in schema:
            return f"{words} from {schema['minimum']} to {schema['maximum']}"
        return f"{words} of {schema['minimum']} or more"
    if kind == "array":
        few, most = schema.get("minItems", 0), schema.get("maxItems", "more")
        return f"a list ({few} to {most}) of which each is {_words(schema['items'])}"
    if kind == "object":
        return f"an object with nothing but {', '.join(schema['properties'])}"
    if kind == "string":
        limits = [
            f"{word} {schema[key]}"
            for word, key in (("at least", "minLength"), ("at most", "maxLength"))
            if key in schema
        ]
        return "text" + (f" of {' and '.join(limits)} characters" if limits else "")
    return "true or false"
