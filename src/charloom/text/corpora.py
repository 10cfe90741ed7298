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

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from charloom.errors import CharloomError
from charloom.text.downloading import (
    DownloadedCorpus,
    cached_copy,
    given_copy,
    is_file,
    open_downloaded,
)
from charloom.text.embedded import (
    EmbeddedCorpus,
    documentation_topics,
    library_files,
    python_docs,
    python_stdlib,
    unicode_names,
)
from charloom.text.reading import (
    OPEN_FILE,
    blocks_of,
    decoded,
    open_standard_input,
    opened_file,
    quoted,
    reason_of,
    reopened_file,
    spooled,
)
from charloom.text.source import (
    BETWEEN,
    Progress,
    Text,
    in_characters,
    join_texts,
    normalized_newlines,
    safe_name,
)


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
            return open_standard_input(normalize_newlines, as_bytes)
        corpus = CORPORA.get(source)
        if isinstance(corpus, EmbeddedCorpus):
            corpus.check()
            strings = in_characters(corpus.pieces, as_bytes)
            return Text(source, source, as_bytes, normalized_newlines(strings, normalize_newlines))
        if isinstance(corpus, DownloadedCorpus):
            embedded = [c.name for c in CORPORA.values() if isinstance(c, EmbeddedCorpus)]
            pieces = open_downloaded(corpus, raw, as_bytes, progress, embedded)
            return Text(source, source, as_bytes, normalized_newlines(pieces, normalize_newlines))
    return _open_path(source, normalize_newlines, as_bytes)


def reopen_text(
    origin: str, *, raw: bool = False, normalize_newlines: bool = False, as_bytes: bool = False
) -> Text:
    """The text that has this origin. Raises CharloomError as `open_text` does."""
    return join_texts(
        [
            open_text(one, raw=raw, normalize_newlines=normalize_newlines, as_bytes=as_bytes)
            for one in origin.split(BETWEEN)
        ]
    )


def text_name(source: str | Path) -> str:
    """The `name` that `open_text` would give, without opening anything."""
    if source == "-" or OPEN_FILE.fullmatch(str(source)):
        return "stdin"
    return source if isinstance(source, str) and source in CORPORA else _stem(Path(source))


def can_be_read_again(origin: str) -> bool:
    """Whether opening a recorded `origin` ends at once: a corpus on this machine, or no pipe.

    A checkpoint may be a stranger's: what it names must not wait for standard input or a pipe, nor
    start a download.
    """
    if BETWEEN in origin:
        return all(can_be_read_again(one) for one in origin.split(BETWEEN))
    corpus = CORPORA.get(origin)
    if isinstance(corpus, EmbeddedCorpus):
        return True
    if isinstance(corpus, DownloadedCorpus):
        return is_file(given_copy(corpus) or cached_copy(corpus))
    if origin in ("", "-") or OPEN_FILE.fullmatch(origin):
        return False
    try:
        mode = Path(origin).stat().st_mode
    except (OSError, ValueError):
        return True  # and open_text says what is wrong
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def list_corpora() -> list[CorpusInfo]:
    """Every named corpus, and where it is now. Reads no text and downloads nothing."""
    listed = []
    for corpus in CORPORA.values():
        if isinstance(corpus, EmbeddedCorpus):
            kind = place = "embedded"
        else:
            kind = "downloaded"
            copy = given_copy(corpus) or cached_copy(corpus)
            place = str(copy) if is_file(copy) else "not downloaded yet"
        listed.append(CorpusInfo(corpus.name, corpus.description, kind, place, corpus.license))
    return listed


def _open_path(source: str | Path, normalize_newlines: bool, as_bytes: bool) -> Text:
    label = quoted(source)
    if not str(source):
        raise CharloomError("the text's name is empty: give a path, a corpus name, or - (stdin)")
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise CharloomError(_missing(source)) from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise CharloomError(f"cannot read {label}: {reason_of(error)}") from None

    own_file = OPEN_FILE.fullmatch(str(source)) is not None
    if own_file or stat.S_ISFIFO(mode):
        origin = "-"
        with opened_file(path, label) as pipe:
            open_bytes = spooled(pipe, label)
    elif stat.S_ISREG(mode):
        origin = str(path.absolute())
        open_bytes = reopened_file(path, label)
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
    blocks = blocks_of(open_bytes, label, compressed)
    text_label = f"the text inside {label}" if compressed else label
    pieces = normalized_newlines(decoded(blocks, as_bytes, text_label), normalize_newlines)
    return Text(text_name(source), origin, as_bytes, pieces)


def _missing(source: str | Path) -> str:
    """The sentence for a path that leads nowhere, with the corpus names that look like it."""
    from difflib import get_close_matches

    wanted = re.sub(r"[\s_]+", "-", str(source).lower())
    close = [name for name in CORPORA if len(wanted) >= 3 and wanted in name]
    close = close or get_close_matches(wanted, CORPORA)
    if close:
        return (
            f"there is no file {quoted(source)}; did you mean the corpus {' or '.join(close)}? "
            "(`charloom corpora` lists them all)"
        )
    return (
        f"there is no file {quoted(source)}: give the path of a text, a name that "
        "`charloom corpora` lists, or - (standard input)"
    )


def _stem(path: Path) -> str:
    """The file's name without its ending, nor the one before `.gz`."""
    return safe_name(Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem)


# --- The table -----------------------------------------------------------------------------------

CORPORA: dict[str, EmbeddedCorpus | DownloadedCorpus] = {
    corpus.name: corpus
    for corpus in (
        EmbeddedCorpus(
            "python-docs",
            "the topics of Python's help(): prose about the language, 0.5 MB",
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
            "the names of Unicode characters, one a line, 0.9 MB",
            "Unicode Character Database, Unicode License",
            unicode_names,
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
