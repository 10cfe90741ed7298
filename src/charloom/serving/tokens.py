"""Tokens of a model in JSON: characters, the end of a document, and their ids.

A token is a character, or a byte in a model of bytes. A byte that is not a whole character is shown
like `\\xc3`. A token's id in JSON is the model's id + 1, because some clients take 0 for a
missing token. The end of a document is a token as well. It is shown as `<end>`, and is never part
of a sampled text. In a list of ids, one more id than the model has is an unknown character.

N: tokens of a prompt.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.options import NO_NAMES, ConstraintOptions
from charloom.constraints.protocol import Constraints
from charloom.errors import CharloomError, shortened
from charloom.prediction.unseen import UnseenCharacters
from charloom.serving.errors import ApiError
from charloom.serving.schema import TokenizerInfo
from charloom.text.format import TextFormat
from charloom.text.stops import stop_forms
from charloom.text.typed import as_read, as_shown
from charloom.text.vocabulary import END_NAME, Vocabulary

UNKNOWN_NAME = "<unknown>"  # of a character in a list of ids that is not in the vocabulary
REPLACEMENT = "\ufffd"  # in its place in a text
KNOWN = "use only characters of the model's vocabulary"
SKIP = f"{KNOWN}, or set skip_unknown"
KEPT_CONSTRAINTS = 32
Ids = NDArray[np.signedinteger]  # of a vocabulary, with -1 for an unknown character


@dataclass(frozen=True)
class Prompt:
    """A prompt as the client counts it.

    Attributes:
        ids: Its ids, (N,).
        characters: Its characters of the model, (N,), with END for the end of a document.
        is_text: Whether the client sent a text, before which the model reads its start token.
    """

    ids: Ids
    characters: str
    is_text: bool


@dataclass(frozen=True)
class Tokens:
    """The tokens of a model.

    Attributes:
        vocabulary: The model's vocabulary.
        unseen: The probability of characters outside the vocabulary. With None, a text with such
            characters cannot be scored.
        format: How the model reads texts.
        compile: The function that reads the options of constraints.
    """

    vocabulary: Vocabulary
    unseen: UnseenCharacters | None = None
    format: TextFormat = field(default_factory=TextFormat)
    compile: Callable[..., Constraints | None] = ConstraintOptions.read
    _constraints: dict[str, Constraints | None] = field(default_factory=dict, repr=False)

    def name(self, id_: int) -> str:
        """Return the character of an id, or the name of a token that is not a character."""
        return UNKNOWN_NAME if id_ < 0 else self.vocabulary.name(self.vocabulary.characters[id_])

    @property
    def unknown_token(self) -> int | None:
        """Return the token id of unknown characters, None if they have no probability."""
        return None if self.unseen is None else len(self.vocabulary) + 1

    def names(self, prompt: Prompt) -> list[str]:
        """Return the name of every token of a prompt, (N,)."""
        if prompt.is_text:
            return [self.vocabulary.name(character) for character in prompt.characters]
        return [self.name(int(id_)) for id_ in prompt.ids]

    def describe(self) -> TokenizerInfo:
        """Return the description of the tokens, with the names of other tokenizers."""
        start, id_ = self.name(self.vocabulary.start_id), self.vocabulary.start_id + 1
        return TokenizerInfo(
            tokenizer_class="characters",
            vocab_size=len(self.vocabulary),
            bos_token=start,
            eos_token=start,
            pad_token=start,
            unk_token=None if self.unseen is None else UNKNOWN_NAME,
            bos_token_id=id_,
            eos_token_id=id_,
            pad_token_id=id_,
            unk_token_id=self.unknown_token,
        )

    def as_read(self, text: str, *, skip_unknown: bool = False) -> str:
        """Return a prompt that a client sent as characters of the model.

        Raises:
            ApiError: It is not text.
        """
        try:
            return as_read(text, self.format, self.vocabulary, skip_unknown=skip_unknown)
        except CharloomError as error:
            raise ApiError(400, str(error), param="prompt", code="unknown_character") from None

    def characters(self, ids: Ids) -> str:
        """Return the characters of the model for ids, with a replacement for unknown ones."""
        characters = self.vocabulary.characters
        return "".join(characters[id_] if id_ >= 0 else REPLACEMENT for id_ in ids.tolist())

    def prompt(
        self, content: str | Sequence[int], *, scored: bool, skip_unknown: bool = False
    ) -> Prompt:
        """Return the prompt that a client sent.

        Args:
            content: A text, or token ids.
            scored: Whether the prompt is scored. Then it can have unknown characters.
            skip_unknown: Whether unknown characters are omitted.

        Raises:
            ApiError: The prompt does not fit the vocabulary.
        """
        if isinstance(content, str):
            characters = self.as_read(content, skip_unknown=skip_unknown)
            if not skip_unknown:
                ids = self._ids_of(characters, allow_unknown=scored)
                return Prompt(ids, characters, is_text=True)
            ids = self.vocabulary.ids_or_minus_one(characters)
            ids = ids[ids >= 0]
            return Prompt(ids, self.characters(ids), is_text=True)
        ids = self._from_tokens(content, "prompt", allow_unknown=scored or skip_unknown)
        if skip_unknown:
            ids = ids[ids >= 0]
        return Prompt(ids, self.characters(ids), is_text=False)

    def constraints(
        self,
        options: ConstraintOptions,
        stop: Sequence[str] = (),
        names: Mapping[str, str] = NO_NAMES,
    ) -> Constraints | None:
        """Return the constraints of a request, see `ConstraintOptions.read`.

        The latest ones are kept, because clients often repeat them.

        Raises:
            CharloomError: They are invalid, or no text meets them.
        """
        key = repr((options, tuple(stop), sorted(names.items())))
        if key in self._constraints:
            return self._constraints[key]
        found = self.compile(options, self.vocabulary, self.as_read, stop, names)
        if len(self._constraints) >= KEPT_CONSTRAINTS:
            with contextlib.suppress(KeyError, RuntimeError):  # if another thread was faster
                del self._constraints[next(iter(self._constraints))]
        self._constraints[key] = found
        return found

    def stop_forms(self, text: str) -> tuple[str, ...]:
        """Return the forms of a stop text like `charloom.text.stops`; none if it cannot occur."""
        try:
            return stop_forms(text, self.format, self.vocabulary)
        except CharloomError:
            return ()

    def to_read(self, prompt: Prompt) -> NDArray[np.unsignedinteger]:
        """Return the ids that the model reads, at least one."""
        known = prompt.ids[prompt.ids >= 0]
        if prompt.is_text or not len(known):
            known = np.concatenate([[self.vocabulary.start_id], known])
        return known.astype(self.vocabulary.id_type)

    def _ids_of(self, text: str, *, allow_unknown: bool, remedy: str = SKIP) -> Ids:
        """Return the ids of characters of the model."""
        ids = self.vocabulary.ids_or_minus_one(text)
        for place in np.flatnonzero(ids < 0).tolist():
            charged = self.unseen is not None and self.unseen.include(text[place])
            if not (allow_unknown and charged):
                unknown = self.vocabulary.describe_unknown(text, place)
                at = "byte" if self.vocabulary.as_bytes else "position"
                raise ApiError(
                    400,
                    f"unknown {unknown.name} at {at} {place}: {unknown.advice}{remedy}",
                    param="prompt",
                    code="unknown_character",
                )
        return ids

    # Token ids

    def tokenize(self, text: str, *, with_start: bool) -> list[int]:
        """Return the token ids of a text, at whose end `<end>` is the end of a document.

        Args:
            text: The text.
            with_start: Whether the token that precedes any text is included.

        Raises:
            ApiError: The text has an unknown character without a probability.
        """
        end_id = self.vocabulary.end_id
        ended = end_id is not None and text.endswith(END_NAME)
        content = text.removesuffix(END_NAME) if ended else text
        content = self.as_read(content)
        ids = self._ids_of(content, allow_unknown=True, remedy=KNOWN).tolist()
        before = [self.vocabulary.start_id] if with_start else []
        unknown = len(self.vocabulary)
        return [1 + (unknown if id_ < 0 else id_) for id_ in [*before, *ids, *([end_id] * ended)]]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, with the ends of documents as `<end>`.

        Raises:
            ApiError: A token id is unknown.
        """
        ids = self._from_tokens(tokens, "tokens", allow_unknown=True)
        return as_shown(self.characters(ids), self.vocabulary)

    def _from_tokens(self, tokens: Sequence[int], param: str, *, allow_unknown: bool) -> Ids:
        """Return the ids, (N,).

        Args:
            tokens: Token ids, each at least 1.
            param: The field of the request, for errors.
            allow_unknown: Whether a token can be an unknown character.

        Raises:
            ApiError: A token id is unknown, or is that of unknown characters.
        """
        for place, token in enumerate(tokens):
            if token <= len(self.vocabulary):
                continue
            if token != self.unknown_token:
                raise ApiError(
                    400,
                    f"unknown token {shortened(token)} at position {place}: use tokens from 1 to "
                    f"{len(self.vocabulary)}",
                    param=param,
                )
            if not allow_unknown:
                raise ApiError(
                    400,
                    f"unknown character (token {token}) at position {place}: {SKIP}",
                    param=param,
                    code="unknown_character",
                )
        size = len(self.vocabulary)
        return np.array([token - 1 if token <= size else -1 for token in tokens], dtype=np.int32)
