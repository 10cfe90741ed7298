"""OpenAI's completions interface: from JSON to requests, from answers to JSON. No HTTP.

What may be asked stands in `REQUEST`, a JSON schema, by which a request is checked and which the
server shows. A token is a character. Its id in JSON is the model's id + 1, for some clients take 0
for no token at all. A prompt of text is read after a newline, as everywhere else; a list of ids is
read as it is, so that whoever wants the newline puts its id first.

N: characters of a prompt.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.decoding import SamplingSettings
from charloom.errors import shortened
from charloom.serving import Answer, Piece, Request, Scored
from charloom.vocabulary import Vocabulary, describe

MOST_PROMPT = 131_072  # characters of one prompt
MOST_DRAWN = 32_768  # characters of one text
MOST_SCORED = 131_072  # characters of one reply that carry log-probabilities
MOST_TEXTS_EACH = 16  # texts after one prompt
MOST_ALTERNATIVES = 5
MOST_STOPS, LONGEST_STOP = 4, 1_000
LARGEST_SEED = 2**63 - 1
SHORTEST_TEXT = 16  # characters, where max_tokens is not given: OpenAI's default
NO_PROBABILITY = -9999.0  # JSON has no infinity; OpenAI's own replies say this

Schema = Mapping[str, Any]


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


# What may be asked.


def _optional(schema: Schema) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _whole(low: int, high: int, **more: Any) -> dict[str, Any]:
    return _optional({"type": "integer", "minimum": low, "maximum": high}) | more


_TRUTH = _optional({"type": "boolean"})
_TEXT = {"type": "string", "maxLength": MOST_PROMPT}
_ID = {"type": "integer", "minimum": 1}
IDS = {"type": "array", "items": _ID, "minItems": 1, "maxItems": MOST_PROMPT}
_STOP = {"type": "string", "minLength": 1, "maxLength": LONGEST_STOP}

REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["model"],
    "additionalProperties": False,
    "properties": {
        "model": {"type": "string"},
        "prompt": {
            "description": "What the texts go on from: text, ids, or a list of either.",
            "anyOf": [
                _TEXT,
                {"type": "array", "items": _TEXT, "minItems": 1},
                IDS,
                {"type": "array", "items": IDS, "minItems": 1},
                {"type": "null"},
            ],
        },
        "max_tokens": _whole(0, MOST_DRAWN, default=SHORTEST_TEXT),
        "temperature": _optional({"type": "number", "minimum": 0, "maximum": 2}) | {"default": 1},
        "top_p": _optional({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
        "top_k": _optional({"type": "integer", "minimum": 1}),
        "min_p": _optional({"type": "number", "minimum": 0, "maximum": 1}),
        "n": _whole(1, MOST_TEXTS_EACH, default=1),
        "stop": {
            "anyOf": [
                _STOP,
                {"type": "array", "items": _STOP, "maxItems": MOST_STOPS},
                {"type": "null"},
            ]
        },
        "seed": _whole(
            0,
            LARGEST_SEED,
            description="Choice i is what charloom sample draws as sample i of this seed.",
        ),
        "logprobs": _whole(0, MOST_ALTERNATIVES),
        "echo": _TRUTH,
        "stream": _TRUTH,
        "stream_options": _optional(
            {
                "type": "object",
                "properties": {"include_usage": _TRUTH},
                "additionalProperties": False,
            }
        ),
        "user": _optional({"type": "string"}) | {"description": "Changes nothing."},
        # What is not done is refused, except where it asks for nothing.
        "suffix": {"enum": [None, ""]},
        "best_of": {"enum": [None, 1]},
        "presence_penalty": {"enum": [None, 0]},
        "frequency_penalty": {"enum": [None, 0]},
        "logit_bias": {"enum": [None, {}]},
    },
}
TOKENIZE: dict[str, Any] = {
    "type": "object",
    "required": ["prompt"],
    "additionalProperties": False,
    "properties": {
        "model": _optional({"type": "string"}),
        "prompt": _TEXT,
        "add_special_tokens": _TRUTH
        | {"description": "Whether the newline that stands before a text comes first."},
    },
}
DETOKENIZE: dict[str, Any] = {
    "type": "object",
    "required": ["tokens"],
    "additionalProperties": False,
    "properties": {
        "model": _optional({"type": "string"}),
        "tokens": {"type": "array", "items": _ID, "maxItems": MOST_PROMPT},
    },
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


def check(body: Any, schema: Schema) -> dict[str, Any]:
    """A body that is an object as the schema has it. Raises ApiError, which names the field."""
    if not isinstance(body, dict):
        raise ApiError(400, f"the body is {shortened(body)}: give a JSON object")
    properties: Mapping[str, Schema] = schema["properties"]
    for name, value in body.items():
        if name not in properties:
            raise ApiError(
                400,
                f"there is no field {shortened(name)} here: give only {', '.join(properties)}",
                param=shortened(name),
                code="unknown_parameter",
            )
        if not _fits(value, properties[name]):
            if "enum" in properties[name]:
                raise ApiError(
                    400,
                    f"{name} is not supported: leave it out",
                    param=name,
                    code="unsupported_parameter",
                )
            raise ApiError(
                400,
                f"{name} is {shortened(value)}: give {_words(properties[name])}",
                param=name,
                code="invalid_value",
            )
    for name in schema["required"]:
        if name not in body:
            words = _words(properties[name])
            raise ApiError(400, f"{name} is missing: give {words}", param=name)
    return body


def _fits(value: Any, schema: Any) -> bool:
    """Whether a value is as a schema says, of the words that are used here."""
    if "anyOf" in schema:
        return any(_fits(value, choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return not isinstance(value, bool) and value in schema["enum"]
    kind = schema["type"]
    if kind == "null" or value is None:
        return kind == "null" and value is None
    if kind == "boolean" or isinstance(value, bool):
        return kind == "boolean" and isinstance(value, bool)
    if kind in ("integer", "number"):
        if not isinstance(value, int | float) or (kind == "integer" and value != value // 1):
            return False
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        return bool(low <= value <= high and value > schema.get("exclusiveMinimum", -math.inf))
    if kind == "string":
        return isinstance(value, str) and _has_length(value, schema, "Length")
    if kind == "array":
        fits = isinstance(value, list) and _has_length(value, schema, "Items")
        return fits and all(_fits(item, schema["items"]) for item in value)
    known = schema["properties"]
    return isinstance(value, dict) and all(
        name in known and _fits(item, known[name]) for name, item in value.items()
    )


def _has_length(value: Sized, schema: Any, what: str) -> bool:
    low, high = schema.get(f"min{what}", 0), schema.get(f"max{what}", math.inf)
    return bool(low <= len(value) <= high)


def _words(schema: Any) -> str:
    """What a schema asks for, in words."""
    if "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if choice["type"] != "null"]
        return ", or ".join(_words(choice) for choice in choices)
    kind = schema["type"]
    if kind in ("integer", "number"):
        words = "a whole number" if kind == "integer" else "a number"
        if "exclusiveMinimum" in schema:
            return f"{words} above {schema['exclusiveMinimum']} and at most {schema['maximum']}"
        if "maximum" in schema:
            return f"{words} from {schema['minimum']} to {schema['maximum']}"
        return f"{words} of {schema['minimum']} or more"
    if kind == "array":
        few, most = schema.get("minItems", 0), schema.get("maxItems", "more")
        return f"a list ({few} to {most}) of which each is {_words(schema['items'])}"
    if kind == "object":
        return f"an object with nothing but {', '.join(schema['properties'])}"
    if kind == "string":
        limits = [
            f"{word} {schema[key]}"
            for word, key in (("at least", "minLength"), ("at most", "maxLength"))
            if key in schema
        ]
        return "text" + (f" of {' and '.join(limits)} characters" if limits else "")
    return "true or false"


# From JSON to requests.


@dataclass(frozen=True)
class Completion:
    """A checked request for completions: what the model is asked, and how the reply is made up.

    prompts: as the client counts them, ids (N,); before a text the model reads a newline more.
    """

    model: str
    requests: tuple[Request, ...]
    prompts: tuple[NDArray[np.unsignedinteger], ...]
    texts_each: int
    echo: bool
    stream: bool
    include_usage: bool


def parse_completion(body: Any, vocabulary: Vocabulary, most_texts: int) -> Completion:
    """What a body that was `check`ed asks of a model with that vocabulary, which draws at most so
    many texts at a time. Raises ApiError."""
    given = {name: value for name, value in body.items() if value is not None}
    count, length = int(given.get("n", 1)), int(given.get("max_tokens", SHORTEST_TEXT))
    alternatives = given.get("logprobs")
    echo, stream = given.get("echo", False), given.get("stream", False)
    if "stream_options" in given and not stream:
        raise ApiError(400, "stream_options needs stream: give both", param="stream_options")
    prompt = given.get("prompt", "")
    is_one = isinstance(prompt, str) or not isinstance(prompt[0], str | list)
    read, prompts = [], []
    for one in [prompt] if is_one else prompt:
        own = encode(one, vocabulary) if isinstance(one, str) else from_tokens(one, vocabulary)
        prompts.append(own)
        read.append(with_start(own, vocabulary) if isinstance(one, str) else own)
    texts = count * len(prompts)
    if texts > most_texts:
        raise ApiError(
            400,
            f"{texts} texts are asked for: at most {most_texts} are drawn at a time",
            param="prompt" if len(prompts) > 1 else "n",
        )
    scored = texts * length + (count * sum(len(p) for p in prompts) if echo else 0)
    if alternatives is not None and scored > MOST_SCORED:
        raise ApiError(
            400,
            f"logprobs are asked for {scored:,} characters: at most {MOST_SCORED:,} in a request",
            param="logprobs",
        )
    top_k = given.get("top_k")
    settings = SamplingSettings(
        float(given.get("temperature", 1)),
        None if top_k is None else int(top_k),
        given.get("top_p"),
        given.get("min_p"),
    )
    stop = given.get("stop", [])
    seed = int(given["seed"]) if "seed" in given else secrets.randbelow(2**31)
    requests = [
        Request(
            ids,
            length,
            settings,
            (stop,) if isinstance(stop, str) else tuple(stop),
            seed,
            range(number * count, (number + 1) * count),
            None if alternatives is None else int(alternatives),
            scores_prompt=echo and alternatives is not None,
            streams=stream,
        )
        for number, ids in enumerate(read)
    ]
    usage = bool((given.get("stream_options") or {}).get("include_usage"))
    return Completion(given["model"], tuple(requests), tuple(prompts), count, echo, stream, usage)


def encode(text: str, vocabulary: Vocabulary) -> NDArray[np.unsignedinteger]:
    """A text's ids, (N,). Raises ApiError for a character that the model never saw."""
    ids = vocabulary.ids_or_minus_one(text)
    if len(ids) and ids.min() < 0:
        place = int(np.argmax(ids < 0))
        raise ApiError(
            400,
            f"the model never saw the character {describe(text[place])} at position {place}",
            param="prompt",
            code="unknown_character",
        )
    return ids.astype(vocabulary.id_type)


def with_start(
    ids: NDArray[np.unsignedinteger], vocabulary: Vocabulary
) -> NDArray[np.unsignedinteger]:
    """The newline that stands before any text, and then the text's ids."""
    return np.concatenate([[vocabulary.start_id], ids]).astype(vocabulary.id_type)


def to_tokens(ids: NDArray[np.unsignedinteger]) -> list[int]:
    return [int(id_) + 1 for id_ in ids]


def from_tokens(
    tokens: Sequence[int], vocabulary: Vocabulary, param: str = "prompt"
) -> NDArray[np.unsignedinteger]:
    """The model's ids, (N,). Raises ApiError for a token that is none."""
    for place, token in enumerate(tokens):
        if token > len(vocabulary):
            raise ApiError(
                400,
                f"there is no token {shortened(token)} (at position {place}): the model has "
                f"tokens from 1 to {len(vocabulary)}",
                param=param,
            )
    return np.array([int(token) - 1 for token in tokens], dtype=vocabulary.id_type)


# From answers to JSON.


class Reply:
    """The reply to a request for completions, as its answers come in."""

    def __init__(
        self,
        completion: Completion,
        answers: Sequence[Answer],
        vocabulary: Vocabulary,
        created: int,
    ) -> None:
        self._completion, self._answers, self._vocabulary = completion, answers, vocabulary
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": created,
            "model": completion.model,
        }
        self._lengths: dict[int, int] = {}  # of each choice's text so far
        self._left = completion.texts_each * len(answers)

    @property
    def complete(self) -> bool:
        return self._left == 0

    def take(self) -> list[dict[str, Any]]:
        """The choices that have something new, with what is new of them. Raises ApiError where
        the model failed."""
        choices = []
        for place, answer in enumerate(self._answers):
            try:
                pieces = answer.take()
            except Exception:
                raise ApiError(500, "the model failed at this request") from None
            choices += [self._choice(place, answer, piece) for piece in pieces]
        return choices

    def _choice(self, place: int, answer: Answer, piece: Piece) -> dict[str, Any]:
        index = place * self._completion.texts_each + piece.number
        text, scored = piece.text, list[Scored | None](piece.scored)
        begin = self._lengths.get(index)
        if begin is None:
            begin = 0
            if self._completion.echo:
                prompt = self._completion.prompts[place]
                text = self._vocabulary.decode(prompt) + text
                if answer.request.scores_prompt:
                    # Nothing stands before the first of a list of ids.
                    first = len(prompt) - len(answer.prompt_scores)
                    scored = [*[None] * first, *answer.prompt_scores, *scored]
        self._lengths[index] = begin + len(text)
        if piece.end is not None:
            self._left -= 1
        logprobs = None
        if answer.request.alternatives is not None:
            logprobs = self._logprobs(text, scored, begin)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": piece.end}

    def _logprobs(self, text: str, scored: Sequence[Scored | None], begin: int) -> dict[str, Any]:
        characters = self._vocabulary.characters
        top = [
            None
            if one is None
            else {characters[id_]: _finite(log_p) for id_, log_p in one.likeliest}
            | {characters[one.id]: _finite(one.log_probability)}
            for one in scored
        ]
        return {
            "tokens": list(text),
            "token_logprobs": [
                None if one is None else _finite(one.log_probability) for one in scored
            ],
            "top_logprobs": top,
            "text_offset": list(range(begin, begin + len(text))),
        }

    def usage(self) -> dict[str, Any]:
        prompt = sum(len(ids) for ids in self._completion.prompts)
        drawn = sum(answer.drawn for answer in self._answers)
        cached = 0
        for answer, ids in zip(self._answers, self._completion.prompts, strict=True):
            before = len(answer.request.prompt) - len(ids)  # the newline before a text
            cached += max(answer.cached - before, 0)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": drawn,
            "total_tokens": prompt + drawn,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def whole(self) -> dict[str, Any]:
        """All of it, when the answers have ended."""
        choices = sorted(self.take(), key=lambda choice: int(choice["index"]))
        return self._head | {"choices": choices, "usage": self.usage()}

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """One line of a stream."""
        usage = {"usage": None} if self._completion.include_usage else {}
        return self._head | {"choices": choices} | usage

    def last_chunk(self) -> dict[str, Any] | None:
        """What a stream ends with: the usage, where it was asked for."""
        if not self._completion.include_usage:
            return None
        return self._head | {"choices": [], "usage": self.usage()}


def _finite(log_p: float) -> float:
    return log_p if math.isfinite(log_p) else NO_PROBABILITY
