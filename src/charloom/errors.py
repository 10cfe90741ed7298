"""The one exception a user is meant to see: a sentence that says what is wrong and what to do."""


class CharloomError(ValueError):
    """A mistake in what the user gave (a text, an option, a file), told in one plain line.

    The command line prints it as `charloom: MESSAGE` on standard error and exits with status 2.
    """
