"""A server of a model of documents, and clients that come with packages of their own."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import charloom
from charloom.text.vocabulary import END, END_NAME
from helpers.clients import KEY, Client, serving
from helpers.documents import model_of_documents
from helpers.extras import needs
from helpers.foreign import run_harness, run_schemathesis, write_task

MODEL = model_of_documents(unseen=0.02)


@pytest.fixture(scope="module")
def documents() -> Iterator[Client]:
    with serving({"documents": MODEL, "endless": model_of_documents(-1e9)}) as client:
        yield client


@pytest.fixture
def openai(documents: Client) -> Iterator[Any]:
    package = pytest.importorskip("openai")
    with package.OpenAI(base_url=f"{documents.url}/v1", api_key=KEY, max_retries=0) as found:
        yield found


def expected_text(prompt: str, index: int, length: int) -> str:
    text = "".join(MODEL.stream(prompt, length=length, seed=7, index=index))
    return text.partition(END)[0]


def test_openai_stops_at_the_end(openai: Any) -> None:
    reply = openai.completions.create(
        model="documents", prompt=["", "ab"], max_tokens=40, n=8, seed=7, logprobs=2
    )
    reasons = set()
    for choice in reply.choices:
        text = expected_text(["", "ab"][choice.index // 8], choice.index, 40)
        assert choice.text == text
        assert choice.finish_reason == ("length" if len(text) == 40 else "stop")
        ended = choice.finish_reason == "stop"
        assert choice.logprobs.tokens == [*text, *([END_NAME] if ended else [])]
        reasons.add(choice.finish_reason)
    assert "stop" in reasons


def test_openai_streams_to_the_end(openai: Any) -> None:
    stream = openai.completions.create(
        model="documents", prompt="ab", max_tokens=40, n=8, seed=7, stream=True
    )
    texts, reasons = [""] * 8, [None] * 8
    for chunk in stream:
        (choice,) = chunk.choices
        texts[choice.index] += choice.text
        assert reasons[choice.index] is None, "nothing follows the end"
        reasons[choice.index] = choice.finish_reason
    assert texts == [expected_text("ab", index, 40) for index in range(8)]
    assert reasons == ["length" if len(text) == 40 else "stop" for text in texts]
    assert "stop" in reasons


def test_openai_scores_unknown_characters(openai: Any) -> None:
    prompt = "ab字ba"
    reply = openai.completions.create(
        model="documents", prompt=prompt, max_tokens=0, logprobs=0, echo=True
    )
    found = reply.choices[0].logprobs
    assert found.tokens == list(prompt)
    total = float(MODEL.score_documents([prompt], prefix=True)[0])
    assert math.fsum(found.token_logprobs) == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("prefix", [False, True])
@needs("lm_eval")
def test_the_harness_scores_whole_documents(
    documents: Client, tmp_path: Path, prefix: bool
) -> None:
    lines = ["abba", "jig", "a\nb  c", "ij" * 40, "d", "unknown 字"]
    targets = lines if prefix else [line + END_NAME for line in lines]
    write_task(tmp_path, "lines", targets)
    where = f"model=documents,base_url={documents.url}/v1/completions,max_length=1000"
    results = run_harness(where, "lines", tmp_path)
    total = MODEL.score_documents(lines, prefix=prefix).sum()
    size = sum(len(target.encode()) for target in targets)
    expected = -total / math.log(2) / size
    assert results["bits_per_byte,none"] == pytest.approx(expected, abs=1e-5)


@needs("schemathesis")
def test_schemathesis_finds_nothing(documents: Client, tmp_path: Path) -> None:
    status, output = run_schemathesis(documents, tmp_path)
    assert status == 0, output


@needs("lm_eval")
def test_the_harness_measures_a_collection_as_evaluate_does(
    served_collection: Path, tmp_path: Path
) -> None:
    model = charloom.load(served_collection, threads=1)
    lines = ["anlira", "Zoë", "vinnath", "☃", "ro"]
    write_task(tmp_path, "names", [line + END_NAME for line in lines])
    with serving({"names": model}) as client:
        where = f"model=names,base_url={client.url}/v1/completions,max_length=1000"
        results = run_harness(where, "names", tmp_path)
        nats = (
            results["bits_per_byte,none"]
            * math.log(2)
            * sum(len(f"{x}<end>".encode()) for x in lines)
        )
    (tmp_path / "held-out.txt").write_text("\n".join(lines), "utf-8")
    expected = model.evaluate(tmp_path / "held-out.txt", protocol="documents", with_baselines=False)
    assert expected.protocol == "documents"
    assert nats == pytest.approx(expected.nats_per_character * expected.characters, abs=1e-4)
