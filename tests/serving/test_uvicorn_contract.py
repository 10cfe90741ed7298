"""uvicorn's parts that `charloom.serving.connection.Connection` uses besides its public interface.

pyproject.toml bounds uvicorn's version. Raise the bound only if this test passes with the new one.
"""

import asyncio
import inspect
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from charloom.serving import connection
from charloom.serving.connection import Connection

REQUEST = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n"


class Transport(asyncio.Transport):
    """A transport that keeps the bytes written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed, self.limits = b"", False, ()

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high,)

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def connect() -> tuple[Connection, Transport, ServerState]:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    state = ServerState()
    config = uvicorn.Config(application, http=Connection, ws="none", log_config=None)
    made = Connection(config, state, {})
    transport = Transport()
    made.connection_made(transport)
    return made, transport, state


def test_uvicorn_has_what_connection_uses() -> None:
    # The methods that it overrides, with their parameters.
    for name, parameters in {
        "connection_made": ["self", "transport"],
        "data_received": ["self", "data"],
        "pause_writing": ["self"],
        "resume_writing": ["self"],
        "connection_lost": ["self", "exc"],
        "send_400_response": ["self", "msg"],
    }.items():
        assert list(inspect.signature(getattr(H11Protocol, name)).parameters) == parameters
    # Attributes that it sets itself must not be uvicorn's.
    assert not {"_deadline", "_stalled", "_refused"} & set(dir(H11Protocol))

    async def follow_a_request() -> None:
        made, transport, state = await connect()
        assert made.transport is transport
        assert made.loop is asyncio.get_running_loop()
        assert made.connections is state.connections  # of all connections, this one included
        assert state.connections == {made}
        assert transport.limits == (0,)
        assert made.conn.their_state is h11.IDLE
        assert made._deadline is not None
        made.data_received(REQUEST)
        assert made.conn.their_state is h11.SEND_BODY
        await asyncio.sleep(0)
        assert made.cycle.response_started is False
        assert made._deadline is not None
        made.data_received(b"ab")
        assert made.conn.their_state not in (h11.IDLE, h11.SEND_BODY)
        assert made._deadline is None
        await asyncio.gather(*state.tasks)
        assert made.cycle.response_started is True
        assert transport.written.startswith(b"HTTP/1.1 204 ")
        made.pause_writing()
        assert made.flow.write_paused
        assert made._stalled is not None
        made.resume_writing()
        assert not made.flow.write_paused
        made.connection_lost(None)
        assert state.connections == set()

    asyncio.run(follow_a_request())


def test_malformed_requests_and_surplus_connections_get_our_replies(monkeypatch: Any) -> None:
    async def talk() -> tuple[bytes, bytes]:
        malformed, first, _ = await connect()
        malformed.data_received(b"the woods\r\n\r\n")
        assert first.closed
        monkeypatch.setattr(connection, "MOST_CONNECTIONS", 0)
        refused, second, _ = await connect()
        before = second.written
        refused.data_received(REQUEST)  # is ignored
        assert second.written == before
        for one in (malformed, refused):
            one.connection_lost(None)
        return first.written, second.written

    malformed, refused = asyncio.run(talk())
    for written, status in ((malformed, 400), (refused, 503)):
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("host", "localhost")]))
        client.receive_data(written)
        reply = client.next_event()
        assert isinstance(reply, h11.Response)
        assert reply.status_code == status
        assert (b"connection", b"close") in list(reply.headers)
        assert isinstance(client.next_event(), h11.Data)
        assert isinstance(client.next_event(), h11.EndOfMessage)
    assert b"retry-after: 1\r\n" in refused
