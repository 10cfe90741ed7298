"""OpenAI's completions interface: from JSON to requests, from answers to JSON. No HTTP.

A prompt of text is read after the model's start token: the end of a document, or a newline in a
model without documents. A list of ids is read unchanged, so a client that needs the start token
puts its id first. A text ends where the end of a document is sampled. Its log-probability is in the
reply, but the end is not part of the text.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charloom.engines.decoding import SamplingSettings
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
from charloom.serving.tokens import Prompt, Tokens
from charloom.text.vocabulary import END_NAME

MOST_SCORED = 131_072  # characters of one reply that carry log-probabilities
NO_PROBABILITY = -9999.0  # JSON has no infinity; OpenAI's replies use this number
UNKNOWN = Scored(-1, 0.0, ())  # the score of a character outside the vocabulary

# From JSON to requests


@dataclass(frozen=True)
class Completion:
    """A checked request for completions: the batcher's requests, and the form of the reply."""

    model: str
    requests: tuple[Request, ...]
    prompts: tuple[Prompt, ...]
    texts_each: int
    echo: bool
    stream: bool
    include_usage: bool


def parse_completion(body: CompletionRequest, tokens: Tokens, most_texts: int) -> Completion:
    """Convert a request's body to requests for a batcher.

    Args:
        body: The body.
        tokens: The model's tokens.
        most_texts: The number of texts that the batcher samples at a time.

    Raises:
        ApiError: A prompt does not fit the vocabulary, or the request is too large.
    """
    echo, stream = bool(body.echo), bool(body.stream)
    if body.stream_options is not None and not stream:
        raise ApiError(400, "stream_options needs stream: set both", param="stream_options")
    count = 1 if body.n is None else body.n
    length = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    scored = echo and body.logprobs is not None
    contents = [""] if body.prompt is None else body.prompt.values
    prompts = [tokens.prompt(content, scored=scored) for content in contents]
    texts = count * len(prompts)
    echoed = count * sum(len(prompt.ids) for prompt in prompts) if echo else 0
    _check_size(body, texts, length, echoed, most_texts)
    settings = _sampling_settings(body, len(tokens.vocabulary))
    stop = body.stop or ()
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    requests = [
        Request(
            tokens.to_read(prompt),
            length,
            settings,
            (stop,) if isinstance(stop, str) else tuple(stop),
            seed,
            range(number * count, (number + 1) * count),
            body.logprobs,
            scores_prompt=scored,
            streams=stream,
        )
        for number, prompt in enumerate(prompts)
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


def _sampling_settings(body: CompletionRequest, vocabulary_size: int) -> SamplingSettings:
    return SamplingSettings(
        1.0 if body.temperature is None else body.temperature,
        # More than the vocabulary has changes nothing, but could be too large for the engine.
        None if body.top_k is None else min(body.top_k, vocabulary_size),
        body.top_p,
        body.min_p,
    )


# From answers to JSON


class Reply:
    """The reply to a request for completions, as its answers arrive.

    Args:
        completion: The request.
        answers: The answers to its requests, in their order.
        tokens: The model's tokens.
        created: The time of the reply, in seconds since 1970.
    """

    def __init__(
        self,
        completion: Completion,
        answers: Sequence[Answer],
        tokens: Tokens,
        created: int,
    ) -> None:
        self._completion, self._answers, self._tokens = completion, answers, tokens
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
        names = [self._tokens.name(one.id) for one in piece.scored]
        begin = self._lengths.get(index)
        if begin is None:
            begin = 0
            if self._completion.echo:
                prompt = self._completion.prompts[place]
                text = prompt.text + text
                if answer.request.scores_prompt:
                    names = self._tokens.names(prompt) + names
                    scored = [*_scores_in_place(prompt, answer.prompt_scores), *scored]
        self._lengths[index] = begin + len(text)
        if piece.end is not None:
            self._left -= 1
        logprobs = None
        if answer.request.alternatives is not None:
            logprobs = self._logprobs(names, scored, begin)
        return Choice(index, text, logprobs, piece.end)

    def _logprobs(
        self, names: list[str], scored: Sequence[Scored | None], begin: int
    ) -> LogProbabilities:
        """Return the log-probabilities of some tokens.

        Args:
            names: The tokens.
            scored: Their scores. An unknown character has the id -1.
            begin: The index of the first token in the text.
        """
        unseen = self._tokens.unseen
        log_known = 0.0 if unseen is None else unseen.log_known
        values: list[float | None] = []
        top: list[dict[str, float] | None] = []
        offsets = []
        for name, one in zip(names, scored, strict=True):
            offsets.append(begin)
            begin += name != END_NAME
            if one is None:
                values.append(None)
                top.append(None)
                continue
            likeliest = {
                self._tokens.name(id_): _finite(log_p + log_known) for id_, log_p in one.likeliest
            }
            if one.id >= 0:
                value = _finite(one.log_probability + log_known)
            else:
                assert unseen is not None  # or the request was rejected
                value = unseen.log_probability
            values.append(value)
            top.append(likeliest | {name: value})
        return LogProbabilities(names, values, top, offsets)

    def usage(self) -> Usage:
        """Return the number of characters read and sampled so far."""
        prompt = sum(len(prompt.ids) for prompt in self._completion.prompts)
        sampled = sum(answer.sampled for answer in self._answers)
        cached = 0
        for answer, one in zip(self._answers, self._completion.prompts, strict=True):
            cached += max(answer.cached - one.is_text, 0)  # without the start token
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


def _scores_in_place(prompt: Prompt, scores: Sequence[Scored]) -> Iterator[Scored | None]:
    """Yield the score of every token of a prompt, from those of the tokens that the model read."""
    known, first = iter(scores), not prompt.is_text
    for id_ in prompt.ids.tolist():
        if id_ < 0:
            yield UNKNOWN
        elif first:
            yield None  # because nothing precedes the first of a list of ids
            first = False
        else:
            yield next(known)


def _finite(log_p: float) -> float:
    return log_p if math.isfinite(log_p) else NO_PROBABILITY
