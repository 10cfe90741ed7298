"""Requests for completions: what is answered, and what is refused by name."""

import json
from typing import Any

import pytest

from charloom.language_model import LanguageModel
from charloom.serving.app import LARGEST_BODY
from charloom.serving.schema import MOST_PROMPT, MOST_SAMPLED, CompletionRequest
from helpers.clients import Client, received, serving
from helpers.texts import SCRIPT, SCRIPTED_WOODS

# --- What is asked --------------------------------------------------------------------------------


def test_a_prompt_may_be_ids(client: Client, served_model: LanguageModel) -> None:
    tokens = [int(id_) + 1 for id_ in served_model.encode("the ")]
    _, _, content = client.ask("POST", "/tokenize", {"prompt": "the ", "add_special_tokens": False})
    assert json.loads(content) == {"tokens": tokens, "count": 4}
    _, _, content = client.ask("POST", "/tokenize", {"prompt": "the ", "model": SCRIPT})
    newline = served_model.vocabulary.start_id + 1
    assert json.loads(content) == {"tokens": [newline, *tokens], "count": 5}
    _, _, content = client.ask("POST", "/detokenize", {"tokens": tokens})
    assert json.loads(content) == {"prompt": "the "}
    fields = {"max_tokens": 20, "seed": 1}
    text = client.complete(prompt="the ", **fields)["choices"][0]["text"]
    # With the newline that stands before a text, the same text; a list of lists counts on.
    both = client.complete(prompt=[[newline, *tokens], [newline, *tokens]], **fields)
    assert [choice["index"] for choice in both["choices"]] == [0, 1]
    assert both["choices"][0]["text"] == text
    assert both["choices"][1]["text"] != text
    assert both["usage"]["prompt_tokens"] == 10
    # Nothing stands before the first of the ids: there is no probability to tell.
    scored = client.complete(prompt=tokens, max_tokens=1, logprobs=1, echo=True)["choices"][0]
    assert scored["logprobs"]["token_logprobs"][0] is scored["logprobs"]["top_logprobs"][0] is None
    assert len(scored["logprobs"]["token_logprobs"]) == len(scored["logprobs"]["tokens"]) == 5
    info = client.get("/tokenizer_info")
    assert info["eos_token"] == "\n"
    assert info["vocab_size"] == len(served_model.vocabulary)


def test_an_empty_prompt_is_fine(client: Client, served_model: LanguageModel) -> None:
    text = served_model.sample("", length=16, seed=2)
    for fields in ({"prompt": ""}, {}, {"prompt": None}, {"prompt": [""]}):
        assert client.complete(SCRIPT, seed=2, **fields)["choices"][0]["text"] == text
    nothing = client.complete(prompt="", max_tokens=0, echo=True, logprobs=2)["choices"][0]
    assert nothing["text"] == ""
    assert nothing["logprobs"]["tokens"] == []
    echoed = client.complete(prompt="the", max_tokens=0, echo=True)["choices"][0]
    assert (echoed["text"], echoed["finish_reason"]) == ("the", "length")


def test_a_book_charges_unknown_characters(client: Client, served_model: LanguageModel) -> None:
    prompt = "the ~woods\x00"
    fields = {"prompt": prompt, "max_tokens": 0, "logprobs": 1, "echo": True}
    found = client.complete(SCRIPT, **fields)["choices"][0]["logprobs"]
    assert found["tokens"] == list(prompt)
    expected = served_model.score(prompt).log_probabilities
    assert found["token_logprobs"] == pytest.approx(expected.tolist(), abs=2e-5)
    assert found["top_logprobs"][4] == {"~": found["token_logprobs"][4]}


def test_longer_prompt_reads_only_its_new_end(client: Client) -> None:
    prompt = f"字{SCRIPTED_WOODS[:499]}"  # which nobody else begins with
    fresh = client.complete(prompt=prompt, max_tokens=1)["usage"]["prompt_tokens_details"]
    assert fresh["cached_tokens"] == 0
    longer = client.complete(prompt=f"{prompt}the", max_tokens=1)["usage"]
    assert longer["prompt_tokens_details"]["cached_tokens"] == 500


def test_null_is_the_default(client: Client) -> None:
    client.complete(**dict.fromkeys(set(CompletionRequest.__struct_fields__) - {"model"}))


@pytest.mark.parametrize("stream", [False, True])
def test_ignored_fields_are_named_in_a_header(client: Client, stream: bool) -> None:
    body = {"model": SCRIPT, "seed": 1, "max_tokens": 5, "stream": stream}
    _, headers, plain = client.ask("POST", "/v1/completions", body)
    assert "x-ignored-parameters" not in headers
    names: dict[str, Any] = {"foo": 1, "\ud800, ä\n": None, "y" * 99: 1, "stop": ["the", "\x00"]}
    _, headers, content = client.ask("POST", "/v1/completions", body | names)
    shown = f"foo, %ED%A0%80%2C%20%C3%A4%0A, {'y' * 60}, stop[1]"
    assert headers["x-ignored-parameters"] == shown
    if not stream:
        assert json.loads(content)["choices"] == json.loads(plain)["choices"]
    _, headers, _ = client.ask("POST", "/v1/completions", body | {"": 1})
    assert headers["x-ignored-parameters"] == '""'
    many = {f"z{i}": i for i in range(25)}
    _, headers, _ = client.ask("POST", "/v1/completions", body | many)
    assert headers["x-ignored-parameters"].endswith("z19, and 5 more")
    for path, fields in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
        status, headers, _ = client.ask("POST", path, fields | {"foo": 1})
        assert (status, headers["x-ignored-parameters"]) == (200, "foo")


def test_a_strict_server_refuses_unknown_fields(served_model: LanguageModel) -> None:
    with serving({"model": served_model}, strict=True) as client:
        for name in ("prompts", "", "x" * 5_000, "\ud800", "temper\n"):
            error = client.refused(400, "POST", "/v1/completions", {name: None})
            assert error["code"] == "unknown_parameter"
            assert repr(name)[:20] in error["message"]
            assert len(error["message"]) < 200
        body = {"stream": True, "stream_options": {"include_usage": True, "more": 1}}
        error = client.refused(400, "POST", "/v1/completions", body)
        assert error["param"] == "stream_options.more"
        client.refused(400, "POST", "/tokenize", {"prompt": "", "foo": 1})


def test_one_model_needs_no_name(client: Client, served_model: LanguageModel) -> None:
    error = client.refused(400, "POST", "/v1/completions", {"prompt": "the"})
    assert error["message"] == f"model is missing: use one of network, {SCRIPT}"
    assert (error["param"], error["code"]) == ("model", "missing_required_parameter")
    with serving({"single": served_model}) as alone:
        for body in ({"prompt": "the"}, {"prompt": "the", "model": None}):
            _, _, content = alone.ask("POST", "/v1/completions", body)
            assert json.loads(content)["model"] == "single"


def test_skip_unknown(client: Client, served_model: LanguageModel) -> None:
    fields = {"prompt": ["the~ \x00", "th\x00e"], "skip_unknown": True, "seed": 1, "echo": True}
    first, second = client.complete(SCRIPT, **fields)["choices"]
    assert first["text"] == served_model.sample("the ", length=16, seed=1)
    assert second["text"] == served_model.sample("the", length=16, seed=1, index=1)


def test_stop_text_can_be_included(client: Client, served_model: LanguageModel) -> None:
    text = served_model.sample("the ", length=300, seed=3)[4:]
    stop, other = text[40:44], text[90:99]
    end = text.index(stop) + len(stop)
    fields = {"prompt": "the ", "max_tokens": 300, "seed": 3, "stop": [other, stop], "logprobs": 1}
    for included in (True, False):
        both = fields | {"include_stop_str_in_output": included}
        (choice,) = client.complete(SCRIPT, **both)["choices"]
        assert choice["text"] == text[: end if included else end - len(stop)]
        assert choice["finish_reason"] == "stop"
        assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


def test_messages_are_not_a_prompt(client: Client) -> None:
    body = {"model": "network", "messages": [{"role": "user", "content": "the"}]}
    error = client.refused(400, "POST", "/v1/completions", body)
    assert "send a prompt" in error["message"]
    assert error["param"] == "messages"


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("/v1/chat/completions", "do not chat, so send a prompt to /v1/completions"),
        ("/chat/completions", "do not chat"),
        ("/v1/responses", "do not chat"),
        ("/v1/messages", "do not chat"),
        ("/api/chat", "do not chat"),
        ("/v1/embeddings", "no vectors"),
        ("/api/generate", "send a prompt to /v1/completions"),
        ("/completion", "send a prompt to /v1/completions"),
        ("/generate", "send a prompt to /v1/completions"),
        ("/v1/engines/davinci/completions", "send a prompt to /v1/completions"),
        ("/completions", "use /v1/completions"),
        ("/v1/completions/", "use /v1/completions"),
        ("/v1/v1/completions", "use /v1/completions"),
        ("//v1/completions", "use /v1/completions"),
        ("/hub/v1/models", "use /v1/models"),
        ("/models", "use /v1/models"),
        ("/docs", "/openapi.json"),
    ],
)
def test_a_foreign_path_gets_a_remedy(client: Client, path: str, remedy: str) -> None:
    for method in ("GET", "POST"):
        error = client.refused(404, method, path, {} if method == "POST" else None)
        assert error["message"].startswith(f"unknown path {path!r}: ")
        assert remedy in error["message"]


BAD_FIELDS: list[tuple[str, Any]] = [
    *(("max_tokens", value) for value in (-2, MOST_SAMPLED + 1, "", 1.5, True, [], 10**400)),
    *(("n_predict", value) for value in (-2, MOST_SAMPLED + 1, "many", True)),
    *(("temperature", value) for value in (-0.1, "hot", "", "nan", False, [])),
    *(("top_p", value) for value in (1.1, -1)),
    *(("top_k", value) for value in (-2, 1.5, "a")),
    *(("min_p", value) for value in (-0.1, 1.1)),
    *(("n", value) for value in (0, 17, -1, 1.5, None, "2")[:4]),
    *(("logprobs", value) for value in (-1, 6, 10**9)),
    *(("seed", value) for value in (-2, 2**63, 0.5)),
    *(("stop", value) for value in (["a"] * 65, 5, ["a", 5], "x" * 1_001)),
    *(("prompt", value) for value in (5, {}, [], [[]], ["a", 5], [1, "a"], [0], [-1], [1.5])),
    *(("prompt", value) for value in ([True], [10**6], [[1], 1], [[[1]]], "a" * (MOST_PROMPT + 1))),
    *(("prompt", value) for value in ("~", "the\x00", "\ud800", "🦉", ["the", "~"])),
    *(("echo", value) for value in (1, "yes")),
    *(("stream", value) for value in (1, "true")),
    *(("stream_options", value) for value in (True, {"include_usage": 5}, {"include_usage": True})),
    ("user", 5),
    ("suffix", 3),
    ("best_of", 2),
    ("presence_penalty", 0.5),
    ("frequency_penalty", -0.5),
    ("repetition_penalty", 1.1),
    ("repeat_penalty", 0.9),
    ("typical_p", 0.5),
    *(("response_format", value) for value in ({"type": "xml"}, {"type": "json_schema"})),
    *(("guided_regex", value) for value in ("(", "~", "a{17}", "(?=a)b", "a" * 10_001, 5)),
    *(("logit_bias", value) for value in ({"x": 1}, {"5": 101}, {"5": None}, [], {"99999": 1})),
    ("model", "no-such"),
    ("model", 5),
    ("model", "<script>alert(1)</script>"),
]


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS, ids=lambda value: repr(value)[:30])
def test_a_bad_field_is_refused_by_name(client: Client, name: str, value: Any) -> None:
    status = 404 if name == "model" and isinstance(value, str) else 400
    body = {"model": "network", "prompt": "the"} | {name: value}
    error = client.refused(status, "POST", "/v1/completions", body)
    assert error["param"] == name
    assert name in error["message"] or name in ("prompt", "model")
    assert len(error["message"]) < 800
    assert error["type"] in ("invalid_request_error", "not_found_error")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"the woods",
        b'{"model": "network"',
        b"[]",
        b"5",
        b'"network"',
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"model": "network", "temperature": NaN}',
        b'{"model": "network", "temperature": Infinity}',
        b'{"model": "network", "temperature": 1e999}',
        b'{"model": "network", "seed": ' + b"9" * 5_000 + b"}",
        b"[" * 100_000,
        b'{"model": "network", "prompt": ' + b"[" * 400 + b"]" * 400 + b"}",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_a_bad_body_is_refused(client: Client, body: bytes) -> None:
    for path in ("/v1/completions", "/tokenize", "/detokenize"):
        client.refused(400, "POST", path, body)


def test_oversized_request_is_refused(client: Client) -> None:
    many = {"model": "network", "prompt": ["the"] * 100, "n": 3}
    assert client.refused(400, "POST", "/v1/completions", many)["param"] == "prompt"
    scored = {"model": "network", "max_tokens": MOST_SAMPLED, "n": 5, "logprobs": 1}
    assert client.refused(400, "POST", "/v1/completions", scored)["param"] == "logprobs"
    echoed = {"model": "network", "prompt": "a" * 70_000, "n": 2, "logprobs": 1, "echo": True}
    assert client.refused(400, "POST", "/v1/completions", echoed)["param"] == "logprobs"
    large = b'{"model": "network", "prompt": "' + b"a" * LARGEST_BODY + b'"}'
    client.refused(413, "POST", "/v1/completions", large)


def test_a_large_body_without_a_length_is_refused(client: Client) -> None:
    with client.connect() as there:
        there.sendall(
            b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        )
        piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        there.sendall(20 * piece + b"0\r\n\r\n")
        assert received(there).startswith(b"HTTP/1.1 413 ")
    client.get("/health")


def test_what_is_not_json_is_refused(client: Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"):
        client.refused(415, "POST", "/v1/completions", b"{}", content_type=kind)
    body = {"model": "network", "max_tokens": 1}
    given = {"content_type": "Application/JSON; charset=utf-8"}
    assert client.ask("POST", "/v1/completions", body, **given)[0] == 200


def test_paths_and_methods(client: Client) -> None:
    for path in ("/v1/chat/completions", "/v1", "/v1/models/", "/v1/models/no-such", "/docs", "//"):
        client.refused(404, "GET", path)
    for method, path in (
        ("GET", "/v1/completions"),
        ("DELETE", "/v1/models"),
        ("POST", "/"),
        ("OPTIONS", "/v1/completions"),
        ("PUT", "/health"),
    ):
        client.refused(405, method, path)
    status, _, content = client.ask("HEAD", "/health")
    assert (status, content) == (200, b"")
