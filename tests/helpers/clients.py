"""Servers in a thread, and plain clients that ask them."""

import http.client
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from charloom.language_model import LanguageModel
from charloom.serving.connection import open_socket
from charloom.serving.server import Server

KEY = "a-key"


posix = pytest.mark.skipif(os.name != "posix", reason="as POSIX has it")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Client:
    """Plain HTTP, one request a connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=100)) as there:
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
        return socket.create_connection(("127.0.0.1", self.port), timeout=100)


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
            assert ready.wait(60)
            yield client
        finally:
            served.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def metric(client: Client, name: str, **labels: str) -> int:
    _, _, content = client.ask("GET", "/metrics")
    wanted = "".join(f'.*{label}="{value}"' for label, value in labels.items())
    found = re.search(rf"^charloom_{name}{{{wanted}.*}} (\d+)\.0$", content.decode(), re.M)
    return int(found[1]) if found else 0


# --- Slow, absent and too many --------------------------------------------------------------------


def received(there: socket.socket) -> bytes:
    content = b""
    try:
        while piece := there.recv(65536):
            content += piece
    except ConnectionError:
        pass
    return content


def stream_request(**fields: Any) -> bytes:
    body = json.dumps({"model": "network", "stream": True, **fields}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
