"""Access control: host names, origins and API keys."""

from __future__ import annotations

import contextlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charloom.errors import CharloomError, shortened
from charloom.serving.app import IGNORED, Service, error_reply
from charloom.serving.connection import HEADERS
from charloom.serving.errors import ApiError

ANY_HOST = ("", "0.0.0.0", "::")
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
DEFAULT_PORTS = {"http": 80, "https": 443}
OPEN_PATHS = ("/", "/health", "/openapi.json")  # need no key, like the playground's files


@dataclass(frozen=True)
class Access:
    """The clients that a server accepts.

    Args:
        host: The name or address that the server listens on.
        allow_hosts: Further host names of the server, such as that of a proxy. A server on all
            interfaces accepts every name without them, and only these with them.
        allow_origins: Origins of web pages of other servers that can send requests. `*` is any
            origin, `null` that of a file.
        api_key: The key that requests must send. None accepts requests without a key.

    Raises:
        CharloomError: A name is not a host name, or an origin is not an origin.
    """

    host: str = "127.0.0.1"
    allow_hosts: Sequence[str] = ()
    allow_origins: Sequence[str] = ()
    api_key: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "allow_hosts", tuple(map(_checked_host, self.allow_hosts)))
        object.__setattr__(self, "allow_origins", tuple(map(_checked_origin, self.allow_origins)))

    @property
    def hosts(self) -> frozenset[str] | None:
        """The host names that requests can use, or None for all."""
        if self.host in ANY_HOST and not self.allow_hosts:
            return None
        own = () if self.host in ANY_HOST else (self.host.lower(),)
        return frozenset((*LOCAL_HOSTS, *own, *self.allow_hosts))


def _checked_host(name: str) -> str:
    """Return a host name as browsers send it."""
    try:
        encoded = name if name.isascii() else name.encode("idna").decode("ascii")
        bare = encoded.lower()
        if ":" in bare:
            bare = str(IPv6Address(bare.removeprefix("[").removesuffix("]")))
    except ValueError:
        bare = ""
    if not re.fullmatch(r"[a-z0-9_.:-]+", bare):
        raise CharloomError(
            f"{shortened(name)} is not a host name: pass it without scheme, port and path"
        )
    return bare


def _checked_origin(origin: str) -> str:
    """Return an origin as browsers send it."""
    if origin in ("*", "null"):
        return origin
    with contextlib.suppress(ValueError):  # as CharloomError is
        sent = origin.lower().removesuffix("/")
        parts = urlsplit(sent)
        host = _checked_host(parts.hostname or "")
        bare = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}"
        if parts.scheme and sent in (bare, f"{bare}:{parts.port}"):
            return bare if parts.port in (None, DEFAULT_PORTS.get(parts.scheme)) else sent
    raise CharloomError(
        f"{shortened(origin)} is not an origin: pass a scheme and a host, such as "
        "https://app.example.org"
    )


class AccessControl:
    """Checks in front of the application: the host's name, the page's origin and the API key.

    Pages of another origin are rejected, and so are pages that reach this address by a foreign name
    (DNS rebinding). Every reply gets the security headers, and is counted.

    Args:
        service: The application.
        access: The clients to accept.

    Starlette's `TrustedHostMiddleware` is not used. It replies with 400 and plain text instead of
    the API's error body, and several of its versions do not recognize `[::1]`.
    """

    def __init__(self, service: Service, access: Access) -> None:
        self._service, self._access, self._hosts = service, access, access.hosts
        self._key = None if access.api_key is None else access.api_key.encode()
        # Preflight requests have no key, and errors need CORS headers too.
        self._app: ASGIApp = self._with_key
        if access.allow_origins:
            self._app = CORSMiddleware(
                self._with_key,
                allow_origins=access.allow_origins,
                allow_methods=("GET", "POST"),
                allow_headers=("*",),
                expose_headers=(IGNORED, "retry-after"),
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                path = getattr(scope.get("route"), "name", "other")
                self._service.metrics.count_reply(path, message["status"])
            await send(message)

        app = self._app
        try:
            self._check_host(Headers(scope=scope))
        except ApiError as error:
            app = error_reply(None, error)
        await app(scope, receive, send_with_headers)

    async def _with_key(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = self._service.app
        try:
            self._check_key(Headers(scope=scope), scope["path"])
        except ApiError as error:
            app = error_reply(None, error)
        await app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """Raise ApiError for a foreign host name or origin."""
        host = headers.get("host", "")
        if self._hosts is not None and _host_name(host) not in self._hosts:
            raise ApiError(
                403, f"unknown host {shortened(host)}: start the server with --allow-host"
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_own(origin, host, headers.get("sec-fetch-site")):
            allowed = self._access.allow_origins
            if not ("*" in allowed or origin in allowed):
                raise ApiError(
                    403,
                    f"cross-origin request from {shortened(origin)} rejected: start the server "
                    "with --allow-origin",
                )

    def _is_own(self, origin: str, host: str, fetch_site: str | None) -> bool:
        """Return whether an origin is that of the playground, also behind a proxy.

        A proxy can replace the Host header by the address of this server. Then it is recognized by
        Sec-Fetch-Site, a header that no page can set, or by the name that the user allowed.
        """
        name = origin.partition("://")[2]
        allowed = self._access.allow_hosts
        return name == host or fetch_site == "same-origin" or _host_name(name) in allowed

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
