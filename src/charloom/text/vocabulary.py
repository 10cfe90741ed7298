"""The mapping between characters and ids. An id is a character's index in the vocabulary.

N is the number of characters of a text, V the number of characters in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError
from charloom.text.unknown import Unknown, describe_unknown

# The end of a document. In pieces of text it is half of a surrogate pair, which no text contains.
# As a symbol of a vocabulary it has an id but no character.
END = "\udc03"
END_NAME = "<end>"  # where the symbol must be shown, because END itself cannot be encoded


class UnknownCharacterError(CharloomError):
    """A character of a text that is not in the vocabulary."""


def code_points(text: str) -> NDArray[np.uint8] | NDArray[np.uint32]:
    """Return the code points of a text, (N,), as bytes where the text is ASCII."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


@dataclass(frozen=True)
class Vocabulary:
    """The characters of a model, in the order of their ids, 0 to V - 1.

    With `as_bytes`, each character stands for a byte (code points 0 to 255), for text that is not
    UTF-8. The vocabulary of a collection of documents holds END too.
    """

    characters: tuple[str, ...]
    as_bytes: bool = False

    def __post_init__(self) -> None:
        if not self.characters:
            raise CharloomError("the vocabulary is empty: pass at least one character")
        if any(len(character) != 1 for character in self.characters):
            raise CharloomError("every entry of a vocabulary must be one character")
        if len(set(self.characters)) != len(self.characters):
            raise CharloomError("the vocabulary contains a character twice: pass each one once")
        codes = code_points("".join(self.characters))
        surrogates = (codes >= 0xD800) & (codes < 0xE000) & (codes != ord(END))
        if surrogates.any():
            raise CharloomError(
                "the vocabulary contains half of a surrogate pair: remove it, because no text "
                "can contain it"
            )
        if self.as_bytes and codes[codes != ord(END)].max(initial=0) > 255:
            raise CharloomError(
                "the vocabulary of bytes contains a character above 255 (U+00FF): remove it"
            )
        # A lookup table from code points to ids, with -1 for every unknown character.
        table = np.full(int(codes.max()) + 1, -1, dtype=np.int32)
        table[codes] = np.arange(len(codes), dtype=np.int32)
        object.__setattr__(self, "_table", table)

    # Set in __post_init__. It has no annotation, so that it is not a field and not compared.
    _table = np.zeros(0, dtype=np.int32)

    @classmethod
    def of(cls, text: str, *, as_bytes: bool = False) -> Vocabulary:
        """Return the vocabulary of a text: its distinct characters, sorted by code point.

        END comes last.
        """
        return cls(_in_order(text), as_bytes)

    def __len__(self) -> int:
        return len(self.characters)

    @property
    def id_type(self) -> np.dtype[np.unsignedinteger]:
        """The smallest integer type that holds every id, for files and long arrays."""
        return np.dtype(np.uint8 if len(self) <= 256 else np.uint16 if len(self) <= 65536 else "u4")

    @cached_property
    def known(self) -> frozenset[str]:
        """The characters as a set, without END, which is not a character of a text."""
        return frozenset(self.characters) - {END}

    @cached_property
    def end_id(self) -> int | None:
        """The id of END, None in the vocabulary of a single text."""
        found = int(self.ids_or_minus_one(END)[0])
        return None if found < 0 else found

    @cached_property
    def start_id(self) -> int:
        """The id that precedes a text's first character: END, a newline, or 0 without both."""
        if self.end_id is not None:
            return self.end_id
        newline = self.ids_or_minus_one("\n")[0]
        return max(int(newline), 0)

    @property
    def unit(self) -> str:
        """The noun for one of the characters: `character`, or `byte`."""
        return "byte" if self.as_bytes else "character"

    @property
    def names(self) -> tuple[str, ...]:
        """The characters for output.

        END is END_NAME, and a byte that is not a whole character is shown like `\\xc3`.
        """
        return tuple(map(self.name, self.characters))

    def name(self, character: str) -> str:
        """Return one of the characters, or an unknown one, for output, as in `names`."""
        if character == END:
            return END_NAME
        return f"\\x{ord(character):02x}" if self.as_bytes and character > "\x7f" else character

    def grown(self, characters: Iterable[str]) -> Vocabulary:
        """Return this vocabulary with the new ones among `characters` appended, sorted.

        The characters of this vocabulary keep their ids.
        """
        new = _in_order(set(characters) - set(self.characters))
        return Vocabulary(self.characters + new, self.as_bytes)

    def ids_or_minus_one(self, text: str) -> NDArray[np.int32]:
        """Return the ids of a text, (N,), with -1 for every unknown character."""
        codes = code_points(text)
        if len(self._table) > 255 and codes.dtype == np.uint8:
            return self._table[codes]
        inside = codes < len(self._table)
        if inside.all():
            return self._table[codes]
        return np.where(inside, self._table[np.where(inside, codes, 0)], np.int32(-1))

    def encode(self, text: str, *, position: int = 0) -> NDArray[np.unsignedinteger]:
        """Return the ids of a text, (N,), in `id_type`.

        Args:
            text: the text, or one of its chunks.
            position: the index of the chunk's first character in the text, for error messages.

        Raises:
            UnknownCharacterError: with the first unknown character and its position, from 0.
        """
        ids = self.ids_or_minus_one(text)
        if len(ids) and ids.min() < 0:
            first = int(np.argmax(ids < 0))
            count = int((ids < 0).sum())
            more = f" and {count - 1} more after it" if count > 1 else ""
            unknown = self.describe_unknown(text, first)
            place = f"{'byte' if self.as_bytes else 'position'} {position + first}"
            raise UnknownCharacterError(
                f"the model does not know the {unknown.name} at {place}{more}: {unknown.advice}"
                "remove it, or skip unknown characters with --skip-unknown"
            )
        return ids.astype(self.id_type)

    def describe_unknown(self, text: str, place: int) -> Unknown:
        """Describe the unknown character at a place of a text, for a message."""
        return describe_unknown(text, place, self.known, as_bytes=self.as_bytes)

    def encode_known(self, text: str) -> tuple[NDArray[np.unsignedinteger], int]:
        """Return the ids of a text's known characters, and the number of skipped characters."""
        ids = self.ids_or_minus_one(text)
        known = ids[ids >= 0]
        return known.astype(self.id_type), len(ids) - len(known)

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """Return the text of ids of any integer type."""
        return "".join([self.characters[int(i)] for i in ids])


def _in_order(characters: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct characters, sorted by code point, with END last."""
    return tuple(sorted(set(characters), key=lambda character: (character == END, character)))
