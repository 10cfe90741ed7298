"""A name or a path to text, handed out piece by piece, so that the text may exceed the memory.

`open_text` takes one of four things:

- a corpus name (`charloom corpora` lists them). A name in the table is always the named corpus;
  a file that happens to have such a name is reached as `./NAME`, or as a `Path`;
- a path; one that ends in `.gz` is decompressed on the way;
- `-`, standard input, which is kept in a temporary file since a text is read more than once;
- a named pipe or a shell's `/dev/fd/63`, kept in the same way.

Three corpora are embedded: they are made from what every Python carries, and need no network. The
others are looked for in the folder that the environment variable CHARLOOM_CORPORA names, then in
the user's cache folder, and only then downloaded, once.

A file is read as it is: a byte order mark stays (as the character U+FEFF), and so do carriage
returns, unless `normalize_newlines`. A text is UTF-8, unless `as_bytes`, where each byte is one
character, U+0000 to U+00FF.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from charloom.errors import CharloomError

Progress = Callable[[int, int | None], None]  # bytes done, bytes in all (None: not known)

FOLDER_VARIABLE = "CHARLOOM_CORPORA"

_BLOCK = 1 << 20  # bytes, or characters, that are read at a time
_KEPT_IN_MEMORY = 8 << 20  # bytes of standard input; more goes to a temporary file
_LARGEST_DOWNLOAD = 16 << 20  # bytes
_TIMEOUT = 20  # seconds without an answer from the network


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

    def chunks(self, characters: int = _BLOCK) -> Iterator[str]:
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


@dataclass(frozen=True)
class CorpusInfo:
    """One line of `charloom corpora`."""

    name: str
    description: str
    kind: str  # "embedded" or "downloaded"
    place: str  # "embedded", the path of the copy on this machine, or "not downloaded yet"
    license: str


def open_text(
    source: str | Path,
    *,
    raw: bool = False,
    normalize_newlines: bool = False,
    as_bytes: bool = False,
    progress: Progress | None = None,
) -> Text:
    """The text that a corpus name, a path, or `-` stands for. A `Path` is always a file.

    `raw` keeps the byte order mark and Project Gutenberg's header and license, which the named
    book otherwise loses; it changes nothing for any other text. `normalize_newlines` turns CR LF
    and a lone CR into LF. `as_bytes` reads bytes instead of UTF-8 (an embedded corpus is UTF-8).
    `progress(bytes done, bytes in all or None)` is called while a corpus is downloaded.

    Raises CharloomError for what is missing, unreadable, damaged, not a text file, or cannot be
    downloaded. Whether a text is UTF-8 shows only when it is read; an empty one is not refused.
    """
    if isinstance(source, str):
        if source == "-":
            return _open_standard_input(normalize_newlines, as_bytes)
        corpus = CORPORA.get(source)
        if isinstance(corpus, EmbeddedCorpus):
            corpus.check()
            strings = _in_characters(corpus.pieces, as_bytes)
            return Text(source, source, as_bytes, _newlines(strings, normalize_newlines))
        if isinstance(corpus, DownloadedCorpus):
            pieces = _open_downloaded(corpus, raw, as_bytes, progress)
            return Text(source, source, as_bytes, _newlines(pieces, normalize_newlines))
    return _open_path(source, normalize_newlines, as_bytes)


_BETWEEN = "\0"  # the origins of a text that was joined: no path has it


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
    name = _safe_name(f"{texts[0].name}-and-{len(texts) - 1}-more")
    return Text(name, _BETWEEN.join(origins) if known else "", as_bytes, pieces)


def reopen_text(
    origin: str, *, raw: bool = False, normalize_newlines: bool = False, as_bytes: bool = False
) -> Text:
    """The text that has this origin. Raises CharloomError as `open_text` does."""
    return join_texts(
        [
            open_text(one, raw=raw, normalize_newlines=normalize_newlines, as_bytes=as_bytes)
            for one in origin.split(_BETWEEN)
        ]
    )


def text_name(source: str | Path) -> str:
    """The `name` that `open_text` would give, without opening anything."""
    if source == "-" or _OPEN_FILE.fullmatch(str(source)):
        return "stdin"
    return source if isinstance(source, str) and source in CORPORA else _stem(Path(source))


def can_be_read_again(origin: str) -> bool:
    """Whether opening a recorded `origin` ends at once: a corpus on this machine, or no pipe.

    A checkpoint may be a stranger's: what it names must not wait for standard input or a pipe, nor
    start a download.
    """
    if _BETWEEN in origin:
        return all(can_be_read_again(one) for one in origin.split(_BETWEEN))
    corpus = CORPORA.get(origin)
    if isinstance(corpus, EmbeddedCorpus):
        return True
    if isinstance(corpus, DownloadedCorpus):
        return _is_file(_given_copy(corpus) or _cached_copy(corpus))
    if origin in ("", "-") or _OPEN_FILE.fullmatch(origin):
        return False
    try:
        mode = Path(origin).stat().st_mode
    except (OSError, ValueError):
        return True  # and open_text says what is wrong
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


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
        for start in range(0, len(text), _BLOCK):
            yield text[start : start + _BLOCK]

    pieces = _newlines(_in_characters(slices, as_bytes), normalize_newlines)
    return Text(_safe_name(name), "", as_bytes, pieces)


def list_corpora() -> list[CorpusInfo]:
    """Every named corpus, and where it is now. Reads no text and downloads nothing."""
    listed = []
    for corpus in CORPORA.values():
        if isinstance(corpus, EmbeddedCorpus):
            kind = place = "embedded"
        else:
            kind = "downloaded"
            copy = _given_copy(corpus) or _cached_copy(corpus)
            place = str(copy) if _is_file(copy) else "not downloaded yet"
        listed.append(CorpusInfo(corpus.name, corpus.description, kind, place, corpus.license))
    return listed


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


def _newlines(pieces: Callable[[], Iterator[str]], normalize: bool) -> Callable[[], Iterator[str]]:
    """The pieces with CR LF and lone CR turned into LF, if asked for."""
    if not normalize:
        return pieces

    def normalized() -> Iterator[str]:
        decoder = io.IncrementalNewlineDecoder(None, translate=True)  # holds back a CR at an end
        for piece in pieces():
            yield decoder.decode(piece)
        yield decoder.decode("", final=True)

    return normalized


def _in_characters(
    strings: Callable[[], Iterator[str]], as_bytes: bool
) -> Callable[[], Iterator[str]]:
    """The strings, or with `as_bytes` their UTF-8 bytes as characters."""
    if not as_bytes:
        return strings
    return lambda: (piece.encode("utf-8").decode("latin-1") for piece in strings())


def _decoded(
    blocks: Callable[[], Iterator[bytes]], as_bytes: bool, label: str
) -> Callable[[], Iterator[str]]:
    """The bytes as text: UTF-8, or a character a byte. `label` names the text in errors."""
    if as_bytes:
        return lambda: (block.decode("latin-1") for block in blocks())
    return lambda: _decoded_as_utf_8(blocks(), label)


def _decoded_as_utf_8(blocks: Iterator[bytes], label: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    beginning = b""
    offset = 0  # of the block, in the text's bytes
    final = False
    while not final:
        block = next(blocks, b"")
        final = not block
        beginning = beginning or block[:4]
        held_back = len(decoder.getstate()[0])  # bytes of a character that the last block cut
        try:
            piece = decoder.decode(block, final)
        except UnicodeDecodeError as error:
            at = offset - held_back + error.start
            raise CharloomError(
                _not_utf_8(label, beginning, at, error.object[error.start], error.reason)
            ) from None
        yield piece
        offset += len(block)


def _not_utf_8(label: str, beginning: bytes, offset: int, byte: int, reason: str) -> str:
    """The sentence for bytes that are not UTF-8."""
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        return (
            f"{label} looks like UTF-16 (it begins with {beginning[:2].hex(' ').upper()}): convert "
            "it to UTF-8 (for example `iconv -f UTF-16 -t UTF-8`), or train on bytes with --bytes"
        )
    if beginning.startswith(b"\x1f\x8b"):
        return (
            f"{label} looks gzip-compressed (it begins with 1F 8B): give it a name in .gz, or pipe "
            "it through `gunzip -c`, or train on bytes with --bytes"
        )
    return (
        f"{label} is not UTF-8: byte 0x{byte:02X} at byte offset {offset} ({reason}); convert it "
        "to UTF-8 (for example `iconv -f LATIN1 -t UTF-8`), or train on bytes with --bytes"
    )


# --- Files, pipes, standard input ----------------------------------------------------------------

# Names of open files of this very process: what a shell passes for <(command).
_OPEN_FILE = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/(self|\d+)/fd/\d+")


def _open_path(source: str | Path, normalize_newlines: bool, as_bytes: bool) -> Text:
    label = _quoted(source)
    if not str(source):
        raise CharloomError("the text's name is empty: give a path, a corpus name, or - (stdin)")
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise CharloomError(_missing(source)) from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise CharloomError(f"cannot read {label}: {_reason(error)}") from None

    own_file = _OPEN_FILE.fullmatch(str(source)) is not None
    if own_file or stat.S_ISFIFO(mode):
        origin = "-"
        with _opened(path, label) as pipe:
            open_bytes = _spooled(pipe, label)
    elif stat.S_ISREG(mode):
        origin = str(path.absolute())
        open_bytes = _reopened(path, label)
    elif stat.S_ISDIR(mode):
        raise CharloomError(
            f"{label} is a folder: give one text file, or join several with `cat` and pass - "
            "(standard input)"
        )
    else:
        raise CharloomError(
            f"{label} is a device or a socket, not a file: give a text file, or pipe it in and "
            "pass - (standard input)"
        )
    compressed = path.suffix.lower() == ".gz"
    blocks = _blocks(open_bytes, label, compressed)
    text_label = f"the text inside {label}" if compressed else label
    pieces = _newlines(_decoded(blocks, as_bytes, text_label), normalize_newlines)
    return Text(text_name(source), origin, as_bytes, pieces)


def _open_standard_input(normalize_newlines: bool, as_bytes: bool) -> Text:
    label = "standard input"
    blocks = _blocks(_spooled(_standard_input(), label), label, compressed=False)
    pieces = _newlines(_decoded(blocks, as_bytes, label), normalize_newlines)
    return Text("stdin", "-", as_bytes, pieces)


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise CharloomError("standard input is closed: pipe a text into it, or give a path")
    binary: BinaryIO | None = getattr(sys.stdin, "buffer", None)
    if binary is None:  # a program, or a notebook, put a stream of characters in its place
        return io.BytesIO(sys.stdin.read().encode("utf-8", "surrogateescape"))
    return binary


def _opened(path: Path, label: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CharloomError(f"cannot read {label}: {_reason(error)}") from None


def _reopened(path: Path, label: str) -> Callable[[], BinaryIO]:
    """Opens the file at each reading, and refuses it when it is no longer what it was."""

    def state(file: BinaryIO) -> tuple[int, int]:
        status = os.fstat(file.fileno())
        return status.st_size, status.st_mtime_ns

    with _opened(path, label) as file:
        at_first = state(file)

    def open_again() -> BinaryIO:
        file = _opened(path, label)
        if state(file) != at_first:
            file.close()
            raise CharloomError(f"{label} has changed since it was opened: start again")
        return file

    return open_again


class _Spool:
    """A temporary file with what can be read only once; it goes with the last reference to it."""

    def __init__(self) -> None:
        import tempfile
        import weakref

        self.file = tempfile.SpooledTemporaryFile(max_size=_KEPT_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self.file.close)

    def reader(self) -> BinaryIO:
        return io.BufferedReader(_SpoolReader(self))


class _SpoolReader(io.RawIOBase):
    """One reading of a spool from its beginning, with its own position: several may take turns."""

    def __init__(self, spool: _Spool) -> None:
        self.spool = spool
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self.spool.file.seek(self.position)
        data = self.spool.file.read(len(buffer))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def _spooled(source: BinaryIO, label: str) -> Callable[[], BinaryIO]:
    """Reads what can be read only once, into a temporary file, which can be read again."""
    import shutil

    spool = _Spool()
    try:
        shutil.copyfileobj(source, spool.file, _BLOCK)
    except (OSError, ValueError) as error:  # ValueError: the source is closed
        raise CharloomError(
            f"cannot read {label} into a temporary file: {_reason(error)}"
        ) from None
    return spool.reader


def _blocks(
    open_bytes: Callable[[], BinaryIO], label: str, compressed: bool
) -> Callable[[], Iterator[bytes]]:
    """The bytes of a file, decompressed if it is, block by block."""

    def read() -> Iterator[bytes]:
        import zlib
        from contextlib import ExitStack

        with ExitStack() as stack:
            stream = stack.enter_context(open_bytes())
            if compressed:
                import gzip

                stream = cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=stream)))
            while True:
                try:
                    block = stream.read(_BLOCK)
                except (EOFError, zlib.error) as error:
                    raise CharloomError(_broken_gzip(label, error)) from None
                except OSError as error:
                    if compressed and error.errno is None:  # gzip.BadGzipFile
                        raise CharloomError(_broken_gzip(label, error)) from None
                    raise CharloomError(f"cannot read {label}: {_reason(error)}") from None
                if not block:
                    return
                yield block

    return read


def _broken_gzip(label: str, error: Exception) -> str:
    return (
        f"{label} is not a whole gzip file ({_reason(error)}): make it again, or rename it if it "
        "is not compressed"
    )


def _missing(source: str | Path) -> str:
    """The sentence for a path that leads nowhere, with the corpus names that look like it."""
    from difflib import get_close_matches

    wanted = re.sub(r"[\s_]+", "-", str(source).lower())
    close = [name for name in CORPORA if len(wanted) >= 3 and wanted in name]
    close = close or get_close_matches(wanted, CORPORA)
    if close:
        return (
            f"there is no file {_quoted(source)}; did you mean the corpus {' or '.join(close)}? "
            "(`charloom corpora` lists them all)"
        )
    return (
        f"there is no file {_quoted(source)}: give the path of a text, a name that "
        "`charloom corpora` lists, or - (standard input)"
    )


def _quoted(source: str | Path) -> str:
    """The path in quotes, on one line, cut where it is absurdly long (a text in its place)."""
    quoted = repr(str(source))
    return quoted if len(quoted) <= 300 else f"{quoted[:100]}…{quoted[-100:]}"


def _reason(error: Exception) -> str:
    """What an exception says, on one line."""
    said = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(str(said).split())


def _stem(path: Path) -> str:
    """The file's name without its ending, nor the one before `.gz`."""
    return _safe_name(Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem)


def _safe_name(name: str) -> str:
    """The name as one that any system takes for a folder."""
    name = re.sub('[\\s\x00-\x1f\x7f<>:"/\\\\|?*\ud800-\udfff]+', "-", name).strip("-.")
    return name.encode("utf-8")[:120].decode("utf-8", "ignore").strip("-.") or "text"


# --- Corpora that every Python carries -----------------------------------------------------------


@dataclass(frozen=True)
class EmbeddedCorpus:
    """A corpus that is made from this Python. `check` raises CharloomError where it cannot be."""

    name: str
    description: str
    license: str
    pieces: Callable[[], Iterator[str]]
    check: Callable[[], object] = lambda: None


def _documentation_topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise CharloomError(
            "this Python comes without its documentation (pydoc_data): take python-stdlib or "
            "unicode-names, or give the path of a text"
        ) from None
    return dict(topics)


def _python_docs() -> Iterator[str]:
    """The topics of Python's `help()`, in sorted order, an empty line between them."""
    between = ""
    for _, topic in sorted(_documentation_topics().items()):
        yield between + topic.strip("\n") + "\n"
        between = "\n"


# What other people installed, tests, and what was generated when this Python was built.
_NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_GENERATED = re.compile(r"config-\d.*|_sysconfigdata.*|_sysconfig_vars.*")


def _library_files() -> list[Path]:
    """The standard library's source files, in the order of their paths."""
    import sysconfig

    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [
            name for name in folders if name not in _NOT_THE_LIBRARY and not _GENERATED.match(name)
        ]
        files += [
            Path(folder, name)
            for name in names
            if name.endswith(".py") and not _GENERATED.match(name)
        ]
    if not files:
        raise CharloomError(
            "this Python comes without the source of its standard library: take python-docs or "
            "unicode-names, or give the path of a text"
        )
    return sorted(files, key=lambda path: path.relative_to(root).parts)


def _python_stdlib() -> Iterator[str]:
    """The source files one after another, an empty line between them, newlines as Python reads."""
    between = ""
    for path in _library_files():
        try:
            source = path.read_text(encoding="utf-8-sig").strip("\n")
        except (OSError, UnicodeDecodeError):
            continue  # one file less makes no other text of it
        if source:
            yield between + source + "\n"
            between = "\n"


def _unicode_names() -> Iterator[str]:
    """The names of characters, one a line, in code point order, without the algorithmic ones.

    Those are the Hangul syllables and every name that ends in its own code point, like CJK
    UNIFIED IDEOGRAPH-4E00: rules NR1 and NR2 of the Unicode Standard, section 4.8.
    """
    import unicodedata

    lines = []
    for code_point in range(sys.maxunicode + 1):
        name = unicodedata.name(chr(code_point), "")
        if name and not (
            name.startswith("HANGUL SYLLABLE ") or name.endswith(f"-{code_point:04X}")
        ):
            lines.append(name + "\n")
        if len(lines) == 4096:
            yield "".join(lines)
            lines.clear()
    yield "".join(lines)


# --- Corpora that are downloaded once ------------------------------------------------------------


@dataclass(frozen=True)
class DownloadedCorpus:
    """A corpus that is a file elsewhere. `sha256` is None where that file may change."""

    name: str
    description: str
    license: str
    file_name: str  # in the folder CHARLOOM_CORPORA and in the cache folder
    addresses: tuple[str, ...]  # tried in turn
    sha256: str | None = None
    gutenberg: bool = False  # a Project Gutenberg text, with its header and its license


def cache_folder() -> Path:
    """Where downloaded corpora are kept."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("charloom", appauthor=False))


def _given_copy(corpus: DownloadedCorpus) -> Path | None:
    """The corpus in the folder that CHARLOOM_CORPORA names, if it is there."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    path = Path(folder, corpus.file_name)
    return path if _is_file(path) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder on the way that may not be entered
        return False


def _cached_copy(corpus: DownloadedCorpus) -> Path:
    return cache_folder() / corpus.file_name


def _recorded_sha256(corpus: DownloadedCorpus) -> Path:
    """The file beside the cached copy with its SHA-256, in the form that `sha256sum -c` reads."""
    return cache_folder() / f"{corpus.name}.sha256"


def _open_downloaded(
    corpus: DownloadedCorpus, raw: bool, as_bytes: bool, progress: Progress | None
) -> Callable[[], Iterator[str]]:
    given = _given_copy(corpus)
    path = given or _cached_copy(corpus)
    label = _quoted(path)
    if given is not None:
        if corpus.sha256 is not None and _file_sha256(given) != corpus.sha256:
            raise CharloomError(
                f"{label} (in the folder {FOLDER_VARIABLE}) is not {corpus.name}: its SHA-256 "
                "differs; replace or remove it, or give its path to read it as it is"
            )
    elif not _is_file(path):
        _download(corpus, f"{corpus.name} is not on this machine yet", progress)
    elif not _cached_copy_is_whole(corpus):
        _download(corpus, f"the cached copy of {corpus.name} is damaged", progress)

    blocks = _blocks(_reopened(path, label), label, compressed=False)
    if raw or not corpus.gutenberg:
        return _decoded(blocks, as_bytes, label)
    as_utf_8 = _decoded(blocks, False, label)
    _book("".join(as_utf_8()), label)  # tells of a wrong file before training begins
    return _in_characters(lambda: iter([_book("".join(as_utf_8()), label)]), as_bytes)


def _book(text: str, label: str) -> str:
    """A Project Gutenberg text without its header and license: from first line to last.

    Raises CharloomError where the lines `*** START OF` and `*** END OF` are missing.
    """
    start = re.search(r"^\ufeff?\*\*\* ?START OF .*\n", text, re.MULTILINE)
    end = re.compile(r"^\*\*\* ?END OF ", re.MULTILINE).search(text, start.end() if start else 0)
    if start is None or end is None:
        raise CharloomError(
            f"{label} has no lines `*** START OF` and `*** END OF`, between which Project "
            "Gutenberg puts a book: replace it, or keep everything with --raw"
        )
    book = re.sub(r"\A(?:[^\S\n]*\n)+", "", text[start.end() : end.start()]).rstrip()
    # Older editions have a line of their own before the end.
    book = re.sub(r"\n[\s*]*End of (?:the )?Project Gutenberg[^\n]*\Z", "", book).rstrip()
    return book + ("\r\n" if start.group().endswith("\r\n") else "\n")


def _file_sha256(path: Path) -> str:
    import hashlib

    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CharloomError(f"cannot read {_quoted(path)}: {_reason(error)}") from None


def _cached_copy_is_whole(corpus: DownloadedCorpus) -> bool:
    """Whether the cached copy has the SHA-256 that it must have, or else had when it came."""
    expected = corpus.sha256
    if expected is None:
        record = _recorded_sha256(corpus)
        if not _is_file(record):  # somebody put the text there by hand
            return True
        try:
            expected = record.read_text(encoding="utf-8").split()[0]
        except (OSError, UnicodeDecodeError, IndexError):
            return False
    return _file_sha256(_cached_copy(corpus)) == expected


def _download(corpus: DownloadedCorpus, why: str, progress: Progress | None) -> None:
    """Brings the corpus into the cache, whole or not at all. `why` opens the error's sentence.

    Raises CharloomError where the cache folder cannot be written or no address gives the text.
    """
    import hashlib
    import tempfile

    target = _cached_copy(corpus)
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(".part", f"{corpus.name}-", target.parent)
        os.close(descriptor)
        part = Path(name)
        data = _fetch_from_any(corpus, why, progress)
        part.write_bytes(data)
        # Recorded first: after a crash in between, the text is missing or does not match.
        record = f"{hashlib.sha256(data).hexdigest()}  {target.name}\n"
        _recorded_sha256(corpus).write_text(record, encoding="utf-8", newline="\n")
        part.replace(target)
    except OSError as error:
        raise CharloomError(
            f"cannot write to the cache folder {_quoted(target.parent)} ({_reason(error)}): make "
            f"it writable, or put the text as {corpus.file_name} into a folder and name that "
            f"folder in {FOLDER_VARIABLE}"
        ) from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


class _NotFetched(Exception):
    """Why an address gave no text; `offline` where the network, not the server, is the reason."""

    def __init__(self, reason: str, offline: bool = False) -> None:
        super().__init__(reason)
        self.offline = offline


def _fetch_from_any(corpus: DownloadedCorpus, why: str, progress: Progress | None) -> bytes:
    from urllib.parse import urlsplit

    failures = []
    for address in corpus.addresses:
        try:
            return _fetch(corpus, address, progress)
        except _NotFetched as failure:
            host = urlsplit(address).hostname
            if failure.offline:
                said = f"there is no network connection to {host} ({failure})"
            else:
                said = f"the download from {host} failed ({failure})"
            failures.append((failure.offline, said))
    # A server's answer says more than an address that could not be reached.
    said = min(failures, key=lambda failed: failed[0])[1]
    embedded = [name for name, other in CORPORA.items() if isinstance(other, EmbeddedCorpus)]
    raise CharloomError(
        f"{why}, and {said}: take {', '.join(embedded[:-1])} or {embedded[-1]}, which need no "
        f"network, or put the text as {corpus.file_name} into a folder and name that folder in "
        f"{FOLDER_VARIABLE}"
    )


def _fetch(corpus: DownloadedCorpus, address: str, progress: Progress | None) -> bytes:
    """The bytes at an address, verified. Raises _NotFetched."""
    import hashlib
    import http.client
    import urllib.error
    import urllib.request

    request = urllib.request.Request(address, headers={"User-Agent": "charloom"})
    data = bytearray()
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            length = response.headers.get("Content-Length") or ""
            total = int(length) if length.isdecimal() else None
            while max(len(data), total or 0) <= _LARGEST_DOWNLOAD:
                block = response.read(1 << 16)
                if not block:
                    break
                data += block
                if progress is not None:
                    progress(len(data), total)
            else:
                raise _NotFetched("it is far larger than the text should be")
    except urllib.error.HTTPError as error:
        error.close()
        raise _NotFetched(f"the server answers {error.code}") from None
    except urllib.error.URLError as error:
        reason = error.reason if isinstance(error.reason, OSError) else error
        certificate = type(reason).__module__ == "ssl"
        raise _NotFetched(_reason(reason), offline=not certificate) from None
    except (OSError, http.client.HTTPException) as error:
        raise _NotFetched(_reason(error), offline=isinstance(error, OSError)) from None

    if total is not None and len(data) != total:
        raise _NotFetched(f"it broke off after {len(data)} of {total} bytes")
    if corpus.sha256 is not None and hashlib.sha256(data).hexdigest() != corpus.sha256:
        raise _NotFetched("it is not the text it should be: its SHA-256 differs")
    if corpus.gutenberg:
        try:
            _book(data.decode("utf-8"), "it")
        except (UnicodeDecodeError, CharloomError):
            raise _NotFetched("it is not a Project Gutenberg text in UTF-8") from None
    return bytes(data)


# --- The table -----------------------------------------------------------------------------------

CORPORA: dict[str, EmbeddedCorpus | DownloadedCorpus] = {
    corpus.name: corpus
    for corpus in (
        EmbeddedCorpus(
            "python-docs",
            "the topics of Python's help(): prose about the language, 0.5 MB",
            "Python documentation, PSF License Version 2",
            _python_docs,
            _documentation_topics,
        ),
        EmbeddedCorpus(
            "python-stdlib",
            "the source code of Python's standard library, 12 MB",
            "Python, PSF License Version 2",
            _python_stdlib,
            _library_files,
        ),
        EmbeddedCorpus(
            "unicode-names",
            "the names of Unicode characters, one a line, 0.9 MB",
            "Unicode Character Database, Unicode License",
            _unicode_names,
        ),
        DownloadedCorpus(
            "pride-and-prejudice",
            "Jane Austen's novel, without Project Gutenberg's header and license, 0.7 MB",
            "Project Gutenberg #1342, public domain in the USA",
            "1342-0.txt",
            (
                "https://www.gutenberg.org/files/1342/1342-0.txt",
                "https://www.gutenberg.org/cache/epub/1342/pg1342.txt",
            ),
            gutenberg=True,
        ),
        DownloadedCorpus(
            "tiny-shakespeare",
            "lines of Shakespeare's plays, the test text of char-rnn and nanoGPT, 1.1 MB",
            "public domain; collected by Andrej Karpathy for char-rnn",
            "tiny-shakespeare.txt",
            (
                "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/"
                "tinyshakespeare/input.txt",
            ),
            sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        ),
    )
}
