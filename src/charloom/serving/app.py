"""Models behind HTTP: OpenAI's completions interface, and the playground's files.

What a client sends is checked three times over: by the connection (how many there are, how long a
request takes to arrive, whether its reader still reads), by the gate (host, origin, key), and by
what a path takes. Every error has OpenAI's body.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive

from charloom.errors import shortened
from charloom.serving.batcher import Batcher
from charloom.serving.completions import (
    Reply,
    encode,
    from_tokens,
    parse_completion,
    to_tokens,
    with_start,
)
from charloom.serving.connection import RETRY_SECONDS
from charloom.serving.errors import ApiError, read_json, write_json
from charloom.serving.metrics import prometheus_metrics
from charloom.serving.openapi import PLAYGROUND, describe_api
from charloom.serving.requests import Answer, BusyError
from charloom.serving.schema import DETOKENIZE, REQUEST, TOKENIZE, check
from charloom.serving.streaming import Bells, EventStream, client_gone
from charloom.text.vocabulary import Vocabulary
from charloom.version import __version__

LARGEST_BODY = 4_000_000  # bytes
LONG = 20_000  # bytes or characters that take more than some milliseconds
MEDIA_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


T = TypeVar("T")


@dataclass(frozen=True)
class ServedModel:
    """A model by the name that requests choose it by."""

    id: str
    created: int  # seconds since 1970
    vocabulary: Vocabulary
    batcher: Batcher


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
            ApiError: error_reply,
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
        text = "\n".join(prometheus_metrics(self.models.values(), self.replies)) + "\n"
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
            async with client_gone(request.receive, event) as gone:
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
            async with client_gone(receive, event) as gone:
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


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(write_json(value), status, dict(headers or {}), "application/json")


def error_reply(request: Any, error: ApiError) -> Response:
    return json_reply(error.body(), error.status, error.headers)


def _http_error_reply(request: Request, error: HTTPException) -> Response:
    message = {
        404: f"there is no {shortened(request.url.path)} here",
        405: f"{request.method} cannot be done to {shortened(request.url.path)}",
    }.get(error.status_code, error.detail)
    return error_reply(request, ApiError(error.status_code, message, headers=error.headers))


def _nobody_reply(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # which nobody reads


def _failure_reply(request: Request, error: Exception) -> Response:
    return error_reply(request, ApiError(500, "the server failed at this request"))


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
    folder = files("charloom.pages").joinpath("web")
    found = {name: folder.joinpath(name) for name in PLAYGROUND}
    return {name: file.read_bytes() for name, file in found.items() if file.is_file()}
