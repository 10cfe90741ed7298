"""The server, asked by clients that were not written here, and by some that mean no good.

Most tests ask one server, which runs in a thread; where signals or the command line matter, it is a
process.
"""

import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import charloom
from charloom.cli.main import main
from charloom.language_model import LanguageModel
from charloom.serving import app as server
from charloom.serving import connection
from charloom.serving.app import LARGEST_BODY
from charloom.serving.connection import open_socket
from charloom.serving.schema import MOST_DRAWN, MOST_PROMPT, REQUEST
from charloom.serving.server import Server, name_runs

TEXT = "<script>alert('the woods are lovely, dark & deep')</script>\nund schön → 字\n" * 40
SCRIPT = "<script>"
KEY = "a-key"

posix = pytest.mark.skipif(os.name != "posix", reason="as POSIX has it")


def needs(module: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(module) is not None
    return pytest.mark.skipif(not there, reason=f"needs the package {module}")


# --- Helpers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with counts; its name is no name for a model, one would think."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "woods.txt").write_text(TEXT, encoding="utf-8")
    out = folder / SCRIPT
    options = ["--hidden-size=16", "--batch-size=4", "--window=16", "--steps=60"]
    assert main(["train", str(folder / "woods.txt"), "--out", str(out), *options]) == 0
    return out


@pytest.fixture(scope="module")
def model(run: Path) -> LanguageModel:
    return charloom.load(run, threads=1)


class Client:
    """Plain HTTP, one request a connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as there:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            if content is not None:
                given.setdefault("content-type", "application/json")
            there.request(method, path, content, given)
            reply = there.getresponse()
            found = {name.lower(): value for name, value in reply.getheaders()}
            return reply.status, found, reply.read()

    def get(self, path: str, **headers: str) -> Any:
        status, _, content = self.ask("GET", path, **headers)
        assert status == 200, content
        return json.loads(content)

    def complete(self, model: str = "network", **fields: Any) -> Any:
        status, _, content = self.ask("POST", "/v1/completions", {"model": model, **fields})
        assert status == 200, content
        return json.loads(content)

    def refused(self, status: int, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The error of a request that is refused with that status."""
        found, given, content = self.ask(method, path, body, **headers)
        assert found == status, content
        return error_of(given, content)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


def error_of(headers: dict[str, str], content: bytes) -> Any:
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    error = json.loads(content)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@contextmanager
def serving(models: dict[str, LanguageModel], **settings: Any) -> Iterator[Client]:
    with closing(open_socket("127.0.0.1", 0)) as opened:
        ready = threading.Event()
        served = Server(models, opened, ready=ready.set, **settings)
        thread = threading.Thread(target=served.serve_until_ended)
        client = Client(opened.getsockname()[1])
        thread.start()
        try:
            assert ready.wait(10)
            yield client
        finally:
            served.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(run: Path, model: LanguageModel) -> Iterator[Client]:
    network = charloom.load(run, threads=1, network_only=True)
    with serving({"network": network, SCRIPT: model}) as found:
        yield found


def metric(client: Client, name: str, **labels: str) -> int:
    _, _, content = client.ask("GET", "/metrics")
    wanted = "".join(f'.*{label}="{value}"' for label, value in labels.items())
    found = re.search(rf"^charloom_{name}{{{wanted}.*}} (\d+)$", content.decode(), re.M)
    return int(found[1]) if found else 0


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- Clients that were not written here -----------------------------------------------------------


@pytest.fixture
def openai(client: Client) -> Iterator[Any]:
    package = pytest.importorskip("openai")
    with package.OpenAI(base_url=f"{client.url}/v1", api_key=KEY, max_retries=0) as found:
        yield found


def test_openai_completes_as_sample_does(openai: Any, model: LanguageModel) -> None:
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
        expected = model.sample(prompt, length=30, seed=7, index=choice.index, **settings)
        assert prompt + choice.text == expected
        assert choice.finish_reason == ("length" if len(choice.text) == 30 else "stop")
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert reply.object == "text_completion"
    assert reply.usage.prompt_tokens == 7
    assert reply.usage.total_tokens == 7 + reply.usage.completion_tokens


def test_openai_streams(openai: Any, model: LanguageModel) -> None:
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
    assert texts == [model.sample("the ", length=900, seed=3, index=i) for i in range(2)]
    assert ends == ["length", "length"]
    assert len(chunks) > 4
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 1_800


def test_openai_gets_log_probabilities(openai: Any, model: LanguageModel) -> None:
    prompt = "und schön → 字"
    reply = openai.completions.create(
        model=SCRIPT, prompt=prompt, max_tokens=5, temperature=0, logprobs=3, echo=True
    )
    (choice,) = reply.choices
    found = choice.logprobs
    expected = model.score(choice.text, likeliest=3)
    assert choice.text == model.sample(prompt, length=5, temperature=0)
    assert found.tokens == list(choice.text)
    assert found.text_offset == list(range(len(choice.text)))
    assert found.token_logprobs == pytest.approx(expected.log_probabilities.tolist(), abs=2e-5)
    for place, top in enumerate(found.top_logprobs):
        best = [model.vocabulary.characters[i] for i in expected.likeliest[place]]
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
    with pytest.raises(package.BadRequestError, match="suffix is not supported") as refused:
        openai.completions.create(model="network", prompt="the", suffix="woods")
    assert refused.value.code == "unsupported_parameter"


def test_openai_lists_the_models(openai: Any) -> None:
    assert [model.id for model in openai.models.list()] == ["network", SCRIPT]
    found = openai.models.retrieve("network")
    assert (found.id, found.object, found.owned_by) == ("network", "model", "charloom")
    assert abs(found.created - time.time()) < 600


@needs("schemathesis")
def test_schemathesis_finds_nothing(client: Client, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            f"{client.url}/openapi.json",
            # A text of the right type may still have a character that the model never saw.
            *("--exclude-checks", "positive_data_acceptance"),
            *("--max-examples", "15", "--seed", "1", "--no-color"),
        ],
        cwd=tmp_path,  # where it keeps notes
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


TASK = """\
task: the_end
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}, {{metric: byte_perplexity}}]
"""


@needs("lm_eval")
def test_the_harness_measures_what_evaluate_measures(
    client: Client, model: LanguageModel, tmp_path: Path
) -> None:
    text = TEXT[-2_000:]
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": text}), encoding="utf-8")
    task = TASK.format(data=tmp_path / "text.jsonl")
    (tmp_path / "end.yaml").write_text(task, encoding="utf-8")
    where = f"model={SCRIPT},base_url={client.url}/v1/completions,max_length=100000"
    subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"),
            *("--model_args", where, "--tasks", "the_end", "--include_path", str(tmp_path)),
            *("--output_path", str(tmp_path / "out")),
        ],
        env=os.environ | {"HF_HOME": str(tmp_path / "cache"), "OPENAI_API_KEY": "none"},
        check=True,
        timeout=300,
    )
    (found,) = (tmp_path / "out").rglob("results*.json")
    figures = json.loads(found.read_text(encoding="utf-8"))["results"]["the_end"]
    expected = model.evaluate(text, with_baselines=False).bits_per_byte
    assert figures["bits_per_byte,none"] == pytest.approx(expected, abs=1e-6)


# --- What is asked --------------------------------------------------------------------------------


def test_a_prompt_may_be_ids(client: Client, model: LanguageModel) -> None:
    tokens = [int(id_) + 1 for id_ in model.encode("the ")]
    _, _, content = client.ask("POST", "/tokenize", {"prompt": "the ", "add_special_tokens": False})
    assert json.loads(content) == {"tokens": tokens, "count": 4}
    _, _, content = client.ask("POST", "/tokenize", {"prompt": "the ", "model": SCRIPT})
    newline = model.vocabulary.start_id + 1
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
    assert info["vocab_size"] == len(model.vocabulary)


def test_an_empty_prompt_is_fine(client: Client, model: LanguageModel) -> None:
    text = model.sample("", length=16, seed=2)
    for fields in ({"prompt": ""}, {}, {"prompt": None}, {"prompt": [""]}):
        assert client.complete(SCRIPT, seed=2, **fields)["choices"][0]["text"] == text
    nothing = client.complete(prompt="", max_tokens=0, echo=True, logprobs=2)["choices"][0]
    assert nothing["text"] == ""
    assert nothing["logprobs"]["tokens"] == []
    echoed = client.complete(prompt="the", max_tokens=0, echo=True)["choices"][0]
    assert (echoed["text"], echoed["finish_reason"]) == ("the", "length")


def test_a_longer_prompt_costs_its_end_alone(client: Client) -> None:
    prompt = f"字{TEXT[:499]}"  # which nobody else begins with
    fresh = client.complete(prompt=prompt, max_tokens=1)["usage"]["prompt_tokens_details"]
    assert fresh["cached_tokens"] == 0
    longer = client.complete(prompt=f"{prompt}the", max_tokens=1)["usage"]
    assert longer["prompt_tokens_details"]["cached_tokens"] == 500


def test_fields_that_ask_for_nothing_are_taken(client: Client) -> None:
    nothing: dict[str, Any] = {
        "suffix": None,
        "best_of": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "user": "somebody",
    }
    client.complete(prompt="the", max_tokens=1, **nothing)
    client.complete(**dict.fromkeys(set(REQUEST["properties"]) - {"model"}))


BAD_FIELDS: list[tuple[str, Any]] = [
    *(("max_tokens", value) for value in (-1, MOST_DRAWN + 1, "5", 1.5, True, [], 10**400)),
    *(("temperature", value) for value in (-0.1, 2.1, "hot", False)),
    *(("top_p", value) for value in (0, 1.1, -1)),
    *(("top_k", value) for value in (0, 1.5, "1")),
    *(("min_p", value) for value in (-0.1, 1.1)),
    *(("n", value) for value in (0, 17, -1, 1.5, None, "2")[:4]),
    *(("logprobs", value) for value in (-1, 6, True, 10**9)),
    *(("seed", value) for value in (-1, 2**63, 0.5)),
    *(("stop", value) for value in ("", [""], list("abcde"), 5, ["a", 5], "x" * 1_001)),
    *(("prompt", value) for value in (5, {}, [], [[]], ["a", 5], [1, "a"], [0], [-1], [1.5])),
    *(("prompt", value) for value in ([True], [10**6], [[1], 1], [[[1]]], "a" * (MOST_PROMPT + 1))),
    *(("prompt", value) for value in ("~", "the\x00", "\ud800", "🦉", ["the", "~"])),
    *(("echo", value) for value in (1, "yes")),
    *(("stream", value) for value in (1, "true")),
    *(("stream_options", value) for value in (True, {"usage": True}, {"include_usage": True})),
    ("user", 5),
    ("suffix", "the"),
    ("best_of", 2),
    ("presence_penalty", 0.5),
    ("frequency_penalty", -0.5),
    ("logit_bias", {"5": 1}),
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


@pytest.mark.parametrize("name", ["prompts", "", "messages", "x" * 5_000, "\ud800", "temper\n"])
def test_an_unknown_field_is_refused_by_name(client: Client, name: str) -> None:
    error = client.refused(400, "POST", "/v1/completions", {"model": "network", name: None})
    assert error["code"] == "unknown_parameter"
    assert repr(name)[:20] in error["message"]


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


def test_too_much_is_refused(client: Client) -> None:
    many = {"model": "network", "prompt": ["the"] * 100, "n": 3}
    assert client.refused(400, "POST", "/v1/completions", many)["param"] == "prompt"
    scored = {"model": "network", "max_tokens": MOST_DRAWN, "n": 5, "logprobs": 1}
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


# --- Pages, hosts and keys ------------------------------------------------------------------------

TRAVERSALS = [
    "../page.js",
    "..%2fpage.js",
    "%2e%2e/page.js",
    "%2e%2e%2f%2e%2e%2fcli.py",
    "..%5cpage.js",
    "....//page.js",
    "%252e%252e%252fpage.js",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "playground.js%00.html",
    "playground.html/../../cli.py",
    "link.js",
    "text.js",
    "",
]


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_file_but_the_page_s_own_is_served(client: Client, name: str) -> None:
    client.refused(404, "GET", f"/static/{name}")


def test_the_page_s_files_are_read_by_their_names_once(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    web = tmp_path / "web"
    web.mkdir()
    (web / "playground.html").write_text("<p>the page", encoding="utf-8")
    (web / "playground.js").write_text("'the script'", encoding="utf-8")
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (web / "link.js").symlink_to(tmp_path / "secret")
    monkeypatch.setattr(server, "files", lambda _: tmp_path)
    with serving({"model": model}, api_key=KEY) as client:
        shutil.rmtree(web)
        status, headers, content = client.ask("GET", "/")
        assert (status, content) == (200, b"<p>the page")
        assert headers["content-type"] == "text/html; charset=utf-8"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        status, headers, content = client.ask("GET", "/static/playground.js")
        assert (status, content) == (200, b"'the script'")
        assert headers["content-type"] == "text/javascript; charset=utf-8"
        client.refused(404, "GET", "/static/link.js")
        client.refused(404, "GET", "/static/playground.css")


def test_a_foreign_host_or_origin_is_refused(client: Client) -> None:
    own = f"127.0.0.1:{client.port}"
    for host in (own, "localhost", f"LOCALHOST:{client.port}", "[::1]:80"):
        assert client.ask("GET", "/v1/models", host=host)[0] == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[", "localhost@evil.example"):
        client.refused(403, "GET", "/v1/models", host=host)
    assert client.ask("GET", "/v1/models", origin=f"http://{own}")[0] == 200
    body = {"model": "network", "max_tokens": 1}
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", f"http://{own}.evil", ""):
        client.refused(403, "POST", "/v1/completions", body, origin=origin)
        _, headers, _ = client.ask("GET", "/v1/models", origin=origin)
        assert not any(name.startswith("access-control") for name in headers)


def test_a_server_for_all_answers_by_any_name(model: LanguageModel) -> None:
    with serving({"model": model}, host="0.0.0.0") as client:
        assert client.ask("GET", "/v1/models", host="a.name")[0] == 200
        client.refused(403, "GET", "/v1/models", host="a.name", origin="http://another.name")


def test_a_key_is_asked_for(model: LanguageModel) -> None:
    package = pytest.importorskip("openai")
    with serving({"model": model}, api_key=KEY) as client:
        for header in (None, f"Bearer {KEY}x", KEY, "Bearer", f"Basic {KEY}", "Bearer é"):
            given = {} if header is None else {"authorization": header}
            error = client.refused(401, "GET", "/v1/models", **given)
            assert error["code"] == "invalid_api_key"
        client.refused(401, "GET", "/metrics")
        assert client.get("/health")["status"] == "ok"
        for key in (KEY, "another"):
            with package.OpenAI(base_url=f"{client.url}/v1", api_key=key, max_retries=0) as there:
                if key == KEY:
                    assert there.completions.create(model="model", prompt="the").choices
                else:
                    with pytest.raises(package.AuthenticationError):
                        there.models.list()


def test_a_script_stays_text(client: Client, model: LanguageModel) -> None:
    """In the prompt, the model's name and what it writes: always JSON, never guessed to be HTML."""
    body = {"model": SCRIPT, "prompt": SCRIPT, "echo": True, "temperature": 0, "max_tokens": 80}
    for stream, kind in ((False, "application/json"), (True, "text/event-stream; charset=utf-8")):
        _, headers, content = client.ask("POST", "/v1/completions", body | {"stream": stream})
        assert headers["content-type"] == kind
        assert headers["x-content-type-options"] == "nosniff"
        assert b"<script>" in content
    assert client.get(f"/v1/models/{SCRIPT}")["id"] == SCRIPT
    client.refused(404, "GET", "/v1/models/<script>alert(1)</script>")
    status, headers, content = client.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert f'model="{SCRIPT}"'.encode() in content


# --- Slow, absent and too many --------------------------------------------------------------------


def received(there: socket.socket) -> bytes:
    content = b""
    try:
        while piece := there.recv(65536):
            content += piece
    except ConnectionError:
        pass
    return content


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /hea",
        b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: 1000\r\n\r\n",
    ],
    ids=["nothing", "headers", "body"],
)
def test_a_slow_client_is_dropped(
    client: Client, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(connection, "RECEIVE_SECONDS", 0.4)
    started = time.monotonic()
    with client.connect() as there:
        there.sendall(beginning)
        there.settimeout(0.1)
        content = b""
        while time.monotonic() - started < 5:
            try:
                if not (content := there.recv(65536)):
                    break
                break
            except TimeoutError:
                if beginning:
                    there.sendall(b"a")  # a byte at a time keeps nothing alive
    assert 0.3 < time.monotonic() - started < 2
    assert content.startswith(b"HTTP/1.1 408 ")
    client.get("/health")


def test_the_deadline_is_each_request_s_own(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RECEIVE_SECONDS", 0.3)
    with closing(http.client.HTTPConnection("127.0.0.1", client.port, timeout=5)) as there:
        for _ in range(3):
            there.request("GET", "/health")
            assert there.getresponse().read()
            time.sleep(0.2)


def stream_request(**fields: Any) -> bytes:
    body = json.dumps({"model": "network", "stream": True, **fields}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def test_a_client_that_never_reads_is_dropped(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.3)
    before = metric(client, "cancelled_total", model="network")
    with socket.socket() as there:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        there.connect(("127.0.0.1", client.port))
        there.sendall(stream_request(max_tokens=MOST_DRAWN, logprobs=5, n=4))
        wait_for(lambda: metric(client, "cancelled_total", model="network") > before)
        wait_for(lambda: metric(client, "texts_drawing", model="network") == 0)


def test_a_client_that_goes_away_ends_its_texts(client: Client) -> None:
    for fields in ({"stream": True}, {"stream": False}):
        before = metric(client, "cancelled_total", model="network")
        with client.connect() as there:
            there.sendall(stream_request(max_tokens=MOST_DRAWN, n=3, **fields))
            wait_for(lambda: metric(client, "texts_drawing", model="network") == 3)
        wait_for(lambda: metric(client, "texts_drawing", model="network") == 0)
        assert metric(client, "cancelled_total", model="network") == before + 1


def test_too_many_texts_are_asked_to_come_again(model: LanguageModel) -> None:
    with serving({"network": model}, most_texts=2) as client:
        held = [client.connect() for _ in range(2)]
        for there in held:
            there.sendall(stream_request(max_tokens=MOST_DRAWN, n=2))
        wait_for(lambda: metric(client, "texts_waiting") == 2)
        body = {"model": "network", "prompt": "the", "max_tokens": 3}
        status, headers, content = client.ask("POST", "/v1/completions", body)
        assert status == 503
        assert headers["retry-after"] == "1"
        assert error_of(headers, content)["code"] == "overloaded"
        for there in held:
            there.close()
        wait_for(lambda: metric(client, "texts_drawing") == metric(client, "texts_waiting") == 0)
        assert client.ask("POST", "/v1/completions", body)[0] == 200


@posix
def test_a_thousand_connections_are_survived(client: Client) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4_000:
        pytest.skip("this process may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4_000), hard))
    held: list[socket.socket] = []
    try:
        for _ in range(1_000):
            held.append(client.connect())
        refused = 0
        for there in held[connection.MOST_CONNECTIONS + 20 :]:
            there.settimeout(10)
            content = received(there)
            refused += content.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1\r\n" in content
        assert refused == 1_000 - connection.MOST_CONNECTIONS - 20
    finally:
        for there in held:
            there.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_for(lambda: client.ask("GET", "/health")[0] == 200)


def test_what_is_no_http_gets_an_error(client: Client) -> None:
    with client.connect() as there:
        there.sendall(b"the woods are lovely\r\n\r\n")
        assert received(there).startswith(b"HTTP/1.1 400 ")
    with client.connect() as there:
        there.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 70_000)
        assert received(there).startswith(b"HTTP/1.1 400 ")
    client.get("/health")


# --- The command ----------------------------------------------------------------------------------


def test_runs_of_one_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    other = tmp_path / SCRIPT
    shutil.copytree(run, other)
    shutil.copy(run / "model.safetensors", tmp_path / "single.safetensors")
    runs = [str(run), str(other), str(tmp_path / "single.safetensors"), str(run)]
    assert name_runs(runs) == [SCRIPT, f"{SCRIPT}-2", "single", f"{SCRIPT}-3"]
    assert name_runs([str(run / "model.safetensors")]) == [SCRIPT]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port=70000"], "--port is 70000"),
        (["--port=-1"], "--port is -1"),
        (["--host=no such host"], "cannot listen at no such host"),
        (["--port=0", "--api-key="], "--api-key is empty"),
        (["--port=0", "--api-key=ö"], "--api-key is empty or not ASCII"),
        (["--port=0", "--max-streams=0"], "too few"),
        (["--port=0", "--engine=fast"], "engine 'fast' is not one of"),
    ],
)
def test_nonsense_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    capsys.readouterr()
    assert main(["serve", str(run), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert message in line


def test_a_port_in_use_and_a_missing_run_are_refused(
    run: Path, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["serve", str(run), f"--port={client.port}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert f"cannot listen at 127.0.0.1:{client.port} (Address already in use)" in line
    assert main(["serve", str(run / "nothing")]) == 2
    assert "does not exist: pass a folder" in capsys.readouterr().err


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[tuple[Any, Client]]:
    """The command as a process, when it says that it is ready."""
    command = [sys.executable, "-m", "charloom", "serve", *arguments, "--port=0", "--threads=1"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    ) as started:
        try:
            assert started.stdout is not None
            line = started.stdout.readline()
            found = re.fullmatch(r"serving (.*) at http://127\.0\.0\.1:(\d+)\n", line)
            assert found, line + started.communicate()[1]
            yield started, Client(int(found[2]))
        finally:
            started.kill()


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_finish(
    run: Path, model: LanguageModel, tmp_path: Path, number: int
) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    with process(str(moved), CHARLOOM_API_KEY=KEY) as (started, client):
        shutil.rmtree(moved)  # the model is in memory: serving goes on
        client.refused(401, "GET", "/v1/models")
        listed = client.get("/v1/models", authorization=f"Bearer {KEY}")
        assert [entry["id"] for entry in listed["data"]] == ["run"]
        with client.connect() as there:
            header = f"\r\nauthorization: Bearer {KEY}\r\n".encode()
            request = stream_request(model="run", max_tokens=6_000, seed=4)
            there.sendall(request.replace(b"\r\n", header, 1))
            content = there.recv(65536)
            assert content.startswith(b"HTTP/1.1 200 ")
            started.send_signal(number)
            content += received(there)
        assert started.wait(10) == 0
        assert started.communicate()[1] == ""
    events = re.findall(rb"^data: (\{.*\})", content, re.M)
    text = "".join(json.loads(event)["choices"][0]["text"] for event in events)
    assert text == model.sample("", length=6_000, seed=4)
    assert content.rstrip(b"\r\n0").endswith(b"data: [DONE]")
    with pytest.raises(ConnectionError):
        client.connect()


@posix
def test_a_second_signal_ends_at_once(run: Path) -> None:
    with process(str(run)) as (started, client), client.connect() as there:
        there.sendall(stream_request(model=SCRIPT, max_tokens=MOST_DRAWN, n=16))
        assert there.recv(100)
        started.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert started.poll() is None
        started.send_signal(signal.SIGTERM)
        started.wait(5)
