"""Wait for answers, and stream them as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from charloom.serving.completions import Reply
from charloom.serving.errors import ApiError, write_json
from charloom.serving.requests import Answer
from charloom.serving.schema import CompletionResponse, ErrorResponse

LONG = 20_000  # bytes or characters that take longer than a few milliseconds

T = TypeVar("T")


class Notifier:
    """The bridge from the batchers' threads to request handlers that wait in the event loop."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._events: dict[Answer, asyncio.Event] = {}

    def notify(self, answers: Sequence[Answer]) -> None:
        """Wake the handlers of some answers, from any thread."""
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # if the loop is closed, no handler waits
                self.loop.call_soon_threadsafe(self._set, answers)

    def _set(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if answer in self._events:
                self._events[answer].set()

    @contextlib.contextmanager
    def watch(self, answers: Sequence[Answer]) -> Iterator[asyncio.Event]:
        """Return an event that is set when an answer has changed; cancel the answers at the end.

        It is set at first, because an answer can have changed already. To cancel an answer that has
        ended has no effect.
        """
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
    """Server-sent events with `[DONE]` at the end, like OpenAI's.

    Args:
        events: The bodies of the events, in one list if they are ready at once. After the last ones
            comes None, which is the end.
        headers: Further headers of the reply.
    """

    def __init__(
        self,
        events: AsyncIterator[Sequence[CompletionResponse | ErrorResponse | None]],
        headers: Mapping[str, str],
    ) -> None:
        # nginx collects a reply before it passes it on, unless this header forbids it.
        unbuffered = {"x-accel-buffering": "no", **headers}
        super().__init__(headers=unbuffered, media_type="text/event-stream")
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async with contextlib.aclosing(self._events) as events:  # type: ignore[type-var]
            async for together in events:
                # The end goes out with the last events, because every write has its price.
                body = b"".join(map(_as_line, together))
                more = together[-1] is not None
                await send({"type": "http.response.body", "body": body, "more_body": more})


def _as_line(event: CompletionResponse | ErrorResponse | None) -> bytes:
    return b"data: " + (b"[DONE]" if event is None else write_json(event)) + b"\n\n"


async def stream_reply(
    reply: Reply, answers: Sequence[Answer], notifier: Notifier, receive: Receive
) -> AsyncIterator[list[CompletionResponse | ErrorResponse | None]]:
    """Yield the events of a stream, in one list if they are ready at once, and None at its end.

    Args:
        reply: The reply.
        answers: Its answers, which are cancelled at the end.
        notifier: The notifier of the answers' batcher.
        receive: The request's ASGI messages, which end when the client is gone.
    """
    async with _watching(answers, notifier, receive) as changed:
        events: list[CompletionResponse | ErrorResponse | None] = []
        while not reply.complete:
            if not await changed():
                return
            try:
                choices = await run_aside(_scored_characters(answers), reply.take)
            except ApiError as error:
                yield [error.body(), None]
                return
            events = [reply.chunk([choice]) for choice in choices]
            if events and not reply.complete:
                yield events
                events = []
        last = reply.last_chunk()
        if last is not None:
            events.append(last)
        yield [*events, None]


async def whole_reply(
    reply: Reply, answers: Sequence[Answer], notifier: Notifier, receive: Receive
) -> bytes:
    """Return the JSON of a whole reply, once all its answers have ended.

    Args:
        reply: The reply.
        answers: Its answers, which are cancelled at the end.
        notifier: The notifier of the answers' batcher.
        receive: The request's ASGI messages, which end when the client is gone.

    Raises:
        ClientDisconnect: The client is gone.
        ApiError: The model failed.
    """
    async with _watching(answers, notifier, receive) as changed:
        while not all(answer.ended for answer in answers):
            if not await changed():
                raise ClientDisconnect
        size = _scored_characters(answers)
        return await run_aside(size, lambda: write_json(reply.whole()))


@contextlib.asynccontextmanager
async def _watching(
    answers: Sequence[Answer], notifier: Notifier, receive: Receive
) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Return a function that waits for a change of the answers.

    It returns False if the client is gone.
    """
    with notifier.watch(answers) as event:
        async with _client_gone(receive, event) as gone:

            async def changed() -> bool:
                await event.wait()
                event.clear()
                return not gone.done()

            yield changed


@contextlib.asynccontextmanager
async def _client_gone(receive: Receive, event: asyncio.Event) -> AsyncIterator[asyncio.Task[None]]:
    """Return a task that ends, and sets the event, when the client is gone."""

    async def wait() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        event.set()

    task = asyncio.create_task(wait())
    try:
        yield task
    finally:
        task.cancel()


async def run_aside(size: int, function: Callable[[], T]) -> T:
    """Call a function, in a thread if the work is long, so that the streams are not held up."""
    return await asyncio.to_thread(function) if size > LONG else function()


def _scored_characters(answers: Sequence[Answer]) -> int:
    """Return the largest number of characters with log-probabilities that the answers can have."""
    scored = [a.request for a in answers if a.request.alternatives is not None]
    return sum((len(r.prompt) * r.scores_prompt + r.length) * len(r.indices) for r in scored)
