"""API errors and JSON bodies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from charloom.errors import shortened


class ApiError(Exception):
    """A reply that is an error: its HTTP status, and what OpenAI's error bodies hold."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": str(self),
                "type": kinds.get(self.status, kind),
                "param": self.param,
                "code": self.code,
            }
        }


def read_json(body: bytes) -> Any:
    """A body's JSON. Raises ApiError for what is not JSON."""

    def refuse(name: str) -> None:
        raise ValueError(f"JSON has no {name}")

    try:
        return json.loads(body.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {shortened(str(error), 200)}") from None


def write_json(value: Any) -> bytes:
    """JSON as it is sent: in ASCII, so that half of a surrogate pair, which a client may send, can
    be quoted back."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")
