"""Cut a stream of text into documents: whole texts, lines, or texts between separators.

A cut reads pieces of text and returns pieces in which each document ends with END. It holds at most
a few characters back, so that neither a document nor a text is ever whole in memory. A document
without characters is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from charloom.errors import CharloomError
from charloom.text import escapes
from charloom.text.vocabulary import END

Cut = Callable[[Iterable[str]], Iterator[str]]


def whole(pieces: Iterable[str]) -> Iterator[str]:
    """Return a whole text as one document."""
    found = False
    for piece in pieces:
        found = found or bool(piece)
        yield piece
    if found:
        yield END


def lines(pieces: Iterable[str]) -> Iterator[str]:
    """Return each line as a document, without carriage returns at its end."""
    held = ""  # carriage returns that a line break can follow in the next piece
    inside = False  # a document
    for piece in pieces:
        text = held + piece
        body = text.rstrip("\r")
        held = text[len(body) :]
        if "\r" in body or "\n\n" in body:
            body = _LINE_BREAKS.sub(END, body)
        else:  # the same, and faster
            body = body.replace("\n", END)
        if body.startswith(END) and not inside:
            body = body[1:]
        if body:
            yield body
            inside = body[-1] != END
    if inside:
        yield END


_LINE_BREAKS = re.compile("(?:\r*\n)+")


def separated(separator: str) -> Cut:
    """Return the cut between occurrences of a separator.

    A separator of line breaks only also matches more of them, and line breaks at the beginning and
    the end of the text. A line break at the beginning or the end of another separator can be
    missing at the end of the text.
    """
    if not separator.strip("\n"):
        return _between_line_breaks(len(separator))

    def cut(pieces: Iterable[str]) -> Iterator[str]:
        held = ""  # the beginning of a separator, perhaps
        inside = False
        for piece in pieces:
            text = (held + piece).replace(separator, END)
            held = _beginning(separator, text)
            body = _without_empty(text[: len(text) - len(held)], inside)
            if body:
                yield body
                inside = body[-1] != END
        if held and not _ends_a_text(separator, held):
            yield held
            inside = True
        if inside:
            yield END

    return cut


def _between_line_breaks(count: int) -> Cut:
    pattern = re.compile(f"\n{{{count},}}")

    def cut(pieces: Iterable[str]) -> Iterator[str]:
        held = ""  # line breaks
        inside = False
        for piece in pieces:
            text = held + piece
            body = text.rstrip("\n")
            held = text[len(body) :] if body or inside else ""
            if len(held) > count:  # a longer run means the same
                held = held[:count]
            if not inside:
                body = body.lstrip("\n")
            if not body:
                continue
            body = pattern.sub(END, body)
            yield body
            inside = True
        if inside:
            yield END

    return cut


def _beginning(separator: str, text: str) -> str:
    """Return the longest end of a text with which a separator can begin."""
    tail = text[1 - len(separator) :] if len(separator) > 1 else ""
    for start in range(len(tail)):
        if separator.startswith(tail[start:]):
            return tail[start:]
    return ""


def _ends_a_text(separator: str, held: str) -> bool:
    return held == "\n" or (separator.endswith("\n") and held == separator[:-1])


_ENDS = re.compile(f"{END}+")


def _without_empty(text: str, inside: bool) -> str:
    """Return a cut text without its empty documents; `inside` if it continues a document."""
    text = _ENDS.sub(END, text)
    return text[1:] if text.startswith(END) and not inside else text


def unescape(separator: str) -> str:
    """Return a separator with its escapes replaced, as `escapes.unescape` does.

    Raises:
        CharloomError: if it is empty, or has an unknown escape.
    """
    if not separator:
        raise CharloomError(
            "--separator is empty: pass the text between two documents, or use --lines"
        )
    return escapes.unescape(separator, "--separator")


def check_cuts(lines: bool, separator: str | None, column: str | None) -> None:
    """Raise CharloomError if options for documents exclude each other or are invalid."""
    chosen = [
        name
        for name, is_set in (
            ("--lines", lines),
            ("--separator", separator is not None),
            ("--column", column is not None),
        )
        if is_set
    ]
    if len(chosen) > 1:
        raise CharloomError(f"{' and '.join(chosen)} cannot be combined: pass one of them")
    if separator is not None:
        unescape(separator)
    if column == "":
        raise CharloomError("--column is empty: pass the name of a column")
