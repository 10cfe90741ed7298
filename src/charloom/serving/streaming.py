"""Notify waiting requests, and stream server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from charloom.serving.errors import write_json
from charloom.serving.requests import Answer


class Bells:
    """Wakes the handlers of requests, which wait in the event loop, from the batchers' threads."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._events: dict[Answer, asyncio.Event] = {}

    def ring(self, answers: Sequence[Answer]) -> None:
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed: nobody waits any more
                self.loop.call_soon_threadsafe(self._set, answers)

    def _set(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if answer in self._events:
                self._events[answer].set()

    @contextlib.contextmanager
    def of(self, answers: Sequence[Answer]) -> Iterator[asyncio.Event]:
        """An event that is set when there is something new, and at first, for there may be already.
        In the end the answers are cancelled, which does nothing to those that have ended."""
        event = asyncio.Event()
        event.set()
        self._events |= dict.fromkeys(answers, event)
        try:
            yield event
        finally:
            for answer in answers:
                answer.cancel()
                del self._events[answer]


class EventStream(Response):
    """Server-sent events, `[DONE]` at the end, as OpenAI's are."""

    def __init__(self, events: AsyncIterator[Any]) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async with contextlib.aclosing(self._events) as events:  # type: ignore[type-var]
            async for together in events:
                lines = [b"data: " + write_json(event) + b"\n\n" for event in together]
                body = b"".join(lines)
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


@contextlib.asynccontextmanager
async def client_gone(receive: Receive, event: asyncio.Event) -> AsyncIterator[asyncio.Task[None]]:
    """A task that ends when the client has gone, and sets the event then."""

    async def wait() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        event.set()

    task = asyncio.create_task(wait())
    try:
        yield task
    finally:
        task.cancel()
