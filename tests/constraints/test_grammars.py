"""Samples by JSON schemas and grammars: complete, in time, and judged by other programs."""

import json
from typing import Any

import pytest

from charloom.constraints.grammars import NO_CONTINUATION
from charloom.constraints.options import ConstraintOptions
from charloom.engines.backend import Backend
from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.prediction.sampling import SampleRequest, stream_text
from charloom.prediction.side_by_side import sample_side_by_side
from charloom.text.vocabulary import Vocabulary
from helpers.extras import needs

pytestmark = pytest.mark.constrain

JSON = Vocabulary(tuple('\n !"()+,-.0123456789:[]abcdefghijklmnopqrstuvwxyz{}'))
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "bb"]}, "minItems": 1},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/$defs/tree",
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/tree"}},
            "required": ["a"],
            "additionalProperties": False,
        }
    },
}


OPEN = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    parameters = initialize(ModelConfig("gru", 8, 1, len(JSON)), seed=3)
    parameters.flat[:] *= 3
    return Backend("reference").open(parameters)


def request_for(length: int, **options: Any) -> SampleRequest:
    return SampleRequest(length=length, constraints=ConstraintOptions(**options).read(JSON, str))


PERSON["properties"] |= {"o": {"type": "boolean"}}  # which is optional


@pytest.mark.parametrize(
    ("schema", "length"),
    [(PERSON, 29), (PERSON, 45), (PERSON, 200), (OPEN, 70), (TREE, 40), (True, 30)],
)
def test_samples_meet_a_schema_in_any_length(
    predictor: Predictor, schema: Any, length: int
) -> None:
    import jsonschema

    request = request_for(length, json_schema=schema)
    documents = list(sample_side_by_side(predictor, JSON, request, range(12), 5))
    for index, document in enumerate(documents):
        jsonschema.validate(json.loads(document.characters), schema)
        assert len(document.characters) <= length
        if index < 2:
            alone = SampleRequest(length=length, constraints=request.constraints, index=index)
            assert "".join(stream_text(predictor, JSON, alone)) == document.characters


ALIKE = [f'"k{n:x}"' for n in range(10_500)]  # beyond a limit of llguidance
BRACKETS = ['start: "(" start ")" start | "a"', 'root ::= "(" root ")" root | "a"']


@pytest.mark.parametrize("grammar", BRACKETS)
def test_samples_follow_a_grammar_of_lark_or_gbnf(predictor: Predictor, grammar: str) -> None:
    request = request_for(15, grammar=grammar)
    found = {d.characters for d in sample_side_by_side(predictor, JSON, request, range(20), 8)}
    for text in found:
        while "(a)a" in text:
            text = text.replace("(a)a", "a")
        assert text == "a"


def test_an_impossible_character_is_no_limit() -> None:
    """llguidance tells them apart by its message alone."""
    constraint = request_for(9, grammar='start: "ab"').constraints.constraint
    matcher = constraint.start().matcher.deep_copy()
    assert not matcher.consume_token(int(JSON.encode("b")[0]))
    assert NO_CONTINUATION in matcher.get_error()


@needs("lark")
@pytest.mark.parametrize(
    "grammar",
    [
        'start: term ("+" term)*\nterm: /[0-9]+/ | "(" start ")"',
        'start: "[" [item ("," item)*] "]"\nitem: NAME | start\nNAME: /[a-z]{1,3}/',
        '%import common.INT\nstart: (INT ".")+ ("yes"i | "no")',
    ],
)
def test_lark_parses_the_samples_of_a_grammar(predictor: Predictor, grammar: str) -> None:
    import lark

    parser = lark.Lark(grammar, parser="earley")
    request = request_for(25, grammar=grammar)
    for document in sample_side_by_side(predictor, JSON, request, range(20), 8):
        parser.parse(document.characters)


def test_a_grammar_combines_with_texts(predictor: Predictor) -> None:
    schema = {"type": "string"}
    request = request_for(
        20, json_schema=schema, forbid=["a", "no"], require=["so"], alphabet="[ -~]"
    )
    for document in sample_side_by_side(predictor, JSON, request, range(10), 8):
        text = json.loads(document.characters)
        assert "so" in text
        assert "a" not in text
        assert "no" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"json_schema": {"uniqueItems": True}},
            'json_schema cannot be used (Unimplemented keys: ["',
        ),
        ({"json_schema": "{"}, "json_schema is not JSON"),
        ({"json_schema": {"a": {1}}}, "json_schema cannot be written as JSON (Object of type set"),
        ({"json_schema": '{"not":' * 200 + "{}" + "}" * 200}, "json_schema cannot be used (recur"),
        ({"json_schema": {"allOf": [{"minProperties": 2}]}}, "has minProperties of any name"),
        ({"json_schema": 3}, "json_schema is 3: pass a JSON schema, an object"),
        (
            {"json_schema": {"const": "Z"}},
            "meets json_schema: it requires the character 'Z' (U+005A",
        ),
        (
            {"json_schema": {"type": "string", "pattern": "Z"}},
            "that meets json_schema and the other constraints",
        ),
        ({"json_schema": PERSON}, "has at least 24 characters, and length is 10"),
        ({"grammar": "start: other"}, 'grammar cannot be used (at 1(8): unknown name: "other")'),
        ({"grammar": 'root ::= "'}, "grammar cannot be used ("),
        ({"grammar": "start: /(?=a)b/"}, "grammar cannot be used ("),
        (
            {"grammar": f"start: {'|'.join(ALIKE)}"},
            "grammar cannot be used (Parser Error: Current",
        ),
        ({"grammar": 'start: "a"', "match": "a"}, "match and grammar exclude each other"),
        ({"grammar": " "}, "grammar is ' ': pass a grammar"),
    ],
)
def test_what_cannot_be_met_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CharloomError) as caught:
        request_for(10, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
