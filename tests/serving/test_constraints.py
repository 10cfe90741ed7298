"""Completions by a pattern over HTTP."""

import re
from concurrent.futures import ThreadPoolExecutor

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
