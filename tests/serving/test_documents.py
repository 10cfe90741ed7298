"""Models of documents: a text ends where the end of a document is sampled."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charloom
from charloom.engines.decoding import SamplingSettings, choose
from charloom.language_model import LanguageModel
from charloom.serving.tokens import UNKNOWN_NAME
from charloom.text.vocabulary import END, END_NAME
from helpers.clients import Client, serving
from helpers.documents import VOCABULARY, model_of_documents

UNSEEN = 0.02
UNKNOWN_LOG_P = math.log(UNSEEN / (0x110000 - 0x800 - len(VOCABULARY) + 1))
assert VOCABULARY.end_id is not None
END_TOKEN = VOCABULARY.end_id + 1


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return model_of_documents()


@pytest.fixture(scope="module")
def documents(model: LanguageModel) -> Iterator[Client]:
    models = {
        "documents": model,
        "recorded": model_of_documents(unseen=UNSEEN),
        "endless": model_of_documents(-1e9),
        "empty": model_of_documents(1e9),
    }
    with serving(models) as client:
        yield client


def sampled(
    model: LanguageModel, prompt: str, length: int, seed: int, index: int
) -> tuple[str, str]:
    """Sample a document, a step at a time, and return it with its finish reason."""
    predictor = model.predictor
    generator = np.random.Generator(np.random.PCG64([seed, index]))
    state = predictor.zero_state(1)
    logits = None
    for id_ in [VOCABULARY.start_id, *VOCABULARY.encode(prompt).tolist()]:
        logits, state = predictor.step(np.array([id_]), state)
    text = ""
    for _ in range(length):
        assert logits is not None
        ids = choose(logits, SamplingSettings(), generator.random(1))
        character = VOCABULARY.characters[int(ids[0])]
        if character == END:
            return text, "stop"
        text += character
        logits, state = predictor.step(ids, state)
    return text, "length"


def test_a_text_ends_with_the_document(documents: Client, model: LanguageModel) -> None:
    reasons = []
    for prompt in ("", "abc"):
        for length in (1, 7, 60):
            reply = documents.complete("documents", prompt=prompt, max_tokens=length, n=16, seed=4)
            for choice in reply["choices"]:
                expected = sampled(model, prompt, length, 4, choice["index"])
                assert (choice["text"], choice["finish_reason"]) == expected
                reasons.append(expected[1])
            ended = sum(choice["finish_reason"] == "stop" for choice in reply["choices"])
            characters = sum(len(choice["text"]) for choice in reply["choices"])
            assert reply["usage"]["completion_tokens"] == characters + ended
            assert reply["usage"]["prompt_tokens"] == len(prompt)
    assert {"stop", "length"} == set(reasons)


def test_it_equals_sample(documents: Client, model: LanguageModel) -> None:
    reply = documents.complete("documents", prompt="ab", max_tokens=300, n=5, seed=9)
    for choice in reply["choices"]:
        text = "".join(model.stream("ab", length=300, seed=9, index=choice["index"]))
        assert choice["text"] == text.partition(END)[0]


def test_the_end_has_a_log_probability(documents: Client, model: LanguageModel) -> None:
    fields = {"prompt": "ab", "max_tokens": 40, "n": 8, "seed": 1, "logprobs": 5, "echo": True}
    for choice in documents.complete("documents", **fields)["choices"]:
        found = choice["logprobs"]
        assert choice["text"][:2] == "ab"
        ended = choice["finish_reason"] == "stop"
        names = [*choice["text"], *([END_NAME] if ended else [])]
        assert found["tokens"] == names
        assert found["text_offset"] == list(range(len(names)))
        ids = [VOCABULARY.start_id, *VOCABULARY.encode(choice["text"]).tolist()]
        targets = [*ids[1:], *([VOCABULARY.end_id] if ended else [])]
        inputs = np.array(ids[: len(targets)])[:, None]
        log_p, _ = model.predictor.log_probabilities(inputs, model.predictor.zero_state(1))
        expected = log_p[np.arange(len(targets)), 0, targets]
        np.testing.assert_allclose(found["token_logprobs"], expected, atol=2e-5)
        for name, value, top in zip(
            names, found["token_logprobs"], found["top_logprobs"], strict=True
        ):
            assert top[name] == value
            assert END not in top
    assert END_NAME in top


def events(client: Client, **fields: Any) -> list[Any]:
    body = {"model": "documents", "stream": True, **fields}
    status, _, content = client.ask("POST", "/v1/completions", body)
    assert status == 200
    assert b"udc03" not in content
    lines = [line[6:] for line in content.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("logprobs", [None, 2])
@pytest.mark.parametrize("stop", [None, ["ab", "jij"]])
def test_streams_are_the_whole_replies(
    documents: Client, logprobs: int | None, stop: list[str] | None
) -> None:
    fields = {"prompt": ["", "a", "bc"], "max_tokens": 50, "n": 3, "seed": 2, "stop": stop}
    fields |= {"logprobs": logprobs, "echo": True}
    whole = documents.complete("documents", **fields)["choices"]
    texts, ends = [""] * 9, [""] * 9
    tokens: list[list[str]] = [[] for _ in range(9)]
    for event in events(documents, **fields):
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
            ends[choice["index"]] = choice["finish_reason"]
            if logprobs is not None:
                tokens[choice["index"]] += choice["logprobs"]["tokens"]
    assert texts == [choice["text"] for choice in whole]
    assert ends == [choice["finish_reason"] for choice in whole]
    if logprobs is not None:
        assert tokens == [choice["logprobs"]["tokens"] for choice in whole]
    assert END not in "".join(texts)


def test_what_might_begin_a_stop_text_is_kept_at_the_end(
    documents: Client, model: LanguageModel
) -> None:
    found = {seed: sampled(model, "", 50, seed, 0) for seed in range(30)}
    seed, text = next((s, text) for s, (text, end) in found.items() if end == "stop" and text)
    stop = [text[-1] + "\n\n\n"]
    for logprobs in (None, 0):
        reply = documents.complete(
            "documents", prompt="", max_tokens=50, seed=seed, stop=stop, logprobs=logprobs
        )
        (choice,) = reply["choices"]
        assert (choice["text"], choice["finish_reason"]) == (text, "stop")
        if logprobs is not None:
            assert choice["logprobs"]["tokens"] == [*text, END_NAME]


def test_documents_that_never_or_always_end(documents: Client) -> None:
    (choice,) = documents.complete("endless", prompt="a", max_tokens=300)["choices"]
    assert (len(choice["text"]), choice["finish_reason"]) == (300, "length")
    reply = documents.complete("empty", prompt="a", max_tokens=300, n=3, logprobs=0)
    for choice in reply["choices"]:
        assert (choice["text"], choice["finish_reason"]) == ("", "stop")
        assert choice["logprobs"]["tokens"] == [END_NAME]
    assert reply["usage"]["completion_tokens"] == 3


def test_a_longer_prompt_continues_from_the_cache(documents: Client, model: LanguageModel) -> None:
    """States are cached without the end, whatever ended the text."""
    for seed in range(12):
        fields = {"max_tokens": 40, "seed": seed, "logprobs": 0 if seed % 2 else None}
        (choice,) = documents.complete("documents", prompt="ja", **fields)["choices"]
        longer = "ja" + choice["text"] + "c"
        reply = documents.complete("documents", prompt=longer, max_tokens=20, seed=seed)
        (after,) = reply["choices"]
        expected = sampled(model, longer, 20, seed, 0)
        assert (after["text"], after["finish_reason"]) == expected


# --- Tokens ---------------------------------------------------------------------------------------


def test_the_end_is_a_token(documents: Client) -> None:
    info = documents.get("/tokenizer_info?model=documents")
    assert info["bos_token"] == info["eos_token"] == info["pad_token"] == END_NAME
    assert info["bos_token_id"] == info["eos_token_id"] == END_TOKEN
    assert info["vocab_size"] == len(VOCABULARY)

    def tokenize(prompt: str, special: bool) -> Any:
        body = {"prompt": prompt, "model": "documents", "add_special_tokens": special}
        status, _, content = documents.ask("POST", "/tokenize", body)
        assert status == 200, content
        return json.loads(content)["tokens"]

    a = int(VOCABULARY.encode("a")[0]) + 1
    assert tokenize("aa", True) == [END_TOKEN, a, a]
    assert tokenize("aa", False) == [a, a]
    assert tokenize(END_NAME, False) == [END_TOKEN]  # as the harness finds the id
    assert tokenize("a" + END_NAME, True) == [END_TOKEN, a, END_TOKEN]
    assert tokenize("", True) == [END_TOKEN]
    body = {"tokens": [END_TOKEN, a, a, END_TOKEN], "model": "documents"}
    _, _, content = documents.ask("POST", "/detokenize", body)
    assert json.loads(content) == {"prompt": f"{END_NAME}aa{END_NAME}"}
    assert info["unk_token"] is info["unk_token_id"] is None
    # Within a text, the name has no meaning.
    body = {"prompt": END_NAME + "a", "model": "documents"}
    documents.refused(400, "POST", "/tokenize", body)


def test_ids_score_whole_documents(documents: Client, model: LanguageModel) -> None:
    ids = [VOCABULARY.start_id, *VOCABULARY.encode("abba").tolist(), VOCABULARY.start_id]
    tokens = [id_ + 1 for id_ in ids]
    fields = {"prompt": [tokens, tokens], "max_tokens": 0, "logprobs": 1, "echo": True}
    for choice in documents.complete("documents", **fields)["choices"]:
        assert choice["text"] == "abba"
        found = choice["logprobs"]
        assert found["tokens"] == [END_NAME, *"abba", END_NAME]
        assert found["text_offset"] == [0, 0, 1, 2, 3, 4]
        assert found["token_logprobs"][0] is None
        state = model.predictor.zero_state(1)
        log_p, _ = model.predictor.log_probabilities(np.array(ids[:-1])[:, None], state)
        expected = log_p[np.arange(5), 0, ids[1:]]
        np.testing.assert_allclose(found["token_logprobs"][1:], expected, atol=2e-5)
    # The ids of a text after the end's are the text; those after a whole document begin another.
    for prompt, sent in (("abba", tokens[:-1]), ("", tokens), ("ab", [*tokens, *tokens[1:3]])):
        fields = {"max_tokens": 30, "seed": 3, "n": 4, "logprobs": 2}
        text = documents.complete("documents", prompt=prompt, **fields)["choices"]
        same = documents.complete("documents", prompt=sent, **fields)["choices"]
        assert same == text


# --- Unknown characters ---------------------------------------------------------------------------


@pytest.mark.parametrize("max_tokens", [0, 1, 12])
def test_unknown_characters_are_charged(documents: Client, max_tokens: int) -> None:
    prompt = "🦉ab字\x00ba~"
    fields: dict[str, Any] = {"max_tokens": max_tokens, "logprobs": 2, "echo": True, "seed": 5}
    reply = documents.complete("recorded", prompt=[prompt, prompt], **fields)
    known = documents.complete("recorded", prompt="abba", **fields)["choices"][0]
    closed = documents.complete("documents", prompt="abba", **fields)["choices"][0]
    assert reply["usage"]["prompt_tokens"] == 2 * len(prompt)
    (choice, _) = reply["choices"]
    found = choice["logprobs"]
    assert choice["text"] == prompt + known["text"].removeprefix("abba")
    assert found["tokens"][: len(prompt)] == list(prompt)
    assert found["text_offset"] == list(range(len(found["tokens"])))
    rest = []
    for token, value, top in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True
    ):
        assert top[token] == value
        if token in "🦉字\x00~":
            assert value == pytest.approx(UNKNOWN_LOG_P, abs=1e-9)
            assert list(top) == [token]
        else:
            rest.append(value)
    # The model does not read them, and every known character leaves them their share.
    assert rest == known["logprobs"]["token_logprobs"]
    expected = np.array(closed["logprobs"]["token_logprobs"]) + math.log(1 - UNSEEN)
    np.testing.assert_allclose(rest, expected, atol=1e-9)


def test_unknown_characters_have_an_id(documents: Client) -> None:
    unknown = len(VOCABULARY) + 1
    info = documents.get("/tokenizer_info?model=recorded")
    assert (info["unk_token"], info["unk_token_id"]) == (UNKNOWN_NAME, unknown)
    body: dict[str, Any] = {"model": "recorded", "prompt": "a字~a" + END_NAME}
    _, _, content = documents.ask("POST", "/tokenize", body)
    tokens = json.loads(content)["tokens"]
    a = int(VOCABULARY.encode("a")[0]) + 1
    assert tokens == [END_TOKEN, a, unknown, unknown, a, END_TOKEN]
    _, _, content = documents.ask("POST", "/detokenize", {"model": "recorded", "tokens": tokens})
    assert json.loads(content)["prompt"] == f"{END_NAME}a\ufffd\ufffda{END_NAME}"
    scored = {"max_tokens": 0, "logprobs": 1, "echo": True}
    (choice,) = documents.complete("recorded", prompt=tokens, **scored)["choices"]
    (text,) = documents.complete("recorded", prompt="a字~a", **scored)["choices"]
    assert choice["text"] == "a\ufffd\ufffda"
    found = choice["logprobs"]
    assert found["tokens"] == [END_NAME, "a", UNKNOWN_NAME, UNKNOWN_NAME, "a", END_NAME]
    assert found["token_logprobs"][1:-1] == text["logprobs"]["token_logprobs"]
    assert found["text_offset"] == [0, 0, 1, 2, 3, 4]
    # To continue, or in a model without a record, they are errors; so is the next id.
    for model_name, last, fields in (
        ("recorded", unknown, {}),
        ("recorded", unknown + 1, scored),
        ("documents", unknown, scored),
    ):
        body = {"model": model_name, "prompt": [END_TOKEN, last], **fields}
        error = documents.refused(400, "POST", "/v1/completions", body)
        assert error["message"].startswith("unknown ")
        assert error["param"] == "prompt"
    documents.refused(400, "POST", "/tokenize", {"model": "documents", "prompt": "a~"})


def test_a_list_of_ids_begins_with_unknown_characters(documents: Client) -> None:
    unknown, a = len(VOCABULARY) + 1, int(VOCABULARY.encode("a")[0]) + 1
    fields = {"max_tokens": 0, "logprobs": 0, "echo": True}
    prompts = [[unknown, a, unknown, a], [a, a]]
    mixed, known = documents.complete("recorded", prompt=prompts, **fields)["choices"]
    found = mixed["logprobs"]["token_logprobs"]
    assert found[1] is None, "nothing precedes it"
    assert found[::2] == [pytest.approx(UNKNOWN_LOG_P)] * 2
    assert found[3] == known["logprobs"]["token_logprobs"][1]


@pytest.mark.parametrize("first", ["字", [len(VOCABULARY) + 1]])
def test_a_prompt_has_only_unknown_characters(documents: Client, first: Any) -> None:
    for max_tokens in (0, 2):
        fields = {"max_tokens": max_tokens, "logprobs": 0, "echo": True}
        (choice,) = documents.complete("recorded", prompt=first, **fields)["choices"]
        assert len(choice["logprobs"]["tokens"]) >= 1 + (max_tokens > 0)
        assert choice["logprobs"]["token_logprobs"][0] == pytest.approx(UNKNOWN_LOG_P)


def test_the_probabilities_after_a_prompt_leave_the_share(documents: Client) -> None:
    total = 0.0
    prompts = [f"ab{character}" for character in VOCABULARY.characters if character != END]
    fields = {"max_tokens": 0, "logprobs": 0, "echo": True}
    for choice in documents.complete("recorded", prompt=prompts, **fields)["choices"]:
        total += math.exp(choice["logprobs"]["token_logprobs"][2])
    ended = [*(int(id_) + 1 for id_ in VOCABULARY.encode("ab")), END_TOKEN]
    fields["prompt"] = [END_TOKEN, *ended]
    (choice,) = documents.complete("recorded", **fields)["choices"]
    total += math.exp(choice["logprobs"]["token_logprobs"][-1])
    assert total == pytest.approx(1 - UNSEEN, abs=1e-5)


@pytest.mark.parametrize(
    ("model_name", "fields"),
    [
        ("recorded", {}),
        ("recorded", {"logprobs": 2}),
        ("recorded", {"echo": True}),
        ("documents", {"echo": True, "logprobs": 2}),  # without a record
    ],
)
def test_a_prompt_to_continue_has_known_characters(
    documents: Client, model_name: str, fields: dict[str, Any]
) -> None:
    body = {"model": model_name, "prompt": "ab~", "max_tokens": 3, **fields}
    error = documents.refused(400, "POST", "/v1/completions", body)
    assert error["code"] == "unknown_character"
    assert "position 2" in error["message"]


@pytest.mark.parametrize("half", [END, "\ud800"])
def test_half_of_a_surrogate_pair_is_refused(documents: Client, half: str) -> None:
    for fields in ({}, {"echo": True, "logprobs": 0}):
        body = {"model": "recorded", "prompt": "a" + half, "max_tokens": 3, **fields}
        error = documents.refused(400, "POST", "/v1/completions", body)
        assert error["code"] == "unknown_character"
    documents.refused(400, "POST", "/tokenize", {"model": "recorded", "prompt": half})


# --- A trained collection, with its n-gram model --------------------------------------------------


def test_a_trained_collection_is_served(served_collection: Path) -> None:
    trained = charloom.load(served_collection, threads=1)
    network = charloom.load(served_collection, threads=1, network_only=True)
    assert trained.mixture is not None
    assert trained.unseen is not None
    with serving({"names": trained, "network": network}) as client:
        for name, served in (("names", trained), ("network", network)):
            for prompt in ("", "an"):
                fields = {"prompt": prompt, "max_tokens": 12, "n": 16, "seed": 3}
                reply = client.complete(name, **fields)
                scored = client.complete(name, **fields, logprobs=1, echo=True)
                for choice, same in zip(reply["choices"], scored["choices"], strict=True):
                    stream = served.stream(prompt, length=12, seed=3, index=choice["index"])
                    text = "".join(stream)
                    assert (choice["text"], choice["finish_reason"]) == (text, stream.finish_reason)
                    assert same["text"] == prompt + text
                    ended = choice["finish_reason"] == "stop"
                    total = served.score_documents([prompt + text], prefix=not ended)[0]
                    found = math.fsum(same["logprobs"]["token_logprobs"])
                    assert found == pytest.approx(total, abs=1e-3)
        unknown = "Zoë ☃ anna"
        reply = client.complete("names", prompt=unknown, max_tokens=0, logprobs=0, echo=True)
        total = trained.score_documents([unknown], prefix=True)[0]
        found = math.fsum(reply["choices"][0]["logprobs"]["token_logprobs"])
        assert found == pytest.approx(total, abs=1e-4)
