"""The HTTP application: OpenAI's completions interface, and the playground's files.

A request passes three checks: the connection's (`connection`), the access control's (`access`), and
the ones of its path. Every error has OpenAI's body.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from charloom.constraints.options import ConstraintOptions
from charloom.errors import CharloomError, shortened
from charloom.serving.batcher import Batcher
from charloom.serving.completions import Completion, Reply, is_guided, parse_completion
from charloom.serving.connection import RETRY_SECONDS
from charloom.serving.errors import ApiError, read_json, write_json
from charloom.serving.foreign_paths import NO_CHAT, remedy_for
from charloom.serving.metrics import MEDIA_TYPE, ServerMetrics
from charloom.serving.openapi import JSON, PLAYGROUND, describe_api
from charloom.serving.requests import BusyError
from charloom.serving.schema import (
    CompletionRequest,
    DetokenizeRequest,
    DetokenizeResponse,
    Health,
    ModelInfo,
    ModelList,
    PatternRequest,
    PatternResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from charloom.serving.streaming import (
    EventStream,
    Notifier,
    run_aside,
    stream_reply,
    whole_reply,
)
from charloom.serving.tokens import Tokens
from charloom.serving.validation import convert_body, missing_field
from charloom.version import __version__

IGNORED = "x-ignored-parameters"  # header of a reply
MOST_NAMED = 20  # fields in it
LARGEST_BODY = 4_000_000  # bytes
MEDIA_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}

COMPILED_AT_ONCE, MOST_COMPILED = 2, 256  # requests whose constraints are compiled, and that wait

Body = TypeVar("Body", bound=msgspec.Struct)
T = TypeVar("T")


@dataclass(frozen=True)
class ServedModel:
    """A model, and the name by which requests choose it."""

    id: str
    created: int  # seconds since 1970
    tokens: Tokens
    batcher: Batcher

    def describe(self) -> ModelInfo:
        """Return the model's description in OpenAI's form."""
        return ModelInfo(self.id, "model", self.created, "charloom")


class Service:
    """The application: a handler for each path.

    Args:
        models: The models.
        notifier: The notifier of their batchers.
        strict: Whether a request with an unknown field is an error.
    """

    def __init__(
        self, models: Sequence[ServedModel], notifier: Notifier, *, strict: bool = False
    ) -> None:
        self.models = {model.id: model for model in models}
        self._strict = strict
        self.notifier = notifier
        self.metrics = ServerMetrics({model.id: model.batcher for model in models})
        self._compiling, self._waiting = asyncio.Semaphore(COMPILED_AT_ONCE), 0
        self._files = _playground_files()
        routes = [
            Route("/", self.page, name="/"),
            Route("/static/{name}", self.static, name="/static"),
            Route("/health", self.health, name="/health"),
            Route("/metrics", self.get_metrics, name="/metrics"),
            Route("/openapi.json", self.openapi, name="/openapi.json"),
            Route("/v1/models", self.list_models, name="/v1/models"),
            Route("/v1/models/{id:path}", self.get_model, name="/v1/models/{id}"),
            Route("/v1/completions", self.complete, methods=["POST"], name="/v1/completions"),
            Route("/tokenizer_info", self.tokenizer_info, name="/tokenizer_info"),
            Route("/tokenize", self.tokenize, methods=["POST"], name="/tokenize"),
            Route("/detokenize", self.detokenize, methods=["POST"], name="/detokenize"),
            Route("/pattern", self.check_pattern, methods=["POST"], name="/pattern"),
        ]
        self._paths = [route.path for route in routes if "{" not in route.path]
        handlers: Mapping[Any, Any] = {
            ApiError: error_reply,
            HTTPException: self._http_error_reply,
            ClientDisconnect: _disconnected_reply,
            Exception: _failure_reply,
        }
        self.app = Starlette(routes=routes, exception_handlers=handlers)
        self.app.router.redirect_slashes = False

    # The playground

    async def page(self, request: Request) -> Response:
        """Return the playground."""
        return self._file("playground.html")

    async def static(self, request: Request) -> Response:
        """Return a file of the playground."""
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Response:
        if name not in self._files:
            raise ApiError(404, f"unknown file {shortened(name)}")
        kind = MEDIA_TYPES[name.rpartition(".")[2]]
        return Response(self._files[name], media_type=f"{kind}; charset=utf-8")

    # The server itself

    async def health(self, request: Request) -> Response:
        """Report that the server is running."""
        return json_reply(Health("ok", __version__))

    async def openapi(self, request: Request) -> Response:
        """Return the OpenAPI document."""
        return json_reply(describe_api(list(self.models), strict=self._strict))

    async def get_metrics(self, request: Request) -> Response:
        """Return the metrics for Prometheus."""
        return Response(self.metrics.text(), media_type=MEDIA_TYPE)

    async def list_models(self, request: Request) -> Response:
        """Describe all models."""
        return json_reply(ModelList("list", [model.describe() for model in self.models.values()]))

    async def get_model(self, request: Request) -> Response:
        """Describe one model."""
        return json_reply(self._model(request.path_params["id"]).describe())

    def _model(self, name: str | None) -> ServedModel:
        """Return the model of that name, or the first one if the name is None."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise ApiError(
                404,
                f"unknown model {shortened(name)}: use one of {', '.join(self.models)}",
                param="model",
                code="model_not_found",
            )
        return self.models[name]

    # Characters and ids

    async def tokenizer_info(self, request: Request) -> Response:
        """Describe a model's tokenizer."""
        tokens = self._model(request.query_params.get("model")).tokens
        return json_reply(tokens.describe())

    async def tokenize(self, request: Request) -> Response:
        """Return a text's token ids."""
        body, unknown = await self._read_body(request, TokenizeRequest)
        tokens = self._model(body.model).tokens
        ids = tokens.tokenize(body.prompt, with_start=body.add_special_tokens is not False)
        return json_reply(TokenizeResponse(ids, len(ids)), headers=ignored_header(unknown))

    async def detokenize(self, request: Request) -> Response:
        """Return the text of token ids."""
        body, unknown = await self._read_body(request, DetokenizeRequest)
        text = self._model(body.model).tokens.detokenize(body.tokens)
        return json_reply(DetokenizeResponse(text), headers=ignored_header(unknown))

    # Patterns

    async def check_pattern(self, request: Request) -> Response:
        """Return whether a regular expression can be matched, and its shortest text's length."""
        body, unknown = await self._read_body(request, PatternRequest)
        tokens = self._model(body.model).tokens
        try:
            found = await self._compile(
                lambda: tokens.constraints(ConstraintOptions(match=body.pattern))
            )
        except CharloomError as error:
            reply = PatternResponse(valid=False, message=str(error))
        else:
            reply = PatternResponse(valid=True, shortest=found.least if found else 0)
        return json_reply(reply, headers=ignored_header(unknown))

    async def _compile(self, function: Callable[[], T]) -> T:
        """Call a function that compiles constraints, in one of few threads and processes.

        So patterns that take seconds occupy neither the batcher nor all threads.

        Raises:
            ApiError: Too many requests wait for it.
        """
        if self._waiting >= MOST_COMPILED:
            raise _overloaded("too many patterns are being compiled; retry later")
        self._waiting += 1
        try:
            async with self._compiling:
                return await asyncio.to_thread(function)
        finally:
            self._waiting -= 1

    # Completions

    async def complete(self, request: Request) -> Response:
        """Continue a prompt, in one reply or in a stream."""
        body, unknown = await self._read_body(request, CompletionRequest)
        if body.model is None and len(self.models) > 1:
            raise missing_field("model", f"use one of {', '.join(self.models)}")
        if body.prompt is None and "messages" in unknown:
            raise ApiError(400, f"messages are not supported: {NO_CHAT}", param="messages")
        model = self._model(body.model)
        most = model.batcher.most_texts
        size = int(request.headers.get("content-length", LARGEST_BODY))

        def parse() -> Completion:
            return parse_completion(body, model.tokens, most)

        compiles = is_guided(body)
        completion = await (self._compile(parse) if compiles else run_aside(size, parse))
        try:
            answers = model.batcher.submit(*completion.requests)
        except BusyError:
            raise _overloaded("the request queue is full; retry later") from None
        reply = Reply(model.id, completion, answers, model.tokens, int(time.time()))
        headers = ignored_header([*unknown, *completion.unusable_stops])
        if completion.stream:
            events = stream_reply(reply, answers, self.notifier, request.receive)
            return EventStream(events, headers)
        content = await whole_reply(reply, answers, self.notifier, request.receive)
        return Response(content, headers=headers, media_type=JSON)

    async def _read_body(self, request: Request, kind: type[Body]) -> tuple[Body, tuple[str, ...]]:
        """Read a request's JSON body, and return the names of its unknown fields too.

        Raises:
            ApiError: The body is not declared as JSON, too large, not JSON, or not of that type.
        """
        content = await _read_bytes(request)
        return await run_aside(
            len(content), lambda: convert_body(read_json(content), kind, strict=self._strict)
        )

    def _http_error_reply(self, request: Request, error: HTTPException) -> Response:
        path = request.url.path
        message = error.detail
        if error.status_code == 404:
            message = f"unknown path {shortened(path)}"
            remedy = remedy_for(path, self._paths)
            if remedy is not None:
                message += f": {remedy}"
        elif error.status_code == 405:
            message = f"method {request.method} is not allowed for {shortened(path)}"
        return error_reply(request, ApiError(error.status_code, message, headers=error.headers))


def _overloaded(message: str) -> ApiError:
    return ApiError(503, message, code="overloaded", headers={"retry-after": str(RETRY_SECONDS)})


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a reply with a JSON value or struct."""
    return Response(write_json(value), status, dict(headers or {}), JSON)


def error_reply(request: Any, error: ApiError) -> Response:
    """Return an error's reply."""
    return json_reply(error.body(), error.status, error.headers)


def _disconnected_reply(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # for a client that is gone


def _failure_reply(request: Request, error: Exception) -> Response:
    return error_reply(request, ApiError(500, "internal server error"))


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """Return the header that names fields of a request which had no effect, if there are any."""
    # Percent-encoded, because a client can send any characters as a name.
    encoded = (quote(name[:60], safe="[]", errors="surrogatepass") for name in names[:MOST_NAMED])
    shown = [name or '""' for name in encoded]
    if len(names) > MOST_NAMED:
        shown.append(f"and {len(names) - MOST_NAMED} more")
    return {IGNORED: ", ".join(shown)} if shown else {}


async def _read_bytes(request: Request) -> bytes:
    """Read a request's body, which is declared as JSON, whole.

    Raises:
        ApiError: The body is not declared as JSON, or too large.
    """
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != JSON:
        raise ApiError(415, f"unsupported Content-Type {shortened(declared)}: use {JSON}")
    too_large = ApiError(413, f"the body is too large: send at most {LARGEST_BODY:,} bytes")
    length = request.headers.get("content-length", "0")  # digits, as h11 has checked
    if "expect" in request.headers and (len(length) > 12 or int(length) > LARGEST_BODY):
        raise too_large
    content, size = bytearray(), 0
    async for piece in request.stream():
        size += len(piece)
        if size <= LARGEST_BODY:
            content += piece  # the rest is read too, because a client might read no reply before
    if size > LARGEST_BODY:
        raise too_large
    return bytes(content)


def _playground_files() -> dict[str, bytes]:
    """Read the playground's files once, by fixed names.

    So no path that a client sends reaches the file system.
    """
    folder = files("charloom.pages").joinpath("web")
    found = {name: folder.joinpath(name) for name in PLAYGROUND}
    return {name: file.read_bytes() for name, file in found.items() if file.is_file()}
