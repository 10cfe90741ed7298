"""Classes of the characters of a text, by their scripts, for labels.

A class that does not exist in a script is empty. Vowels and consonants exist in the Latin, Cyrillic
and Greek alphabets, capitals in scripts with case, and words where spaces separate them.

N: characters of the text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from charloom.text.vocabulary import END

Flags = NDArray[np.bool_]

# Vowels of the alphabets that have them. A letter that decomposes is its base, such as é is e.
VOWELS = {
    "LATIN": frozenset("aeiouyæœøıəǝɐɑɒɔɘɛɜɞɤɨɩɪɯɵɶʉʊʌʏȣꜳꜵꜷꜹꜽꝏ"),
    "CYRILLIC": frozenset("аеиоуыэюяєіѡѣѥѧѩѫѭѵꙋꙑꙗәөүұ"),
    "GREEK": frozenset("αεηιουω"),
}
CONSONANTS = frozenset("йў")  # they decompose to vowels
SIGNS = frozenset("ъьҍӏ")  # Cyrillic letters that are neither
# Scripts without spaces between words, by the beginnings of their characters' names.
UNSPACED = (
    *("CJK ", "IDEOGRAPHIC ", "HIRAGANA", "KATAKANA", "BOPOMOFO", "YI SYLLABLE"),
    *("THAI ", "LAO ", "KHMER ", "MYANMAR ", "TAI ", "NEW TAI LUE "),
)
# Punctuation that ends a sentence, by parts of its names. Some names with these parts are excluded.
STOPS = (
    *("FULL STOP", "QUESTION MARK", "EXCLAMATION MARK", "INTERROBANG", "HORIZONTAL ELLIPSIS"),
    *("DANDA", "MARK SHAD", "DOUBLE SHAD", "NYIS SHAD", "SOF PASUQ"),
    *("KHMER SIGN KHAN", "KHMER SIGN BARIYOOSAN", "MYANMAR SIGN", "ETHIOPIC PARAGRAPH"),
)
NO_STOPS = ("INVERTED", "INITIAL", "ARMENIAN QUESTION", "ARMENIAN EXCLAMATION")
IN_WORDS = frozenset("'’׳״")  # apostrophes, and the marks of Hebrew abbreviations
JOINERS = "\u200c\u200d"
ASCII_SYMBOLS = frozenset("$+<=>^`|~")  # punctuation of program code


@dataclass(frozen=True)
class Characters:
    """The classes of a text's characters, flags (N,) each.

    A combining mark belongs to the classes of its letter.
    """

    letter: Flags
    upper: Flags
    digit: Flags
    space: Flags
    newline: Flags
    end: Flags  # of a document
    vowel: Flags
    consonant: Flags
    mark: Flags  # punctuation
    stop: Flags  # ends a sentence
    comma: Flags
    unspaced: Flags  # letters of a script that does not separate words
    in_word: Flags  # letters and apostrophes of words that spaces separate

    @classmethod
    def of(cls, text: str) -> Characters:
        def letters(test: Callable[[str], bool]) -> Flags:
            return flags(text, test)[letter_of]

        combining = flags(text, _is_combining)
        places = np.arange(len(text))
        # The place of each character, or of the one that a combining mark belongs to.
        letter_of = np.maximum.accumulate(np.where(combining, 0, places))
        letter, unspaced = letters(str.isalpha), letters(_is_unspaced)
        return cls(
            letter=letter,
            upper=letters(str.isupper),
            digit=letters(str.isdigit),
            space=flags(text, lambda c: unicodedata.category(c) == "Zs"),
            newline=flags(text, lambda c: c == "\n"),
            end=flags(text, lambda c: c == END),
            vowel=letters(lambda c: _sound(c) == "vowel"),
            consonant=letters(lambda c: _sound(c) == "consonant"),
            mark=flags(text, _is_punctuation),
            stop=flags(text, _ends_sentence),
            comma=flags(text, lambda c: _is_punctuation(c) and "COMMA" in unicodedata.name(c)),
            unspaced=unspaced,
            in_word=(letter & ~unspaced) | flags(text, IN_WORDS.__contains__),
        )


def flags(text: str, test: Callable[[str], bool]) -> Flags:
    """Return flags of the characters that pass a test, (N,)."""
    kinds, places = np.unique(np.array(list(text), dtype="U1"), return_inverse=True)
    # NumPy strips null characters from the end of strings, so a null character is an empty string.
    return np.array([test(str(kind) or "\0") for kind in kinds], dtype=bool)[places]


def decode_bytes(text: str) -> tuple[str, NDArray[np.intp]]:
    """Decode the characters of a model of bytes as UTF-8.

    Args:
        text: a character for each byte, U+0000 to U+00FF, and END; N characters.

    Returns:
        The decoded text, in which an invalid byte is half of a surrogate pair, and the index of
        each byte's character, (N,).
    """
    parts = [part.encode("latin-1").decode("utf-8", "surrogateescape") for part in text.split(END)]
    decoded = END.join(parts)
    lengths = [1 if "\ud800" <= c <= "\udfff" else len(c.encode()) for c in decoded]
    return decoded, np.repeat(np.arange(len(decoded)), lengths)


@lru_cache(maxsize=65_536)
def _sound(character: str) -> str:
    """Return `vowel` or `consonant`, or nothing where the notion does not exist."""
    if not character.isalpha():
        return ""
    lower = character.lower()
    base = unicodedata.normalize("NFKD", lower)[0]
    script = unicodedata.name(base, "").partition(" ")[0]
    if script not in VOWELS or base in SIGNS:
        return ""
    if lower in CONSONANTS:
        return "consonant"
    return "vowel" if base in VOWELS[script] or lower in VOWELS[script] else "consonant"


def _is_combining(character: str) -> bool:
    return character in JOINERS or unicodedata.category(character).startswith("M")


def _is_unspaced(character: str) -> bool:
    name = unicodedata.name(unicodedata.normalize("NFKD", character)[0], "")
    return character.isalpha() and name.startswith(UNSPACED)


def _ends_sentence(character: str) -> bool:
    name = unicodedata.name(character, "") if _is_punctuation(character) else ""
    return any(part in name for part in STOPS) and not any(part in name for part in NO_STOPS)


def _is_punctuation(character: str) -> bool:
    return character in ASCII_SYMBOLS or unicodedata.category(character).startswith("P")
