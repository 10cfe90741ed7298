"""Completions by a pattern over HTTP."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from charloom.language_model import LanguageModel
from helpers.clients import Client
from helpers.texts import SCRIPT


def test_completions_match_a_pattern_in_company(
    client: Client, served_model: LanguageModel
) -> None:
    pattern = "([a-z]{2,6} )+[a-z]+"
    plain = {"prompt": "the ", "max_tokens": 60, "seed": 4}
    guided = plain | {"n": 4, "guided_regex": pattern}
    with ThreadPoolExecutor(3) as pool:
        asked = [
            pool.submit(client.complete, SCRIPT, **fields) for fields in (plain, guided, guided)
        ]
    alone, *both = [reply.result()["choices"] for reply in asked]
    assert alone[0]["text"] == served_model.sample("the ", length=60, seed=4)[4:]
    expected = served_model.sample_documents(4, prompt="the ", length=60, seed=4, match=pattern)
    for choices in both:
        assert [c["text"] for c in choices] == [d.characters for d in expected]
        assert [c["finish_reason"] for c in choices] == [d.finish_reason for d in expected]
        assert all(re.fullmatch(pattern, c["text"]) for c in choices)
    streamed = client.complete(SCRIPT, **guided | {"logprobs": 0})["choices"]
    for choice in streamed:
        assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


def test_an_empty_match_ends_at_once(client: Client) -> None:
    for choice in client.complete(prompt="the", guided_regex="", n=2)["choices"]:
        assert (choice["text"], choice["finish_reason"]) == ("", "stop")


def test_texts_characters_and_bias(client: Client, served_model: LanguageModel) -> None:
    e = str(int(served_model.encode("e")[0]) + 1)
    fields = {"prompt": "the ", "max_tokens": 40, "seed": 2, "n": 3}
    plain = {"forbid": ["w", "[k-m]"], "require": "so", "alphabet": "[a-z ]"}
    choices = client.complete(SCRIPT, **fields, **plain, logit_bias={e: -100})["choices"]
    expected = served_model.sample_documents(
        3, prompt="the ", length=40, seed=2, bias="e=-inf", **plain
    )
    assert [c["text"] for c in choices] == [d.characters for d in expected]
    for choice in choices:
        assert re.fullmatch("[a-dfghijn-vxyz ]{40}", choice["text"])
        assert "so" in choice["text"]
    biased = client.complete(**fields, bias={"e": 5, "a": -100})["choices"]
    by_ids = client.complete(**fields, logit_bias={e: 5, str(_id(served_model, "a")): -100})
    assert biased == by_ids["choices"]
    # An excluded character cannot be chosen where the pattern requires it.
    error = client.refused(
        400, "POST", "/v1/completions",
        {"model": SCRIPT, "guided_regex": "e+", "logit_bias": {e: -100}},
    )  # fmt: skip
    assert error["message"].startswith("no text of the model's characters meets all constraints")
    assert error["param"] == "guided_regex"


def _id(model: LanguageModel, character: str) -> int:
    return int(model.encode(character)[0]) + 1


def test_conditioned_log_probabilities(client: Client, served_model: LanguageModel) -> None:
    fields = {"prompt": "the ", "seed": 3, "guided_regex": "[a-f]{6}", "logprobs": 0}
    found = client.complete(SCRIPT, **fields, conditioned_logprobs=True)["choices"][0]["logprobs"]
    document = served_model.sample_documents(1, prompt="the ", length=16, seed=3, match="[a-f]{6}")[
        0
    ]
    conditioned = document.conditioned_log_probability
    assert sum(found["conditioned_logprobs"]) == pytest.approx(conditioned, abs=1e-5)
    assert all(a <= b for a, b in zip(*[found[n] for n in NAMES], strict=True))
    plain = client.complete(SCRIPT, **fields)["choices"][0]["logprobs"]
    assert plain == {name: found[name] for name in plain}
    assert set(found) - set(plain) == {"conditioned_logprobs"}
    body = {"model": SCRIPT, "conditioned_logprobs": True}
    client.refused(400, "POST", "/v1/completions", body)


NAMES = ("token_logprobs", "conditioned_logprobs")


def test_a_suffix_follows_the_completion(client: Client, served_model: LanguageModel) -> None:
    fields = {"prompt": "the ", "suffix": " on the", "max_tokens": 8, "seed": 1, "n": 4}
    choices = client.complete(SCRIPT, **fields)["choices"]
    assert choices == client.complete(SCRIPT, **fields)["choices"]
    assert {choice["finish_reason"] for choice in choices} == {"stop"}
    two = client.complete(SCRIPT, **fields | {"n": 2}, stream=False)["choices"]
    assert two == choices[:2]
    best = client.complete(SCRIPT, **fields | {"temperature": 0, "n": 1})["choices"][0]["text"]
    score = {
        text: -served_model.score(f"the {text} on the").log_probabilities.sum()
        for text in ("", "ddd", "ou", "(", best)
    }
    assert min(score, key=score.__getitem__) == best
    guided = client.complete(SCRIPT, **fields, guided_regex="[a-d]{3}")["choices"]
    assert all(re.fullmatch("[a-d]{3}", choice["text"]) for choice in guided)
    biased = client.complete(SCRIPT, **fields, bias={"a": -100})["choices"]
    assert not any("a" in choice["text"] for choice in biased)
    echoed = client.complete(SCRIPT, **fields, echo=True)["choices"][0]["text"]
    assert echoed == "the " + choices[0]["text"]
    for more in ({"logprobs": 1}, {"max_tokens": 513}, {"suffix": "\u0416"}):
        client.refused(400, "POST", "/v1/completions", {"model": SCRIPT} | fields | more)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[a-z]{3}", {"valid": True, "shortest": 3}),
        ("", {"valid": True, "shortest": 0}),
        ("(a|a)*d", {"valid": True, "shortest": 1}),
        ("(a", {"valid": False, "message": "match '(a' is not a regular expression"}),
        ("a{1,100000}", {"valid": False, "message": "too large: use smaller repetitions"}),
    ],
)
def test_a_pattern_is_checked(client: Client, pattern: str, expected: dict[str, Any]) -> None:
    status, _, content = client.ask("POST", "/pattern", {"model": SCRIPT, "pattern": pattern})
    found = json.loads(content)
    assert status == 200
    assert set(found) == set(expected)
    assert all(str(value) in str(found[name]) for name, value in expected.items())


def test_a_pattern_has_a_largest_size(client: Client) -> None:
    error = client.refused(400, "POST", "/pattern", {"pattern": "a" * 10_001})
    assert error["message"].startswith("invalid pattern")


def test_texts_continue_while_a_hostile_pattern_is_compiled(client: Client) -> None:
    """Compilation is neither in the batcher's thread nor in all of the threads of requests."""
    hostile = {"model": SCRIPT, "guided_regex": "(a|d)*a(a|d){18}"}
    with ThreadPoolExecutor(4) as pool:
        refused = [
            pool.submit(client.refused, 400, "POST", "/v1/completions", hostile) for _ in range(3)
        ]
        begin = time.monotonic()
        client.complete(SCRIPT, prompt="the ", max_tokens=20)
        seconds = time.monotonic() - begin
        assert not any(one.done() for one in refused)
        messages = {one.result()["message"] for one in refused}
    assert seconds < 4
    assert len(messages) == 1


def test_256_texts_with_different_constraints(client: Client, served_model: LanguageModel) -> None:
    """Rows with and without constraints in one batch are those of single requests."""
    plain = {
        "prompt": ["the "] * 4,
        "n": 16,
        "max_tokens": 30,
        "seed": 5,
        "top_k": 9,
        "min_p": 0.01,
    }
    each: list[dict[str, Any]] = [
        {},
        {"guided_regex": "([a-e]+ )*[a-z]+"},
        {"forbid": "e", "require": "so"},
        {"bias": {"o": 2}},
    ]
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.complete, SCRIPT, **plain | fields) for fields in each]
        found = [[c["text"] for c in one.result()["choices"]] for one in asked]
    for texts, options in zip(
        found,
        ({}, {"match": "([a-e]+ )*[a-z]+"}, {"forbid": "e", "require": "so"}, {"bias": "o=2"}),
        strict=True,
    ):
        documents = served_model.sample_documents(
            64, prompt="the ", length=30, seed=5, top_k=9, min_p=0.01, **options
        )
        assert texts == [document.characters for document in documents]
