"""Text that a user types or passes as a string, read as the model's text was read; and its output.

The characters of a model are those of its vocabulary. In a model of bytes, each one stands for a
byte, U+0000 to U+00FF. Users never see these: they pass and get ordinary text.
"""

from __future__ import annotations

import codecs
import functools
import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

from charloom.errors import CharloomError, shortened
from charloom.text.format import TextFormat
from charloom.text.source import refuse_surrogates
from charloom.text.vocabulary import END, END_NAME, Vocabulary

NOT_ASCII = re.compile("[\x00-\x7f]?[^\x00-\x7f]+")  # with the character that marks can follow
NOT_BYTES = re.compile("([^\x00-\xff])")  # END, or a replacement for an unknown byte
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair, which no text has
# In such halves, Python represents the bytes of a command line that are not UTF-8.
ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
NOT_UTF_8 = re.compile("[\ud800-\udc7f\udd00-\udfff]")
CUT_BEGINNING = re.compile("^[\x80-\xbf]{1,3}")  # the last bytes of a character
LONGEST_CLUSTER = 32  # characters that can be held back at the end of a piece
MOST_FORMS = 100_000  # in memory
LONGEST_COMPOSED = 3  # characters before one that can compose with it without being marks


def as_read(
    string: str | bytes, format: TextFormat, vocabulary: Vocabulary, *, skip_unknown: bool = False
) -> str:
    """Return what a user typed as characters of the model.

    Line ends and a byte order mark are read as in the model's texts. Composed and decomposed
    characters become the form that the vocabulary knows. For a model of bytes, a str is its UTF-8
    bytes, and a bytes object is itself.

    Args:
        string: the text. Bytes for a model of characters are decoded in the encoding of its texts.
        format: how the model's texts are read.
        vocabulary: the model's characters.
        skip_unknown: whether halves of surrogate pairs are removed, which no text has.

    Raises:
        CharloomError: if the string is not text.
    """
    if isinstance(string, bytes):
        if vocabulary.as_bytes:
            return string.decode("latin-1")
        string = _decoded(string, format)
    elif not isinstance(string, str):
        raise CharloomError(f"{shortened(string)} is not a text: pass a str")
    if string.isascii() and "\r" not in string:
        return string
    if skip_unknown:
        string = (NOT_UTF_8 if vocabulary.as_bytes else SURROGATE).sub("", string)
    string = compose(string, vocabulary)
    if vocabulary.as_bytes:
        return _bytes_of(string)
    if "\r" not in string and not string.startswith("\ufeff") and not SURROGATE.search(string):
        return string  # faster, and the same
    _refuse_bytes(string)
    return format.text_of(string).read()


def as_shown(
    characters: str, vocabulary: Vocabulary, *, begins: bool = True, ends: bool = True
) -> str:
    """Return characters of the model as text for output.

    Bytes are decoded as UTF-8, invalid ones shown like `\\xc3`, and END as END_NAME.

    Args:
        characters: the characters of the model.
        vocabulary: the model's vocabulary.
        begins: whether the text begins here. Otherwise a character that is cut here is omitted.
        ends: whether the text ends here, likewise.
    """
    if vocabulary.as_bytes and not begins:
        characters = CUT_BEGINNING.sub("", characters)
    shown = ShownText(vocabulary)
    return shown.add(characters) + (shown.rest() if ends else "")


class ShownText:
    """A decoder like `as_shown` for characters of the model that arrive in pieces."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        new = codecs.getincrementaldecoder("utf-8")
        self._decoder = new("backslashreplace") if vocabulary.as_bytes else None

    def add(self, characters: str) -> str:
        """Return the text that can be shown now; an incomplete character is held back."""
        decoder = self._decoder
        if decoder is None:
            return characters.replace(END, END_NAME)
        shown: list[str] = []
        for part in NOT_BYTES.split(characters):
            if NOT_BYTES.fullmatch(part):
                shown += [self.rest(), part.replace(END, END_NAME)]
            else:
                shown.append(decoder.decode(part.encode("latin-1")))
        return "".join(shown)

    def rest(self) -> str:
        """Return the text that is held back, at the end of the characters."""
        return "" if self._decoder is None else self._decoder.decode(b"", final=True)


def compose(string: str, vocabulary: Vocabulary) -> str:
    """Return a string in the Unicode form that a vocabulary knows.

    A character with its combining marks remains as it is if the vocabulary knows all of it. Else it
    becomes the composed or the decomposed form, if the vocabulary knows that one.

    Args:
        string: the text, not yet converted to bytes for a model of bytes.
        vocabulary: the model's characters.
    """
    return _Composer(vocabulary).whole(string)


def compose_pieces(pieces: Iterator[str], vocabulary: Vocabulary) -> Iterator[str]:
    """Return a text in pieces like `compose`. A character can begin in one and end in the next.

    The pieces are those of a file, of which a model of bytes reads every byte as it is.
    """
    if vocabulary.as_bytes:
        yield from pieces
        return
    composer = _Composer(vocabulary)
    held = ""
    for piece in pieces:
        piece = held + piece
        # Nothing composes with what ends a line, which should not wait for the next one.
        end = len(piece) if piece.endswith(("\n", END)) else composer.last_cluster(piece)
        held = piece[end:]
        yield composer.whole(piece[:end])
    yield composer.whole(held)


class _Composer:
    """Unicode forms by a vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._as_bytes, self._known = vocabulary.as_bytes, vocabulary.known
        self._read: dict[str, str] = {}  # characters with their marks, of the forms so far

    def knows(self, string: str) -> bool:
        characters = string.replace(END, "")
        return self._known.issuperset(_bytes_of(characters) if self._as_bytes else characters)

    def whole(self, string: str) -> str:
        if string.isascii() or self.knows(string):
            return string
        return NOT_ASCII.sub(self._run, string)

    def _run(self, found: re.Match[str]) -> str:
        run = found[0]
        if self.knows(run):
            return run
        ends = [i for i in range(1, len(run)) if _begins_cluster(run, i)]
        return "".join(
            self._cluster(run[begin:end]) for begin, end in pairwise([0, *ends, len(run)])
        )

    def last_cluster(self, string: str) -> int:
        """Return the place at which the last character with its combining marks begins."""
        first = max(len(string) - LONGEST_CLUSTER, 0)
        for place in range(len(string) - 1, first, -1):
            if _begins_cluster(string, place):
                return place
        return first

    def _cluster(self, cluster: str) -> str:
        found = self._read.get(cluster)
        if found is None:
            forms = (cluster, *_forms(cluster))
            found = next((form for form in forms if self.knows(form)), cluster)
            if len(self._read) < MOST_FORMS:
                self._read[cluster] = found
        return found


def _begins_cluster(string: str, place: int) -> bool:
    """Return whether a character is not a mark, and composes with none of those before it."""
    character = string[place]
    if character.isascii():
        return True
    if unicodedata.combining(character):
        return False
    return not _composes(string[max(place - LONGEST_COMPOSED, 0) : place], character)


@functools.lru_cache(MOST_FORMS)
def _composes(before: str, character: str) -> bool:
    composed = unicodedata.normalize("NFC", before + character)
    return len(composed) <= len(unicodedata.normalize("NFC", before))


def _forms(cluster: str) -> Iterator[str]:
    """Yield the equivalent forms of a character with its combining marks."""
    yield unicodedata.normalize("NFC", cluster)
    decomposed = unicodedata.normalize("NFD", cluster)
    yield decomposed
    base, marks = decomposed[0], decomposed[1:]
    for place, mark in enumerate(marks):  # as in Vietnamese texts: the vowel, then its tone
        composed = unicodedata.normalize("NFC", base + mark)
        if len(composed) == 1:
            yield composed + marks[:place] + marks[place + 1 :]


def _bytes_of(string: str) -> str:
    try:
        return string.encode("utf-8", "surrogateescape").decode("latin-1")
    except UnicodeEncodeError:
        refuse_surrogates(string)
        raise


def _refuse_bytes(string: str) -> None:
    """Raise CharloomError for bytes of a command line that are not UTF-8."""
    found = ESCAPED_BYTE.search(string)
    if found:
        raise CharloomError(
            f"the byte 0x{ord(found[0]) - 0xDC00:02X} at character {found.start()} is not UTF-8: "
            "remove it, or skip it with --skip-unknown"
        )


def _decoded(content: bytes, format: TextFormat) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if format.encoding is None and format.encoding_errors == "strict":
            raise CharloomError(
                f"the bytes are not UTF-8 (byte 0x{content[error.start]:02X} at byte offset "
                f"{error.start}): decode them and pass a str"
            ) from None
    try:
        return content.decode(format.encoding or "utf-8", format.encoding_errors)
    except UnicodeDecodeError:
        raise CharloomError(
            f"the bytes are neither UTF-8 nor {format.encoding}, the encoding of the training "
            "text: decode them and pass a str"
        ) from None
