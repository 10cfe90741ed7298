"""Downloads, from this machine to itself: there is no real network here."""

import dataclasses
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from charloom.text import corpora
from charloom.text.corpora import open_text
from helpers.corpora import BOOK, INNER, refusal, write

# --- Downloads, from this machine to itself ------------------------------------------------------


class Site:
    """A web site on 127.0.0.1: what it answers to each path, and what it was asked for."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.pages: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.asked: list[str] = []

    def serve(self, path: str, body: bytes, status: int = 200, **headers: str) -> str:
        self.pages[path] = (status, body, {"Content-Length": str(len(body)), **headers})
        return self.address + path


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            status, body, headers = site.pages.get(self.path, (404, b"", {"Content-Length": "0"}))
            self.send_response(status)
            for name, value in headers.items():
                if value:
                    self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        site = Site(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield site
        server.shutdown()
        thread.join(10)


VERSE = b"First Citizen:\nSpeak, speak.\n"


@pytest.fixture
def verse(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiny-shakespeare, shortened, at /verse of the site."""
    corpus = dataclasses.replace(
        corpora.CORPORA["tiny-shakespeare"],
        addresses=(site.serve("/verse", VERSE),),
        sha256=hashlib.sha256(VERSE).hexdigest(),
    )
    monkeypatch.setitem(corpora.CORPORA, corpus.name, corpus)


@pytest.fixture
def novel(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """pride-and-prejudice, shortened, at /novel of the site, and then at /mirror."""
    corpus = dataclasses.replace(
        corpora.CORPORA["pride-and-prejudice"],
        addresses=(site.serve("/novel", BOOK.encode()), site.address + "/mirror"),
    )
    monkeypatch.setitem(corpora.CORPORA, corpus.name, corpus)


def test_a_corpus_is_downloaded_once(site, verse, cache):
    steps: list[tuple[str, int, int | None]] = []
    text = open_text("tiny-shakespeare", on_progress=lambda *step: steps.append(step))
    assert text.read() == VERSE.decode()
    assert steps[-1] == ("downloading", len(VERSE), len(VERSE))
    assert sorted(path.name for path in cache.iterdir()) == [
        "tiny-shakespeare.sha256",
        "tiny-shakespeare.txt",
    ]
    recorded = (cache / "tiny-shakespeare.sha256").read_text()
    assert recorded == f"{hashlib.sha256(VERSE).hexdigest()}  tiny-shakespeare.txt\n"
    assert open_text("tiny-shakespeare").read() == VERSE.decode()
    assert site.asked == ["/verse"]


def test_a_download_of_unknown_length(site, verse):
    site.serve("/verse", VERSE, Content_Length="")
    del site.pages["/verse"][2]["Content-Length"]
    steps: list[tuple[str, int, int | None]] = []
    open_text("tiny-shakespeare", on_progress=lambda *step: steps.append(step))
    assert steps[-1] == ("downloading", len(VERSE), None)


def test_the_folder_of_texts_comes_before_the_cache_and_the_cache_before_the_network(
    site, novel, cache, tmp_path, monkeypatch
):
    assert open_text("pride-and-prejudice").read() == INNER
    monkeypatch.setenv("CHARLOOM_CORPORA", str(tmp_path))
    assert open_text("pride-and-prejudice").read() == INNER
    write(tmp_path / "1342-0.txt", BOOK.replace("Chapter", "Part").encode())
    assert open_text("pride-and-prejudice").read() == INNER.replace("Chapter", "Part")
    assert site.asked == ["/novel"]


@pytest.mark.parametrize("record", [True, False])
def test_a_damaged_cache_is_downloaded_again(site, verse, novel, cache, record):
    for name, file_name in [
        ("tiny-shakespeare", "tiny-shakespeare.txt"),
        ("pride-and-prejudice", "1342-0.txt"),
    ]:
        before = open_text(name).read()
        if record:
            write(cache / file_name, (cache / file_name).read_bytes().replace(b"t", b"T"))
        else:
            write(cache / f"{name}.sha256", b"")
        assert open_text(name).read() == before
    # The hash of the verse is known without a record.
    assert site.asked == (["/verse"] * (1 + record) + ["/novel"] * 2)


def test_a_damaged_cache_without_a_network(site, verse, cache):
    open_text("tiny-shakespeare")
    write(cache / "tiny-shakespeare.txt", b"damaged")
    site.pages.clear()
    message = refusal("tiny-shakespeare")
    assert message.startswith("the cached copy of tiny-shakespeare is damaged, and the download")


def test_a_book_put_into_the_cache_by_hand(site, novel, cache):
    cache.mkdir()
    write(cache / "1342-0.txt", BOOK.encode())
    assert open_text("pride-and-prejudice").read() == INNER
    assert site.asked == []


def test_a_wrong_text_is_not_kept(site, verse, cache):
    site.serve("/verse", VERSE.replace(b"s", b"z"))
    message = refusal("tiny-shakespeare")
    assert "its SHA-256 differs" in message
    assert list(cache.iterdir()) == []


def test_the_second_address_serves_where_the_first_does_not(site, novel):
    site.serve("/novel", b"gone", 404)
    site.serve("/mirror", BOOK.replace("Chapter", "Part").encode())
    assert open_text("pride-and-prejudice").read() == INNER.replace("Chapter", "Part")
    assert site.asked == ["/novel", "/mirror"]


@pytest.mark.parametrize(
    ("body", "status", "headers", "reason"),
    [
        (b"<html>sign in</html>", 200, {}, "not a Project Gutenberg text in UTF-8"),
        (b"\xff" + BOOK.encode(), 200, {}, "not a Project Gutenberg text in UTF-8"),
        (b"", 503, {}, "the server answered 503"),
        (BOOK.encode(), 200, {"Content_Length": "100000"}, "it stopped after"),
        (b"", 200, {"Content_Length": str(1 << 40)}, "much larger than the text should be"),
    ],
)
def test_downloads_that_fail(site, novel, cache, body, status, headers, reason):
    site.serve("/novel", body, status)
    for name, value in headers.items():
        site.pages["/novel"][2][name.replace("_", "-")] = value
    message = refusal("pride-and-prejudice")
    assert reason in message
    assert "python-help, python-docs, python-stdlib or unicode-names" in message
    assert list(cache.iterdir()) == []


def test_a_download_without_an_end_is_cut(site, verse, cache, monkeypatch):
    corpus = dataclasses.replace(corpora.CORPORA["tiny-shakespeare"], largest=10)
    monkeypatch.setitem(corpora.CORPORA, corpus.name, corpus)
    del site.pages["/verse"][2]["Content-Length"]
    assert "much larger than the text should be" in refusal("tiny-shakespeare")
    assert list(cache.iterdir()) == []


def test_something_that_does_not_speak_http(verse, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        corpus = corpora.CORPORA["tiny-shakespeare"]
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        monkeypatch.setitem(
            corpora.CORPORA, corpus.name, dataclasses.replace(corpus, addresses=(address,))
        )

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail is served here\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert "the download from 127.0.0.1 failed (220 mail" in refusal("tiny-shakespeare")
        thread.join(10)


def test_a_server_that_never_answers(verse, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        corpus = dataclasses.replace(corpora.CORPORA["tiny-shakespeare"], timeout=0.1)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        monkeypatch.setitem(
            corpora.CORPORA, corpus.name, dataclasses.replace(corpus, addresses=(address,))
        )
        assert "there is no network connection to 127.0.0.1 (timed out)" in refusal(
            "tiny-shakespeare"
        )


@pytest.mark.parametrize("name", ["pride-and-prejudice", "tiny-shakespeare"])
def test_without_a_network_one_line_names_the_embedded_corpora(cache, monkeypatch, name):
    def nobody(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", nobody)
    message = refusal(name)
    assert message.startswith(f"{name} is not on this machine yet, and there is no network")
    assert "python-help, python-docs, python-stdlib or unicode-names" in message
    assert "CHARLOOM_CORPORA" in message
    assert list(cache.iterdir()) == []


def test_a_bad_certificate_is_not_called_a_missing_network(monkeypatch):
    ssl = pytest.importorskip("ssl")

    def impostor(*_, **__):
        raise ssl.SSLCertVerificationError(1, "certificate verify failed")

    monkeypatch.setattr(socket, "create_connection", impostor)
    assert "failed (certificate verify failed)" in refusal("tiny-shakespeare")


def test_a_cache_folder_that_cannot_be_written(site, verse, cache):
    write(cache, b"a file in the way")
    message = refusal("tiny-shakespeare")
    assert message.startswith(f"cannot write to the cache folder {str(cache)!r} (")
    assert "CHARLOOM_CORPORA" in message
    assert site.asked == []  # told before anything is downloaded


def test_a_disk_that_is_full(site, verse, cache, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "(No space left on device)" in refusal("tiny-shakespeare")
    assert list(cache.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(site, verse, cache):
    def interrupt(stage: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_text("tiny-shakespeare", on_progress=interrupt)
    assert list(cache.iterdir()) == []
