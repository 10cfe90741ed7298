"""What can be said of every character of a text without a model: labels, to explain units by.

Each label is a number for every character, (N,), of what a network may know when it has read that
character; those of the next character say what it can foresee. Quotation marks and brackets only
count if they are closed, and a word in capitals is one from its first letter on. A flag is 0 or 1.

N: characters of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Flags = NDArray[np.bool_]

FARTHEST = 2_000  # characters from a bracket or quotation mark to the one that closes it, at most
MOST_IN_LINE, MOST_IN_WORD, MOST_IN_SENTENCE = 200, 20, 300  # where distances stop to grow
PAIRS = {")": "(", "]": "[", "}": "{"}
CLOSED_BY = {'"': '"', "”": "“„", "“": "„", "»": "«"}  # what each quotation mark closes
VOWELS = frozenset("aeiouyAEIOUYäöüÄÖÜàáâèéêëìíîïòóôùúûœæ")


def label_text(text: str) -> dict[str, Values]:
    """Every label's values for a text, (N,), by the label's name."""
    return {name: np.asarray(values, np.float32) for name, values in _labels(text)}


def _labels(text: str) -> Iterator[tuple[str, NDArray[Any]]]:
    is_letter, is_upper = _flags(text, str.isalpha), _flags(text, str.isupper)
    is_digit, is_space = _flags(text, str.isdigit), _flags(text, lambda c: c == " ")
    is_newline = _flags(text, lambda c: c == "\n")
    is_vowel = _flags(text, VOWELS.__contains__)
    is_mark = _flags(text, lambda c: not c.isalnum() and not c.isspace())
    is_stop = _flags(text, ".!?".__contains__)
    in_word = is_letter | _flags(text, "'’".__contains__)

    quoted = _spans(text, _quotations(text))
    yield "inside double quotes", quoted
    brackets = list(_bracket_pairs(text))
    yield "inside parentheses", _spans(text, [p for p in brackets if text[p[0]] == "("])
    yield (
        "inside square or curly brackets",
        _spans(text, [p for p in brackets if text[p[0]] != "("]),
    )
    yield "nesting depth of brackets", _depth(text, brackets)
    yield "inside a tag <…>", _spans(text, _found(r"<[/!?a-zA-Z][^<>\n]*>", text, 1))
    yield "inside a comment (# or //)", _spans(text, _found(r"(?:#|(?<!:)//)[^\n]*", text, 0))

    in_line = _since(is_newline)
    yield "position in the line", np.minimum(in_line, MOST_IN_LINE)
    yield "position in the word", np.minimum(np.where(in_word, _since(~in_word), 0), MOST_IN_WORD)
    yield "distance since the last full stop", np.minimum(_since(is_stop), MOST_IN_SENTENCE)
    yield "characters since a capital", np.minimum(_since(is_upper), MOST_IN_LINE)
    indentation, beginning = _indentation(text)
    yield "indentation of the line", indentation
    yield "in the spaces that begin a line", beginning
    yield "in a line's first word", _in_first_word(text)

    yield "after a line break", is_newline
    yield "after an empty line", is_newline & _before(is_newline)
    yield "after a space", is_space
    yield "after a capital", is_upper
    yield "after a vowel", is_vowel
    yield "after a consonant", is_letter & ~is_vowel
    yield "after punctuation", is_mark
    yield "after a full stop", is_stop
    yield "after a comma", _flags(text, lambda c: c == ",")

    yield (
        "in a word that began with a capital",
        _spans(text, _words(text, lambda w: w[0].isupper())),
    )
    capitals = _words(text, lambda w: len(w) > 1 and w.isupper())
    yield "in a word in capitals", _spans(text, capitals)
    yield "in a number", is_digit | (_between_digits(text) & ~is_digit)
    yield "in a word of one or two letters so far", in_word & (_since(~in_word) <= 2)

    yield "the next character is a space", _next(is_space)
    yield "the next character is a line break", _next(is_newline)
    yield "the next character is a letter", _next(is_letter)
    yield "the next character is a capital", _next(is_upper)
    yield "the next character is a vowel", _next(is_vowel)
    yield "the next character is punctuation", _next(is_mark)


def _flags(text: str, test: Callable[[str], bool]) -> Flags:
    """Which characters pass a test, (N,)."""
    kinds, places = np.unique(np.array(list(text), dtype="U1"), return_inverse=True)
    # NumPy's strings drop a null character at their end.
    return np.array([test(str(kind) or "\0") for kind in kinds], dtype=bool)[places]


def _before(flags: Flags) -> Flags:
    return np.concatenate([[False], flags])[:-1]


def _next(flags: Flags) -> Flags:
    return np.concatenate([flags, [False]])[1:]


def _since(flags: Flags) -> NDArray[np.intp]:
    """Characters since the last flag, 0 at it; from the beginning where there was none, (N,)."""
    places = np.arange(len(flags))
    last = np.maximum.accumulate(np.where(flags, places, -1))
    return places - last


def _spans(text: str, spans: list[tuple[int, int]]) -> Flags:
    """Which characters lie inside: from the first of a span to before its last, for with the last
    one it is over."""
    steps = np.zeros(len(text) + 1, np.int64)
    for begin, end in spans:
        steps[begin] += 1
        steps[end] -= 1
    return np.asarray(np.cumsum(steps[:-1]) > 0)


def _depth(text: str, spans: list[tuple[int, int]]) -> NDArray[np.int64]:
    steps = np.zeros(len(text) + 1, np.int64)
    for begin, end in spans:
        steps[begin] += 1
        steps[end] -= 1
    return np.asarray(np.cumsum(steps[:-1]))


def _found(pattern: str, text: str, closing: int) -> list[tuple[int, int]]:
    return [(m.start(), m.end() - closing) for m in re.finditer(pattern, text)]


def _words(text: str, test: Callable[[str], bool]) -> list[tuple[int, int]]:
    return [(m.start(), m.end()) for m in re.finditer(r"[^\W\d_]+", text) if test(m[0])]


def _quotations(text: str) -> list[tuple[int, int]]:
    """Where double quotation marks open and close. A straight one opens and closes in turn; a
    paragraph's end closes whatever is open, so that one mark too many does not turn the rest inside
    out."""
    pairs: list[tuple[int, int]] = []
    opened: list[int] = []
    for m in re.finditer(r"[\"“”„«»]|\n\s*\n", text):
        place, mark = m.start(), m[0]
        if len(mark) > 1:
            pairs += [(begin, place) for begin in opened[:1]]
            opened.clear()
        elif opened and text[opened[-1]] in CLOSED_BY.get(mark, ""):
            pairs.append((opened.pop(), place))
        elif mark not in "”»":
            opened.append(place)
    return [(begin, end) for begin, end in pairs if end - begin <= FARTHEST]


def _bracket_pairs(text: str) -> Iterator[tuple[int, int]]:
    """Brackets with the ones that close them; what is never closed is none."""
    opened: list[int] = []
    for m in re.finditer(r"[()\[\]{}]", text):
        if m[0] not in PAIRS:
            opened.append(m.start())
        elif opened and text[opened[-1]] == PAIRS[m[0]]:
            begin = opened.pop()
            if m.start() - begin <= FARTHEST:
                yield begin, m.start()
        elif opened and m.start() - opened[-1] > FARTHEST:
            opened.clear()


def _indentation(text: str) -> tuple[NDArray[np.intp], Flags]:
    """The width of what a line begins with, once it has been read; and whether it is being read."""
    width = np.zeros(len(text), np.intp)
    reading = np.zeros(len(text), dtype=bool)
    for m in re.finditer(r"^[ \t]+", text, re.MULTILINE):
        end = text.find("\n", m.end())
        width[m.start() : m.end()] = np.arange(1, m.end() - m.start() + 1)
        width[m.end() : end if end >= 0 else len(text)] = m.end() - m.start()
        reading[m.start() : m.end()] = True
    return width, reading


def _in_first_word(text: str) -> Flags:
    return _spans(text, [(m.start(1), m.end(1)) for m in re.finditer(r"(?m)^[ \t]*(\S+)", text)])


def _between_digits(text: str) -> Flags:
    """Points and commas within a number."""
    return _spans(text, [(m.start(), m.end()) for m in re.finditer(r"(?<=\d)[.,](?=\d)", text)])
