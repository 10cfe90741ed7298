"""A text as a stream of pieces, with a name and an origin: from a string, or joined from others."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from charloom.errors import CharloomError, printable, shortened

BLOCK_SIZE = 1 << 20  # bytes, or characters, that are read at a time
BYTE_ORDER_MARK = "\ufeff"
BYTE_ORDER_MARK_AS_BYTES = "\u00ef\u00bb\u00bf"


class Notes:
    """Lines to print, each of them once. Some are added only while a text is read."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._lines))

    def add(self, line: str) -> None:
        """Add a line."""
        self._lines[line] = None


@dataclass(frozen=True)
class Text:
    """A readable text. Each call of `chunks` reads it anew, and nothing large stays in memory.

    Attributes:
        name: the corpus name, the file's stem, "stdin" or "text", always fit for a folder's name.
        origin: the corpus name or the absolute path under which the text can be opened again. It
            is "-" for standard input and pipes, which cannot, and "" for a string in memory.
        as_bytes: True where each character is one byte, U+0000 to U+00FF.
        pieces: returns the text in pieces of any size.
        ends: True for a collection of documents, each of which ends with END in the pieces.
        lines: True for a collection in which each line is a document.
        notes: decisions that were made when the text was opened and read, each in a line to print.
        encoding: the name of its encoding, if it was recognized.
        live: True for a pipe whose pieces arrive while it is read, which can be read only once.
    """

    name: str
    origin: str
    as_bytes: bool
    pieces: Callable[[], Iterator[str]] = field(repr=False, compare=False)
    ends: bool = field(default=False, repr=False)
    lines: bool = field(default=False, repr=False)
    notes: Iterable[str] = field(default=(), repr=False, compare=False)
    encoding: str | None = field(default=None, repr=False)
    live: bool = field(default=False, repr=False, compare=False)

    @classmethod
    def from_string(cls, string: str, *, name: str = "text") -> Text:
        """Return a string as a text, unchanged, whatever it looks like.

        Raises CharloomError if it is not a str, or holds half of a surrogate pair.
        """
        _refuse_others(string, "the text")
        return text_from_string(string, name)

    @classmethod
    def from_documents(cls, documents: Iterable[str], *, name: str = "texts") -> Text:
        """Return strings as the documents of a collection, unchanged, whatever they look like.

        Raises CharloomError if one is not a str, or holds half of a surrogate pair.
        """
        from charloom.text.vocabulary import END  # NumPy comes with it

        if isinstance(documents, str):
            raise CharloomError("the documents are a single string: pass a list of strings")
        kept = list(documents)
        for number, document in enumerate(kept, 1):
            _refuse_others(document, f"document {number:,}")
            refuse_surrogates(document)
        return cls(safe_name(name), "", False, lambda: (d + END for d in kept), ends=True)

    def chunks(self, characters: int = BLOCK_SIZE) -> Iterator[str]:
        """Read the text in chunks of `characters` each; the last one can be shorter.

        Raises:
            CharloomError: while the text is read, if it is not UTF-8, is damaged, or has changed
                since it was opened.
            ValueError: if `characters` is below 1.
        """
        if characters < 1:
            raise ValueError("a chunk must have at least one character")
        return _regrouped(self.pieces(), characters)

    def read(self) -> str:
        """Read the whole text. Raises CharloomError like `chunks`."""
        return "".join(self.pieces())

    def documents(self) -> Iterator[str]:
        """Read the documents of a collection one by one; a text without ends is one document.

        Raises CharloomError like `chunks`.
        """
        from charloom.text.vocabulary import END  # NumPy comes with it

        held: list[str] = []
        for piece in self.pieces():
            *whole, rest = piece.split(END)
            for document in whole:
                yield "".join([*held, document])
                held = []
            if rest:
                held.append(rest)
        if held:
            yield "".join(held)


ORIGIN_SEPARATOR = "\0"  # between the origins of a joined text, because no path contains it


def shown_origin(origin: str) -> str:
    """Return an origin on one line; of several, with commas between them."""
    return ", ".join(printable(one) for one in origin.split(ORIGIN_SEPARATOR))


def join_texts(texts: Sequence[Text]) -> Text:
    """Return several texts as one, in order, each starting on a new line.

    The origin of the joined text holds all their origins. It is empty if one of them cannot be
    opened again. Raises CharloomError if some texts are read as bytes and others are not.
    """
    if len(texts) == 1:
        return texts[0]
    as_bytes = texts[0].as_bytes
    if any(text.as_bytes != as_bytes for text in texts):
        raise CharloomError(
            "cannot join texts read as bytes with texts read as UTF-8: read all of them alike"
        )

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
    origin = ORIGIN_SEPARATOR.join(origins) if known else ""
    live = any(text.live for text in texts)
    return Text(name, origin, as_bytes, pieces, live=live)


def text_from_string(
    text: str,
    name: str = "text",
    *,
    as_bytes: bool = False,
    block_size: int = BLOCK_SIZE,
) -> Text:
    """Return a string in memory as a text, unchanged.

    Args:
        text: the string.
        name: the text's name, made fit for a folder's name.
        as_bytes: use the string's UTF-8 bytes as characters.
        block_size: characters of a piece.

    Raises:
        CharloomError: if the string holds half of a surrogate pair, which UTF-8 cannot encode.
    """
    refuse_surrogates(text)

    def slices() -> Iterator[str]:
        for start in range(0, len(text), block_size):
            yield text[start : start + block_size]

    return Text(safe_name(name), "", as_bytes, byte_characters(slices, as_bytes))


def split_lines(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a text in pieces, without line breaks, each as soon as it is whole."""
    held: list[str] = []
    for piece in pieces:
        first, *others = piece.split("\n")
        held.append(first)
        if others:
            yield "".join(held).rstrip("\r")
            *whole, rest = others
            for line in whole:
                yield line.rstrip("\r")
            held = [rest]
    last = "".join(held)
    if last:
        yield last.rstrip("\r")


def _refuse_others(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise CharloomError(f"{what} is {shortened(text)}, and not a str: pass a str")


def refuse_surrogates(text: str) -> None:
    """Raise CharloomError if a string holds half of a surrogate pair, so that it is not text."""
    surrogate = re.search("[\ud800-\udfff]", text)
    if surrogate:
        raise CharloomError(
            f"the string holds half of a surrogate pair (U+{ord(surrogate.group()):04X}) at "
            f"character {surrogate.start()}, so it is not valid text: decode its bytes again"
        )


def newline_normalizer(
    pieces: Callable[[], Iterator[str]], on_note: Callable[[str], None] = lambda note: None
) -> Callable[[], Iterator[str]]:
    """Return `pieces`, with CR LF and a lone CR converted to LF.

    `on_note` is called with a line about it if there is any.
    """

    def normalized() -> Iterator[str]:
        # Keeps a CR at the end of a piece back, because an LF can follow in the next one.
        decoder = io.IncrementalNewlineDecoder(None, translate=True)
        for piece in pieces():
            yield decoder.decode(piece)
        yield decoder.decode("", final=True)
        for note in newline_notes(decoder.newlines or ""):
            on_note(note)

    return normalized


def newline_notes(seen: str | tuple[str, ...]) -> list[str]:
    """Return a line to print if other line ends than LF were seen."""
    for end, kind in (("\r\n", "Windows line ends"), ("\r", "carriage returns")):
        if end in seen:
            return [f"{kind} are read as line breaks; training with --keep-newlines keeps them"]
    return []


def mark_remover(
    pieces: Callable[[], Iterator[str]], as_bytes: bool
) -> Callable[[], Iterator[str]]:
    """Return `pieces` without the byte order mark at their beginning."""
    mark = BYTE_ORDER_MARK_AS_BYTES if as_bytes else BYTE_ORDER_MARK

    def without_mark() -> Iterator[str]:
        rest = pieces()
        beginning = ""
        for piece in rest:
            beginning += piece
            if len(beginning) >= len(mark) or not mark.startswith(beginning):
                break
        yield beginning.removeprefix(mark)
        yield from rest

    return without_mark


def byte_characters(
    strings: Callable[[], Iterator[str]], as_bytes: bool
) -> Callable[[], Iterator[str]]:
    """Return `strings`, or with `as_bytes` their UTF-8 bytes as one character each."""
    if not as_bytes:
        return strings
    return lambda: (piece.encode("utf-8").decode("latin-1") for piece in strings())


def safe_name(name: str) -> str:
    """Return a name that every operating system accepts for a folder."""
    name = re.sub('[\\s\x00-\x1f\x7f<>:"/\\\\|?*\ud800-\udfff]+', "-", name).strip("-.")
    return name.encode("utf-8")[:120].decode("utf-8", "ignore").strip("-.") or "text"


def _regrouped(pieces: Iterable[str], characters: int) -> Iterator[str]:
    """Return the same text in chunks of exactly `characters` each, except for the last."""
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
