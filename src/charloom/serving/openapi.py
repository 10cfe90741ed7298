"""The OpenAPI document of the server, generated from the types of `schema`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from charloom.serving import schema
from charloom.serving.schema import (
    CompletionRequest,
    CompletionResponse,
    DetokenizeRequest,
    DetokenizeResponse,
    ErrorResponse,
    Health,
    ModelInfo,
    ModelList,
    PatternRequest,
    PatternResponse,
    ResponseFormat,
    StreamOptions,
    TokenizeRequest,
    TokenizeResponse,
    TokenizerInfo,
)
from charloom.version import __version__

JSON = "application/json"
PLAYGROUND = (
    "playground.html",
    "playground.js",
    "playground.css",
    "pane.js",
    "requests.js",
    "history.js",
    "page.js",
    "page.css",
)
DESCRIPTIONS = {
    200: "Success.",
    400: "Invalid request; `param` names the field.",
    401: "Missing or invalid API key.",
    403: "Unknown host name or cross-origin request.",
    404: "Unknown model or path.",
    405: "Method not allowed.",
    408: "Request timeout.",
    413: "The body is too large.",
    415: "Content-Type is not application/json.",
    500: "Internal server error.",
    503: "The request queue is full; see Retry-After.",
}
REQUESTS = (CompletionRequest, TokenizeRequest, DetokenizeRequest, PatternRequest)
NESTED = (StreamOptions.__name__, ResponseFormat.__name__)
REPLIES = (
    *(CompletionResponse, ModelInfo, ModelList, TokenizeResponse, DetokenizeResponse),
    *(PatternResponse, TokenizerInfo, Health, ErrorResponse),
)

Media = dict[str, Any]  # schemas by media type


def describe_api(models: Sequence[str], *, strict: bool = False) -> dict[str, Any]:
    """Return the OpenAPI document of a server with these models.

    Args:
        models: Their names.
        strict: Whether requests with unknown fields are rejected.
    """
    return {
        "openapi": "3.1.0",
        "info": {"title": "charloom", "version": __version__},
        "servers": [{"url": "."}],  # relative to this document, whatever prefix a proxy adds
        "paths": _model_paths(models) | _server_paths(),
        "components": {
            "schemas": _schemas(models, strict),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _schemas(models: Sequence[str], strict: bool) -> dict[str, Any]:
    """Return the schemas of all bodies by their types' names; requests list the models' names."""
    _, found = msgspec.json.schema_components(
        (*REQUESTS, *REPLIES),
        schema_hook=schema.schema_of_custom,
        ref_template="#/components/schemas/{name}",
    )
    for request in REQUESTS:
        described = found[request.__name__]
        described["properties"]["model"] = {"enum": [*models, None]}
        for field in described["properties"].values():
            if schema.takes_number_text(field):
                field["anyOf"].append({"type": "string", "pattern": schema.NUMBER_TEXT})
    if len(models) > 1:
        completion = found[CompletionRequest.__name__]
        completion["properties"]["model"] = {"enum": list(models)}
        completion["required"] = ["model"]
    if strict:
        for name in (*(request.__name__ for request in REQUESTS), *NESTED):
            found[name]["additionalProperties"] = False
    return found


def _model_paths(models: Sequence[str]) -> dict[str, Any]:
    """Return the paths that use a model."""
    names = {"enum": list(models)}
    in_path = {"name": "id", "in": "path", "required": True, "schema": names}
    in_query = {"name": "model", "in": "query", "schema": names}
    example = {"model": models[0], "prompt": "", "max_tokens": 20, "logprobs": 2, "seed": 1}
    # An event's data is a CompletionResponse with new characters, or [DONE] at the end.
    event = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
    completion = _json(CompletionResponse) | {"text/event-stream": event}
    return {
        "/v1/completions": _post("Continue a prompt.", CompletionRequest, example, completion, 503),
        "/v1/models": _get("List the models.", _json(ModelList)),
        "/v1/models/{id}": _get("Describe a model.", _json(ModelInfo), 404, parameter=in_path),
        "/tokenize": _post(
            "Return a text's token ids.", TokenizeRequest, {"prompt": ""}, _json(TokenizeResponse)
        ),
        "/detokenize": _post(
            "Return the text of token ids.",
            DetokenizeRequest,
            {"tokens": [1]},
            _json(DetokenizeResponse),
        ),
        "/pattern": _post(
            "Check a regular expression.",
            PatternRequest,
            {"pattern": "[a-z]+"},
            _json(PatternResponse),
            503,
        ),
        "/tokenizer_info": _get(
            "Describe the tokenizer.", _json(TokenizerInfo), 404, parameter=in_query
        ),
    }


def _server_paths() -> dict[str, Any]:
    """Return the paths of the server itself and of the playground."""
    texts = {"type": "string"}
    file = {"name": "name", "in": "path", "required": True, "schema": {"enum": list(PLAYGROUND)}}
    files = dict.fromkeys(("text/html", "text/javascript", "text/css"), texts)
    return {
        "/health": _get("Check that the server is running.", _json(Health)),
        "/metrics": _get("Return metrics for Prometheus.", {"text/plain": texts}),
        "/openapi.json": _get("Return this document.", {JSON: {"type": "object"}}),
        "/": _get("Return the playground.", {"text/html": texts}, 404),
        "/static/{name}": _get("Return a file of the playground.", files, 404, parameter=file),
    }


def _json(kind: type) -> Media:
    return {JSON: {"$ref": f"#/components/schemas/{kind.__name__}"}}


def _get(
    summary: str, media: Media, *statuses: int, parameter: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    path: dict[str, Any] = {"get": {"summary": summary, "responses": _responses(media, statuses)}}
    return path if parameter is None else path | {"parameters": [parameter]}


def _post(
    summary: str, request: type, example: Mapping[str, Any], media: Media, *statuses: int
) -> dict[str, Any]:
    content = {JSON: {"schema": _json(request)[JSON], "example": example}}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": content},
            "responses": _responses(media, (400, 404, 413, 415, *statuses)),
        }
    }


def _responses(media: Media, statuses: Sequence[int]) -> dict[str, Any]:
    """Return the replies to a request: of status 200, and the errors of these statuses."""
    errors = (401, 403, 405, 408, 500, *statuses)
    found = {200: media} | dict.fromkeys(errors, _json(ErrorResponse))
    return {
        str(status): {
            "description": DESCRIPTIONS[status],
            "content": {kind: {"schema": schema} for kind, schema in content.items()},
        }
        for status, content in found.items()
    }
