"""A text as a stream of pieces, with a name and an origin."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from charloom.errors import CharloomError

Progress = Callable[[int, int | None], None]  # bytes done, bytes in all (None: not known)

BLOCK = 1 << 20  # bytes, or characters, that are read at a time


@dataclass(frozen=True)
class Text:
    """A readable text. Each call of `chunks` reads it afresh; nothing large is held.

    `name` is fit to be a folder's name: the corpus name, the file's stem, or "stdin" or "text".
    `origin` is what finds the text again: a corpus name, an absolute path, "-" for what was read
    from standard input or a pipe (and so cannot be found again), "" for a string in memory.
    With `as_bytes` a character is a byte, U+0000 to U+00FF.
    """

    name: str
    origin: str
    as_bytes: bool
    pieces: Callable[[], Iterator[str]] = field(repr=False, compare=False)  # of any sizes

    def chunks(self, characters: int = BLOCK) -> Iterator[str]:
        """The text in chunks of that many characters (the last may be shorter, none is empty).

        Raises CharloomError, as the text is read, where it is not UTF-8, is damaged, or has
        changed since it was opened; ValueError for a size below 1.
        """
        if characters < 1:
            raise ValueError("a chunk has at least one character")
        return _regrouped(self.pieces(), characters)

    def read(self) -> str:
        """The whole text. Raises CharloomError like `chunks`."""
        return "".join(self.pieces())


BETWEEN = "\0"  # the origins of a text that was joined: no path has it


def join_texts(texts: Sequence[Text]) -> Text:
    """Several texts, one after the other, each on lines of its own. One is left as it is.

    The origin is all of theirs, and empty where one of them cannot be found again.
    Raises CharloomError for texts of bytes beside others.
    """
    if len(texts) == 1:
        return texts[0]
    as_bytes = texts[0].as_bytes
    if any(text.as_bytes != as_bytes for text in texts):
        raise CharloomError("some of the texts are read as bytes and some are not")

    def pieces() -> Iterator[str]:
        last = "\n"
        for text in texts:
            first = True
            for piece in filter(None, text.pieces()):
                if first and last != "\n":
                    yield "\n"
                yield piece
                first, last = False, piece[-1]

    origins = [text.origin for text in texts]
    known = all(origin not in ("", "-") for origin in origins)
    name = safe_name(f"{texts[0].name}-and-{len(texts) - 1}-more")
    return Text(name, BETWEEN.join(origins) if known else "", as_bytes, pieces)


def text_from_string(
    text: str, name: str = "text", *, normalize_newlines: bool = False, as_bytes: bool = False
) -> Text:
    """A text from a string in memory. With `as_bytes`, its characters are its UTF-8 bytes.

    Raises CharloomError where the string holds half of a surrogate pair, which UTF-8 cannot.
    """
    surrogate = re.search("[\ud800-\udfff]", text)
    if surrogate:
        raise CharloomError(
            f"the string holds half of a surrogate pair (U+{ord(surrogate.group()):04X}) at "
            f"character {surrogate.start()}: it is not text; decode its bytes anew"
        )

    def slices() -> Iterator[str]:
        for start in range(0, len(text), BLOCK):
            yield text[start : start + BLOCK]

    pieces = normalized_newlines(in_characters(slices, as_bytes), normalize_newlines)
    return Text(safe_name(name), "", as_bytes, pieces)


# --- From bytes or strings to pieces of text -----------------------------------------------------


def _regrouped(pieces: Iterable[str], characters: int) -> Iterator[str]:
    """The same text in chunks of exactly that many characters, but for the last."""
    held: list[str] = []
    length = 0
    for piece in pieces:
        start = 0
        while length + len(piece) - start >= characters:
            end = start + characters - length
            held.append(piece[start:end])
            yield "".join(held)
            held, length, start = [], 0, end
        if start < len(piece):
            held.append(piece[start:])
            length += len(piece) - start
    if held:
        yield "".join(held)


def normalized_newlines(
    pieces: Callable[[], Iterator[str]], normalize: bool
) -> Callable[[], Iterator[str]]:
    """The pieces with CR LF and lone CR turned into LF, if asked for."""
    if not normalize:
        return pieces

    def normalized() -> Iterator[str]:
        decoder = io.IncrementalNewlineDecoder(None, translate=True)  # holds back a CR at an end
        for piece in pieces():
            yield decoder.decode(piece)
        yield decoder.decode("", final=True)

    return normalized


def in_characters(
    strings: Callable[[], Iterator[str]], as_bytes: bool
) -> Callable[[], Iterator[str]]:
    """The strings, or with `as_bytes` their UTF-8 bytes as characters."""
    if not as_bytes:
        return strings
    return lambda: (piece.encode("utf-8").decode("latin-1") for piece in strings())


def safe_name(name: str) -> str:
    """The name as one that any system takes for a folder."""
    name = re.sub('[\\s\x00-\x1f\x7f<>:"/\\\\|?*\ud800-\udfff]+', "-", name).strip("-.")
    return name.encode("utf-8")[:120].decode("utf-8", "ignore").strip("-.") or "text"
