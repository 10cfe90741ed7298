"""Clients that are slow, absent or too many."""

import asyncio
import http.client
import socket
import time
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest

from charloom.language_model import LanguageModel
from charloom.serving import connection
from charloom.serving.errors import ApiError, write_json
from charloom.serving.schema import MOST_SAMPLED
from charloom.serving.streaming import EventStream
from charloom.serving.text_sampler import TextSampler
from helpers.clients import (
    Client,
    error_of,
    metric,
    posix,
    received,
    serving,
    stream_request,
)
from helpers.waiting import wait_until


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
        while not content:
            try:
                content = there.recv(65536)
            except TimeoutError:
                if beginning:
                    with suppress(ConnectionError):  # it has just been dropped
                        there.sendall(b"a")  # a byte at a time keeps nothing alive
    assert time.monotonic() - started > 0.3
    assert content.startswith(b"HTTP/1.1 408 ")
    client.get("/health")


def test_deadline_applies_to_each_request(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RECEIVE_SECONDS", 1)
    with closing(http.client.HTTPConnection("127.0.0.1", client.port, timeout=100)) as there:
        for _ in range(4):  # longer than one deadline, all together
            there.request("GET", "/health")
            assert there.getresponse().read()
            time.sleep(0.3)


def test_a_client_that_never_reads_is_dropped(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.3)
    before = metric(client, "cancelled_total", model="network")
    with socket.socket() as there:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        there.connect(("127.0.0.1", client.port))
        there.sendall(stream_request(max_tokens=MOST_SAMPLED, logprobs=5, n=4))
        wait_until(lambda: metric(client, "cancelled_total", model="network") > before)
        wait_until(lambda: metric(client, "texts_drawing", model="network") == 0)


@pytest.fixture
def slow_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that are still being sampled when a busy machine looks at them."""
    advance = TextSampler.advance

    def advance_slowly(sampler: TextSampler, **settings: Any) -> Any:
        time.sleep(0.05 if sampler.texts else 0)
        return advance(sampler, **settings)

    monkeypatch.setattr(TextSampler, "advance", advance_slowly)


@pytest.mark.usefixtures("slow_sampling")
def test_a_client_that_goes_away_ends_its_texts(client: Client) -> None:
    for fields in ({"stream": True}, {"stream": False}):
        before = metric(client, "cancelled_total", model="network")
        with client.connect() as there:
            there.sendall(stream_request(max_tokens=MOST_SAMPLED, n=3, **fields))
            wait_until(lambda: metric(client, "texts_drawing", model="network") == 3)
        wait_until(lambda: metric(client, "texts_drawing", model="network") == 0)
        assert metric(client, "cancelled_total", model="network") == before + 1


@pytest.mark.usefixtures("slow_sampling")
def test_too_many_texts_are_asked_to_come_again(served_model: LanguageModel) -> None:
    with serving({"network": served_model}, most_texts=2) as client, ExitStack() as held:
        for _ in range(2):
            there = held.enter_context(client.connect())
            there.sendall(stream_request(max_tokens=MOST_SAMPLED, n=2))
        wait_until(lambda: metric(client, "texts_waiting") == 2)
        body = {"model": "network", "prompt": "the", "max_tokens": 3}
        status, headers, content = client.ask("POST", "/v1/completions", body)
        assert status == 503
        assert headers["retry-after"] == "1"
        assert error_of(headers, content)["code"] == "overloaded"
        held.close()
        wait_until(lambda: metric(client, "texts_drawing") == metric(client, "texts_waiting") == 0)
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
            there.settimeout(60)
            content = received(there)
            refused += content.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1\r\n" in content
        assert refused == 1_000 - connection.MOST_CONNECTIONS - 20
    finally:
        for there in held:
            there.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: client.ask("GET", "/health")[0] == 200)


def test_malformed_http_gets_an_error(client: Client) -> None:
    with client.connect() as there:
        there.sendall(b"the woods are lovely\r\n\r\n")
        assert received(there).startswith(b"HTTP/1.1 400 ")
    with client.connect() as there:
        there.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 70_000)
        assert received(there).startswith(b"HTTP/1.1 400 ")
    client.get("/health")


def test_the_end_of_a_stream_goes_out_with_its_last_events() -> None:
    event = ApiError(500, "a problem").body()

    async def events() -> Any:
        yield [event]
        yield [event, None]

    async def receive() -> Any:
        raise AssertionError

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(EventStream(events(), {})({"type": "http"}, receive, send))
    line = b"data: " + write_json(event) + b"\n\n"
    assert [message.get("body") for message in sent] == [None, line, line + b"data: [DONE]\n\n"]
    assert [message.get("more_body") for message in sent] == [None, True, False]
