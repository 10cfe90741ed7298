"""Per-connection limits for uvicorn: request deadline, slow-reader timeout, connection cap.

uvicorn does not have them, and an application cannot add them, because it is called only after a
request's headers have arrived. Also opens the listening socket.
"""

from __future__ import annotations

import asyncio
import http
import os
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from charloom.errors import CharloomError
from charloom.serving.errors import ApiError, write_json

MOST_CONNECTIONS = 512
BACKLOG = 2048  # connections that the system holds until the server accepts them
RECEIVE_SECONDS = 20.0  # from a request's first byte, or from connecting, to its last byte
STALLED_SECONDS = 10.0  # in which a client must read at least this number of the waiting bytes:
LEAST_READ = 10_000
REFUSED_SECONDS = 1.0  # for a client beyond the connection cap to read the reply
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
    """uvicorn's connection with a request deadline, a slow-reader timeout and a connection cap.

    It uses uvicorn's `connections`, `conn`, `cycle.response_started`, `loop` and `transport`, and
    the methods that it overrides. An upper bound on uvicorn's version and a test guard these.
    """

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # So that pause_writing is called as soon as the system leaves a byte in our buffer.
        transport.set_write_buffer_limits(0)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refused = True
            transport.write(_raw_reply(ApiError(503, "too many connections", code="overloaded")))
            transport.write_eof()
            self._deadline = self.loop.call_later(REFUSED_SECONDS, transport.abort)
        else:
            self._deadline = self.loop.call_later(RECEIVE_SECONDS, self._receive_timed_out)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._deadline is None:
            self._deadline = self.loop.call_later(RECEIVE_SECONDS, self._receive_timed_out)
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):  # the request is complete
            self._deadline.cancel()
            self._deadline = None

    def _receive_timed_out(self) -> None:
        unanswered = self.conn.their_state is h11.IDLE or not self.cycle.response_started
        if unanswered:
            message = f"request not received within {RECEIVE_SECONDS:g} seconds"
            self.transport.write(_raw_reply(ApiError(408, message)))
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def _watch_reader(self) -> None:
        """Close the connection if the client does not read enough until the timeout."""
        left = self.transport.get_write_buffer_size()

        def check() -> None:
            if self.transport.get_write_buffer_size() > left - LEAST_READ:
                self.transport.abort()
            else:
                self._watch_reader()

        self._stalled = self.loop.call_later(STALLED_SECONDS, check)

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
        self.transport.write(_raw_reply(ApiError(400, "malformed HTTP request")))
        self.transport.close()


def _raw_reply(error: ApiError) -> bytes:
    """Return the bytes of a whole reply, for a connection that no application answers.

    h11 writes it in a state of its own, because the connection's state can be that of a broken
    request.
    """
    body = write_json(error.body())
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **HEADERS,
    }
    if error.status == 503:
        headers["retry-after"] = str(RETRY_SECONDS)
    writer = h11.Connection(h11.SERVER)
    events = (
        h11.Response(
            status_code=error.status,
            headers=list(headers.items()),
            reason=http.HTTPStatus(error.status).phrase,
        ),
        h11.Data(data=body),
        h11.EndOfMessage(),
    )
    return b"".join(writer.send(event) or b"" for event in events)


def open_socket(host: str, port: int) -> socket.socket:
    """Open a listening socket. Port 0 takes a free port.

    Raises:
        CharloomError: The host or port is invalid or in use.
    """
    where = f"{host or '0.0.0.0'}:{port}"
    if not 0 <= port <= 65535:
        raise CharloomError(f"invalid --port {port}: use a number from 0 to 65535")
    opened = None
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        opened = socket.socket(family, kind, protocol)
        if socket.has_dualstack_ipv6() and family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        if os.name == "posix":  # because elsewhere it would let two servers have the same port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        opened.bind(address)
        opened.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        if opened is not None:
            opened.close()
        reason = getattr(error, "strerror", None) or error
        raise CharloomError(
            f"cannot listen on {where} ({reason}): use another --port or --host"
        ) from None
    opened.setblocking(False)
    return opened
