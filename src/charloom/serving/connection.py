"""A client's connection, with limits to what it may take its time for; and the socket it comes by.

uvicorn waits for a request, and for its reader, as long as they like. No application can help that:
it is called when a request is there.
"""

from __future__ import annotations

import asyncio
import os
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from charloom.errors import CharloomError
from charloom.serving.errors import ApiError, write_json

MOST_CONNECTIONS = 512
BACKLOG = 2048  # connections that the system holds until they are taken up
RECEIVE_SECONDS = 20.0  # for a whole request to arrive, from its first byte or the connection's
STALLED_SECONDS = 10.0  # in which a client must have read so many bytes of what waits for it:
LEAST_READ = 10_000
REFUSED_SECONDS = 1.0  # for a client that is one too many to read so
SEND_BUFFER = 128_000  # bytes that the system holds for a client that does not read
RETRY_SECONDS = 1
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Connection(H11Protocol):
    """uvicorn's connection, with limits to what a client may take its time for."""

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Told whenever a byte is left that the system does not take, and when none is.
        transport.set_write_buffer_limits(0)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refused = True
            transport.write(_raw_reply(ApiError(503, "too many connections", code="overloaded")))
            transport.write_eof()
            self._deadline = self.loop.call_later(REFUSED_SECONDS, transport.abort)
        else:
            self._deadline = self.loop.call_later(RECEIVE_SECONDS, self._receives_too_slowly)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._deadline is None:
            self._deadline = self.loop.call_later(RECEIVE_SECONDS, self._receives_too_slowly)
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):  # the whole request is here
            self._deadline.cancel()
            self._deadline = None

    def _receives_too_slowly(self) -> None:
        unanswered = self.conn.their_state is h11.IDLE or not self.cycle.response_started
        if unanswered:
            seconds = f"{RECEIVE_SECONDS:g}"
            error = ApiError(408, f"a request must be here whole within {seconds} seconds")
            self.transport.write(_raw_reply(error))
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def _watch_reader(self) -> None:
        left = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() > left - LEAST_READ:
                self.transport.abort()
            else:
                self._watch_reader()

        self._stalled = self.loop.call_later(STALLED_SECONDS, look)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self.transport.write(_raw_reply(ApiError(400, "this is not HTTP as it should be")))
        self.transport.close()


def _raw_reply(error: ApiError) -> bytes:
    """A whole reply, for a connection that no application answers."""
    body = write_json(error.body())
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **HEADERS,
    }
    if error.status == 503:
        headers["retry-after"] = str(RETRY_SECONDS)
    lines = [f"HTTP/1.1 {error.status} Error", *(f"{n}: {v}" for n, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Raises CharloomError if it cannot."""
    where = f"{host or '0.0.0.0'}:{port}"
    if not 0 <= port <= 65535:
        raise CharloomError(f"--port is {port}: give a number from 0 to 65535")
    opened = None
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        opened = socket.socket(family, kind, protocol)
        if socket.has_dualstack_ipv6() and family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        if os.name == "posix":  # elsewhere it would let two servers have the same port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        opened.bind(address)
        opened.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        if opened is not None:
            opened.close()
        reason = getattr(error, "strerror", None) or error
        raise CharloomError(
            f"cannot listen at {where} ({reason}): give another --port or --host"
        ) from None
    opened.setblocking(False)
    return opened
