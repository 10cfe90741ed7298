"""Request bodies are converted to their types, and errors name the field and the valid values."""

import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from charloom.engines.decoding import SamplingSettings
from charloom.serving.completions import parse_completion
from charloom.serving.errors import ApiError, read_json, write_json
from charloom.serving.metrics import ServerMetrics
from charloom.serving.openapi import describe_api
from charloom.serving.schema import CompletionRequest, DetokenizeRequest, TokenizeRequest
from charloom.serving.tokens import Tokens
from charloom.serving.validation import convert_body
from charloom.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(tuple("\nabc"))


def convert(**fields: Any) -> CompletionRequest:
    return convert_body(read_json(json.dumps({"model": "m", **fields}).encode()), CompletionRequest)


def refused(kind: type = CompletionRequest, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        convert_body(fields, kind)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": "5"}, "invalid max_tokens '5': use an integer from 0 to 32768"),
        ({"top_p": 0}, "invalid top_p 0: use a number above 0 and at most 1"),
        ({"top_k": 0}, "invalid top_k 0: use an integer of 1 or more"),
        ({"echo": 1}, "invalid echo 1: use true or false"),
        ({"user": 5}, "invalid user 5: use a string"),
        (
            {"stop": ["a", 5]},
            "invalid stop ['a', 5]: use a string of 1 to 1,000 characters, or a list of at most 4 "
            "items, each a string of 1 to 1,000 characters",
        ),
        ({"stream_options": {"usage": 1}}, "{'usage': 1}: use an object with only include_usage"),
        (
            {"prompt": [1, "a"]},
            "invalid prompt [1, 'a']: use a string of at most 131,072 characters, or a list of at "
            "least 1 items, each a string of at most 131,072 characters, or a list of 1 to 131,072 "
            "items, each an integer of 1 or more, or a list of at least 1 items, each a list of 1 "
            "to 131,072 items, each an integer of 1 or more",
        ),
        ({"suffix": "the"}, "suffix is not supported: omit it"),
        ({"stream_options": {"\ud800": 1}}, "use an object with only include_usage"),
    ],
)
def test_an_invalid_value_is_reported_with_the_valid_ones(
    fields: dict[str, Any], message: str
) -> None:
    error = refused(model="m", **fields)
    assert message in str(error)
    (name,) = fields
    assert error.param == name


def test_the_first_bad_field_is_reported() -> None:
    assert refused(n=99, zzz=1).param == "n"
    assert refused(zzz=1, n=99).code == "unknown_parameter"
    assert refused(**{"x - at `$.prompt": 1}).param == "'x - at `$.prompt'"
    assert str(refused()) == "model is missing: set it to a string"
    assert str(refused(DetokenizeRequest, tokens=[0])).startswith("invalid tokens [0]: use a list")
    assert refused(TokenizeRequest, tokens=[1]).code == "unknown_parameter"


def test_a_number_without_a_fraction_is_an_integer() -> None:
    found = convert(max_tokens=16.0, temperature=1, prompt=[1.0, 2e0], best_of=1.0)
    assert (found.max_tokens, found.temperature) == (16, 1.0)
    assert found.prompt is not None
    assert found.prompt.values == [[1, 2]]
    for value in (True, 1.5, "1"):
        assert refused(model="m", max_tokens=value).param == "max_tokens"


@pytest.mark.parametrize(
    ("prompt", "values"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        ("", [""]),
    ],
)
def test_prompts_are_texts_or_token_ids(prompt: Any, values: list[Any]) -> None:
    found = convert(prompt=prompt).prompt
    assert found is not None
    assert found.values == values


def test_a_top_k_beyond_the_vocabulary_changes_nothing() -> None:
    completion = parse_completion(convert(top_k=10**400), Tokens(VOCABULARY), 1)
    assert completion.requests[0].settings == SamplingSettings(1.0, len(VOCABULARY))


def test_half_of_a_surrogate_pair_is_quoted_back_in_ascii() -> None:
    error = refused(**{"\ud800": 1})
    assert json.loads(write_json(error.body()))["error"]["param"] == "'\\ud800'"
    assert write_json("\ud800ä") == b'"\\ud800\\u00e4"'


def test_the_openapi_document_lists_every_field_and_model() -> None:
    found = describe_api(["one", "two"])["components"]["schemas"]
    request = found["CompletionRequest"]
    assert set(request["properties"]) == set(CompletionRequest.__struct_fields__)
    assert request["properties"]["model"] == {"enum": ["one", "two"]}
    assert request["required"] == ["model"]
    assert request["additionalProperties"] is False
    assert found["TokenizeRequest"]["properties"]["model"] == {"enum": ["one", "two", None]}
    usage = found["CompletionResponse"]
    assert "usage" not in usage["required"]
    json.dumps(found)


def test_metrics_are_charloom_s_alone() -> None:
    metrics = ServerMetrics({})
    metrics.count_reply("/", 200)
    metrics.count_reply("/", 200)
    families = list(text_string_to_metric_families(metrics.text().decode()))
    assert all(family.name.startswith("charloom_") for family in families)
    assert not any("created" in family.name for family in families)
    (replies,) = [family for family in families if family.name == "charloom_replies"]
    (sample,) = replies.samples
    assert sample.labels == {"path": "/", "status": "200"}
    assert sample.value == 2
