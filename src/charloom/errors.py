"""The exceptions a user is meant to see: a sentence that says what is wrong and what to do."""


def printable(text: str) -> str:
    """A text on one line that does nothing to a terminal: whatever is not printable is escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def shortened(value: object, most: int = 60) -> str:
    """A value as a message can quote it, whatever its length."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of so many digits
        text = "a number of thousands of digits"
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 4 :]}"


class CharloomError(ValueError):
    """A mistake in what the user gave (a text, an option, a file), told in one plain line.

    The command line prints it as `charloom: MESSAGE` on standard error and exits with status 2.
    """


class LostRanksError(CharloomError):
    """The other processes of a training are gone."""
