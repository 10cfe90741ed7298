"""Types of the JSON requests and replies: what the server accepts, returns and documents.

Requests are converted to these types, and the OpenAPI document is generated from them. A field that
accepts null treats it as its default.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

MOST_PROMPT = 131_072  # characters of one prompt
MOST_SAMPLED = 32_768  # characters of one text
MOST_TEXTS_EACH = 16  # texts after one prompt
MOST_ALTERNATIVES = 5
MOST_STOPS, LONGEST_STOP = 4, 1_000
LARGEST_SEED = 2**63 - 1
DEFAULT_MAX_TOKENS = 16  # OpenAI's default

# Requests

Text = Annotated[str, Meta(max_length=MOST_PROMPT)]
TokenId = Annotated[int, Meta(ge=1)]
TokenIds = Annotated[list[TokenId], Meta(min_length=1, max_length=MOST_PROMPT)]
StopText = Annotated[str, Meta(min_length=1, max_length=LONGEST_STOP)]


class Prompts:
    """The prompts of a completion request: texts, or lists of token ids.

    msgspec has no union of several kinds of lists, so `convert_custom` tries them one by one.
    """

    KINDS: tuple[Any, ...] = (
        Text,
        Annotated[list[Text], Meta(min_length=1)],
        TokenIds,
        Annotated[list[TokenIds], Meta(min_length=1)],
    )

    def __init__(self, values: Sequence[str] | Sequence[list[int]]) -> None:
        self.values = values


class StreamOptions(Struct, forbid_unknown_fields=True):
    """Options of a stream."""

    include_usage: bool | None = None


class CompletionRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/completions`."""

    model: str
    prompt: Annotated[
        Prompts | None, Meta(description="A text, its token ids, or a list of either.")
    ] = None
    max_tokens: Annotated[int, Meta(ge=0, le=MOST_SAMPLED)] | None = DEFAULT_MAX_TOKENS
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = 1.0
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_TEXTS_EACH)] | None = 1
    stop: StopText | Annotated[list[StopText], Meta(max_length=MOST_STOPS)] | None = None
    seed: Annotated[
        Annotated[int, Meta(ge=0, le=LARGEST_SEED)] | None,
        Meta(description="Choice i is sample i of `charloom sample` with this seed."),
    ] = None
    logprobs: Annotated[int, Meta(ge=0, le=MOST_ALTERNATIVES)] | None = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str | None, Meta(description="Has no effect.")] = None
    # The server does not support these fields. It accepts them only if they have no effect.
    suffix: Annotated[str, Meta(max_length=0)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Meta(max_length=0)] | None = None


UNSUPPORTED = frozenset(
    ("suffix", "best_of", "presence_penalty", "frequency_penalty", "logit_bias")
)


class TokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /tokenize`."""

    model: str | None = None
    prompt: Text
    add_special_tokens: Annotated[
        bool | None, Meta(description="Put the id of the token that precedes any text first.")
    ] = True


class DetokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /detokenize`."""

    model: str | None = None
    tokens: Annotated[list[TokenId], Meta(max_length=MOST_PROMPT)]


def convert_custom(kind: type, value: Any) -> Prompts:
    """Convert a value to `Prompts`, the only type that msgspec cannot convert."""
    if kind is not Prompts:
        raise NotImplementedError  # msgspec's convention for a type that a hook does not know
    for choice in Prompts.KINDS:
        with contextlib.suppress(msgspec.ValidationError):
            found = msgspec.convert(value, choice)
            single = isinstance(found, str) or isinstance(found[0], int)
            return Prompts([found] if single else found)
    raise ValueError("expected a text, token ids, or a list of either")


def schema_of_custom(kind: type) -> dict[str, Any]:
    """Return the JSON schema of `Prompts`."""
    if kind is not Prompts:
        raise NotImplementedError  # msgspec's convention for a type that a hook does not know
    return {"anyOf": [msgspec.json.schema(choice) for choice in Prompts.KINDS]}


# Replies


class LogProbabilities(Struct):
    """Log-probabilities of a text, one entry a token: a character or `<end>`."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Choice(Struct):
    """A sampled text, or the new characters of one.

    `finish_reason` is stop at the end of a document and at a stop text.
    """

    index: int
    text: str
    logprobs: LogProbabilities | None
    finish_reason: Literal["stop", "length"] | None


class PromptDetails(Struct):
    """The number of prompt characters whose state was cached."""

    cached_tokens: int


class Usage(Struct):
    """The number of characters that a request read and sampled."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class CompletionResponse(Struct):
    """The reply to `POST /v1/completions`, or one event of its stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | UnsetType | None = UNSET


class ModelInfo(Struct):
    """A model that the server has."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Struct):
    """The reply to `GET /v1/models`."""

    object: Literal["list"]
    data: list[ModelInfo]


class TokenizeResponse(Struct):
    """The reply to `POST /tokenize`."""

    tokens: list[int]
    count: int


class DetokenizeResponse(Struct):
    """The reply to `POST /detokenize`."""

    prompt: str


class TokenizerInfo(Struct):
    """The reply to `GET /tokenizer_info`."""

    tokenizer_class: str
    vocab_size: int
    bos_token: str
    eos_token: str
    pad_token: str
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    unk_token: str | None
    unk_token_id: int | None


class Health(Struct):
    """The reply to `GET /health`."""

    status: str
    version: str


class ErrorDetail(Struct):
    """An error: `param` names the field of the request."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(Struct):
    """The body of every error."""

    error: ErrorDetail
