r"""Stop texts that a user passes, as the model can write them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from charloom.errors import CharloomError, CharloomWarning, shortened
from charloom.text.escapes import intended
from charloom.text.format import TextFormat
from charloom.text.typed import as_read
from charloom.text.vocabulary import Vocabulary


def read_stops(
    stops: str | bytes | Sequence[str | bytes], format: TextFormat, vocabulary: Vocabulary
) -> tuple[str, ...]:
    """Return one or several stop texts of a caller in Python, with all the forms of each.

    A replaced escape and a text without effect are reported by a CharloomWarning.

    Raises:
        CharloomError: like `stop_forms`.
    """
    found: list[str] = []
    for stop in (stops,) if isinstance(stops, str | bytes) else stops:
        forms = stop_forms(stop, format, vocabulary)
        note = ""
        if not forms:
            note = without_effect(stop)
        elif isinstance(stop, str) and intended(stop, vocabulary) != stop:
            note = (
                f"escapes in the stop text {shortened(stop)} are replaced, because the model does "
                "not know the backslash"
            )
        if note:
            warnings.warn(note, CharloomWarning, stacklevel=4)
        found += forms
    return tuple(found)


def stop_forms(stop: str | bytes, format: TextFormat, vocabulary: Vocabulary) -> tuple[str, ...]:
    r"""Return the forms in which a model can write a stop text, as characters of the model.

    Escapes such as \n are replaced if the model does not know the backslash. A line break is one of
    the model's texts: LF, and CR LF or CR if they were kept.

    Args:
        stop: the text. Bytes are used as they are.
        format: how the model's texts are read.
        vocabulary: the model's characters.

    Returns:
        The forms, or an empty tuple for a line break if each document of the model is a line.

    Raises:
        CharloomError: if it is not text, or has an unknown character, so that it cannot occur.
    """
    text = intended(stop, vocabulary) if isinstance(stop, str) else stop
    characters = as_read(text, format, vocabulary)
    is_typed = isinstance(stop, str)
    forms = _with_line_breaks(characters, vocabulary.known) if is_typed else (characters,)
    unknown = vocabulary.ids_or_minus_one(forms[0]) < 0
    if not unknown.any():
        return forms
    if vocabulary.end_id is not None and not forms[0].strip("\n"):
        return ()
    name = vocabulary.describe_unknown(forms[0], int(unknown.argmax())).name
    raise CharloomError(
        f"the stop text {shortened(stop)} cannot occur, because the model does not know the "
        f"{name}: omit it"
    )


def without_effect(stop: str | bytes) -> str:
    """Return a note about a stop text without forms."""
    return (
        f"the stop text {shortened(stop)} has no effect, because each document of the model is a "
        "line"
    )


def _with_line_breaks(characters: str, known: frozenset[str]) -> tuple[str, ...]:
    """Return a stop text with each kind of line break that a model knows."""
    if "\r" not in known:
        return (characters.replace("\r\n", "\n").replace("\r", "\n"),)
    if "\n" not in characters or "\r" in characters:
        return (characters,)
    if "\n" not in known:
        return (characters.replace("\n", "\r"),)
    return characters, characters.replace("\n", "\r\n")
