"""Remedies for paths of other servers' APIs, and for slips in the paths of this one."""

from __future__ import annotations

from collections.abc import Iterable

NO_CHAT = "these models continue a text and do not chat, so send a prompt to /v1/completions"
COMPLETE = "send a prompt to /v1/completions, in the form of OpenAI's API"
NO_VECTORS = "these models return no vectors, only completions at /v1/completions"

# The last part of a path: what its client should do instead.
REMEDIES = {
    "/chat/completions": NO_CHAT,
    "/responses": NO_CHAT,
    "/messages": NO_CHAT,
    "/threads": NO_CHAT,
    "/assistants": NO_CHAT,
    "/api/chat": NO_CHAT,
    "/embeddings": NO_VECTORS,
    "/embedding": NO_VECTORS,
    "/api/embed": NO_VECTORS,
    "/api/embeddings": NO_VECTORS,
    "/rerank": NO_VECTORS,
    "/completion": COMPLETE,
    "/infill": COMPLETE,
    "/generate": COMPLETE,
    "/generate_stream": COMPLETE,
    "/api/v1/generate": COMPLETE,
    "/complete": COMPLETE,
    "/v1/edits": COMPLETE,
    "/api/generate": COMPLETE,
    "/api/tags": "the list of models is at /v1/models",
    "/docs": "the API's description is at /openapi.json",
    "/redoc": "the API's description is at /openapi.json",
}


def remedy_for(path: str, paths: Iterable[str]) -> str | None:
    """Return what a client that requested an unknown path should do, None if nothing is known.

    Args:
        path: The path.
        paths: The server's own paths.
    """
    path = "/" + path.strip("/")
    for end, remedy in REMEDIES.items():
        if path.endswith(end):
            return remedy
    for own in paths:
        if own != "/" and path != "/" and (own.endswith(path) or path.endswith(own)):
            return f"use {own}"
    if path.startswith("/v1/engines/"):
        return COMPLETE
    return None
