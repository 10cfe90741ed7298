"""Open a text by corpus name, path, or `-` (standard input), in pieces and never whole in memory.

`open_text` accepts one of four sources:

- a corpus name, as `charloom corpora` lists them. A name in the list is always the corpus; a file
  of the same name is opened as `./NAME`, or as a `Path`;
- a path. A file that is compressed with gzip, bzip2, xz or zstd is decompressed;
- `-`, standard input. It is kept in a temporary file, because a text is read more than once;
- a named pipe or a shell's `/dev/fd/63`, kept in the same way.

Four corpora are embedded: they are made from every Python installation, and need no network. The
others are looked up in the folder that the environment variable CHARLOOM_CORPORA names, then in
the user's cache folder. Only then they are downloaded, once.

CR LF and a lone CR are read as LF, and a byte order mark at the beginning of a file is not part of
the text. `raw` and `as_bytes` keep both. A text is UTF-8, UTF-16 or UTF-32, which are recognized,
or in the encoding that is passed. With `as_bytes`, each byte is one character, U+0000 to U+00FF.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from charloom.errors import CharloomError, error_reason, quoted_path, shortened
from charloom.progress import OnProgress
from charloom.text.downloading import (
    DownloadedCorpus,
    cached_path,
    is_file,
    open_downloaded,
    user_copy,
)
from charloom.text.embedded import (
    EmbeddedCorpus,
    documentation_topics,
    library_files,
    python_docs,
    python_help,
    python_stdlib,
    unicode_names,
)
from charloom.text.file_kinds import COMPRESSED
from charloom.text.reading import (
    OPEN_FILE_PATH,
    EncodingErrors,
    Reading,
    file_opener,
    open_file,
    open_pipe,
    open_standard_input,
)
from charloom.text.source import (
    BLOCK_SIZE,
    ORIGIN_SEPARATOR,
    Notes,
    Text,
    byte_characters,
    safe_name,
)

CORPORA: dict[str, EmbeddedCorpus | DownloadedCorpus] = {
    corpus.name: corpus
    for corpus in (
        EmbeddedCorpus(
            "python-help",
            "the topics of Python's help(), each paragraph once, without tables, 0.3 MB",
            "Python documentation, PSF License Version 2",
            python_help,
            documentation_topics,
        ),
        EmbeddedCorpus(
            "python-docs",
            "the same topics with their repetitions, 0.5 MB",
            "Python documentation, PSF License Version 2",
            python_docs,
            documentation_topics,
        ),
        EmbeddedCorpus(
            "python-stdlib",
            "the source code of Python's standard library, 12 MB",
            "Python, PSF License Version 2",
            python_stdlib,
            library_files,
        ),
        EmbeddedCorpus(
            "unicode-names",
            "the names of Unicode characters, each line a document, 0.9 MB",
            "Unicode Character Database, Unicode License",
            unicode_names,
            lines=True,
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


@dataclass(frozen=True)
class CorpusInfo:
    """A corpus in the list of `charloom corpora`.

    Attributes:
        name, description, license: of the corpus.
        kind: "embedded" or "downloaded".
        place: "embedded", the path of the copy on this machine, or "not downloaded yet".
    """

    name: str
    description: str
    kind: str
    place: str
    license: str


def list_corpora() -> list[CorpusInfo]:
    """Return all corpora and where each one is now, without reading or downloading a text."""
    corpora = []
    for corpus in CORPORA.values():
        if isinstance(corpus, EmbeddedCorpus):
            kind = place = "embedded"
        else:
            kind = "downloaded"
            copy = user_copy(corpus) or cached_path(corpus)
            place = str(copy) if is_file(copy) else "not downloaded yet"
        corpora.append(CorpusInfo(corpus.name, corpus.description, kind, place, corpus.license))
    return corpora


def open_text(
    source: str | os.PathLike[str],
    *,
    raw: bool = False,
    keep_newlines: bool = False,
    as_bytes: bool = False,
    encoding: str | None = None,
    encoding_errors: EncodingErrors = "strict",
    on_progress: OnProgress | None = None,
    block_size: int = BLOCK_SIZE,
) -> Text:
    """Open the text of a corpus name, a path, or `-` (standard input).

    An empty text can be opened. A text that is not UTF-8 raises only while it is read.

    Args:
        source: the corpus name, path, or `-`. A `Path` is always a file.
        raw: keep the line ends, the byte order mark, and Project Gutenberg's header and license,
            which the named book otherwise loses.
        keep_newlines: keep CR LF and a lone CR, which are read as LF otherwise.
        as_bytes: read bytes, unchanged (of an embedded corpus, the bytes of its UTF-8).
        encoding: the name of the text's encoding; None for UTF-8 or a recognized one.
        encoding_errors: "strict" to refuse invalid bytes, "replace" to read them as U+FFFD.
        on_progress: called with the stage "downloading", the bytes done and their total (or None)
            while a corpus is downloaded.
        block_size: bytes that are read at a time.

    Raises:
        CharloomError: if the source is missing, unreadable, damaged, not a text file, or cannot be
            downloaded.
    """
    if isinstance(source, os.PathLike):
        source = Path(source)
    elif not isinstance(source, str):
        raise CharloomError(f"the source is {shortened(source)}: pass a str or a pathlib.Path")
    unchanged = raw or as_bytes
    reading = Reading(
        as_bytes,
        keep_newlines or unchanged,
        unchanged,
        encoding,
        encoding_errors,
        block_size=block_size,
    )
    return open_source(source, reading, raw=raw, on_progress=on_progress)


def open_source(
    source: str | Path,
    reading: Reading,
    *,
    raw: bool = False,
    notes: Notes | None = None,
    on_progress: OnProgress | None = None,
) -> Text:
    """Open a text in a reading. Other arguments and the errors are those of `open_text`.

    `raw` keeps only the header and license of a book; the reading decides the rest. Decisions that
    are made as the text is opened and read are added to `notes`.
    """
    notes = Notes() if notes is None else notes
    corpus = CORPORA.get(source) if isinstance(source, str) else None
    if source == "-":
        return open_standard_input(reading, notes)
    if isinstance(corpus, EmbeddedCorpus):
        corpus.check()
        pieces = reading.read(byte_characters(corpus.pieces, reading.as_bytes))
        return Text(corpus.name, corpus.name, reading.as_bytes, pieces)
    if isinstance(corpus, DownloadedCorpus):
        embedded = [c.name for c in CORPORA.values() if isinstance(c, EmbeddedCorpus)]
        pieces = open_downloaded(corpus, raw, reading, on_progress, embedded)
        return Text(corpus.name, corpus.name, reading.as_bytes, pieces)
    return _open_path(source, reading, notes)


def text_name(source: str | Path) -> str:
    """Return the `name` of the text that `open_text` would return, without opening it."""
    if source == "-" or OPEN_FILE_PATH.fullmatch(str(source)):
        return "stdin"
    if is_folder(source):
        return safe_name(Path(source).absolute().name)
    return source if isinstance(source, str) and source in CORPORA else _stem(Path(source))


def is_folder(source: str | Path) -> bool:
    """Return True for the path of a folder that is not the name of a corpus."""
    if source == "" or (isinstance(source, str) and source in CORPORA):
        return False
    try:
        return Path(source).is_dir()
    except (OSError, ValueError):
        return False


def can_be_read_again(origin: str) -> bool:
    """Return True if a recorded `origin` can be opened without waiting and without a network.

    A checkpoint can come from a stranger, so its origin must not make charloom wait for standard
    input or a pipe, nor start a download.
    """
    if ORIGIN_SEPARATOR in origin:
        return all(can_be_read_again(one) for one in origin.split(ORIGIN_SEPARATOR))
    corpus = CORPORA.get(origin)
    if isinstance(corpus, EmbeddedCorpus):
        return True
    if isinstance(corpus, DownloadedCorpus):
        return is_file(user_copy(corpus) or cached_path(corpus))
    if origin in ("", "-") or OPEN_FILE_PATH.fullmatch(origin):
        return False
    try:
        mode = Path(origin).stat().st_mode
    except (OSError, ValueError):
        return True  # so that open_text raises the error for this path
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _open_path(source: str | Path, reading: Reading, notes: Notes) -> Text:
    label = quoted_path(source)
    if not str(source):
        raise CharloomError("the text's name is empty: pass a path, a corpus name, or - (stdin)")
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise CharloomError(_missing(source)) from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise CharloomError(f"cannot read {label}: {error_reason(error)}") from None

    if OPEN_FILE_PATH.fullmatch(str(source)) or stat.S_ISFIFO(mode):
        return open_pipe(open_file(path, label), text_name(source), label, path, reading, notes)
    if stat.S_ISREG(mode):
        origin = str(path.absolute())
        open_bytes = file_opener(path, label)
    elif stat.S_ISDIR(mode):
        raise CharloomError(
            f"{label} is a folder: pass one text file, or join several with `cat` and pass - "
            "(standard input)"
        )
    else:
        raise CharloomError(
            f"{label} is a device or a socket, not a file: pass a text file, or pipe it in and "
            "pass - (standard input)"
        )
    pieces, encoding = reading.open(open_bytes, label, path, notes.add)
    name = text_name(source)
    return Text(name, origin, reading.as_bytes, pieces, encoding=encoding, notes=notes)


def _missing(source: str | Path) -> str:
    """Return the message for a path without a file, with the corpus names that resemble it."""
    from difflib import get_close_matches

    wanted = re.sub(r"[\s_]+", "-", str(source).lower())
    close = [name for name in CORPORA if len(wanted) >= 3 and wanted in name]
    close = close or get_close_matches(wanted, CORPORA)
    if close:
        return (
            f"there is no file {quoted_path(source)}: did you mean the corpus "
            f"{' or '.join(close)}? (`charloom corpora` lists all of them)"
        )
    return (
        f"there is no file {quoted_path(source)}: pass the path of a text, a name that "
        "`charloom corpora` lists, or - (standard input)"
    )


def _stem(path: Path) -> str:
    """Return a file's name without its suffix, nor the suffix before `.gz`, fit for a folder."""
    return safe_name(Path(path.stem).stem if path.suffix.lower() in COMPRESSED else path.stem)
