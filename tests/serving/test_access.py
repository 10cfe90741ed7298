"""Pages, hosts, origins and keys."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from charloom.errors import CharloomError
from charloom.language_model import LanguageModel
from charloom.serving import app as server
from charloom.serving.access import Access
from helpers.clients import KEY, Client, serving
from helpers.texts import SCRIPT

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
    served_model: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    web = tmp_path / "web"
    web.mkdir()
    (web / "playground.html").write_text("<p>the page", encoding="utf-8")
    (web / "playground.js").write_text("'the script'", encoding="utf-8")
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (web / "link.js").symlink_to(tmp_path / "secret")
    monkeypatch.setattr(server, "files", lambda _: tmp_path)
    with serving({"model": served_model}, api_key=KEY) as client:
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
        for site in ("same-site", "cross-site", "none"):
            client.refused(403, "GET", "/health", origin=origin, sec_fetch_site=site)
        _, headers, _ = client.ask("GET", "/v1/models", origin=origin)
        assert not any(name.startswith("access-control") for name in headers)


PAGE = {"origin": "https://app.example.org"}


def test_allowed_hosts_are_those_of_a_proxy(served_model: LanguageModel) -> None:
    names = ["Hub.example.org", "bücher.example", "[fe80::1]"]
    with serving({"model": served_model}, allow_hosts=names) as client:
        for host in ("hub.example.org", "HUB.example.org:8443", "localhost", "[fe80::1]:1"):
            assert client.ask("GET", "/v1/models", host=host)[0] == 200
        assert client.ask("GET", "/v1/models", host="xn--bcher-kva.example")[0] == 200
        error = client.refused(403, "GET", "/v1/models", host="sub.hub.example.org")
        assert "--allow-host" in error["message"]
        # The proxy forwards Host, or replaces it by the address of the server.
        for host in ("hub.example.org", f"127.0.0.1:{client.port}"):
            own = {"host": host, "origin": "https://hub.example.org"}
            assert client.ask("POST", "/v1/completions", {}, **own)[0] == 200
            client.refused(403, "POST", "/v1/completions", {}, host=host, **PAGE)


def test_a_page_behind_a_proxy_that_replaces_host(client: Client) -> None:
    body = {"model": "network", "max_tokens": 1}
    assert (
        client.ask("POST", "/v1/completions", body, **PAGE, sec_fetch_site="same-origin")[0] == 200
    )
    client.refused(403, "GET", "/health", host="evil.example", sec_fetch_site="same-origin")


def test_a_public_server_with_allowed_hosts_accepts_only_these(served_model: LanguageModel) -> None:
    allowed: dict[str, Any] = {"host": "0.0.0.0", "allow_hosts": ["hub.example.org"]}
    with serving({"model": served_model}, **allowed) as client:
        assert client.ask("GET", "/v1/models", host="hub.example.org")[0] == 200
        assert client.ask("GET", "/v1/models")[0] == 200
        client.refused(403, "GET", "/v1/models", host="evil.example")


def test_allowed_origins_get_cors_headers(served_model: LanguageModel) -> None:
    origins = ["HTTPS://app.example.org:443/", "null"]
    with serving({"model": served_model}, allow_origins=origins, api_key=KEY) as client:
        preflight = {
            "access_control_request_method": "POST",
            "access_control_request_headers": "authorization, content-type, x-stainless-os",
        }
        status, headers, _ = client.ask("OPTIONS", "/v1/completions", **PAGE, **preflight)
        assert status == 200
        assert headers["access-control-allow-origin"] == PAGE["origin"]
        assert "POST" in headers["access-control-allow-methods"]
        assert "x-stainless-os" in headers["access-control-allow-headers"]
        for key, status in ((KEY, 200), ("another", 401)):
            for stream in (True, False):
                body = {"max_tokens": 2, "foo": 1, "stream": stream}
                bearer = {"authorization": f"Bearer {key}"}
                found, headers, _ = client.ask("POST", "/v1/completions", body, **bearer, **PAGE)
                assert found == status
                assert headers["access-control-allow-origin"] == PAGE["origin"]
                assert headers["vary"] == "Origin"
                assert "x-ignored-parameters" in headers["access-control-expose-headers"]
                assert headers["x-content-type-options"] == "nosniff"
        assert client.ask("GET", "/health", origin="null")[0] == 200
        for origin in ("http://app.example.org", "https://app.example.org:8443", "https://evil"):
            error = client.refused(403, "GET", "/health", origin=origin)
            assert "--allow-origin" in error["message"]
            client.refused(403, "OPTIONS", "/v1/completions", origin=origin, **preflight)
        _, headers, _ = client.ask("GET", "/health")
        assert "access-control-allow-origin" not in headers


def test_any_origin_can_be_allowed(served_model: LanguageModel) -> None:
    with serving({"model": served_model}, allow_origins=["*"]) as client:
        _, headers, _ = client.ask("GET", "/v1/models", **PAGE)
        assert headers["access-control-allow-origin"] == "*"
        client.refused(403, "GET", "/v1/models", host="evil.example")  # DNS rebinding


@pytest.mark.parametrize(
    ("hosts", "origins", "message"),
    [
        (["https://hub.example.org"], [], "not a host name: pass it without scheme"),
        (["hub.example.org:8443"], [], "not a host name"),
        (["hub.example.org/x"], [], "not a host name"),
        (["a b"], [], "not a host name"),
        ([""], [], "'' is not a host name"),
        (["*"], [], "not a host name"),
        (["fe80::zz"], [], "not a host name"),
        ([], ["https://[::1"], "not an origin"),
        ([], ["app.example.org"], "not an origin: pass a scheme and a host"),
        ([], ["https://app.example.org/x"], "not an origin"),
        ([], ["https://"], "not an origin"),
        ([], ["https://me@app.example.org"], "not an origin"),
        ([], ["https://app.example.org:port"], "not an origin"),
    ],
)
def test_names_are_checked(hosts: list[str], origins: list[str], message: str) -> None:
    with pytest.raises(CharloomError, match=message):
        Access(allow_hosts=hosts, allow_origins=origins)


def test_public_server_accepts_any_host(served_model: LanguageModel) -> None:
    with serving({"model": served_model}, host="0.0.0.0") as client:
        assert client.ask("GET", "/v1/models", host="a.name")[0] == 200
        client.refused(403, "GET", "/v1/models", host="a.name", origin="http://another.name")


def test_api_key_is_required(served_model: LanguageModel) -> None:
    with serving({"model": served_model}, api_key=KEY) as client:
        for header in (None, f"Bearer {KEY}x", KEY, "Bearer", f"Basic {KEY}", "Bearer é"):
            given = {} if header is None else {"authorization": header}
            error = client.refused(401, "GET", "/v1/models", **given)
            assert error["code"] == "invalid_api_key"
        client.refused(401, "GET", "/metrics")
        assert client.get("/health")["status"] == "ok"
        assert client.get("/v1/models", authorization=f"Bearer {KEY}")["data"]


def test_script_is_answered_as_json_not_html(client: Client, served_model: LanguageModel) -> None:
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
