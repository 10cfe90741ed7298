"""Probabilities of characters that are not in a model's vocabulary.

A share s of all probability is left to the characters that the training text does not contain. It
is Good and Turing's estimate: the number of characters that occur once in the training text,
divided by the text's length. The share is spread evenly over the R characters of Unicode (or the
bytes) outside the vocabulary:

    p(unknown character) = s / R,    p(w|h) = (1 - s) p_model(w|h) for every symbol w

so that the probabilities of all characters and of the end of a document add up to 1. The model does
not read unknown characters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from charloom.text.vocabulary import Vocabulary

UNICODE_CHARACTERS = 0x110000 - 0x800  # all code points but the surrogates
BYTES = 256
LONGEST = 2**53  # characters of a training text, so that 1 - 1 / (length + 1) is below 1


@dataclass(frozen=True)
class UnseenCharacters:
    """The probability of what a model never saw.

    Attributes:
        share: s, between 0 and 1.
        count: R, the number of characters outside the vocabulary.
        as_bytes: whether these are bytes.
    """

    share: float
    count: int
    as_bytes: bool = False

    @classmethod
    def of(cls, text: Mapping[str, Any], vocabulary: Vocabulary) -> UnseenCharacters | None:
        """Return the estimate of a checkpoint's model, or None.

        Args:
            text: the checkpoint's entry about its training text. Older ones have no share.
            vocabulary: the model's vocabulary. Where it contains all bytes, nothing is unseen.
        """
        share, length = text.get("unseen"), text.get("characters")
        if isinstance(share, bool) or not isinstance(share, int | float):
            return None
        if not 0 <= share <= 1 or type(length) is not int or not 0 < length < LONGEST:
            return None
        known = len(vocabulary) - (vocabulary.end_id is not None)
        count = (BYTES if vocabulary.as_bytes else UNICODE_CHARACTERS) - known
        if count == 0:
            return None
        # Without characters that occur once, or with no others, the next character decides.
        least = 1 / (length + 1)
        bounded = least if share == 0 else 1 - least if share == 1 else float(share)
        return cls(bounded, count, vocabulary.as_bytes)

    @property
    def log_probability(self) -> float:
        """The natural log-probability of an unknown character."""
        return math.log(self.share) - math.log(self.count)

    @property
    def log_known(self) -> float:
        """The number to add to the log-probability that the model predicts for a known symbol."""
        return math.log1p(-self.share)

    def include(self, character: str) -> bool:
        """Return whether a character that the vocabulary lacks has a probability.

        Half of a surrogate pair is not a character. In a model of bytes, only bytes are characters.
        """
        code = ord(character)
        return code < BYTES if self.as_bytes else not 0xD800 <= code < 0xE000
