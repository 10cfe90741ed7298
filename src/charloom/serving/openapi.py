"""The OpenAPI document of the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from charloom.serving.schema import DETOKENIZE, REQUEST, TOKENIZE
from charloom.version import __version__

JSON = "application/json"
PLAYGROUND = ("playground.html", "playground.js", "playground.css", "page.js", "page.css")
REASONS = {
    400: "Something in the request is wrong; `param` names it.",
    401: "The server wants a key, and got another or none.",
    403: "The host is not this server's, or a page of another origin asks.",
    404: "There is no such model or path.",
    405: "The path knows no such method.",
    408: "The request took too long to arrive.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    500: "The server failed.",
    503: "As many requests wait as may wait: see Retry-After.",
}


def describe_api(models: Sequence[str]) -> dict[str, Any]:
    """The OpenAPI document of all that a server with these models answers."""
    error = {"$ref": "#/components/schemas/Error"}
    texts: dict[str, Any] = {"type": "string"}
    whole: dict[str, Any] = {"type": "integer"}

    def replies(*statuses: int, media: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"200": {"description": "As asked.", "content": media}}
        for status in (401, 403, 405, 408, 500, *statuses):
            content = {"application/json": {"schema": error}}
            found[str(status)] = {"description": REASONS[status], "content": content}
        return found

    def get(text: str, schema: Any, *statuses: int, media: Sequence[str] = (JSON,)) -> Any:
        return {
            "get": {
                "summary": text,
                "responses": replies(*statuses, media={kind: {"schema": schema} for kind in media}),
            }
        }

    def post(
        text: str,
        asked: Mapping[str, Any],
        example: Mapping[str, Any],
        media: Mapping[str, Any],
        *statuses: int,
    ) -> Any:
        names = list(models) if "model" in asked["required"] else [*models, None]
        properties = {**asked["properties"], "model": {"enum": names}}
        schema = {**asked, "properties": properties}
        body = {"application/json": {"schema": schema, "example": example}}
        return {
            "post": {
                "summary": text,
                "requestBody": {"required": True, "content": body},
                "responses": replies(400, 404, 413, 415, *statuses, media=media),
            }
        }

    def thing(**properties: Any) -> dict[str, Any]:
        return {"type": "object", "properties": properties, "required": list(properties)}

    def listed(items: Any) -> dict[str, Any]:
        return {"type": "array", "items": items}

    def json_of(schema: Any) -> dict[str, Any]:
        return {"application/json": {"schema": schema}}

    logprobs = thing(
        tokens=listed(texts),
        token_logprobs=listed({"type": ["number", "null"]}),
        top_logprobs=listed(
            {"type": ["object", "null"], "additionalProperties": {"type": "number"}}
        ),
        text_offset=listed(whole),
    )
    choice = thing(
        index=whole,
        text=texts,
        logprobs={"anyOf": [logprobs, {"type": "null"}]},
        finish_reason={"enum": ["stop", "length", None]},
    )
    usage = thing(
        prompt_tokens=whole,
        completion_tokens=whole,
        total_tokens=whole,
        prompt_tokens_details=thing(cached_tokens=whole),
    )
    completion = thing(
        id=texts,
        object={"const": "text_completion"},
        created=whole,
        model=texts,
        choices=listed(choice),
    )
    completion["properties"]["usage"] = {"anyOf": [usage, {"type": "null"}]}
    model = thing(id=texts, object={"const": "model"}, created=whole, owned_by=texts)
    in_path = {"name": "id", "in": "path", "required": True, "schema": {"enum": list(models)}}
    in_query = {"name": "model", "in": "query", "schema": {"enum": list(models)}}
    file = {"name": "name", "in": "path", "required": True, "schema": {"enum": list(PLAYGROUND)}}
    paths = {
        "/v1/completions": post(
            "Texts that go on from a prompt.",
            REQUEST,
            {"model": models[0], "prompt": "", "max_tokens": 20, "logprobs": 2, "seed": 1},
            # Of one event; its data is a completion with what is new in it, and at last [DONE].
            {**json_of(completion), "text/event-stream": {"schema": thing(data=texts)}},
            503,
        ),
        "/v1/models": get("The models.", thing(object={"const": "list"}, data=listed(model))),
        "/v1/models/{id}": get("A model.", model, 404) | {"parameters": [in_path]},
        "/tokenize": post(
            "A text's ids.",
            TOKENIZE,
            {"prompt": ""},
            json_of(thing(tokens=listed(whole), count=whole)),
        ),
        "/detokenize": post(
            "The text of ids.", DETOKENIZE, {"tokens": [1]}, json_of(thing(prompt=texts))
        ),
        "/tokenizer_info": get(
            "What ids stand for.",
            thing(
                tokenizer_class=texts,
                vocab_size=whole,
                bos_token=texts,
                eos_token=texts,
                pad_token=texts,
            ),
            404,
        )
        | {"parameters": [in_query]},
        "/health": get("Whether it answers.", thing(status=texts, version=texts)),
        "/metrics": get("Figures for Prometheus.", texts, media=["text/plain"]),
        "/openapi.json": get("This document.", {"type": "object"}),
        "/": get("The playground.", texts, 404, media=["text/html"]),
        "/static/{name}": get(
            "The playground's files.",
            texts,
            404,
            media=["text/html", "text/javascript", "text/css"],
        )
        | {"parameters": [file]},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "charloom", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {
                "Error": thing(
                    error=thing(
                        message=texts,
                        type=texts,
                        param={"type": ["string", "null"]},
                        code={"type": ["string", "null"]},
                    )
                )
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }
