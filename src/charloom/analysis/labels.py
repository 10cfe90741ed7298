"""Labels of the characters of a text, computed without a model, for explaining units.

A label is a number for each character, (N,). It is a property of the text up to that character,
which a network can know, or of the next character, which it can predict. Flags are 0 or 1.
Quotation marks and brackets count only if they are closed. A word in capitals counts from its first
letter on. In a collection, the end of a document separates lines and paragraphs like line breaks,
but is neither a line break nor punctuation.

A label whose notion a text lacks is 0 everywhere, such as capitals in a script without case. The
notions of each script are in `characters.py`.

N: characters of the text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.analysis.characters import Characters, Flags, decode_bytes
from charloom.text.vocabulary import END

Values = NDArray[np.float32]
Labels = Iterator[tuple[str, NDArray[Any]]]  # names and values, (N,) each
Spans = list[tuple[int, int]]  # [begin, end)

FARTHEST = 2_000  # most characters from an opening bracket or quotation mark to the closing one
MOST_IN_LINE, MOST_IN_WORD, MOST_IN_SENTENCE = 200, 20, 300  # limits of distances
MOST_IN_DOCUMENT = 2_000
PARENTHESES = "()（）﹙﹚"
BRACKETS = PARENTHESES + "[]{}［］｛｝【】〔〕〖〗〘〙〚〛《》〈〉⟨⟩⟪⟫"
PAIRS = dict(zip(BRACKETS[1::2], BRACKETS[::2], strict=True))
# The marks that each quotation mark closes. A straight mark opens and closes in turn.
CLOSED_BY = {'"': '"', "＂": "＂", "”": "“„‟", "“": "„", "»": "«", "›": "‹"}
CLOSED_BY |= {"」": "「", "』": "『", "｣": "｢", "﹂": "﹁", "﹄": "﹃", "〞": "〝", "〟": "〝"}
REVERSIBLE = {"»": "«", "›": "‹"}  # German books have »…«
LINE_BREAKS = re.compile("\r(?!\n)|[\u2028\u2029]")


def label_text(text: str, *, as_bytes: bool = False) -> dict[str, Values]:
    """Return the values of every label for a text, (N,) each, by the label's name.

    With `as_bytes`, each character of the text is a byte. It has the labels of the character to
    which it belongs in UTF-8.
    """
    if as_bytes:
        decoded, places = decode_bytes(text)
        return {name: values[places] for name, values in label_text(decoded).items()}
    text = LINE_BREAKS.sub("\n", text)
    characters = Characters.of(text)
    collection = bool(characters.end.any())
    with_ends, text = text, text.replace(END, "\n")
    labels = (
        _nesting(with_ends),
        _positions(text, characters),
        _last_character(characters),
        _words_and_numbers(text, characters),
        _next_character(characters),
        _documents(characters) if collection else (),
    )
    return {name: np.asarray(values, np.float32) for part in labels for name, values in part}


def _nesting(text: str) -> Labels:
    yield "inside double quotes", _inside(text, _quotations(text))
    brackets = list(_bracket_pairs(text))
    yield "inside parentheses", _inside(text, [p for p in brackets if text[p[0]] in PARENTHESES])
    others = [p for p in brackets if text[p[0]] not in PARENTHESES]
    yield "inside square or curly brackets", _inside(text, others)
    yield "nesting depth of brackets", _depth(text, brackets)
    text = text.replace(END, "\n")
    yield "inside a tag <…>", _inside(text, _matches(r"<[/!?a-zA-Z][^<>\n]*>", text, closing=1))
    yield "inside a comment (# or //)", _inside(text, _matches(r"(?:#|(?<!:)//)[^\n]*", text))


def _positions(text: str, c: Characters) -> Labels:
    yield "position in the line", np.minimum(_since(c.newline | c.end), MOST_IN_LINE)
    in_word = np.where(c.in_word, _since(~c.in_word), 0)
    yield "position in the word", np.minimum(in_word, MOST_IN_WORD)
    since_stop = np.minimum(_since(c.stop | c.end), MOST_IN_SENTENCE)
    yield "distance since the last full stop", since_stop * c.stop.any()
    since_capital = np.minimum(_since(c.upper | c.end), MOST_IN_LINE)
    yield "characters since a capital", since_capital * c.upper.any()
    indentation, beginning = _indentation(text)
    yield "indentation of the line", indentation
    yield "in the spaces that begin a line", beginning
    yield "in a line's first word", _in_first_word(text, c)


def _last_character(c: Characters) -> Labels:
    yield "after a line break", c.newline
    yield "after an empty line", c.newline & _previous(c.newline)
    yield "after a space", c.space
    yield "after a capital", c.upper
    yield "after a vowel", c.vowel
    yield "after a consonant", c.consonant
    yield "after punctuation", c.mark
    yield "after a full stop", c.stop
    yield "after a comma", c.comma


def _words_and_numbers(text: str, c: Characters) -> Labels:
    words = _runs(c.letter & ~c.unspaced)
    capitalized = [(begin, end) for begin, end in words if text[begin].isupper()]
    yield "in a word that began with a capital", _inside(text, capitalized)
    capitals = [
        (begin, end)
        for begin, end in words
        if text[begin:end].isupper() and sum(map(str.isalpha, text[begin:end])) > 1
    ]
    yield "in a word in capitals", _inside(text, capitals)
    yield "in a number", c.digit | _inside_number(text)
    yield "in a word of one or two letters so far", c.in_word & (_since(~c.in_word) <= 2)


def _next_character(c: Characters) -> Labels:
    yield "the next character is a space", _next(c.space)
    yield "the next character is a line break", _next(c.newline)
    yield "the next character is a letter", _next(c.letter)
    yield "the next character is a capital", _next(c.upper)
    yield "the next character is a vowel", _next(c.vowel)
    yield "the next character is punctuation", _next(c.mark)


def _documents(c: Characters) -> Labels:
    yield "at the beginning of a document", c.end
    yield "position in the document", np.minimum(_since(c.end), MOST_IN_DOCUMENT)
    yield "the next is the end of the document", _next(c.end)


def _previous(flags: Flags) -> Flags:
    return np.concatenate([[False], flags])[:-1]


def _next(flags: Flags) -> Flags:
    return np.concatenate([flags, [False]])[1:]


def _since(flags: Flags) -> NDArray[np.intp]:
    """Return the distances to the last flag, 0 at the flag itself, (N,). Before the first flag they
    count from the beginning, as if there were a flag before the text."""
    places = np.arange(len(flags))
    last = np.maximum.accumulate(np.where(flags, places, -1))
    return places - last


def _inside(text: str, spans: Spans) -> Flags:
    """Return flags of the characters in spans, (N,). The closing character of a pair is outside,
    because the network has then read it."""
    return _depth(text, spans) > 0


def _depth(text: str, spans: Spans) -> NDArray[np.int64]:
    """Return the number of spans around each character, (N,)."""
    steps = np.zeros(len(text) + 1, np.int64)
    for begin, end in spans:
        steps[begin] += 1
        steps[end] -= 1
    return np.asarray(np.cumsum(steps[:-1]))


def _matches(pattern: str, text: str, closing: int = 0) -> Spans:
    """Return the spans of a regular expression, without their last `closing` characters."""
    return [(m.start(), m.end() - closing) for m in re.finditer(pattern, text)]


def _runs(flags: Flags) -> Spans:
    """Return the spans in which flags are set."""
    changes = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    return list(zip(changes[::2], changes[1::2], strict=True))


def _quotations(text: str) -> Spans:
    """Return the spans between double quotation marks. The end of a paragraph or document closes
    any open mark, so that an unmatched one does not invert the rest."""
    closed_by = _closed_by(text)
    marks = re.escape("".join({*closed_by, *"".join(closed_by.values())}))
    opening = frozenset("".join(closed_by.values()))
    pairs: Spans = []
    opened: list[int] = []
    for m in re.finditer(rf"[{marks}]|\n\s*\n|{END}", text):
        place, mark = m.start(), m[0]
        if len(mark) > 1 or mark == END:
            pairs += [(begin, place) for begin in opened[:1]]
            opened.clear()
        elif opened and text[opened[-1]] in closed_by.get(mark, ""):
            pairs.append((opened.pop(), place))
        elif mark in opening:
            opened.append(place)
    return [(begin, end) for begin, end in pairs if end - begin <= FARTHEST]


def _closed_by(text: str) -> dict[str, str]:
    """Return the marks that each quotation mark of a text closes.

    A text can have »…« as German books, or »…» and ”…” as Swedish ones.
    """
    found = dict(CLOSED_BY)
    for closing, opening in REVERSIBLE.items():
        paragraphs = re.findall(rf"[{opening}{closing}][^\n]*", text)
        first = sum(paragraph[0] == closing for paragraph in paragraphs)
        if closing in text and opening not in text:
            found[closing] = closing
        elif 2 * first > len(paragraphs):
            del found[closing]
            found[opening] = closing
    if "”" in text and not set("“„‟") & set(text):
        found["”"] = "”"
    return found


def _bracket_pairs(text: str) -> Iterator[tuple[int, int]]:
    """Yield the places of opening and closing brackets. Brackets without a partner are skipped."""
    opened: list[int] = []
    for m in re.finditer(rf"[{re.escape(BRACKETS)}{END}]", text):
        if m[0] == END:
            opened.clear()
        elif m[0] not in PAIRS:
            opened.append(m.start())
        elif opened and text[opened[-1]] == PAIRS[m[0]]:
            begin = opened.pop()
            if m.start() - begin <= FARTHEST:
                yield begin, m.start()
        elif opened and m.start() - opened[-1] > FARTHEST:
            opened.clear()


def _indentation(text: str) -> tuple[NDArray[np.intp], Flags]:
    """Return the width of each line's indentation, as far as it has been read, (N,), and flags of
    the characters of the indentation, (N,)."""
    width = np.zeros(len(text), np.intp)
    beginning = np.zeros(len(text), dtype=bool)
    for m in re.finditer(r"^[ \t]+", text, re.MULTILINE):
        end = text.find("\n", m.end())
        width[m.start() : m.end()] = np.arange(1, m.end() - m.start() + 1)
        width[m.end() : end if end >= 0 else len(text)] = m.end() - m.start()
        beginning[m.start() : m.end()] = True
    return width, beginning


def _in_first_word(text: str, c: Characters) -> Flags:
    # A word ends before the first letter of a script that does not separate words.
    unspaced = [*np.flatnonzero(c.unspaced).tolist(), len(text)]
    spans = [(m.start(1), m.end(1)) for m in re.finditer(r"(?m)^[ \t]*(\S+)", text)]
    return _inside(
        text,
        [(begin, min(end, unspaced[bisect_left(unspaced, begin)])) for begin, end in spans],
    )


def _inside_number(text: str) -> Flags:
    """Return flags of the points and commas between digits."""
    return _inside(text, _matches(r"(?<=\d)[.,٫٬](?=\d)", text))
