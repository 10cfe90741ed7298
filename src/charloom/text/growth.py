"""A text that has grown since a model was trained on it, and begins as it was then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from charloom.errors import shortened
from charloom.text.dataset import OtherTextError, scan
from charloom.text.source import Text
from charloom.text.vocabulary import END


class GrownTextError(OtherTextError):
    """A text that begins with the expected one.

    Attributes:
        beginning: the expected text.
    """

    def __init__(self, message: str, beginning: Text) -> None:
        super().__init__(message)
        self.beginning = beginning


def refuse_grown_text(text: Text, record: Mapping[str, Any]) -> None:
    """Raise GrownTextError if a text is longer than the recorded one, with which it begins.

    Args:
        text: the text.
        record: the entry `text` of a checkpoint.
    """
    length, unit = record.get("characters"), "character"
    if text.ends:
        length, unit = record.get("documents"), "document"
    elif isinstance(length, int) and isinstance(record.get("folded"), int):
        length += record["folded"]
    # With texts of --validation and --test, the record counts their characters, too.
    if not isinstance(length, int) or length < 1 or "own" in record:
        return
    cut = _first_documents if text.ends else _first_characters
    beginning = replace(text, pieces=cut(text.pieces, length))
    if scan(beginning, with_hashes=False).sha256 != record.get("sha256"):
        return
    total = sum(piece.count(END) if text.ends else len(piece) for piece in text.pieces())
    if total > length:
        growth = f"{total - length:,} {unit}{'s' if total - length > 1 else ''}"
        raise GrownTextError(
            f"the text {shortened(text.name)} has grown by {growth} since the training began",
            beginning,
        )


def _first_characters(
    pieces: Callable[[], Iterator[str]], length: int
) -> Callable[[], Iterator[str]]:
    def beginning() -> Iterator[str]:
        left = length
        for piece in pieces():
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return

    return beginning


def _first_documents(
    pieces: Callable[[], Iterator[str]], length: int
) -> Callable[[], Iterator[str]]:
    def beginning() -> Iterator[str]:
        left = length
        for piece in pieces():
            if piece.count(END) >= left:
                yield END.join(piece.split(END, left)[:left]) + END
                return
            yield piece
            left -= piece.count(END)

    return beginning
