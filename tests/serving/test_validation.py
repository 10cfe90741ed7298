"""Request bodies are converted to their types, and errors name the field and the valid values."""

import json
import math
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from charloom.engines.decoding import SamplingSettings
from charloom.prediction.unseen import UnseenCharacters
from charloom.serving.completions import MOST_SCORED, Completion, parse_completion
from charloom.serving.errors import ApiError, read_json, write_json
from charloom.serving.metrics import ServerMetrics
from charloom.serving.openapi import describe_api
from charloom.serving.schema import (
    MOST_SAMPLED,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from charloom.serving.tokens import Tokens
from charloom.serving.validation import convert_body
from charloom.text.vocabulary import END, Vocabulary

VOCABULARY = Vocabulary(tuple("\nabc"))


def convert(**fields: Any) -> CompletionRequest:
    body = read_json(json.dumps({"model": "m", **fields}).encode())
    return convert_body(body, CompletionRequest)[0]


def refused(kind: type = CompletionRequest, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        convert_body(fields, kind, strict=True)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": "many"}, "invalid max_tokens 'many': use an integer from -1 to 32768"),
        ({"max_tokens": "99999"}, "invalid max_tokens '99999': use an integer from -1 to 32768"),
        ({"top_p": -0.5}, "invalid top_p -0.5: use a number from 0 to 1"),
        ({"top_k": -2}, "invalid top_k -2: use an integer of -1 or more"),
        ({"temperature": "-1"}, "invalid temperature '-1': use a number of 0 or more"),
        ({"echo": 1}, "invalid echo 1: use true or false"),
        ({"user": 5}, "invalid user 5: use a string"),
        (
            {"stop": ["a", 5]},
            "invalid stop ['a', 5]: use a string of at most 1,000 characters, or a list of at most "
            "64 items, each a string of at most 1,000 characters",
        ),
        ({"stream_options": 5}, "invalid stream_options 5: use an object with only include_usage"),
        ({"logit_bias": {"a": 1}}, "an object of token ids, each with a number from -100 to 100"),
        (
            {"prompt": [1, "a"]},
            "invalid prompt [1, 'a']: use a string of at most 131,072 characters, its token ids, "
            "or a list of at least 1 of either",
        ),
        ({"prompt": []}, "invalid prompt []: use a string of at most 131,072 characters, its"),
        ({"best_of": 0}, "best_of 0 is not supported: omit it, or use n"),
        ({"typical_p": 0.9}, "typical_p 0.9 is not supported: omit it, or use 1"),
        (
            {"response_format": {"type": "xml"}},
            "invalid response_format {'type': 'xml'}: use an object with only type, json_schema",
        ),
        ({"guided_json": 5}, "invalid guided_json 5: use an object, or a string of at most 10,000"),
        (
            {"guided_regex": "a" * 10_001},
            ": use a string of at most 10,000 characters",
        ),
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
    assert refused(n=99, top_p=2).param == "n"
    assert refused(n=99, zzz=1).code == "unknown_parameter"
    assert refused(**{"x - at `$.prompt": 1}).param == "x - at `$.prompt"
    missing = refused(TokenizeRequest)
    assert str(missing) == "prompt is missing: set it to a string of at most 131,072 characters"
    assert (missing.param, missing.code) == ("prompt", "missing_required_parameter")
    assert str(refused(DetokenizeRequest, tokens=[0])).startswith("invalid tokens [0]: use a list")
    assert refused(TokenizeRequest, tokens=[1]).code == "unknown_parameter"


def test_a_number_without_a_fraction_is_an_integer() -> None:
    found = convert(max_tokens=16.0, temperature=1, prompt=[1.0, 2e0], best_of=1.0)
    assert (found.max_tokens, found.temperature) == (16, 1.0)
    assert found.prompt is not None
    assert found.prompt.values == [[1, 2]]
    for value in (True, 1.5, "1.5", "", " 1"):
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


def test_an_unknown_field_is_named() -> None:
    body = {"zzz": 1, "stream_options": {"include_usage": True, "\ud800": 1}, "temprature": 0}
    found, unknown = convert_body(body, CompletionRequest)
    assert unknown == ("zzz", "stream_options.\ud800", "temprature")
    assert found.stream_options is not None
    assert found.stream_options.include_usage
    del body["zzz"], body["stream_options"]
    error = refused(**body)
    assert str(error) == "unknown field 'temprature': use temperature, or omit it"
    assert error.param == "temprature"


def test_a_number_can_be_a_text() -> None:
    found = convert(temperature="0.5", max_tokens="16", top_k="-1", seed="9223372036854775807")
    assert (found.temperature, found.max_tokens, found.top_k) == (0.5, 16, -1)
    assert found.seed == 2**63 - 1
    assert convert(stop="5").stop == "5"
    assert convert(logprobs="2.0").logprobs == 2


def parse(**fields: Any) -> Completion:
    return parse_completion(convert(**fields), Tokens(VOCABULARY), 256)


@pytest.mark.parametrize(
    "neutral",
    [
        *({"top_k": value} for value in (0, -1, None)),
        {"seed": 5, "repetition_penalty": 1.0, "repeat_penalty": 1, "typical_p": 1.0},
        {"presence_penalty": 0, "frequency_penalty": 0.0, "suffix": "", "user": "somebody"},
        *({"stop": value} for value in ("", [], [""], ["", ""], None)),
        *({name: 16} for name in ("max_tokens", "max_completion_tokens", "n_predict")),
        {"max_tokens": 16, "n_predict": 16, "max_completion_tokens": None},
        *({"logprobs": value} for value in (None, False)),
        {"response_format": {"type": "text"}, "cache_prompt": True, "ignore_eos": False},
        {"best_of": 1, "n": 1, "logit_bias": {}, "min_p": 0, "top_p": 1, "temperature": 1},
        {"stream_options": {"include_usage": False}, "stream": False, "echo": False},
    ],
    ids=repr,
)
def test_a_neutral_value_has_no_effect(neutral: dict[str, Any]) -> None:
    fields = {"seed": 5} | neutral
    found, expected = parse(**fields), parse(seed=5)
    (request,), (plain,) = found.requests, expected.requests
    settings = request.settings
    assert settings.temperature == 1
    assert settings.top_k is None
    assert settings.top_p in (None, 1)
    assert not settings.min_p
    for name in ("length", "stop", "seed", "bias", "alternatives", "scores_prompt", "indices"):
        assert getattr(request, name) == getattr(plain, name), name
    assert found.unusable_stops == ()


def test_the_length_can_be_the_limit() -> None:
    for name in ("max_tokens", "max_completion_tokens", "n_predict"):
        (request,) = parse(**{name: -1}).requests
        assert request.length == MOST_SAMPLED
    for request in parse(max_tokens=-1, logprobs=1, n=16, prompt=["a", "b"]).requests:
        assert request.length == MOST_SCORED // 32
    with pytest.raises(ApiError, match="max_tokens 5 and n_predict 6 differ: set one of them"):
        parse(max_tokens=5, n_predict=6)


def test_a_random_seed_is_not_negative() -> None:
    assert all(parse(seed=-1).requests[0].seed >= 0 for _ in range(9))


def test_top_p_0_is_greedy() -> None:
    assert parse(top_p=0, temperature=2.5).requests[0].settings.temperature == 0
    assert parse(temperature=30).requests[0].settings.temperature == 30


def test_best_of_is_accepted_if_it_is_n() -> None:
    assert parse(n=3, best_of=3).texts_each == parse(n=3, best_of=1).texts_each == 3
    with pytest.raises(ApiError, match="best_of 3 with n 2 is not supported") as caught:
        parse(n=2, best_of=3)
    assert caught.value.param == "best_of"


def test_true_log_probabilities_have_no_alternatives() -> None:
    assert parse(logprobs=True).requests[0].alternatives == 0


def test_many_stops() -> None:
    stops = [*"abcabc", "\n", "c" * 30, "", "x", "ax"]
    found = parse(stop=stops)
    assert found.requests[0].stop == (*"abcabc", "\n", "c" * 30)
    assert found.unusable_stops == ("stop[9]", "stop[10]")
    assert parse(stop="\ud800").unusable_stops == ("stop",)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["a~"], r"^unknown character '~' .* at position 1"),
        (["a", "b~", "c"], r"^prompt 2 of 3: unknown character '~' .* at position 1"),
        (["a", "~", "c", "~"], r"^prompt 2 of 4 \(and 1 other\): unknown character"),
        (["~"] * 4, r"^prompt 1 of 4 \(and 3 others\): .* or set skip_unknown"),
        ([[1], [9]], r"^prompt 2 of 2: unknown token 9 at position 0"),
    ],
)
def test_an_error_names_the_prompt(prompts: list[Any], message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        parse(prompt=prompts)
    assert caught.value.param == "prompt"


def test_unknown_characters_are_skipped() -> None:
    tokens = Tokens(VOCABULARY, UnseenCharacters(1, 1000))
    unknown = len(VOCABULARY) + 1
    body = convert(prompt=["a~b\ud800", "~", ""], skip_unknown=True)
    found = parse_completion(body, tokens, 256)
    assert [prompt.characters for prompt in found.prompts] == ["ab", "", ""]
    assert [request.prompt.tolist() for request in found.requests] == [[0, 1, 2], [0], [0]]
    body = convert(prompt=[[2, unknown, 3]], skip_unknown=True, echo=True, logprobs=0)
    assert parse_completion(body, tokens, 256).prompts[0].ids.tolist() == [1, 2]


def test_logit_bias_has_token_ids() -> None:
    bias = parse(logit_bias={"1": 5, "4": -100}).requests[0].bias
    assert bias == {0: 5, 3: -math.inf}
    for token in ("5", "4000000000"):
        with pytest.raises(ApiError, match=f"unknown token '{token}' in logit_bias"):
            parse(logit_bias={token: 1})
    with pytest.raises(ApiError, match="logit_bias excludes every token"):
        parse(logit_bias=dict.fromkeys("1234", -100))
    with_end = Tokens(Vocabulary((*"abc", END)))
    (request,) = parse_completion(convert(ignore_eos=True), with_end, 1).requests
    assert request.bias == {3: -math.inf}


def test_a_top_k_beyond_the_vocabulary_changes_nothing() -> None:
    completion = parse_completion(convert(top_k=10**400), Tokens(VOCABULARY), 1)
    assert completion.requests[0].settings == SamplingSettings(1.0, len(VOCABULARY))


def test_half_of_a_surrogate_pair_is_quoted_back_in_ascii() -> None:
    error = refused(**{"\ud800": 1})
    assert json.loads(write_json(error.body()))["error"]["param"] == "\\ud800"
    assert write_json("\ud800ä") == b'"\\ud800\\u00e4"'


def test_the_openapi_document_lists_every_field_and_model() -> None:
    found = describe_api(["one", "two"])["components"]["schemas"]
    request = found["CompletionRequest"]
    assert set(request["properties"]) == set(CompletionRequest.__struct_fields__)
    assert request["properties"]["model"] == {"enum": ["one", "two"]}
    assert request["required"] == ["model"]
    assert "additionalProperties" not in request
    strict = describe_api(["one"], strict=True)["components"]["schemas"]
    for name in ("CompletionRequest", "StreamOptions", "TokenizeRequest"):
        assert strict[name]["additionalProperties"] is False
    assert strict["CompletionRequest"]["properties"]["model"] == {"enum": ["one", None]}
    assert strict["CompletionRequest"]["required"] == []
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
