"""Corpora that are downloaded once, verified by SHA-256 and cached."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from charloom.errors import CharloomError, error_reason, quoted_path
from charloom.progress import OnProgress
from charloom.text.reading import Reading, block_reader, file_opener
from charloom.text.source import byte_characters

FOLDER_VARIABLE = "CHARLOOM_CORPORA"


@dataclass(frozen=True)
class DownloadedCorpus:
    """A corpus that is a file on a server.

    Attributes:
        name, description, license: as `charloom corpora` lists them.
        file_name: in the folder CHARLOOM_CORPORA and in the cache folder.
        addresses: URLs, tried in order.
        sha256: of the file, or None where the file on the server can change.
        gutenberg: True for a Project Gutenberg text, with its header and its license.
        largest: bytes that a download must not exceed.
        timeout: seconds to wait for the server.
        lines: True if each line is a document.
    """

    name: str
    description: str
    license: str
    file_name: str
    addresses: tuple[str, ...]
    sha256: str | None = None
    gutenberg: bool = False
    largest: int = 16 << 20
    timeout: float = 20
    lines: bool = False


def cache_folder() -> Path:
    """Return the user's folder for downloaded corpora."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("charloom", appauthor=False))


def cached_path(corpus: DownloadedCorpus) -> Path:
    """Return the path of a corpus in the cache folder, whether the file exists or not."""
    return cache_folder() / corpus.file_name


def user_copy(corpus: DownloadedCorpus) -> Path | None:
    """Return the path of a corpus in the folder that CHARLOOM_CORPORA names, if the file exists."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    path = Path(folder, corpus.file_name)
    return path if is_file(path) else None


def is_file(path: Path) -> bool:
    """Return True for an existing file, and False where a folder above it cannot be entered."""
    try:
        return path.is_file()
    except OSError:
        return False


def open_downloaded(
    corpus: DownloadedCorpus,
    raw: bool,
    reading: Reading,
    on_progress: OnProgress | None,
    embedded: Sequence[str],
) -> Callable[[], Iterator[str]]:
    """Open the user's or the cached copy of a corpus, and download it first if both are missing.

    Args:
        corpus: the corpus to open.
        raw: keep a book's header and license.
        reading: how its bytes become text.
        on_progress: called while it is downloaded.
        embedded: names of corpora that need no network, which a failed download recommends.

    Returns:
        A function that returns the text in pieces.

    Raises:
        CharloomError: if there is no copy and the download fails, or the copy is damaged.
    """
    user_path = user_copy(corpus)
    path = user_path or cached_path(corpus)
    label = quoted_path(path)
    if user_path is not None:
        if corpus.sha256 is not None and _file_sha256(user_path) != corpus.sha256:
            raise CharloomError(
                f"{label} (in the folder {FOLDER_VARIABLE}) is not {corpus.name}, because its "
                "SHA-256 differs: replace or remove it, or pass its path to read it as it is"
            )
    elif not is_file(path):
        _download(corpus, f"{corpus.name} is not on this machine yet", on_progress, embedded)
    elif not _cached_copy_is_whole(corpus):
        _download(corpus, f"the cached copy of {corpus.name} is damaged", on_progress, embedded)

    blocks = block_reader(file_opener(path, label), label, reading.block_size)
    if raw or not corpus.gutenberg:
        return reading.pieces(blocks, label)
    as_utf_8 = Reading(keep_newlines=True, keep_mark=True).pieces(blocks, label)
    _book("".join(as_utf_8()), label)  # so that a wrong file raises now, before training begins
    return reading.read(
        byte_characters(lambda: iter([_book("".join(as_utf_8()), label)]), reading.as_bytes)
    )


def _book(text: str, label: str) -> str:
    """Return a Project Gutenberg text without its header and license, from first line to last.

    Raises CharloomError where the lines `*** START OF` and `*** END OF` are missing.
    """
    start = re.search(r"^\ufeff?\*\*\* ?START OF .*\n", text, re.MULTILINE)
    end = re.compile(r"^\*\*\* ?END OF ", re.MULTILINE).search(text, start.end() if start else 0)
    if start is None or end is None:
        raise CharloomError(
            f"{label} lacks the lines `*** START OF` and `*** END OF` that enclose a Project "
            "Gutenberg book: replace it, or keep the whole file with --raw"
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
        raise CharloomError(f"cannot read {quoted_path(path)}: {error_reason(error)}") from None


def _sha256_record(corpus: DownloadedCorpus) -> Path:
    """Return the path of the file that records the cached copy's SHA-256, for `sha256sum -c`."""
    return cache_folder() / f"{corpus.name}.sha256"


def _cached_copy_is_whole(corpus: DownloadedCorpus) -> bool:
    """Return True if the cached copy has the corpus's SHA-256, or the one recorded on download."""
    expected = corpus.sha256
    if expected is None:
        record = _sha256_record(corpus)
        if not is_file(record):  # The user copied the text there.
            return True
        try:
            expected = record.read_text(encoding="utf-8").split()[0]
        except (OSError, UnicodeDecodeError, IndexError):
            return False
    return _file_sha256(cached_path(corpus)) == expected


def _download(
    corpus: DownloadedCorpus,
    problem: str,
    on_progress: OnProgress | None,
    embedded: Sequence[str],
) -> None:
    """Download a corpus into the cache, atomically.

    Args:
        corpus: the corpus.
        problem: why it is downloaded, which opens the message of an error.
        on_progress: called with the stage "downloading" and bytes.
        embedded: names of corpora that need no network, which a failed download recommends.

    Raises:
        CharloomError: if the cache folder is not writable or every address fails.
    """
    import hashlib
    import tempfile

    target = cached_path(corpus)
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(".part", f"{corpus.name}-", target.parent)
        os.close(descriptor)
        part = Path(name)
        data = _fetch_from_any(corpus, problem, on_progress, embedded)
        part.write_bytes(data)
        # Recorded first, so that after a crash in between the text is missing or does not match.
        record = f"{hashlib.sha256(data).hexdigest()}  {target.name}\n"
        _sha256_record(corpus).write_text(record, encoding="utf-8", newline="\n")
        part.replace(target)
    except OSError as error:
        raise CharloomError(
            f"cannot write to the cache folder {quoted_path(target.parent)} "
            f"({error_reason(error)}): make it writable, or put the text as {corpus.file_name} "
            f"into a folder and name that folder in {FOLDER_VARIABLE}"
        ) from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


class _NotFetched(Exception):
    """The failure of an address, with `offline` set if the network and not the server failed."""

    def __init__(self, reason: str, offline: bool = False) -> None:
        super().__init__(reason)
        self.offline = offline


def _fetch_from_any(
    corpus: DownloadedCorpus,
    problem: str,
    on_progress: OnProgress | None,
    embedded: Sequence[str],
) -> bytes:
    """Return the bytes of the first address that succeeds. Raises CharloomError if none does."""
    from urllib.parse import urlsplit

    failures = []
    for address in corpus.addresses:
        try:
            return _fetch(corpus, address, on_progress)
        except _NotFetched as failure:
            host = urlsplit(address).hostname
            if failure.offline:
                reason = f"there is no network connection to {host} ({failure})"
            else:
                reason = f"the download from {host} failed ({failure})"
            failures.append((failure.offline, reason))
    # A server's answer is more informative than an address without a connection.
    reason = min(failures, key=lambda failed: failed[0])[1]
    raise CharloomError(
        f"{problem}, and {reason}: use {', '.join(embedded[:-1])} or {embedded[-1]}, which need no "
        f"network, or put the text as {corpus.file_name} into a folder and name that folder in "
        f"{FOLDER_VARIABLE}"
    )


def _fetch(corpus: DownloadedCorpus, address: str, on_progress: OnProgress | None) -> bytes:
    """Return the bytes of an address, verified. Raises _NotFetched."""
    import http.client
    import urllib.error
    import urllib.request

    request = urllib.request.Request(address, headers={"User-Agent": "charloom"})
    data = bytearray()
    try:
        with urllib.request.urlopen(request, timeout=corpus.timeout) as response:
            length = response.headers.get("Content-Length") or ""
            total = int(length) if length.isdecimal() else None
            while max(len(data), total or 0) <= corpus.largest:
                block = response.read(1 << 16)
                if not block:
                    break
                data += block
                if on_progress is not None:
                    on_progress("downloading", len(data), total)
            else:
                raise _NotFetched("the file is much larger than the text should be")
    except urllib.error.HTTPError as error:
        error.close()
        raise _NotFetched(f"the server answered {error.code}") from None
    except urllib.error.URLError as error:
        reason = error.reason if isinstance(error.reason, OSError) else error
        certificate = type(reason).__module__ == "ssl"
        raise _NotFetched(error_reason(reason), offline=not certificate) from None
    except (OSError, http.client.HTTPException) as error:
        raise _NotFetched(error_reason(error), offline=isinstance(error, OSError)) from None

    if total is not None and len(data) != total:
        raise _NotFetched(f"it stopped after {len(data)} of {total} bytes")
    _verify(corpus, bytes(data))
    return bytes(data)


def _verify(corpus: DownloadedCorpus, data: bytes) -> None:
    """Raise _NotFetched unless the bytes are the corpus."""
    import hashlib

    if corpus.sha256 is not None and hashlib.sha256(data).hexdigest() != corpus.sha256:
        raise _NotFetched("the file is not the expected text, because its SHA-256 differs")
    if corpus.gutenberg:
        try:
            _book(data.decode("utf-8"), "it")
        except (UnicodeDecodeError, CharloomError):
            raise _NotFetched("the file is not a Project Gutenberg text in UTF-8") from None
