"""Access control: host names, origins and API keys."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charloom.errors import shortened
from charloom.serving.app import Service, error_reply
from charloom.serving.connection import HEADERS
from charloom.serving.errors import ApiError

ANY_HOST = ("", "0.0.0.0", "::")
OPEN_PATHS = ("/", "/health", "/openapi.json")  # without a key, and so are the page's files


class Gate:
    """In front of the application: who may ask. Puts the headers on, and counts the replies.

    A page of another origin may not ask, nor one whose name somebody points at this address (the
    host check), unless the server listens to the world: then any host is as good as another.
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
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
                route = scope.get("route")
                path = getattr(route, "name", "other")
                self._service.replies[path, message["status"]] += 1
            await send(message)

        app: ASGIApp = self._app
        try:
            self._check(scope)
        except ApiError as error:
            app = error_reply(None, error)
        await app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        name = (urlsplit(f"//{host}").hostname or "") if _is_host(host) else ""
        if self._hosts is not None and name not in self._hosts:
            raise ApiError(403, f"{shortened(host)} is not the name of this server")
        origin = headers.get(b"origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise ApiError(403, f"a page of {shortened(origin)} may not ask this server")
        path = scope["path"]
        if self._key is not None and path not in OPEN_PATHS and not path.startswith("/static/"):
            kind, _, key = headers.get(b"authorization", "").partition(" ")
            given = key.strip().encode("latin-1")
            if kind.lower() != "bearer" or not hmac.compare_digest(given, self._key):
                raise ApiError(
                    401,
                    "the key is wrong or missing: give the header Authorization: Bearer KEY",
                    code="invalid_api_key",
                    headers={"www-authenticate": "Bearer"},
                )


def _is_host(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname is not None
    except ValueError:
        return False
