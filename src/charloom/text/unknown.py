"""Describe characters that a model does not know, and a known one that looks like each."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from charloom.errors import quoted

# Characters that keyboards and word processors put in the place of others, with those others.
TYPOGRAPHY = (
    dict.fromkeys("’‘‛‚ʼ`´′", "'")
    | dict.fromkeys("“”„‟«»″", '"')
    | dict.fromkeys("–—−‐‑‒―", "-")
    | dict.fromkeys("\u00a0\u202f\u2009\t", " ")
)
ACCENTED = ("LATIN", "GREEK", "CYRILLIC")  # scripts whose letters have accents
LONGEST_UTF_8 = 4  # bytes of a character


class Unknown(NamedTuple):
    """An unknown character for a message: its name, and what to write in its place, if known."""

    name: str
    instead: str | None

    @property
    def advice(self) -> str:
        """The beginning of a remedy, empty if nothing known looks like the character."""
        if self.instead is None:
            return ""
        shown = quoted(self.instead)
        if len(self.instead) == 1 and not self.instead.isascii():
            shown += f" (U+{ord(self.instead):04X})"
        return f"write {shown} instead, "


def describe(character: str) -> str:
    """Return a character in a form that is readable for any character: `'~' (U+007E TILDE)`."""
    code_point = f"U+{ord(character):04X}"
    name = unicodedata.name(character, "")
    shown = quoted(character)
    if unicodedata.combining(character):
        shown = f"'\u25cc{character}'"  # because a mark alone would lie over the quotation mark
    return f"{shown} ({code_point} {name})" if name else f"{shown} ({code_point})"


def describe_unknown(text: str, place: int, known: frozenset[str], *, as_bytes: bool) -> Unknown:
    """Describe the unknown character at a place of a text.

    Args:
        text: characters of a model.
        place: the index of the unknown one.
        known: the characters that the model knows.
        as_bytes: whether the characters of the model are bytes.
    """
    character = text[place]
    if as_bytes:
        name = f"byte 0x{ord(character):02X}"
        whole = _character_of_byte(text, place)
        if whole is None:
            return Unknown(name, None)
        like = next((form for form in _folded(whole) if known.issuperset(_bytes_of(form))), None)
        return Unknown(f"{name} of {describe(whole)}", like)
    name = f"character {describe(character)}"
    if place and unicodedata.combining(character):
        composed = unicodedata.normalize("NFC", text[place - 1 : place + 1])
        if len(composed) == 1:
            name += f" of {quoted(composed)}"
            character = composed
    return Unknown(name, look_alike(character, known))


def look_alike(character: str, known: frozenset[str]) -> str | None:
    """Return what a model knows in the place of a character: `'` for `’`, or None.

    The known character can differ in its typography, its case or its accents. It can be several
    characters, as in `...` for `…`.
    """
    for folded in _folded(character):
        if folded != character and known.issuperset(folded):
            return folded
    typographic = _typographic(character)
    alike = [other for other in known if _typographic(other) == typographic]
    order = {other: number for number, other in enumerate(TYPOGRAPHY)}
    return min(alike, key=lambda other: order.get(other, ord(other) + len(order)), default=None)


def _bytes_of(text: str) -> str:
    return text.encode("utf-8").decode("latin-1")


def _folded(character: str) -> Iterator[str]:
    """Yield simpler forms of a character, the most similar ones first."""
    typographic = _typographic(character)
    yield from (typographic, character.lower(), character.upper())
    yield from (typographic.lower(), typographic.upper())
    decomposed = unicodedata.normalize("NFD", character)
    base = decomposed[0]
    if len(decomposed) > 1 and unicodedata.name(base, "").startswith(ACCENTED):
        yield from (base, base.lower(), base.upper())


def _typographic(character: str) -> str:
    """Return a character without its typography: `'` for `’`, `A` for the full-width one."""
    return TYPOGRAPHY.get(character) or unicodedata.normalize("NFKC", character)


def _character_of_byte(text: str, place: int) -> str | None:
    """Return the character to which a byte of UTF-8 belongs, None if it is invalid."""
    for begin in range(place, max(place - LONGEST_UTF_8, -1), -1):
        for end in range(place + 1, begin + LONGEST_UTF_8 + 1):
            try:
                character = text[begin:end].encode("latin-1").decode("utf-8")
            except UnicodeError:
                continue
            if len(character) == 1:
                return character
    return None
