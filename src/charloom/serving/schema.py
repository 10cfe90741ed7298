"""Types of the JSON requests and replies: what the server accepts, returns and documents.

Requests are converted to these types, and the OpenAPI document is generated from them. A field that
accepts null treats it as its default.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

MOST_PROMPT = 131_072  # characters of one prompt
MOST_SAMPLED = 32_768  # characters of one text
MOST_TEXTS_EACH = 16  # texts after one prompt
MOST_ALTERNATIVES = 5
MOST_STOPS, LONGEST_STOP = 64, 1_000
MOST_BIAS = 100
LONGEST_GUIDE = 10_000  # characters of a pattern, a JSON schema or a grammar
MOST_WORDS, LONGEST_WORD = 64, 1_000  # texts that must or must not occur
LARGEST_SEED = 2**63 - 1
DEFAULT_MAX_TOKENS = 16  # OpenAI's default
NUMBER_TEXT = r"^-?[0-9]{1,20}(\.[0-9]{1,20})?$"  # accepted where a number is expected

Schema = Mapping[str, Any]

# Requests

Text = Annotated[str, Meta(max_length=MOST_PROMPT)]
TokenId = Annotated[int, Meta(ge=1)]
TokenIds = Annotated[list[TokenId], Meta(min_length=1, max_length=MOST_PROMPT)]
StopText = Annotated[str, Meta(max_length=LONGEST_STOP)]
Length = Annotated[
    int, Meta(ge=-1, le=MOST_SAMPLED, description=f"-1 is the limit, {MOST_SAMPLED:,}.")
]
# JSON has only strings as keys.
BiasedId = Annotated[str, Meta(pattern="^[1-9][0-9]{0,9}$")]
Bias = Annotated[float, Meta(ge=-MOST_BIAS, le=MOST_BIAS)]
BiasedCharacter = Annotated[str, Meta(min_length=1, max_length=10)]
Word = Annotated[str, Meta(min_length=1, max_length=LONGEST_WORD)]
# For fields that the server does not support: the values without an effect.
Zero = Annotated[float, Meta(ge=0, le=0)]
One = Annotated[float, Meta(ge=1, le=1)]


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


PromptField = Annotated[
    Prompts | None, Meta(description="A text, its token ids, or a list of either.")
]
PROMPTS_IN_WORDS = (
    f"a string of at most {MOST_PROMPT:,} characters, its token ids, or a list of at least 1 of "
    "either"
)


class StreamOptions(Struct):
    """Options of a stream."""

    include_usage: bool | None = None


class JsonSchemaFormat(Struct):
    """A JSON schema that a completion meets."""

    schema: dict[str, Any]
    name: Annotated[str | None, Meta(description="Has no effect.")] = None
    strict: Annotated[bool | None, Meta(description="Has no effect: it is always met.")] = None


class ResponseFormat(Struct):
    """The form of a completion: any text, a JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class CompletionRequest(Struct, kw_only=True):
    """The body of `POST /v1/completions`."""

    model: str | None = None
    prompt: PromptField = None
    skip_unknown: Annotated[
        bool | None, Meta(description="Skip a prompt's characters that the model does not know.")
    ] = None
    max_tokens: Annotated[Length | None, Meta(description=f"Default: {DEFAULT_MAX_TOKENS}.")] = None
    max_completion_tokens: Annotated[Length | None, Meta(description="Same as max_tokens.")] = None
    n_predict: Annotated[Length | None, Meta(description="Same as max_tokens.")] = None
    temperature: Annotated[float, Meta(ge=0)] | None = 1.0
    top_p: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None, Meta(description="0 is a temperature of 0.")
    ] = None
    top_k: Annotated[Annotated[int, Meta(ge=-1)] | None, Meta(description="0 and -1 are off.")] = (
        None
    )
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_TEXTS_EACH)] | None = 1
    stop: StopText | Annotated[list[StopText], Meta(max_length=MOST_STOPS)] | None = None
    seed: Annotated[
        Annotated[int, Meta(ge=-1, le=LARGEST_SEED)] | None,
        Meta(description="Choice i is sample i of `charloom sample` with this seed. -1 is random."),
    ] = None
    logprobs: Annotated[
        Annotated[int, Meta(ge=0, le=MOST_ALTERNATIVES)] | bool | None,
        Meta(description="false is off, and true is 0: no alternatives."),
    ] = None
    logit_bias: Annotated[
        dict[BiasedId, Bias] | None,
        Meta(description="Additions to the logits of token ids. -100 excludes a token."),
    ] = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: Annotated[bool | None, Meta(description="Exclude the end of a document.")] = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str | None, Meta(description="Has no effect.")] = None
    cache_prompt: Annotated[bool | None, Meta(description="Has no effect.")] = None
    response_format: ResponseFormat | None = None
    guided_regex: Annotated[
        Annotated[str, Meta(max_length=LONGEST_GUIDE)] | None,
        Meta(description="A regular expression of Python that the whole completion matches."),
    ] = None
    guided_json: Annotated[
        dict[str, Any] | Annotated[str, Meta(max_length=LONGEST_GUIDE)] | None,
        Meta(description="A JSON schema that the whole completion meets."),
    ] = None
    guided_grammar: Annotated[
        Annotated[str, Meta(max_length=LONGEST_GUIDE)] | None,
        Meta(description="A grammar of Lark or GBNF that the whole completion follows."),
    ] = None
    suffix: Annotated[
        Text | None, Meta(description="The text after the completion, which fits before it.")
    ] = None
    # Extensions of charloom, which no other server has.
    forbid: Annotated[
        Word | Annotated[list[Word], Meta(max_length=MOST_WORDS)] | None,
        Meta(description="Texts that do not occur, or classes of characters such as [0-9]."),
    ] = None
    require: Annotated[
        Word | Annotated[list[Word], Meta(max_length=MOST_WORDS)] | None,
        Meta(description="Texts that occur in the completion."),
    ] = None
    alphabet: Annotated[
        Word | None, Meta(description="The class of the characters that can come, like [a-z ].")
    ] = None
    bias: Annotated[
        dict[BiasedCharacter, Bias] | None,
        Meta(description="Additions to the logits of characters. -100 excludes a character."),
    ] = None
    conditioned_logprobs: Annotated[
        bool | None,
        Meta(description="Return the log-probabilities under constraints and bias too."),
    ] = None
    # The server does not support these fields. It accepts them only if they have no effect.
    best_of: Annotated[
        Annotated[int, Meta(ge=1, le=MOST_TEXTS_EACH)] | None, Meta(description="1, or n.")
    ] = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    repetition_penalty: One | None = None
    repeat_penalty: One | None = None
    typical_p: One | None = None


# The fields that the server does not support, with the values that have no effect.
UNSUPPORTED = {
    "best_of": "n",
    "presence_penalty": "0",
    "frequency_penalty": "0",
    "repetition_penalty": "1",
    "repeat_penalty": "1",
    "typical_p": "1",
}


class TokenizeRequest(Struct, kw_only=True):
    """The body of `POST /tokenize`."""

    model: str | None = None
    prompt: Text
    add_special_tokens: Annotated[
        bool | None, Meta(description="Put the id of the token that precedes any text first.")
    ] = True


class PatternRequest(Struct, kw_only=True):
    """The body of `POST /pattern`."""

    model: str | None = None
    pattern: Annotated[str, Meta(max_length=LONGEST_GUIDE)]


class DetokenizeRequest(Struct, kw_only=True):
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


def alternatives(schema: Schema) -> Iterator[Schema]:
    """Yield the alternatives of a JSON schema, those of its alternatives included, without null."""
    for choice in schema.get("anyOf", [schema]):
        if "anyOf" in choice:
            yield from alternatives(choice)
        elif choice.get("type") != "null":
            yield choice


def takes_number_text(schema: Schema) -> bool:
    """Return whether a field accepts a number, and so also a text that is one."""
    kinds = {choice.get("type") for choice in alternatives(schema)}
    return bool(kinds & {"integer", "number"}) and "string" not in kinds and "array" not in kinds


# Replies


class LogProbabilities(Struct):
    """Log-probabilities of a text, one entry a token: a character or `<end>`."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    conditioned_logprobs: list[float | None] | UnsetType = UNSET


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


class PatternResponse(Struct):
    """The reply to `POST /pattern`.

    `shortest` is the smallest number of characters of a valid pattern's texts, `message` describes
    the error of an invalid one.
    """

    valid: bool
    shortest: int | UnsetType = UNSET
    message: str | UnsetType = UNSET


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
