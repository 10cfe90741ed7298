"""Corpora that are downloaded once, checked by SHA-256 and cached."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from charloom.errors import CharloomError
from charloom.text.reading import blocks_of, decoded, quoted, reason_of, reopened_file
from charloom.text.source import Progress, in_characters

FOLDER_VARIABLE = "CHARLOOM_CORPORA"
_LARGEST_DOWNLOAD = 16 << 20  # bytes
_TIMEOUT = 20  # seconds without an answer from the network


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


def given_copy(corpus: DownloadedCorpus) -> Path | None:
    """The corpus in the folder that CHARLOOM_CORPORA names, if it is there."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    path = Path(folder, corpus.file_name)
    return path if is_file(path) else None


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder on the way that may not be entered
        return False


def cached_copy(corpus: DownloadedCorpus) -> Path:
    return cache_folder() / corpus.file_name


def _recorded_sha256(corpus: DownloadedCorpus) -> Path:
    """The file beside the cached copy with its SHA-256, in the form that `sha256sum -c` reads."""
    return cache_folder() / f"{corpus.name}.sha256"


def open_downloaded(
    corpus: DownloadedCorpus,
    raw: bool,
    as_bytes: bool,
    progress: Progress | None,
    embedded: Sequence[str],
) -> Callable[[], Iterator[str]]:
    """Open the given or cached copy of a corpus; download it first if there is none.

    Args:
        corpus: the corpus to open.
        raw: keep a book's header and license.
        as_bytes: read bytes instead of UTF-8.
        progress: called with the bytes done and the bytes in all (or None).
        embedded: names of corpora that need no network, which a failed download recommends.

    Raises:
        CharloomError: if there is no copy and the download fails, or the copy is damaged.
    """
    given = given_copy(corpus)
    path = given or cached_copy(corpus)
    label = quoted(path)
    if given is not None:
        if corpus.sha256 is not None and _file_sha256(given) != corpus.sha256:
            raise CharloomError(
                f"{label} (in the folder {FOLDER_VARIABLE}) is not {corpus.name}: its SHA-256 "
                "differs; replace or remove it, or give its path to read it as it is"
            )
    elif not is_file(path):
        _download(corpus, f"{corpus.name} is not on this machine yet", progress, embedded)
    elif not _cached_copy_is_whole(corpus):
        _download(corpus, f"the cached copy of {corpus.name} is damaged", progress, embedded)

    blocks = blocks_of(reopened_file(path, label), label, compressed=False)
    if raw or not corpus.gutenberg:
        return decoded(blocks, as_bytes, label)
    as_utf_8 = decoded(blocks, False, label)
    _book("".join(as_utf_8()), label)  # tells of a wrong file before training begins
    return in_characters(lambda: iter([_book("".join(as_utf_8()), label)]), as_bytes)


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
        raise CharloomError(f"cannot read {quoted(path)}: {reason_of(error)}") from None


def _cached_copy_is_whole(corpus: DownloadedCorpus) -> bool:
    """Whether the cached copy has the SHA-256 that it must have, or else had when it came."""
    expected = corpus.sha256
    if expected is None:
        record = _recorded_sha256(corpus)
        if not is_file(record):  # somebody put the text there by hand
            return True
        try:
            expected = record.read_text(encoding="utf-8").split()[0]
        except (OSError, UnicodeDecodeError, IndexError):
            return False
    return _file_sha256(cached_copy(corpus)) == expected


def _download(
    corpus: DownloadedCorpus, why: str, progress: Progress | None, embedded: Sequence[str]
) -> None:
    """Brings the corpus into the cache, whole or not at all. `why` opens the error's sentence.

    Raises CharloomError where the cache folder cannot be written or no address gives the text.
    """
    import hashlib
    import tempfile

    target = cached_copy(corpus)
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(".part", f"{corpus.name}-", target.parent)
        os.close(descriptor)
        part = Path(name)
        data = _fetch_from_any(corpus, why, progress, embedded)
        part.write_bytes(data)
        # Recorded first: after a crash in between, the text is missing or does not match.
        record = f"{hashlib.sha256(data).hexdigest()}  {target.name}\n"
        _recorded_sha256(corpus).write_text(record, encoding="utf-8", newline="\n")
        part.replace(target)
    except OSError as error:
        raise CharloomError(
            f"cannot write to the cache folder {quoted(target.parent)} ({reason_of(error)}): make "
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


def _fetch_from_any(
    corpus: DownloadedCorpus, why: str, progress: Progress | None, embedded: Sequence[str]
) -> bytes:
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
        raise _NotFetched(reason_of(reason), offline=not certificate) from None
    except (OSError, http.client.HTTPException) as error:
        raise _NotFetched(reason_of(error), offline=isinstance(error, OSError)) from None

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
