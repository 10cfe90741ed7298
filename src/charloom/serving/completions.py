"""OpenAI's completions interface: from JSON to requests, from answers to JSON. No HTTP.

A token is a character. Its id in JSON is the model's id + 1, because some clients take 0 for a
missing token. A prompt of text is read after a newline, like every text in charloom. A list of ids
is read unchanged, so a client that needs the newline puts its id first.

N: characters of a prompt.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charloom.engines.decoding import SamplingSettings
from charloom.errors import shortened
from charloom.serving.errors import ApiError
from charloom.serving.requests import Answer, Piece, Request, Scored
from charloom.serving.schema import (
    DEFAULT_MAX_TOKENS,
    Choice,
    CompletionRequest,
    CompletionResponse,
    LogProbabilities,
    PromptDetails,
    Usage,
)
from charloom.text.vocabulary import Vocabulary, describe

MOST_SCORED = 131_072  # characters of one reply that carry log-probabilities
NO_PROBABILITY = -9999.0  # JSON has no infinity; OpenAI's replies use this number

# From JSON to requests


@dataclass(frozen=True)
class Completion:
    """A checked request for completions: the batcher's requests, and the form of the reply.

    prompts: ids (N,) as the client counts them; before a text the model reads a newline too.
    """

    model: str
    requests: tuple[Request, ...]
    prompts: tuple[NDArray[np.unsignedinteger], ...]
    texts_each: int
    echo: bool
    stream: bool
    include_usage: bool


def parse_completion(
    body: CompletionRequest, vocabulary: Vocabulary, most_texts: int
) -> Completion:
    """Convert a request's body to requests for a batcher.

    Args:
        body: The body.
        vocabulary: The model's vocabulary.
        most_texts: The number of texts that the batcher samples at a time.

    Raises:
        ApiError: A prompt does not fit the vocabulary, or the request is too large.
    """
    echo, stream = bool(body.echo), bool(body.stream)
    if body.stream_options is not None and not stream:
        raise ApiError(400, "stream_options needs stream: set both", param="stream_options")
    count = 1 if body.n is None else body.n
    length = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    read, prompts = [], []
    for prompt in [""] if body.prompt is None else body.prompt.values:
        if isinstance(prompt, str):
            prompts.append(encode(prompt, vocabulary))
            read.append(with_start(prompts[-1], vocabulary))
        else:
            prompts.append(from_tokens(prompt, vocabulary))
            read.append(prompts[-1])
    texts = count * len(prompts)
    _check_size(body, texts, length, count * sum(map(len, prompts)) if echo else 0, most_texts)
    settings = _sampling_settings(body, vocabulary)
    stop = body.stop or ()
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    requests = [
        Request(
            ids,
            length,
            settings,
            (stop,) if isinstance(stop, str) else tuple(stop),
            seed,
            range(number * count, (number + 1) * count),
            body.logprobs,
            scores_prompt=echo and body.logprobs is not None,
            streams=stream,
        )
        for number, ids in enumerate(read)
    ]
    usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    return Completion(body.model, tuple(requests), tuple(prompts), count, echo, stream, usage)


def _check_size(
    body: CompletionRequest, texts: int, length: int, echoed: int, most_texts: int
) -> None:
    """Check that the limits allow the request.

    Args:
        body: The body.
        texts: The number of texts to sample.
        length: The number of characters of each text.
        echoed: The number of characters of prompts in the reply.
        most_texts: The number of texts that the batcher samples at a time.

    Raises:
        ApiError: There are too many texts, or too many characters to score.
    """
    if texts > most_texts:
        raise ApiError(
            400,
            f"{texts} texts are too many: request at most {most_texts} at a time",
            param="prompt" if body.prompt is not None and len(body.prompt.values) > 1 else "n",
        )
    scored = texts * length + echoed
    if body.logprobs is not None and scored > MOST_SCORED:
        raise ApiError(
            400,
            f"logprobs of {scored:,} characters are too many: request at most {MOST_SCORED:,}",
            param="logprobs",
        )


def _sampling_settings(body: CompletionRequest, vocabulary: Vocabulary) -> SamplingSettings:
    return SamplingSettings(
        1.0 if body.temperature is None else body.temperature,
        # More than the vocabulary has changes nothing, but could be too large for the engine.
        None if body.top_k is None else min(body.top_k, len(vocabulary)),
        body.top_p,
        body.min_p,
    )


def encode(text: str, vocabulary: Vocabulary) -> NDArray[np.unsignedinteger]:
    """Return a text's ids, (N,). Raises ApiError for a character outside the vocabulary."""
    ids = vocabulary.ids_or_minus_one(text)
    if len(ids) and ids.min() < 0:
        place = int(np.argmax(ids < 0))
        raise ApiError(
            400,
            f"unknown character {describe(text[place])} at position {place}: use only characters "
            "of the model's vocabulary",
            param="prompt",
            code="unknown_character",
        )
    return ids.astype(vocabulary.id_type)


def with_start(
    ids: NDArray[np.unsignedinteger], vocabulary: Vocabulary
) -> NDArray[np.unsignedinteger]:
    """Return a text's ids after the id of the newline that precedes any text."""
    return np.concatenate([[vocabulary.start_id], ids]).astype(vocabulary.id_type)


def to_tokens(ids: NDArray[np.unsignedinteger]) -> list[int]:
    """Return the token ids of a model's ids."""
    return [int(id_) + 1 for id_ in ids]


def from_tokens(
    tokens: Sequence[int], vocabulary: Vocabulary, param: str = "prompt"
) -> NDArray[np.unsignedinteger]:
    """Return the model's ids, (N,). Raises ApiError for a token id outside the vocabulary."""
    for place, token in enumerate(tokens):
        if token > len(vocabulary):
            raise ApiError(
                400,
                f"unknown token {shortened(token)} at position {place}: use tokens from 1 to "
                f"{len(vocabulary)}",
                param=param,
            )
    return np.array([token - 1 for token in tokens], dtype=vocabulary.id_type)


# From answers to JSON


class Reply:
    """The reply to a request for completions, as its answers arrive.

    Args:
        completion: The request.
        answers: The answers to its requests, in their order.
        vocabulary: The model's vocabulary.
        created: The time of the reply, in seconds since 1970.
    """

    def __init__(
        self,
        completion: Completion,
        answers: Sequence[Answer],
        vocabulary: Vocabulary,
        created: int,
    ) -> None:
        self._completion, self._answers, self._vocabulary = completion, answers, vocabulary
        self._id, self._created = f"cmpl-{secrets.token_hex(12)}", created
        self._lengths: dict[int, int] = {}  # of each choice's text so far
        self._left = completion.texts_each * len(answers)

    @property
    def complete(self) -> bool:
        """Return whether every text has ended."""
        return self._left == 0

    def take(self) -> list[Choice]:
        """Return the choices that have new characters, with only these.

        Raises:
            ApiError: The model failed.
        """
        choices = []
        for place, answer in enumerate(self._answers):
            try:
                pieces = answer.take()
            except Exception:
                raise ApiError(500, "the model failed on this request") from None
            choices += [self._choice(place, answer, piece) for piece in pieces]
        return choices

    def _choice(self, place: int, answer: Answer, piece: Piece) -> Choice:
        index = place * self._completion.texts_each + piece.number
        text, scored = piece.text, list[Scored | None](piece.scored)
        begin = self._lengths.get(index)
        if begin is None:
            begin = 0
            if self._completion.echo:
                prompt = self._completion.prompts[place]
                text = self._vocabulary.decode(prompt) + text
                if answer.request.scores_prompt:
                    # The first of a list of ids has no score, because nothing precedes it.
                    first = len(prompt) - len(answer.prompt_scores)
                    scored = [*[None] * first, *answer.prompt_scores, *scored]
        self._lengths[index] = begin + len(text)
        if piece.end is not None:
            self._left -= 1
        logprobs = None
        if answer.request.alternatives is not None:
            logprobs = self._logprobs(text, scored, begin)
        return Choice(index, text, logprobs, piece.end)

    def _logprobs(self, text: str, scored: Sequence[Scored | None], begin: int) -> LogProbabilities:
        characters = self._vocabulary.characters
        top = [
            None
            if one is None
            else {characters[id_]: _finite(log_p) for id_, log_p in one.likeliest}
            | {characters[one.id]: _finite(one.log_probability)}
            for one in scored
        ]
        values = [None if one is None else _finite(one.log_probability) for one in scored]
        return LogProbabilities(list(text), values, top, list(range(begin, begin + len(text))))

    def usage(self) -> Usage:
        """Return the number of characters read and sampled so far."""
        prompt = sum(len(ids) for ids in self._completion.prompts)
        sampled = sum(answer.sampled for answer in self._answers)
        cached = 0
        for answer, ids in zip(self._answers, self._completion.prompts, strict=True):
            before = len(answer.request.prompt) - len(ids)  # the newline before a text
            cached += max(answer.cached - before, 0)
        return Usage(prompt, sampled, prompt + sampled, PromptDetails(cached))

    def whole(self) -> CompletionResponse:
        """Return the whole reply, once all answers have ended."""
        choices = sorted(self.take(), key=lambda choice: choice.index)
        response = self._response(choices)
        response.usage = self.usage()
        return response

    def chunk(self, choices: list[Choice]) -> CompletionResponse:
        """Return one event of a stream."""
        response = self._response(choices)
        if self._completion.include_usage:
            response.usage = None
        return response

    def last_chunk(self) -> CompletionResponse | None:
        """Return the last event of a stream, which holds the usage, if the client requested it."""
        if not self._completion.include_usage:
            return None
        response = self._response([])
        response.usage = self.usage()
        return response

    def _response(self, choices: list[Choice]) -> CompletionResponse:
        model = self._completion.model
        return CompletionResponse(self._id, "text_completion", self._created, model, choices)


def _finite(log_p: float) -> float:
    return log_p if math.isfinite(log_p) else NO_PROBABILITY
