"""The errors that a user sees, and the form in which their messages quote a value.

A message is one line, the problem and then its remedy: `the text 'a' is empty: pass a longer one`.
"""

from pathlib import Path


def printable(text: str) -> str:
    """Return a text on one line, with every character escaped that could control a terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def shortened(value: object, most: int = 60) -> str:
    """Return a value's `repr`, cut to `most` characters, for a message to quote."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print an integer of thousands of digits.
        text = "a number of thousands of digits"
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 4 :]}"


def quoted_path(source: str | Path) -> str:
    """Return a path in quotes and on one line, cut where a whole text was passed as a path."""
    quoted = repr(str(source))
    return quoted if len(quoted) <= 300 else f"{quoted[:100]}…{quoted[-100:]}"


def error_reason(error: Exception) -> str:
    """Return an exception's message on one line, or its type where it has no message."""
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(str(reason).split())


class CharloomError(ValueError):
    """A mistake in the user's input (a text, an option, a file), described in one line.

    The command line prints it as `charloom: MESSAGE` on standard error and exits with status 2.
    """


class MissingExtraError(CharloomError, AttributeError):
    """An extra that is not installed. A public name that requires it is then missing, too."""


class LostRanksError(CharloomError):
    """The loss of the other processes of a distributed run."""
