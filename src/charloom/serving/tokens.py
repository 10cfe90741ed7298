"""Tokens of a model in JSON: characters, the end of a document, and their ids.

A token is a character. Its id in JSON is the model's id + 1, because some clients take 0 for a
missing token. The end of a document is a token as well. It is shown as `<end>`, and is never part
of a sampled text.

N: tokens of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charloom.errors import shortened
from charloom.prediction.unseen import UnseenCharacters
from charloom.serving.errors import ApiError
from charloom.text.vocabulary import END, END_NAME, Vocabulary, describe

Ids = NDArray[np.signedinteger]  # of a vocabulary, with -1 for an unknown character


@dataclass(frozen=True)
class Prompt:
    """A prompt as the client counts it.

    Attributes:
        ids: Its ids, (N,).
        text: Its text, without the ends of documents.
        is_text: Whether the client sent a text, before which the model reads its start token.
    """

    ids: Ids
    text: str
    is_text: bool


@dataclass(frozen=True)
class Tokens:
    """The tokens of a model.

    Attributes:
        vocabulary: The model's vocabulary.
        unseen: The probability of characters outside the vocabulary. With None, a text with such
            characters cannot be scored.
    """

    vocabulary: Vocabulary
    unseen: UnseenCharacters | None = None

    @property
    def start(self) -> str:
        """Return the name of the token that precedes any text."""
        return self.name(self.vocabulary.start_id)

    def name(self, id_: int) -> str:
        """Return the character of an id, or the name of the end of a document."""
        character = self.vocabulary.characters[id_]
        return END_NAME if character == END else character

    def names(self, prompt: Prompt) -> list[str]:
        """Return the name of every token of a prompt, (N,)."""
        if prompt.is_text:
            return list(prompt.text)
        return [self.name(int(id_)) for id_ in prompt.ids]

    def decode(self, ids: Ids) -> str:
        """Return the text of ids, without the ends of documents."""
        return self.vocabulary.decode(ids).replace(END, "")

    def prompt(self, content: str | Sequence[int], *, scored: bool) -> Prompt:
        """Return the prompt that a client sent.

        Args:
            content: A text, or token ids.
            scored: Whether the prompt is scored. Then it can contain unknown characters.

        Raises:
            ApiError: The prompt does not fit the vocabulary.
        """
        if isinstance(content, str):
            return Prompt(self._ids_of(content, scored=scored), content, is_text=True)
        ids = self.from_tokens(content)
        return Prompt(ids, self.decode(ids), is_text=False)

    def to_read(self, prompt: Prompt) -> NDArray[np.unsignedinteger]:
        """Return the ids that the model reads."""
        known = prompt.ids[prompt.ids >= 0]
        if prompt.is_text:
            known = np.concatenate([[self.vocabulary.start_id], known])
        return known.astype(self.vocabulary.id_type)

    def _ids_of(self, text: str, *, scored: bool = False) -> Ids:
        ids = self.vocabulary.ids_or_minus_one(text)
        if END in text:  # because a client can send half of a surrogate pair
            ids = np.where([character == END for character in text], -1, ids)
        for place in np.flatnonzero(ids < 0).tolist():
            if not (scored and self.unseen is not None and self.unseen.include(text[place])):
                raise ApiError(
                    400,
                    f"unknown character {describe(text[place])} at position {place}: use only "
                    "characters of the model's vocabulary",
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
            ApiError: The text has an unknown character.
        """
        end_id = self.vocabulary.end_id
        ended = end_id is not None and text.endswith(END_NAME)
        ids = self._ids_of(text.removesuffix(END_NAME) if ended else text).tolist()
        before = [self.vocabulary.start_id] if with_start else []
        return [int(id_) + 1 for id_ in [*before, *ids, *([end_id] if ended else [])]]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, with the ends of documents as `<end>`."""
        text = self.vocabulary.decode(self.from_tokens(tokens, "tokens"))
        return text.replace(END, END_NAME)

    def from_tokens(self, tokens: Sequence[int], param: str = "prompt") -> Ids:
        """Return the ids, (N,). Raises ApiError for a token id outside the vocabulary."""
        for place, token in enumerate(tokens):
            if token > len(self.vocabulary):
                raise ApiError(
                    400,
                    f"unknown token {shortened(token)} at position {place}: use tokens from 1 to "
                    f"{len(self.vocabulary)}",
                    param=param,
                )
        return np.array([token - 1 for token in tokens], dtype=np.int32)
