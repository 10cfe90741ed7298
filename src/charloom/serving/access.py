"""Access control: host names, origins and API keys."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charloom.errors import shortened
from charloom.serving.app import Service, error_reply
from charloom.serving.connection import HEADERS
from charloom.serving.errors import ApiError

ANY_HOST = ("", "0.0.0.0", "::")
OPEN_PATHS = ("/", "/health", "/openapi.json")  # need no key, like the playground's files


class AccessControl:
    """Checks in front of the application: the host's name, the page's origin and the API key.

    Pages of another origin are rejected, and so are pages that reach this address by a foreign name
    (DNS rebinding). A server on all interfaces accepts every host name. Every reply gets the
    security headers, and is counted.

    Args:
        service: The application.
        host: The name or address that the server listens on.
        api_key: The key that requests must send. None accepts requests without a key.

    Starlette's `TrustedHostMiddleware` is not used. It replies with 400 and plain text instead of
    the API's error body, and several of its versions do not recognize `[::1]`.
    """

    def __init__(self, service: Service, *, host: str, api_key: str | None) -> None:
        self._service, self._app = service, service.app
        self._hosts = None
        if host not in ANY_HOST:
            self._hosts = {"localhost", "127.0.0.1", "::1", host.lower()}
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                path = getattr(scope.get("route"), "name", "other")
                self._service.metrics.count_reply(path, message["status"])
            await send(message)

        app: ASGIApp = self._app
        try:
            headers = Headers(scope=scope)
            self._check_host(headers)
            self._check_key(headers, scope["path"])
        except ApiError as error:
            app = error_reply(None, error)
        await app(scope, receive, send_with_headers)

    def _check_host(self, headers: Headers) -> None:
        """Raise ApiError for a foreign host name or origin."""
        host = headers.get("host", "")
        if self._hosts is not None and _host_name(host) not in self._hosts:
            raise ApiError(403, f"unknown host {shortened(host)}: use the name of this server")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise ApiError(403, f"cross-origin request from {shortened(origin)} rejected")

    def _check_key(self, headers: Headers, path: str) -> None:
        """Raise ApiError if the path needs a key, and the request's is wrong or missing."""
        if self._key is None or path in OPEN_PATHS or path.startswith("/static/"):
            return
        kind, _, key = headers.get("authorization", "").partition(" ")
        sent = key.strip().encode("latin-1")
        if kind.lower() != "bearer" or not hmac.compare_digest(sent, self._key):
            raise ApiError(
                401,
                "missing or invalid API key: send the header `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )


def _host_name(host: str) -> str:
    """Return the name in a Host header, without its port. It is empty in an invalid header."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
