"""The errors that a user sees, and the form in which their messages quote a value.

A message is one line, the problem and then its remedy: `the text 'a' is empty: pass a longer one`.
"""

import re
from pathlib import Path

# Characters without a shape that belong to the text around them. Anywhere else they are escaped.
# They are joiners inside an emoji, or inside a word of some scripts, and the tags of a flag.
_EMOJI = "\u2190-\u2bff\U0001f000-\U0001faff"
_JOINING = "\u0600-\u0dff\u0f00-\u109f\u1780-\u18af"  # Arabic to Sinhala, Tibetan to Mongolian
_PART_OF_TEXT = re.compile(
    f"(?<=[{_EMOJI}\ufe0f])\u200d(?=[{_EMOJI}])"
    f"|(?<=[{_JOINING}])[\u200c\u200d](?=[{_JOINING}])"
    "|\U0001f3f4[\U000e0020-\U000e007f]+"
)
DOTTED_CIRCLE = "\u25cc"  # shows a combining mark that follows no character


def printable(text: str) -> str:
    """Return a text on one line, with its characters as themselves.

    Characters that control a terminal, that are invisible or that reorder a line are escaped. A
    combining mark without a character before it is shown on a dotted circle.
    """
    if text.isprintable():
        return DOTTED_CIRCLE + text if _is_mark(text[:1]) else text
    kept = {i for m in _PART_OF_TEXT.finditer(text) for i in range(*m.span())}
    shown: list[str] = []
    alone = True  # no character before the mark
    for i, character in enumerate(text):
        if not (character.isprintable() or i in kept or _category(character) == "Zs"):
            shown.append(escaped(character))
            alone = True
            continue
        if alone and _is_mark(character):
            shown.append(DOTTED_CIRCLE)
        shown.append(character)
        alone = False
    return "".join(shown)


def _is_mark(character: str) -> bool:
    return not character.isascii() and _category(character).startswith("M")


def _category(character: str) -> str:
    import unicodedata  # here, because most messages do not need it

    return unicodedata.category(character)


def escaped(character: str) -> str:
    r"""Return a character as an escape of Python, such as `\n` or `\u200b`."""
    return character.encode("unicode_escape").decode("ascii")


def quoted(text: str) -> str:
    """Return a text in quotes, on one line."""
    mark = '"' if "'" in text and '"' not in text else "'"
    return f"{mark}{printable(text)}{mark}"


def shortened(value: object, most: int = 60) -> str:
    """Return a value as code would spell it, cut to `most` characters, for a message to quote."""
    if isinstance(value, str):
        text = quoted(value)
    else:
        try:
            text = printable(repr(value))
        except ValueError:  # Python refuses to print an integer of thousands of digits.
            text = "a number of thousands of digits"
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 4 :]}"


def quoted_path(source: str | Path) -> str:
    """Return a path in quotes and on one line, cut where a whole text was passed as a path."""
    found = quoted(str(source))
    return found if len(found) <= 300 else f"{found[:100]}…{found[-100:]}"


def plural(number: float, noun: str) -> str:
    """Return a number with its noun: `1 character`, `2,000 passes`, `0.5 minutes`."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    if number == 1:
        return f"{shown} {noun}"
    return f"{shown} {noun}{'es' if noun.endswith('s') else 's'}"


def error_reason(error: Exception) -> str:
    """Return an exception's message on one line, or its type where it has no message."""
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(str(reason).split())


class CharloomError(ValueError):
    """A mistake in the user's input (a text, an option, a file), described in one line.

    The command line prints it as `charloom: MESSAGE` on standard error and exits with status 2.
    """


class CharloomWarning(UserWarning):
    """A decision that was made for the user, in one line. The command line prints it."""


class MissingExtraError(CharloomError, AttributeError):
    """An extra that is not installed. A public name that requires it is then missing, too."""


class LostRanksError(CharloomError):
    """The loss of the other processes of a distributed run."""
