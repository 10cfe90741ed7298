"""OpenAI's completions interface: from JSON to requests, from answers to JSON. No HTTP.

A prompt of text is read after the model's start token: the end of a document, or a newline in a
model without documents. A list of ids is read unchanged, so a client that needs the start token
puts its id first. A text ends where the end of a document is sampled. Its log-probability is in the
reply, but the end is not part of the text.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from charloom.constraints.options import ConstraintOptions
from charloom.constraints.protocol import Constraints
from charloom.engines.decoding import SamplingSettings
from charloom.errors import CharloomError, plural, shortened
from charloom.prediction.middle import LONGEST_MIDDLE
from charloom.serving.errors import ApiError, write_json
from charloom.serving.requests import Answer, End, Piece, Request, Scored
from charloom.serving.schema import (
    DEFAULT_MAX_TOKENS,
    LONGEST_GUIDE,
    MOST_BIAS,
    MOST_SAMPLED,
    Choice,
    CompletionRequest,
    CompletionResponse,
    LogProbabilities,
    PromptDetails,
    Usage,
)
from charloom.serving.tokens import Prompt, Tokens
from charloom.text.typed import ShownText
from charloom.text.unknown import LONGEST_UTF_8
from charloom.text.vocabulary import END, Vocabulary

MOST_SCORED = 131_072  # characters of one reply that carry log-probabilities
LENGTHS = ("max_tokens", "max_completion_tokens", "n_predict")  # fields with the same meaning
NO_PROBABILITY = -9999.0  # JSON has no infinity; OpenAI's replies use this number
UNKNOWN = Scored(-1, 0.0, ())  # the score of a character outside the vocabulary

# From JSON to requests


@dataclass(frozen=True)
class Completion:
    """A checked request for completions: the batcher's requests, and the form of the reply."""

    requests: tuple[Request, ...]
    prompts: tuple[Prompt, ...]
    texts_each: int
    echo: bool
    stream: bool
    include_usage: bool
    conditioned: bool  # whether the reply has the log-probabilities under constraints and bias
    unusable_stops: tuple[str, ...]  # the fields of stop texts that the model cannot write


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
    include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    if include_usage and not stream:
        raise ApiError(400, "stream_options needs stream: set both", param="stream_options")
    count = 1 if body.n is None else body.n
    if body.best_of not in (None, 1, count):
        raise ApiError(
            400,
            f"best_of {body.best_of} with n {count} is not supported: omit it, or set it to n",
            param="best_of",
            code="unsupported_parameter",
        )
    alternatives = _alternatives(body)
    scores_prompt = echo and alternatives is not None
    prompts = _read_prompts(body, tokens, scored=scores_prompt)
    texts = count * len(prompts)
    if texts > most_texts:
        raise ApiError(
            400,
            f"{texts} texts are too many: request at most {most_texts} at a time",
            param="prompt" if len(prompts) > 1 else "n",
        )
    echoed = count * sum(len(prompt.ids) for prompt in prompts) if echo else 0
    length = _length(body, texts, echoed if alternatives is not None else None)
    settings = _sampling_settings(body, len(tokens.vocabulary))
    bias = _bias(body, tokens)
    stop, unusable = _stops(body, tokens)
    constraints = _constraints(body, tokens, stop, length, bias)
    suffix = _suffix(body, tokens, length)
    conditioned = bool(body.conditioned_logprobs)
    if conditioned and alternatives is None:
        raise ApiError(
            400, "conditioned_logprobs needs logprobs: set both", param="conditioned_logprobs"
        )
    seed = secrets.randbelow(2**31) if body.seed in (None, -1) else body.seed
    requests = [
        Request(
            tokens.to_read(prompt),
            length,
            settings,
            bias={} if constraints is not None else bias,  # which they include
            constraints=constraints,
            stop=stop,
            includes_stop=bool(body.include_stop_str_in_output),
            seed=seed,
            indices=range(number * count, (number + 1) * count),
            alternatives=alternatives,
            scores_prompt=scores_prompt,
            streams=stream,
            suffix=suffix,
        )
        for number, prompt in enumerate(prompts)
    ]
    return Completion(
        tuple(requests), tuple(prompts), count, echo, stream, include_usage, conditioned, unusable
    )


def _alternatives(body: CompletionRequest) -> int | None:
    """Return the number of likeliest characters to report, None without log-probabilities."""
    if isinstance(body.logprobs, bool):
        return 0 if body.logprobs else None
    return body.logprobs


def _read_prompts(body: CompletionRequest, tokens: Tokens, *, scored: bool) -> list[Prompt]:
    """Return all prompts.

    Args:
        body: The body.
        tokens: The model's tokens.
        scored: Whether the prompts are scored. Then they can have unknown characters.

    Raises:
        ApiError: A prompt does not fit the vocabulary. The error names the first such prompt.
    """
    contents: Sequence[str | list[int]] = [""] if body.prompt is None else body.prompt.values
    skip = bool(body.skip_unknown)
    prompts: list[Prompt] = []
    failed: dict[int, ApiError] = {}
    for number, content in enumerate(contents, 1):
        try:
            prompts.append(tokens.prompt(content, scored=scored, skip_unknown=skip))
        except ApiError as error:
            failed[number] = error
    if failed and len(contents) == 1:
        raise failed[1]
    if failed:
        number, first = next(iter(failed.items()))
        name = f"prompt {number} of {len(contents)}"
        others = len(failed) - 1
        if others:
            name += f" (and {others} other{'' if others == 1 else 's'})"
        raise ApiError(first.status, f"{name}: {first}", param=first.param, code=first.code)
    return prompts


def _length(body: CompletionRequest, texts: int, echoed: int | None) -> int:
    """Return the number of characters of each text.

    Args:
        body: The body.
        texts: The number of texts to sample.
        echoed: The number of characters of prompts with log-probabilities, None without any.

    Raises:
        ApiError: The fields contradict each other, or there are too many characters to score.
    """
    given = {name: getattr(body, name) for name in LENGTHS if getattr(body, name) is not None}
    if len(set(given.values())) > 1:
        names = " and ".join(f"{name} {value}" for name, value in given.items())
        raise ApiError(400, f"{names} differ: set one of them", param=list(given)[-1])
    length: int = next(iter(given.values()), DEFAULT_MAX_TOKENS)
    if echoed is None:
        return MOST_SAMPLED if length < 0 else length
    if length < 0:
        length = max(0, min(MOST_SAMPLED, (MOST_SCORED - echoed) // texts))
    scored = texts * length + echoed
    if scored > MOST_SCORED:
        raise ApiError(
            400,
            f"logprobs of {scored:,} characters are too many: request at most {MOST_SCORED:,}",
            param="logprobs",
        )
    return length


def _sampling_settings(body: CompletionRequest, vocabulary_size: int) -> SamplingSettings:
    greedy = body.top_p == 0  # the likeliest character alone reaches this probability
    return SamplingSettings(
        0.0 if greedy else 1.0 if body.temperature is None else body.temperature,
        # More than the vocabulary has changes nothing, but could be too large for the engine.
        min(body.top_k, vocabulary_size) if body.top_k is not None and body.top_k > 0 else None,
        None if greedy else body.top_p,
        body.min_p,
    )


def _bias(body: CompletionRequest, tokens: Tokens) -> dict[int, float]:
    """Return the additions to the logits of ids.

    Raises:
        ApiError: A token id is unknown, or no token is left.
    """
    size = len(tokens.vocabulary)
    bias: dict[int, float] = {}
    named = tokens.vocabulary.names if body.bias else ()
    names = {name: id_ for id_, name in enumerate(named)}
    for name, value in (body.bias or {}).items():
        if name not in names:
            raise ApiError(
                400, f"bias names {shortened(name)}, which the model does not know: omit it",
                param="bias",
            )  # fmt: skip
        bias[names[name]] = -math.inf if value == -MOST_BIAS else value
    for token, value in (body.logit_bias or {}).items():
        if int(token) > size:
            raise ApiError(
                400,
                f"unknown token {shortened(token)} in logit_bias: use tokens from 1 to {size}",
                param="logit_bias",
            )
        # At a high temperature, an addition of -100 alone would exclude nothing.
        bias[int(token) - 1] = -math.inf if value == -MOST_BIAS else value
    if body.ignore_eos and tokens.vocabulary.end_id is not None:
        bias[tokens.vocabulary.end_id] = -math.inf
    if list(bias.values()).count(-math.inf) == size:
        raise ApiError(400, "logit_bias excludes every token: remove one", param="logit_bias")
    return bias


def _stops(body: CompletionRequest, tokens: Tokens) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the stop texts as characters of the model, and the fields of those it cannot write."""
    if body.stop is None or isinstance(body.stop, str):
        given = {"stop": body.stop or ""}
    else:
        given = {f"stop[{place}]": text for place, text in enumerate(body.stop)}
    read = {field: tokens.stop_forms(text) for field, text in given.items()}
    unusable = tuple(field for field, forms in read.items() if not forms)
    return tuple(form for forms in read.values() for form in forms if form), unusable


WORDS = ("forbid", "require", "alphabet")


def is_guided(body: CompletionRequest) -> bool:
    """Return whether a request has a pattern or another constraint, which must be compiled."""
    return bool(_guides(body)) or any(getattr(body, name) for name in WORDS)


def _suffix(
    body: CompletionRequest, tokens: Tokens, length: int
) -> NDArray[np.unsignedinteger] | None:
    """Return the ids of the text after the completion, None without one.

    Raises:
        ApiError: It has an unknown character, or the request has a field that excludes it.
    """
    if not body.suffix:
        return None
    if _alternatives(body) is not None:
        raise ApiError(400, "suffix excludes logprobs: omit one of them", param="suffix")
    if length > LONGEST_MIDDLE:
        raise ApiError(
            400,
            f"max_tokens is {length:,}: with suffix, use at most {LONGEST_MIDDLE}",
            param="max_tokens",
        )
    try:
        found = tokens.prompt(body.suffix, scored=False, skip_unknown=bool(body.skip_unknown))
    except ApiError as error:
        raise ApiError(400, f"suffix: {error}", param="suffix", code=error.code) from None
    return found.ids.astype(tokens.vocabulary.id_type)


def _guides(body: CompletionRequest) -> dict[str, tuple[str, Any]]:
    """Return the fields that describe a whole completion: the option of each, and its value."""
    found: dict[str, tuple[str, Any]] = {}
    if body.guided_regex is not None:
        found["guided_regex"] = "match", body.guided_regex
    if body.guided_json is not None:
        found["guided_json"] = "json_schema", body.guided_json
    if body.guided_grammar is not None:
        found["guided_grammar"] = "grammar", body.guided_grammar
    if body.response_format is not None and body.response_format.type != "text":
        schema: dict[str, Any] = {"type": "object"}
        if body.response_format.type == "json_schema":
            if body.response_format.json_schema is None:
                raise ApiError(
                    400,
                    "response_format has no json_schema: pass one with the schema",
                    param="response_format",
                )
            schema = body.response_format.json_schema.schema
        found["response_format"] = "json_schema", schema
    return found


def _constraints(
    body: CompletionRequest,
    tokens: Tokens,
    stop: tuple[str, ...],
    length: int,
    bias: Mapping[int, float],
) -> Constraints | None:
    """Compile the constraints of a request, which then include the bias.

    Args:
        body: The body.
        tokens: The model's tokens.
        stop: The stop texts, as characters of the model.
        length: The largest number of characters.
        bias: Additions to the logits of ids.

    Raises:
        ApiError: One is invalid, not supported, or no completion of this length meets them all.
    """
    guides = _guides(body)
    words = {name: getattr(body, name) for name in WORDS if getattr(body, name)}
    if not guides and not words and not (body.suffix and bias):
        return None
    if len(guides) > 1:
        first = next(iter(guides))
        raise ApiError(
            400, f"{' and '.join(guides)} exclude each other: set one of them", param=first
        )
    field = next(iter(guides or words), "bias")
    options: dict[str, Any] = dict(words)
    names = {}
    for option, value in guides.values():
        if isinstance(value, dict) and len(write_json(value)) > LONGEST_GUIDE:
            raise ApiError(
                400, f"{field} is too large: send at most {LONGEST_GUIDE:,} characters", param=field
            )
        options[option] = value
        names[option] = field
    if bias:
        options["bias"] = {tokens.vocabulary.names[id_]: value for id_, value in bias.items()}
    try:
        found = tokens.constraints(ConstraintOptions(**options), stop, names)
    except CharloomError as error:
        raise ApiError(400, str(error), param=field) from None
    if found is not None and found.least > length:
        raise ApiError(
            400,
            f"a completion that meets {field} has at least {plural(found.least, 'character')}, and "
            f"max_tokens is {length:,}: set a larger one",
            param=field,
        )
    return found


# From answers to JSON


class Reply:
    """The reply to a request for completions, as its answers arrive.

    Args:
        model: The model's name.
        completion: The request.
        answers: The answers to its requests, in their order.
        tokens: The model's tokens.
        created: The time of the reply, in seconds since 1970.
    """

    def __init__(
        self,
        model: str,
        completion: Completion,
        answers: Sequence[Answer],
        tokens: Tokens,
        created: int,
    ) -> None:
        self._model = model
        self._completion, self._answers, self._tokens = completion, answers, tokens
        self._id, self._created = f"cmpl-{secrets.token_hex(12)}", created
        self._choices: dict[int, _ChoiceText] = {}
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
            found = (self._choice(place, answer, piece) for piece in pieces)
            # A byte that is not a whole character yet has no text.
            choices += [one for one in found if one.text or one.logprobs or one.finish_reason]
        return choices

    def _choice(self, place: int, answer: Answer, piece: Piece) -> Choice:
        index = place * self._completion.texts_each + piece.number
        scored = list[Scored | None](piece.scored)
        names = [self._tokens.name(one.id) for one in piece.scored]
        characters = self._tokens.characters(np.array([one.id for one in piece.scored], np.int32))
        text = ""
        if index not in self._choices:
            prompt = self._completion.prompts[place]
            self._choices[index] = _ChoiceText(self._tokens.vocabulary)
            text = self._choices[index].begin(prompt.characters, echo=self._completion.echo)
            if self._completion.echo and answer.request.scores_prompt:
                names = self._tokens.names(prompt) + names
                characters = prompt.characters + characters
                scored = [*_scores_in_place(prompt, answer.prompt_scores), *scored]
        choice = self._choices[index]
        text += choice.add(piece.text, piece.end)
        if piece.end is not None:
            self._left -= 1
        logprobs = None
        if answer.request.alternatives is not None:
            logprobs = self._logprobs(names, scored, choice.offsets(characters))
        return Choice(index, text, logprobs, piece.end)

    def _logprobs(
        self, names: list[str], scored: Sequence[Scored | None], offsets: list[int]
    ) -> LogProbabilities:
        """Return the log-probabilities of some tokens.

        Args:
            names: The tokens.
            scored: Their scores. An unknown character has the id -1.
            offsets: The index of each token in the text.
        """
        unseen = self._tokens.unseen
        log_known = 0.0 if unseen is None else unseen.log_known
        values: list[float | None] = []
        conditioned = [
            None if one is None or one.conditioned is None else _finite(one.conditioned)
            for one in scored
        ]
        top: list[dict[str, float] | None] = []
        for name, one in zip(names, scored, strict=True):
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
        shown = conditioned if self._completion.conditioned else UNSET
        return LogProbabilities(names, values, top, offsets, shown)

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
        return CompletionResponse(self._id, "text_completion", self._created, self._model, choices)


class _ChoiceText:
    """The text of a choice as it arrives. In a model of bytes, its characters are UTF-8."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._text, self._tokens = ShownText(vocabulary), ShownText(vocabulary)
        self._length = 0  # of the text of the tokens so far

    def begin(self, prompt: str, *, echo: bool) -> str:
        """Return the text of the prompt's characters if it is part of the choice."""
        prompt = prompt.replace(END, "")
        if echo:
            return self._text.add(prompt)
        for shown in (self._text, self._tokens):  # because a character can begin in the prompt
            shown.add(prompt[-LONGEST_UTF_8:])
        return ""

    def add(self, characters: str, end: End | None) -> str:
        """Return the text of further characters. The largest length can cut the last one."""
        shown = self._text.add(characters)
        return shown + self._text.rest() if end == "stop" else shown

    def offsets(self, characters: str) -> list[int]:
        """Return the index in the text at which each token is."""
        found = []
        for character in characters:
            found.append(self._length)
            if character != END:
                self._length += len(self._tokens.add(character))
        return found


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
