"""Characters to ids and back. An id is a character's place in the vocabulary, 0 to V - 1."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError


class UnknownCharacterError(CharloomError):
    """A text holds a character that the model never saw."""


def describe(character: str) -> str:
    """A character in a form that can be read whatever it is: `'~' (U+007E TILDE)`."""
    code_point = f"U+{ord(character):04X}"
    name = unicodedata.name(character, "")
    return f"{character!r} ({code_point} {name})" if name else f"{character!r} ({code_point})"


def code_points(text: str) -> NDArray[np.uint8] | NDArray[np.uint32]:
    """The code points of a text, (N,); one byte each where that is enough."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


@dataclass(frozen=True)
class Vocabulary:
    """The characters a model knows, in the order of their ids.

    `as_bytes` says that a character stands for a byte (code points 0 to 255), for text that is not
    UTF-8.
    """

    characters: tuple[str, ...]
    as_bytes: bool = False

    def __post_init__(self) -> None:
        if not self.characters:
            raise CharloomError("a vocabulary needs at least one character")
        if any(len(character) != 1 for character in self.characters):
            raise CharloomError("every entry of a vocabulary must be one character")
        if len(set(self.characters)) != len(self.characters):
            raise CharloomError("a vocabulary holds a character twice")
        codes = code_points("".join(self.characters))
        if ((codes >= 0xD800) & (codes < 0xE000)).any():
            raise CharloomError("a vocabulary holds half of a surrogate pair, which no text has")
        if self.as_bytes and codes.max() > 255:
            raise CharloomError("a vocabulary of bytes holds a character above 255")
        # One look-up table from code points to ids; -1 stands for a character that is not known.
        table = np.full(int(codes.max()) + 1, -1, dtype=np.int32)
        table[codes] = np.arange(len(codes), dtype=np.int32)
        object.__setattr__(self, "_table", table)

    _table = np.zeros(0, dtype=np.int32)  # set in __post_init__; no field, so it is not compared

    @classmethod
    def of(cls, text: str, *, as_bytes: bool = False) -> Vocabulary:
        """The vocabulary of a text: its distinct characters, sorted by code point."""
        return cls(tuple(sorted(set(text))), as_bytes)

    def __len__(self) -> int:
        return len(self.characters)

    @property
    def id_type(self) -> np.dtype[np.unsignedinteger]:
        """The smallest integer type that holds every id, for files and long arrays."""
        return np.dtype(np.uint8 if len(self) <= 256 else np.uint16 if len(self) <= 65536 else "u4")

    @property
    def start_id(self) -> int:
        """The id read before a text that nothing precedes: a newline, or 0 where there is none."""
        newline = self.ids_or_minus_one("\n")[0]
        return max(int(newline), 0)

    def grown(self, characters: Iterable[str]) -> Vocabulary:
        """This vocabulary with the new ones among `characters` appended, sorted; old ids stay."""
        new = sorted(set(characters) - set(self.characters))
        return Vocabulary(self.characters + tuple(new), self.as_bytes)

    def ids_or_minus_one(self, text: str) -> NDArray[np.int32]:
        """The ids of a text, (N,), with -1 for every character that is not known."""
        codes = code_points(text)
        if len(self._table) > 255 and codes.dtype == np.uint8:
            return self._table[codes]
        inside = codes < len(self._table)
        if inside.all():
            return self._table[codes]
        return np.where(inside, self._table[np.where(inside, codes, 0)], np.int32(-1))

    def encode(self, text: str, *, position: int = 0) -> NDArray[np.unsignedinteger]:
        """The ids of a text, (N,), in `id_type`.

        Raises UnknownCharacterError, naming the first unknown character and its position in the
        text (counted from 0, `position` being the place of the first character given here).
        """
        ids = self.ids_or_minus_one(text)
        if len(ids) and ids.min() < 0:
            first = int(np.argmax(ids < 0))
            count = int((ids < 0).sum())
            more = f" and {count - 1} more after it" if count > 1 else ""
            raise UnknownCharacterError(
                f"the model never saw the character {describe(text[first])} at position "
                f"{position + first}{more}: leave it out, or use --skip-unknown to pass over such "
                "characters"
            )
        return ids.astype(self.id_type)

    def encode_known(self, text: str) -> tuple[NDArray[np.unsignedinteger], int]:
        """The ids of the characters that are known, and how many others were passed over."""
        ids = self.ids_or_minus_one(text)
        known = ids[ids >= 0]
        return known.astype(self.id_type), len(ids) - len(known)

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text of ids, whatever integer type they have."""
        return "".join([self.characters[int(i)] for i in ids])
