"""API errors, and the JSON of bodies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from charloom.errors import shortened
from charloom.serving.schema import ErrorDetail, ErrorResponse

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


class ApiError(Exception):
    """An error reply.

    Args:
        status: The HTTP status.
        message: The problem and a remedy.
        param: The field of the request that is at fault.
        code: OpenAI's code for this kind of error.
        headers: Further headers of the reply.
    """

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

    def body(self) -> ErrorResponse:
        """Return the reply's body."""
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = _TYPES.get(self.status, default)
        return ErrorResponse(ErrorDetail(str(self), kind, self.param, self.code))


def read_json(body: bytes) -> Any:
    """Return the JSON value of a body, in which a number without a fraction is an integer.

    Python's reader is used instead of msgspec's, which rejects half of a surrogate pair without
    naming its field. It would also take 1.0 for a float, although it equals 1 in JSON.

    Raises:
        ApiError: The body is not JSON.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    def number(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            raise ValueError(f"{shortened(digits)} is too large")
        return integer_if_whole(value)

    try:
        return json.loads(body.decode("utf-8"), parse_constant=refuse, parse_float=number)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not valid JSON: {shortened(str(error), 200)}") from None


def integer_if_whole(value: float) -> int | float:
    """Return a number as an integer if it has no fraction."""
    return int(value) if value.is_integer() else value


def write_json(value: Any) -> bytes:
    """Return the JSON of a value or struct, in ASCII.

    ASCII, because a request can contain half of a surrogate pair, which UTF-8 cannot quote back.
    """
    plain = msgspec.to_builtins(value)
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode("ascii")
