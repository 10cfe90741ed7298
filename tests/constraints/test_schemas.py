"""JSON schemas that have an automaton: their texts are those that a validator accepts."""

import json
from pathlib import Path
from typing import Any

import pytest

from charloom.constraints.automaton import Automaton, shortest
from charloom.constraints.options import ConstraintOptions
from charloom.constraints.schemas import automaton_of_schema, pattern_of_schema
from charloom.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(("\n", *map(chr, range(32, 127)), "é", "字"))
BYTES = Vocabulary(tuple(map(chr, range(256))), as_bytes=True)
VALUES: list[Any] = [
    *(None, True, 0, 1, -1, 7, 12, 120, 121, -5, 2.5, -0.25),
    *("", "a", "ab", "AB1", "abcdefg", "é字", 'a"b\\'),
    *([], [1], [1, 2], ["a"], [1, "a"], [1, "a", None], [[1]]),
    *({}, {"a": 1}, {"a": "x"}, {"b": 2}, {"a": 1, "b": 2}, {"a": 1, "c": 3}),
    *({"a": 1, "b": 2, "c": None}, {"ab": 1}, {"a": {"b": 1}}),
]
SUITE = json.loads(Path(__file__).with_name("json_schema_cases.json").read_text(encoding="utf-8"))[
    "groups"
]
A, B = {"type": "integer"}, {"type": "number"}
SCHEMAS: list[Any] = [
    True,
    {"type": "string"},
    {"type": "string", "minLength": 1, "maxLength": 3},
    {"type": "string", "pattern": "^[A-Z]{2}[0-9]$"},
    {"type": "integer", "minimum": -5, "maximum": 120},
    {"type": "integer", "exclusiveMinimum": -1.5, "exclusiveMaximum": 12},
    {"type": "number", "minimum": -1, "maximum": 7},
    {"type": "number", "minimum": 1},
    {"type": ["boolean", "null", "string"]},
    {"enum": [1, "é字", None, {"a": 1}, [1, 2]]},
    {"type": "integer", "enum": [1, "a", 7]},
    {"const": {"a": {"b": 1}}},
    {"type": "array"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 1},
    {"type": "array", "items": True, "maxItems": 1},
    {"type": "array", "prefixItems": [A, {"type": "string"}], "minItems": 1},
    {"prefixItems": [A, {"type": "string"}], "items": False},
    {"type": "object"},
    {"type": "object", "properties": {"a": A, "b": B}},
    {"type": "object", "properties": {"a": A, "b": B}, "additionalProperties": False},
    {"type": "object", "properties": {"a": A, "b": B}, "required": ["b"]},
    {"type": "object", "properties": {"a": True}, "required": ["a", "b"]},
    {"type": "object", "properties": {"a": False}, "additionalProperties": B},
    {"properties": {"a": A}, "required": ["a"], "minimum": 2},
    {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 2}]},
    {"oneOf": [{"type": "null"}, {"type": "array", "maxItems": 1}]},
    {"allOf": [{"type": "object"}]},
    {
        "$ref": "#/$defs/x",
        "$defs": {"x": {"type": "array", "items": {"$ref": "#/$defs/y"}}, "y": A},
    },
]


@pytest.mark.constrain
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:60])
def test_texts_are_those_that_a_validator_accepts(schema: Any) -> None:
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema)
    automaton = automaton_of_schema(schema, VOCABULARY, "json_schema")
    assert automaton is not None
    accepted = 0
    for value in VALUES:
        for form in ({}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}):
            ids = VOCABULARY.ids_or_minus_one(json.dumps(value, **form)).tolist()
            assert automaton.contains(ids) == validator.is_valid(value), value
        accepted += validator.is_valid(value)
    assert accepted
    least = VOCABULARY.decode(_array(shortest(automaton)))
    assert validator.is_valid(json.loads(least))
    assert len(least) == automaton.least


def test_what_a_schema_leaves_open_has_a_depth_and_bounded_numbers_no_exponent() -> None:
    found = automaton_of_schema({"type": "object"}, VOCABULARY, "json_schema")
    assert found is not None
    assert found.contains(VOCABULARY.encode('{"a":{"b":[1e9]}}').tolist())
    assert not found.contains(VOCABULARY.encode('{"a":{"b":[[1]]}}').tolist())
    found = automaton_of_schema({"type": "number", "minimum": 1}, VOCABULARY, "json_schema")
    assert found is not None
    assert not found.contains(VOCABULARY.encode("1e9").tolist())


def test_a_definition_can_contain_itself() -> None:
    tree = {"properties": {"a": {"$ref": "#"}}, "type": "object", "additionalProperties": False}
    lists = {"type": "array", "items": {"$ref": "#"}}
    either = {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]}
    for schema, inside, outside in [
        (tree, '{"a":{"a":{"a":{}}}}', '{"a":{"a":{"a":{"b":{}}}}}'),
        (lists, "[[],[[]]]", "[[],1]"),
        (either, "[[null],null]", "[[]]"),
    ]:
        found = automaton_of_schema(schema, VOCABULARY, "json_schema")
        assert found is not None
        assert found.contains(VOCABULARY.encode(inside).tolist())
        assert not found.contains(VOCABULARY.encode(outside).tolist())


def _array(ids: Any) -> Any:
    import numpy as np

    return np.array(list(ids), np.intp)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 3},
        {"type": "array", "uniqueItems": True},
        {"type": "string", "pattern": "a"},
        {"type": "string", "pattern": "^a$|^b$"},
        {"type": "string", "pattern": "^[^a]$"},
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "number", "minimum": 0.5},
        {"$ref": "#"},
        {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        {"allOf": [{"type": "object"}, True]},
        {"type": "string", "format": "date"},
        {"type": "strin"},
        {"items": [True]},
        {"properties": [1]},
        {"type": "string", "minLength": "a"},
        {"type": "string", "maxLength": 100_000},
        {"enum": []},
        False,
    ],
)
def test_others_have_none(schema: Any) -> None:
    assert automaton_of_schema(schema, VOCABULARY, "json_schema") is None


def test_names_that_a_schema_has_do_not_come_twice() -> None:
    found = automaton_of_schema({"properties": {"a": A, "ab": B}}, VOCABULARY, "json_schema")
    assert found is not None
    for text, inside in [
        ('{"a":1,"abc":"x","b":"y"}', True),
        ('{"a":1,"ab":"x"}', False),
        ('{"abc":1,"a":"x"}', False),
        ('{"":1}', True),
    ]:
        assert found.contains(VOCABULARY.encode(text).tolist()) == inside, text


def test_a_model_of_bytes_writes_utf_8() -> None:
    found = automaton_of_schema({"const": "é"}, BYTES, "json_schema")
    assert found is not None
    assert found.contains(list('"é"'.encode()))
    assert found.contains(list(b'"\\u00e9"'))


def test_a_schema_needs_no_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    read = ConstraintOptions(json_schema={"type": "object"}, forbid="q").read(VOCABULARY, str)
    assert read is not None
    assert isinstance(read.constraint, Automaton)
    assert "(?:" in pattern_of_schema({"type": "object"})


@pytest.mark.constrain
@pytest.mark.extended
@pytest.mark.parametrize("group", SUITE, ids=lambda group: group["description"])
def test_cases_of_the_json_schema_suite(group: dict[str, Any]) -> None:
    """A selection; `python -m benchmarks.constraints --suite FOLDER` runs all of them."""
    found = ConstraintOptions(json_schema=group["schema"]).read(BYTES, str)
    assert found is not None
    assert found.constraint is not None
    for case in group["tests"]:
        ids = list(json.dumps(case["data"], ensure_ascii=False).encode())
        assert contains(found.constraint, ids) == case["valid"], case["data"]


def contains(constraint: Any, ids: list[int]) -> bool:
    if isinstance(constraint, Automaton):
        return constraint.contains(ids)
    matcher = constraint.start().matcher.deep_copy()
    return bool(
        matcher.validate_tokens(ids) == len(ids)
        and matcher.consume_tokens(ids)
        and matcher.is_accepting()
    )
