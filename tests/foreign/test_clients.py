"""The server, asked by clients that were not written here."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charloom.language_model import LanguageModel
from helpers.clients import KEY, Client, serving
from helpers.extras import needs
from helpers.foreign import run_harness, run_schemathesis, write_task
from helpers.texts import SCRIPT, SCRIPTED_WOODS

# --- Clients that were not written here -----------------------------------------------------------


@pytest.fixture
def openai(client: Client) -> Iterator[Any]:
    package = pytest.importorskip("openai")
    with package.OpenAI(base_url=f"{client.url}/v1", api_key=KEY, max_retries=0) as found:
        yield found


def test_openai_completes_as_sample_does(openai: Any, served_model: LanguageModel) -> None:
    reply = openai.completions.create(
        model=SCRIPT,
        prompt=["the ", "und"],
        max_tokens=30,
        n=2,
        seed=7,
        temperature=0.8,
        top_p=0.9,
        stop=["lovely"],
        extra_body={"top_k": 20, "min_p": 0.01},
    )
    settings = {"temperature": 0.8, "top_p": 0.9, "top_k": 20, "min_p": 0.01, "stop": ["lovely"]}
    for choice in reply.choices:
        prompt = ["the ", "und"][choice.index // 2]
        expected = served_model.sample(prompt, length=30, seed=7, index=choice.index, **settings)
        assert prompt + choice.text == expected
        assert choice.finish_reason == ("length" if len(choice.text) == 30 else "stop")
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert reply.object == "text_completion"
    assert reply.usage.prompt_tokens == 7
    assert reply.usage.total_tokens == 7 + reply.usage.completion_tokens


def test_openai_streams(openai: Any, served_model: LanguageModel) -> None:
    stream = openai.completions.create(
        model=SCRIPT,
        prompt="the ",
        max_tokens=900,
        n=2,
        seed=3,
        echo=True,
        logprobs=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    texts, ends, chunks = ["", ""], [None, None], list(stream)
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        assert choice.logprobs.text_offset[0] == len(texts[choice.index])
        assert "".join(choice.logprobs.tokens) == choice.text
        texts[choice.index] += choice.text
        ends[choice.index] = choice.finish_reason
        assert chunk.usage is None
    assert texts == [served_model.sample("the ", length=900, seed=3, index=i) for i in range(2)]
    assert ends == ["length", "length"]
    assert len(chunks) > 4
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 1_800


def test_openai_gets_log_probabilities(openai: Any, served_model: LanguageModel) -> None:
    prompt = "und schön → 字"
    reply = openai.completions.create(
        model=SCRIPT, prompt=prompt, max_tokens=5, temperature=0, logprobs=3, echo=True
    )
    (choice,) = reply.choices
    found = choice.logprobs
    expected = served_model.score(choice.text, likeliest=3)
    assert choice.text == served_model.sample(prompt, length=5, temperature=0)
    assert found.tokens == list(choice.text)
    assert found.text_offset == list(range(len(choice.text)))
    assert found.token_logprobs == pytest.approx(expected.log_probabilities.tolist(), abs=2e-5)
    for place, top in enumerate(found.top_logprobs):
        best = [served_model.vocabulary.characters[i] for i in expected.likeliest[place]]
        assert list(top)[:3] == best
        assert top[choice.text[place]] == found.token_logprobs[place]
        assert len(top) == (3 if choice.text[place] in best else 4)


def test_openai_knows_the_errors(openai: Any) -> None:
    package = pytest.importorskip("openai")
    with pytest.raises(package.NotFoundError) as missing:
        openai.completions.create(model="no-such", prompt="")
    assert missing.value.code == "model_not_found"
    assert missing.value.param == "model"
    with pytest.raises(package.BadRequestError, match=r"'~' \(U\+007E TILDE\) at position 3"):
        openai.completions.create(model="network", prompt="the~")
    with pytest.raises(package.BadRequestError, match="presence_penalty 1 is not") as refused:
        openai.completions.create(model="network", prompt="the", presence_penalty=1)
    assert refused.value.code == "unsupported_parameter"


def test_openai_lists_the_models(openai: Any) -> None:
    assert [served_model.id for served_model in openai.models.list()] == ["network", SCRIPT]
    found = openai.models.retrieve("network")
    assert (found.id, found.object, found.owned_by) == ("network", "model", "charloom")
    assert abs(found.created - time.time()) < 600


def test_openai_sends_its_key(served_model: LanguageModel) -> None:
    package = pytest.importorskip("openai")
    with serving({"model": served_model}, api_key=KEY) as client:
        for key in (KEY, "another"):
            with package.OpenAI(base_url=f"{client.url}/v1", api_key=key, max_retries=0) as there:
                if key == KEY:
                    assert there.completions.create(model="model", prompt="the").choices
                else:
                    with pytest.raises(package.AuthenticationError):
                        there.models.list()


@needs("schemathesis")
def test_schemathesis_finds_nothing(client: Client, tmp_path: Path) -> None:
    status, output = run_schemathesis(client, tmp_path)
    assert status == 0, output


@needs("lm_eval")
def test_the_harness_measures_what_evaluate_measures(
    client: Client, served_model: LanguageModel, tmp_path: Path
) -> None:
    text = SCRIPTED_WOODS[-2_000:]
    write_task(tmp_path, "the_end", [text])
    where = f"model={SCRIPT},base_url={client.url}/v1/completions,max_length=100000"
    figures = run_harness(where, "the_end", tmp_path)
    expected = served_model.evaluate(text, with_baselines=False).bits_per_byte
    assert figures["bits_per_byte,none"] == pytest.approx(expected, abs=1e-6)
