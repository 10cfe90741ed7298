"""Prompts and stop texts over HTTP are read as the model's text was, and replies are text."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

import charloom
from charloom.language_model import LanguageModel
from helpers.clients import Client, serving
from helpers.runs import train_tiny

TEXT = "le café est à l’été, 字\n" * 60
LEARNED = {"max_tokens": 60, "seed": 1}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LanguageModel]:
    folder = tmp_path_factory.mktemp("typed")
    options = ["--hidden-size=24", "--batch-size=8", "--window=32", "--steps=80", "--threads=1"]
    found = {"characters": [], "bytes": ["--bytes"]}
    return {
        name: charloom.load(train_tiny(folder, TEXT, *options, *more, name=name), threads=1)
        for name, more in found.items()
    }


@pytest.fixture(scope="module")
def typed(models: dict[str, LanguageModel]) -> Iterator[Client]:
    with serving(models) as found:
        yield found


def complete(client: Client, model: str, **fields: Any) -> Any:
    (choice,) = client.complete(model, **LEARNED | fields)["choices"]
    return choice


@pytest.mark.parametrize(
    ("model", "prompt", "read"),
    [
        ("characters", "été\r\nest", "été\nest"),
        ("characters", "été\rest", "été\nest"),
        ("characters", "\ufeffété", "été"),
        ("characters", "e\u0301te\u0301", "été"),
        ("bytes", "e\u0301te\u0301", "été"),
    ],
)
def test_prompts_are_read_as_the_text_was(
    typed: Client, model: str, prompt: str, read: str
) -> None:
    fields = {"echo": True, "logprobs": 0}
    found = complete(typed, model, prompt=prompt, **fields)
    assert found == complete(typed, model, prompt=read, **fields)
    assert found["text"].startswith(read)
    tokens = [
        json.loads(typed.ask("POST", "/tokenize", {"model": model, "prompt": text})[2])
        for text in (prompt, read)
    ]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("model", ["characters", "bytes"])
@pytest.mark.parametrize(
    "stop", ["été", "e\u0301te\u0301", "\\n", "\n", "\r\n", ["’", "字"], "à l’"]
)
def test_stop_texts_are_read_as_the_text_was(typed: Client, model: str, stop: Any) -> None:
    fields = {"prompt": "le ", "temperature": 0}
    text = complete(typed, model, **fields)["text"]
    meant = {"\\n": "\n", "\r\n": "\n", "e\u0301te\u0301": "été"}
    stops = [stop] if isinstance(stop, str) else stop
    ends = [text.find(meant.get(one, one)) for one in stops]
    end = min((end for end in ends if end >= 0), default=len(text))
    assert complete(typed, model, **fields, stop=stop)["text"] == text[:end]
    assert end < len(text)


def test_bytes_are_text(typed: Client, models: dict[str, LanguageModel]) -> None:
    """Also where an event of a stream, the prompt or the length cuts a character."""
    for length in (*range(1, 12), 60):
        fields = {"prompt": "le caf", "max_tokens": length}
        expected = models["bytes"].sample("le caf", length=length, seed=1)[6:]
        assert complete(typed, "bytes", **fields)["text"] == expected
        body = {"model": "bytes", "stream": True, "logprobs": 1} | LEARNED | fields
        _, _, content = typed.ask("POST", "/v1/completions", body)
        events = [line[6:] for line in content.decode().split("\n\n") if line.startswith("data: {")]
        choices = [json.loads(event)["choices"][0] for event in events]
        assert "".join(choice["text"] for choice in choices) == expected
        assert sum(len(choice["logprobs"]["tokens"]) for choice in choices) == length
    assert "é" in expected or "’" in expected
