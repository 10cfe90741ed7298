"""OpenAI's completions interface: from JSON to requests, from answers to JSON. No HTTP.

What may be asked stands in `REQUEST`, a JSON schema, by which a request is checked and which the
server shows. A token is a character. Its id in JSON is the model's id + 1, for some clients take 0
for no token at all. A prompt of text is read after a newline, as everywhere else; a list of ids is
read as it is, so that whoever wants the newline puts its id first.

N: characters of a prompt.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.engines.decoding import SamplingSettings
from charloom.errors import shortened
from charloom.serving.errors import ApiError
from charloom.serving.requests import Answer, Piece, Request, Scored
from charloom.serving.schema import SHORTEST_TEXT
from charloom.text.vocabulary import Vocabulary, describe

MOST_SCORED = 131_072  # characters of one reply that carry log-probabilities
NO_PROBABILITY = -9999.0  # JSON has no infinity; OpenAI's own replies say this


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
