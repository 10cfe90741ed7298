r"""Escapes such as \n in text that a user types where a line break cannot be typed."""

from __future__ import annotations

import re

from charloom.errors import CharloomError, shortened
from charloom.text.vocabulary import Vocabulary

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0", "\\": "\\"}
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.|\Z)", re.DOTALL)


def unescape(text: str, name: str) -> str:
    r"""Return a text with its escapes (\n, \t, \r, \f, \v, \0, \\, \xNN, \uNNNN) replaced.

    Args:
        text: the text.
        name: its option, for the error message.

    Raises:
        CharloomError: if it has an unknown escape.
    """

    def replaced(match: re.Match[str]) -> str:
        escape = match.group(1)
        if len(escape) > 1:
            code = int(escape[1:], 16)
            if code < 0x110000 and not 0xD800 <= code < 0xE000:
                return chr(code)
        elif escape in _ESCAPES:
            return _ESCAPES[escape]
        raise CharloomError(
            f"{name} is {shortened(text)}, and '\\{escape}' is not a character: use \\n, "
            "\\t, \\r, \\xNN or \\uNNNN, and \\\\ for a backslash"
        )

    return _ESCAPE.sub(replaced, text)


def intended(text: str, vocabulary: Vocabulary) -> str:
    """Return a typed text with its escapes replaced if the model cannot mean the text itself.

    That is so where the model does not know the backslash. A text with an unknown escape is
    returned as it is.
    """
    if "\\" not in text or "\\" in vocabulary.characters:
        return text
    try:
        return unescape(text, "the text")
    except CharloomError:
        return text


def is_escaped(text: str) -> bool:
    r"""Return whether a text consists of escapes of one letter, such as \n\n."""
    return re.fullmatch(r"(\\[ntr])+", text) is not None
