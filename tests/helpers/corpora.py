"""A book, and the line that opening a text is refused with."""

from pathlib import Path

import pytest

from charloom.errors import CharloomError
from charloom.text.corpora import open_text

EMBEDDED = ("python-help", "python-docs", "python-stdlib", "unicode-names")


BOOK = (
    "\ufeffThe Project Gutenberg EBook of a Book\n\n*** START OF THIS PROJECT GUTENBERG EBOOK ***\n"
    "\n  \n  Chapter 1\n\nIt is “a truth”.\n\n\nEnd of the Project Gutenberg EBook of a Book\n\n"
    "*** END OF THIS PROJECT GUTENBERG EBOOK ***\n\n*** START: FULL LICENSE ***\nnone\n"
)


INNER = "  Chapter 1\n\nIt is “a truth”.\n"


def refusal(source: object, **options) -> str:
    """The one line that opening, or else reading, a text is refused with."""
    with pytest.raises(CharloomError) as caught:
        open_text(source, **options).read()
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__cause__ is None
    return message


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
