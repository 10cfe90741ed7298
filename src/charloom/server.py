"""Models behind HTTP: OpenAI's completions interface, and the playground's files.

What a client sends is checked three times over: by the connection (how many there are, how long a
request takes to arrive, whether its reader still reads), by the gate (host, origin, key), and by
what a path takes. Every error has OpenAI's body.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charloom import __version__
from charloom.completions import (
    DETOKENIZE,
    REQUEST,
    TOKENIZE,
    ApiError,
    Reply,
    check,
    encode,
    from_tokens,
    parse_completion,
    read_json,
    to_tokens,
    with_start,
    write_json,
)
from charloom.connection import BACKLOG, HEADERS, RETRY_SECONDS, Connection
from charloom.errors import printable, shortened
from charloom.language_model import MODEL_FILE, LanguageModel, model_path
from charloom.openapi import PLAYGROUND, describe_api
from charloom.serving import MOST_TEXTS, Answer, Batcher, BusyError
from charloom.vocabulary import Vocabulary

LARGEST_BODY = 4_000_000  # bytes
LONG = 20_000  # bytes or characters that take more than some milliseconds
KEEP_ALIVE_SECONDS = 15
GRACE_SECONDS = 30  # for what runs when the server is asked to end
MEDIA_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
ANY_HOST = ("", "0.0.0.0", "::")
OPEN_PATHS = ("/", "/health", "/openapi.json")  # without a key, and so are the page's files


T = TypeVar("T")


@dataclass(frozen=True)
class ServedModel:
    """A model by the name that requests choose it by."""

    id: str
    created: int  # seconds since 1970
    vocabulary: Vocabulary
    batcher: Batcher


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


def name_runs(runs: Sequence[str]) -> list[str]:
    """A name for each run, its folder's; each further one of the same name gets a number."""
    names: list[str] = []
    for run in runs:
        path = model_path(run).resolve()
        name = printable(path.parent.name if path.name == MODEL_FILE else path.stem) or "model"
        first = name
        number = 1
        while name in names:
            number += 1
            name = f"{first}-{number}"
        names.append(name)
    return names


class Service:
    """The application: what each path does with a request."""

    def __init__(self, models: Sequence[ServedModel], bells: Bells) -> None:
        self.models = {model.id: model for model in models}
        self.bells = bells
        self.replies: Counter[tuple[str, int]] = Counter()
        self._files = _playground_files()
        routes = [
            Route("/", self.page, name="/"),
            Route("/static/{name}", self.static, name="/static"),
            Route("/health", self.health, name="/health"),
            Route("/metrics", self.metrics, name="/metrics"),
            Route("/openapi.json", self.openapi, name="/openapi.json"),
            Route("/v1/models", self.list_models, name="/v1/models"),
            Route("/v1/models/{id:path}", self.get_model, name="/v1/models/{id}"),
            Route("/v1/completions", self.complete, methods=["POST"], name="/v1/completions"),
            Route("/tokenizer_info", self.tokenizer_info, name="/tokenizer_info"),
            Route("/tokenize", self.tokenize, methods=["POST"], name="/tokenize"),
            Route("/detokenize", self.detokenize, methods=["POST"], name="/detokenize"),
        ]
        handlers: Mapping[Any, Any] = {
            ApiError: _error_reply,
            HTTPException: _http_error_reply,
            ClientDisconnect: _nobody_reply,
            Exception: _failure_reply,
        }
        self.app = Starlette(routes=routes, exception_handlers=handlers)
        self.app.router.redirect_slashes = False

    # The playground

    async def page(self, request: Request) -> Response:
        return self._file("playground.html")

    async def static(self, request: Request) -> Response:
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Response:
        if name not in self._files:
            raise ApiError(404, "there is no such file here")
        kind = MEDIA_TYPES[name.rpartition(".")[2]]
        return Response(self._files[name], media_type=f"{kind}; charset=utf-8")

    # What a server is asked about itself

    async def health(self, request: Request) -> Response:
        return json_reply({"status": "ok", "version": __version__})

    async def openapi(self, request: Request) -> Response:
        return json_reply(describe_api(list(self.models)))

    async def metrics(self, request: Request) -> Response:
        text = "\n".join(_metrics(self.models.values(), self.replies)) + "\n"
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def list_models(self, request: Request) -> Response:
        models = [_describe(model) for model in self.models.values()]
        return json_reply({"object": "list", "data": models})

    async def get_model(self, request: Request) -> Response:
        return json_reply(_describe(self._model(request.path_params["id"])))

    def _model(self, name: str | None) -> ServedModel:
        """The model of that name; the first one where there is no name."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise ApiError(
                404,
                f"there is no model {shortened(name)}: give one of {', '.join(self.models)}",
                param="model",
                code="model_not_found",
            )
        return self.models[name]

    # Characters and ids

    async def tokenizer_info(self, request: Request) -> Response:
        vocabulary = self._model(request.query_params.get("model")).vocabulary
        start = vocabulary.characters[vocabulary.start_id]
        return json_reply(
            {
                "tokenizer_class": "characters",
                "vocab_size": len(vocabulary),
                "bos_token": start,
                "eos_token": start,
                "pad_token": start,
            }
        )

    async def tokenize(self, request: Request) -> Response:
        body = await _json_body(request, TOKENIZE)
        vocabulary = self._model(body.get("model")).vocabulary
        ids = encode(body["prompt"], vocabulary)
        if body.get("add_special_tokens", True) is not False:
            ids = with_start(ids, vocabulary)
        return json_reply({"tokens": to_tokens(ids), "count": len(ids)})

    async def detokenize(self, request: Request) -> Response:
        body = await _json_body(request, DETOKENIZE)
        vocabulary = self._model(body.get("model")).vocabulary
        ids = from_tokens(body["tokens"], vocabulary, "tokens")
        return json_reply({"prompt": vocabulary.decode(ids)})

    # Completions

    async def complete(self, request: Request) -> Response:
        body = await _json_body(request, REQUEST)
        model = self._model(body["model"])
        most = model.batcher.most_texts
        size = int(request.headers.get("content-length", LARGEST_BODY))
        completion = await _aside(size, lambda: parse_completion(body, model.vocabulary, most))
        try:
            answers = model.batcher.submit(*completion.requests)
        except BusyError:
            raise ApiError(
                503,
                "as many requests wait as may wait: try again soon",
                code="overloaded",
                headers={"retry-after": str(RETRY_SECONDS)},
            ) from None
        reply = Reply(completion, answers, model.vocabulary, int(time.time()))
        if completion.stream:
            return EventStream(self._stream(reply, answers, request.receive))
        with self.bells.of(answers) as event:
            async with _gone(request.receive, event) as gone:
                while not all(answer.ended for answer in answers):
                    await event.wait()
                    if gone.done():
                        raise ClientDisconnect
                    event.clear()
            return await _aside(_scores(answers), lambda: json_reply(reply.whole()))

    async def _stream(
        self, reply: Reply, answers: Sequence[Answer], receive: Receive
    ) -> AsyncIterator[Any]:
        """The events of a stream, as JSON values; those that are there at once in one list."""
        with self.bells.of(answers) as event:
            async with _gone(receive, event) as gone:
                while not reply.complete:
                    await event.wait()
                    if gone.done():
                        return
                    event.clear()
                    try:
                        choices = await _aside(_scores(answers), reply.take)
                    except ApiError as error:
                        yield [error.body()]
                        return
                    if choices:
                        yield [reply.chunk([choice]) for choice in choices]
                last = reply.last_chunk()
                if last is not None:
                    yield [last]


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
async def _gone(receive: Receive, event: asyncio.Event) -> AsyncIterator[asyncio.Task[None]]:
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


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(write_json(value), status, dict(headers or {}), "application/json")


def _error_reply(request: Any, error: ApiError) -> Response:
    return json_reply(error.body(), error.status, error.headers)


def _http_error_reply(request: Request, error: HTTPException) -> Response:
    message = {
        404: f"there is no {shortened(request.url.path)} here",
        405: f"{request.method} cannot be done to {shortened(request.url.path)}",
    }.get(error.status_code, error.detail)
    return _error_reply(request, ApiError(error.status_code, message, headers=error.headers))


def _nobody_reply(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # which nobody reads


def _failure_reply(request: Request, error: Exception) -> Response:
    return _error_reply(request, ApiError(500, "the server failed at this request"))


async def _json_body(request: Request, schema: Mapping[str, Any]) -> Any:
    """A body as the schema has it. Raises ApiError, also for one that says it is no JSON, or is too
    large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"the content type is {shortened(kind)}: give application/json")
    too_large = ApiError(413, f"the body is too large: at most {LARGEST_BODY:,} bytes")
    length = request.headers.get("content-length", "0")  # h11 has seen that these are digits
    if "expect" in request.headers and (len(length) > 12 or int(length) > LARGEST_BODY):
        raise too_large
    body, size = bytearray(), 0
    async for piece in request.stream():
        size += len(piece)
        if size <= LARGEST_BODY:  # what is more is read, for a client may not hear us before
            body += piece
    if size > LARGEST_BODY:
        raise too_large
    return await _aside(size, lambda: check(read_json(bytes(body)), schema))


async def _aside(size: int, function: Callable[[], T]) -> T:
    """What a function gives: in a thread where it takes long, so that the streams go on."""
    return await asyncio.to_thread(function) if size > LONG else function()


def _scores(answers: Sequence[Answer]) -> int:
    """How many characters with log-probabilities the answers may have at once."""
    asked = [a.request for a in answers if a.request.alternatives is not None]
    return sum((len(r.prompt) * r.scores_prompt + r.length) * len(r.indices) for r in asked)


def _describe(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "charloom",
    }


def _playground_files() -> dict[str, bytes]:
    """Read once, by their fixed names: no path that a client sends ever reaches a file system."""
    folder = files("charloom").joinpath("web")
    found = {name: folder.joinpath(name) for name in PLAYGROUND}
    return {name: file.read_bytes() for name, file in found.items() if file.is_file()}


def _metrics(models: Any, replies: Counter[tuple[str, int]]) -> Iterator[str]:
    """Lines of Prometheus's text format."""
    yield "# HELP charloom_replies_total Replies by path and status."
    yield "# TYPE charloom_replies_total counter"
    for (path, status), count in sorted(replies.items()):
        yield f'charloom_replies_total{{path="{path}",status="{status}"}} {count}'
    batchers = {model.id: model.batcher for model in models}
    figures: list[tuple[str, str, str, Callable[[Batcher], int]]] = [
        (
            "prompt_characters_total",
            "counter",
            "Characters of prompts read.",
            lambda b: b.counts.read,
        ),
        (
            "cached_characters_total",
            "counter",
            "Characters of prompts whose state was in the cache.",
            lambda b: b.counts.cached,
        ),
        ("drawn_characters_total", "counter", "Characters drawn.", lambda b: b.counts.drawn),
        (
            "steps_total",
            "counter",
            "Steps, each of which draws a character for every text.",
            lambda b: b.counts.steps,
        ),
        (
            "refused_total",
            "counter",
            "Requests for which there was no room.",
            lambda b: b.counts.refused,
        ),
        (
            "cancelled_total",
            "counter",
            "Requests whose client went away.",
            lambda b: b.counts.cancelled,
        ),
        ("texts_drawing", "gauge", "Texts that are being drawn.", lambda b: b.drawing),
        ("texts_waiting", "gauge", "Texts that wait.", lambda b: b.waiting),
        ("cache_bytes", "gauge", "Memory of the prompts' states.", lambda b: b.cache.bytes),
    ]
    for name, kind, text, figure in figures:
        yield f"# HELP charloom_{name} {text}"
        yield f"# TYPE charloom_{name} {kind}"
        for id_, batcher in batchers.items():
            label = id_.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            yield f'charloom_{name}{{model="{label}"}} {figure(batcher)}'


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
            app = _error_reply(None, error)
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


class Server(uvicorn.Server):
    """Serves models at a socket, by their names. A signal ends it when what runs is done; a second
    one ends it at once.

    host: the name it was opened by, and may be asked by. api_key: what a client must know.
    most_texts: drawn from each model at a time. ready: called when it answers.
    """

    def __init__(
        self,
        models: Mapping[str, LanguageModel],
        opened: socket.socket,
        *,
        host: str = "127.0.0.1",
        api_key: str | None = None,
        most_texts: int = MOST_TEXTS,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._bells, self._opened, self._ready = Bells(), opened, ready
        now = int(time.time())
        self.models = []
        for name, model in models.items():
            batcher = Batcher(
                model.predictor, model.vocabulary, most_texts=most_texts, tell=self._bells.ring
            )
            self.models.append(ServedModel(name, now, model.vocabulary, batcher))
        service = Service(self.models, self._bells)
        super().__init__(
            uvicorn.Config(
                Gate(service, host=host, api_key=api_key),
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )

    def serve_until_ended(self) -> None:
        try:
            self.run(sockets=[self._opened])
        finally:
            self._opened.close()
            for model in self.models:
                model.batcher.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._bells.loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        # uvicorn's own raises the signal again when all is done, so that a clean end looks like
        # a death.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self._end) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: Any) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
