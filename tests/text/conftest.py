"""No test of a text sees the user's cache, the user's texts or the network."""

import socket
from pathlib import Path

import pytest

from charloom.text import downloading


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's cache, the user's texts, or a host other than this one."""
    connect = socket.create_connection

    def only_here(address, *arguments, **options):
        assert address[0] == "127.0.0.1", f"a test asked for {address}"
        return connect(address, *arguments, **options)

    folder = tmp_path / "cache"
    monkeypatch.setattr(socket, "create_connection", only_here)
    monkeypatch.setattr(downloading, "cache_folder", lambda: folder)
    monkeypatch.delenv("CHARLOOM_CORPORA", raising=False)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    return folder
