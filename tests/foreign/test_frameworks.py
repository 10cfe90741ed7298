"""The server, used through frameworks that have OpenAI's client inside: each completes, streams,
stops, samples with a seed, and passes neutral values and errors on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from charloom.language_model import LanguageModel
from helpers.clients import KEY, Client, serving
from helpers.extras import needs

pytestmark = pytest.mark.filterwarnings("ignore")  # the frameworks warn about their own packages
NEUTRAL = {"top_k": 0, "repetition_penalty": 1.0, "min_p": 0.0}


@pytest.fixture
def own(served_model: LanguageModel) -> Iterator[Client]:
    with serving({"own": served_model}) as found:
        yield found


@pytest.fixture
def expect(served_model: LanguageModel) -> Callable[..., str]:
    def sampled(**settings: Any) -> str:
        return served_model.sample("the ", length=30, seed=1, **settings)[4:]

    return sampled


@needs("langchain_openai")
def test_langchain(own: Client, expect: Callable[..., str]) -> None:
    package = pytest.importorskip("langchain_openai")
    openai = pytest.importorskip("openai")

    def model(**settings: Any) -> Any:
        fields = {"max_tokens": 30, "seed": 1, "temperature": 1, "max_retries": 0} | settings
        return package.OpenAI(base_url=f"{own.url}/v1", api_key=KEY, model="own", **fields)

    assert model().invoke("the ") == expect()
    assert "".join(model().stream("the ")) == expect()
    assert model().invoke("the ", stop=["e", "o", "a", "i", "u"]) == expect(stop=list("eoaiu"))
    (texts,) = model(n=2, best_of=2).generate(["the "]).generations
    assert [one.text for one in texts] == [expect(), expect(index=1)]
    scored = model(logprobs=1).generate(["the "]).generations[0][0].generation_info["logprobs"]
    assert "".join(scored["tokens"]) == expect()
    neutral = {"frequency_penalty": 0, "presence_penalty": 0, "top_p": 1, "extra_body": NEUTRAL}
    assert model(**neutral).invoke("the ") == expect()
    assert model(logit_bias={"2": 0}).invoke("the ") == expect()
    with pytest.raises(openai.BadRequestError, match=r"prompt 2 of 2: unknown character '~'"):
        model().generate(["the", "~"])


@needs("litellm")
def test_litellm(own: Client, expect: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # so that it requests nothing else
    package = pytest.importorskip("litellm")

    def complete(**settings: Any) -> Any:
        fields = {"prompt": "the ", "max_tokens": 30, "seed": 1, "num_retries": 0} | settings
        where = {"model": "text-completion-openai/own", "api_base": f"{own.url}/v1"}
        return package.text_completion(**where, api_key=KEY, **fields)

    assert complete().choices[0].text == expect()
    pieces = [chunk.choices[0].text for chunk in complete(stream=True)]
    assert "".join(filter(None, pieces)) == expect()
    assert complete(stop=["e", "o"]).choices[0].text == expect(stop=["e", "o"])
    both = complete(n=2, best_of=2).choices
    assert [choice.text for choice in both] == [expect(), expect(index=1)]
    assert "".join(complete(logprobs=1).choices[0].logprobs.tokens) == expect()
    assert complete(**NEUTRAL, presence_penalty=0).choices[0].text == expect()
    with pytest.raises(package.BadRequestError, match="unknown character '~'"):
        complete(prompt="~")


@needs("llm")
def test_llm(own: Client, expect: Callable[..., str], tmp_path: Path) -> None:
    entry = [
        {
            "model_id": "own",
            "model_name": "own",
            "api_base": f"{own.url}/v1",
            "completion": completion,
            **({} if completion else {"model_id": "chat"}),
        }
        for completion in (True, False)
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(entry), encoding="utf-8")
    environment = os.environ | {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": KEY}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "llm", *arguments, "the "]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    options = ["-m", "own", "-o", "seed", "1", "-o", "max_tokens", "30"]
    neutral = ["-o", "presence_penalty", "0", "-o", "top_p", "1", "-o", "temperature", "1"]
    for more in ([], ["--no-stream"], neutral, ["-o", "logprobs", "2"]):
        done = run(*options, *more)
        assert done.stdout.rstrip("\n") == expect().rstrip("\n"), done.stderr
    assert run(*options, "-o", "stop", "e").stdout.rstrip("\n") == expect(stop="e").rstrip("\n")
    assert "so send a prompt to /v1/completions" in run("-m", "chat").stderr
