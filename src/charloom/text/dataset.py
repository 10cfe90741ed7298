"""A text as ids, split into training, validation and test; in a memory-mapped file if it is long.

The text is read twice, piece by piece: once for its vocabulary, its length and its SHA-256, once
for its ids. Nothing of the size of the text is ever held in memory, unless it is small.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError, plural, quoted, shortened
from charloom.progress import OnProgress
from charloom.text.extra_inputs import ExtraInputs
from charloom.text.source import Text
from charloom.text.splitting import (
    IN_MEMORY_AT_MOST,
    Division,
    EncodedText,
    Hashes,
    divide,
    store_ids,
)
from charloom.text.vocabulary import END, Vocabulary, code_points

COUNTED_AT_ONCE = 1 << 20  # characters

TextIds = NDArray[np.unsignedinteger]


class OtherTextError(CharloomError):
    """A text that is not the expected one."""


@dataclass(frozen=True)
class Split:
    """Percentages of the text for training, validation and test, in the order of the text."""

    train: float = 90
    validation: float = 5
    test: float = 5

    def __post_init__(self) -> None:
        percentages = (self.train, self.validation, self.test)
        if not all(np.isfinite(p) and p >= 0 for p in percentages) or self.train <= 0:
            raise CharloomError(
                f"--split {self} is invalid: set a training percentage above 0, and no negative one"
            )
        if abs(sum(percentages) - 100) > 1e-9:
            raise CharloomError(f"--split {self} is invalid: the percentages must add up to 100")

    @classmethod
    def parse(cls, text: str) -> Split:
        """Return the split of a string such as `90/5/5`. Raises CharloomError if it is invalid."""
        try:
            train, validation, test = (float(percentage) for percentage in text.split("/"))
        except ValueError:
            raise CharloomError(
                f"--split {shortened(text)} is invalid: set three percentages like 90/5/5 "
                "(training, validation, test)"
            ) from None
        return cls(train, validation, test)

    def __str__(self) -> str:
        return "/".join(f"{p:g}" for p in (self.train, self.validation, self.test))

    def without(self, *, validation: bool, test: bool) -> Split:
        """Return the split with some parts added to training, which have texts of their own."""
        if not validation and not test:
            return self
        kept = (0 if validation else self.validation), (0 if test else self.test)
        return Split(100 - sum(kept), *kept)

    def boundaries(self, length: int) -> tuple[int, int]:
        """Return the first index of the validation and of the test split of N characters.

        An index is floor(N · cumulative percentage / 100).
        """
        first = int(length * self.train / 100)
        second = int(length * (self.train + self.validation) / 100)
        return first, second if self.test > 0 else length


@dataclass(frozen=True)
class Dataset:
    """An encoded text, split into three parts.

    Attributes:
        name, origin: of the text.
        sha256: that of the text, in hexadecimal digits.
        vocabulary: its characters.
        ids: the text, (N,), in the type `id_type`: training, validation, test. Each document
            of a collection ends with the id of END, and the documents of a part are consecutive.
        boundaries: the indices at which the validation and the test split begin.
        documents: the documents of the text and of texts that are parts; 0 for a book.
        pieces: the documents, or pieces of documents, of each split; zeros for a book.
        unseen: the probability of a character that is not in the vocabulary, as estimated from the
            training split.
        folded: the characters of each split that have no id because of --min-count.
        rule: how the text was split, to print.
        own: name, origin and SHA-256 of the texts of --validation and --test.
        lines: True if each line is a document.
        encoding: the name of the text's encoding, if it was recognized.
        notes: decisions that were made as the text was read, each in a line to print.
        extra: the extra inputs of the ids, at least of the training and the validation split.
    """

    name: str
    origin: str
    sha256: str
    vocabulary: Vocabulary
    ids: TextIds
    boundaries: tuple[int, int]
    documents: int = 0
    pieces: tuple[int, int, int] = (0, 0, 0)
    unseen: float = 0.0
    folded: tuple[int, int, int] = (0, 0, 0)
    rule: str = ""
    own: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    lines: bool = False
    encoding: str | None = None
    notes: tuple[str, ...] = ()
    extra: ExtraInputs | None = None

    @property
    def characters(self) -> int:
        """The characters of the text, without the ends of documents."""
        return len(self.ids) - sum(self.pieces)

    def record(self) -> dict[str, Any]:
        """Return what a checkpoint records of the text."""
        record: dict[str, Any] = {
            "name": self.name,
            "origin": self.origin,
            "sha256": self.sha256,
            "characters": self.characters,
            "unseen": self.unseen,
        }
        if self.documents:
            record["documents"] = self.documents
        if any(self.folded):
            record["folded"] = sum(self.folded)
        if self.encoding is not None:
            record["encoding"] = self.encoding
        if self.own:
            record["own"] = {name: dict(part) for name, part in self.own.items()}
        return record

    @property
    def train(self) -> TextIds:
        return self.ids[: self.boundaries[0]]

    @property
    def validation(self) -> TextIds:
        first, second = self.boundaries
        return self.ids[first:second]

    @property
    def test(self) -> TextIds:
        return self.ids[self.boundaries[1] :]

    def fit_and_holdout(self, refit: bool) -> tuple[TextIds, TextIds]:
        """Return the ids to train on and those to validate on, which follow them.

        These are the training and the validation split. A refit also trains on the first 80% of
        the validation split, because that text is nearest to the test split. It starts once
        everything is chosen for which the validation split is needed.
        """
        first, second = self.boundaries
        if refit:
            first = self._whole_documents(first + (second - first) * 4 // 5)
        return self.ids[:first], self.ids[first:second]

    def _whole_documents(self, index: int) -> int:
        """Return the index moved to the beginning of a document of the validation split.

        It moves forward, or back if otherwise no document were left to validate on.
        """
        end_id = self.vocabulary.end_id
        first, second = self.boundaries
        if end_id is None or first == second:
            return index
        begins: NDArray[np.intp] = np.flatnonzero(self.ids[first - 1 : second - 1] == end_id)
        begins += first
        return int(begins[min(int(np.searchsorted(begins, index)), len(begins) - 1)])


@dataclass(frozen=True)
class Scan:
    """The results of the first reading of a text.

    Attributes:
        characters: its length, with the ends of its documents.
        counts: occurrences of each code point.
        sha256: of the text.
        hashes: of the contents of its documents.
    """

    characters: int
    counts: NDArray[np.int64]
    sha256: str
    hashes: Hashes

    @property
    def distinct(self) -> tuple[str, ...]:
        """The distinct characters, sorted by code point."""
        return tuple(chr(code) for code in np.flatnonzero(self.counts))


def scan(text: Text, on_progress: OnProgress | None = None, *, with_hashes: bool = True) -> Scan:
    """Read a text once, for its length, its characters, its SHA-256 and its documents' hashes.

    The SHA-256 is that of the text's UTF-8 encoding (of its bytes where a character is a byte).

    Args:
        text: the text.
        on_progress: called with the stage "reading" and the characters read.
        with_hashes: whether documents are hashed, which takes eight bytes each.
    """
    digest = hashlib.sha256()
    hashes = _DocumentHashes(text.as_bytes)
    counts = np.zeros(0x110000, dtype=np.int64)
    characters = 0
    for chunk in text.chunks():
        digest.update(_encoded(chunk, text))
        found = np.bincount(code_points(chunk))
        counts[: len(found)] += found
        characters += len(chunk)
        if text.ends and with_hashes:
            hashes.update(chunk)
        if on_progress is not None:
            on_progress("reading", characters, None)
    return Scan(characters, counts, digest.hexdigest(), hashes.result())


class _DocumentHashes:
    """The hashes of a stream of documents, each of which ends with END."""

    def __init__(self, as_bytes: bool) -> None:
        self._encoding = "latin-1" if as_bytes else "utf-8"
        self._digests = bytearray()
        self._unfinished = _document_hash()

    def update(self, chunk: str) -> None:
        first, *whole = chunk.split(END)
        self._unfinished.update(first.encode(self._encoding))
        if not whole:
            return
        self._digests += self._unfinished.digest()
        rest = whole.pop().encode(self._encoding)
        blake2b, encoding = hashlib.blake2b, self._encoding
        self._digests += b"".join(
            [blake2b(document.encode(encoding), digest_size=8).digest() for document in whole]
        )
        self._unfinished = _document_hash(rest)

    def result(self) -> Hashes:
        return np.frombuffer(self._digests, dtype="<u8").astype(np.uint64)


def _document_hash(content: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(content, digest_size=8)


def _encoded(chunk: str, text: Text) -> bytes:
    """Return the bytes of a chunk that the text's SHA-256 is computed from."""
    if text.ends or not text.as_bytes:
        return chunk.encode("utf-8", "surrogatepass")
    return chunk.encode("latin-1")


def encode_text(
    text: Text,
    characters: int,
    vocabulary: Vocabulary,
    folder: Path | None = None,
    on_progress: OnProgress | None = None,
    *,
    in_memory: int = IN_MEMORY_AT_MOST,
) -> TextIds:
    """Read a text and return its ids, (N,).

    Args:
        text: the text.
        characters: its length N, as `scan` returns it.
        vocabulary: all its characters.
        folder: where the ids of a long text are stored, in a memory-mapped temporary file without
            a name. By default it is the system's folder for temporary files.
        on_progress: called with the stage "encoding", the characters encoded and N.
        in_memory: bytes of ids that are kept in memory instead.

    Raises:
        CharloomError: if the text has changed since it was scanned.
    """
    read = 0

    def encoded() -> Iterator[TextIds]:
        nonlocal read
        for chunk in text.chunks():
            _check_length(min(read + len(chunk), characters), read + len(chunk))
            yield vocabulary.encode(chunk, position=read)
            read += len(chunk)
            if on_progress is not None:
                on_progress("encoding", read, characters)
        _check_length(read, characters)

    return store_ids(encoded(), characters, vocabulary.id_type, folder, in_memory)


def encode_without_folded(
    text: Text,
    scanned: Scan,
    vocabulary: Vocabulary,
    folder: Path | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[TextIds, NDArray[np.int64]]:
    """Read a text and return the ids of its characters in the vocabulary, (N,).

    Args:
        text: the text.
        scanned: its first reading.
        vocabulary: the characters.
        folder, on_progress: as in `encode_text`.

    Returns:
        The ids, and for each other character the index of the id that follows it.
    """
    places: list[NDArray[np.int64]] = []
    read = written = 0
    codes = code_points("".join(vocabulary.characters))
    known = int(scanned.counts[codes].sum())

    def encoded() -> Iterator[TextIds]:
        nonlocal read, written
        for chunk in text.chunks():
            ids = vocabulary.ids_or_minus_one(chunk)
            folded = np.flatnonzero(ids < 0)
            places.append(folded - np.arange(len(folded)) + written)
            ids = ids[ids >= 0]
            written += len(ids)
            read += len(chunk)
            _check_length(min(written, known), written)
            yield ids.astype(vocabulary.id_type)
            if on_progress is not None:
                on_progress("encoding", read, scanned.characters)
        _check_length(written, known)

    ids = store_ids(encoded(), known, vocabulary.id_type, folder)
    return ids, np.concatenate([np.zeros(0, np.int64), *places])


def _check_length(found: int, expected: int) -> None:
    if found != expected:
        raise CharloomError(
            "the text changed while it was being read: try again when it is no longer written"
        )


def character_counts(ids: TextIds, vocabulary_size: int) -> NDArray[np.int64]:
    """Return the number of occurrences of each character in ids, (N,) -> (V,).

    The ids are read in blocks, because they can be memory-mapped.
    """
    counts = np.zeros(vocabulary_size, np.int64)
    for start in range(0, len(ids), COUNTED_AT_ONCE):
        counts += np.bincount(ids[start : start + COUNTED_AT_ONCE], minlength=vocabulary_size)
    return counts


@dataclass(frozen=True)
class OwnParts:
    """The texts of --validation and --test, and the SHA-256 that each one must have, if any."""

    validation: Text | None = None
    test: Text | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    def texts(self) -> dict[str, Text]:
        """Return the texts by the names of their splits."""
        both = {"validation": self.validation, "test": self.test}
        return {name: text for name, text in both.items() if text is not None}


def load_dataset(
    text: Text,
    split: Split,
    *,
    own: OwnParts | None = None,
    min_count: int = 0,
    base: Vocabulary | None = None,
    sha256: str | None = None,
    folder: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """Read, encode and split a text, with the vocabulary of the whole text.

    Args:
        text: the text.
        split: the percentages of its splits.
        own: texts that are the validation or the test split.
        min_count: the occurrences that a character needs for an id.
        base: a vocabulary whose characters keep their ids; new ones are appended to it.
        sha256: the expected SHA-256, or None to accept any text.
        folder: where the ids of a long text are stored, as in `encode_text`.
        on_progress: called while the text is read ("reading") and encoded ("encoding").

    Raises:
        OtherTextError: if a text does not have the expected SHA-256.
        CharloomError: if the text is too short, has a single distinct character, or is read as
            bytes where `base` is not, or the reverse.
    """
    own = own or OwnParts()
    found = scan(text, on_progress)
    _refuse_other(text.name, found, sha256)
    _check_content(text, found)
    scans = {"": found}
    for name, part in own.texts().items():
        scans[name] = scan(part, on_progress)
        _refuse_other(part.name, scans[name], own.sha256.get(name), f" as --{name}")
        if scans[name].characters == 0:
            raise CharloomError(f"the text of --{name} is empty: pass another file, or omit it")
    vocabulary = _vocabulary(text.as_bytes, scans.values(), min_count, base)

    def encode(text: Text, scanned: Scan) -> EncodedText:
        if min_count:
            ids, folded = encode_without_folded(text, scanned, vocabulary, folder, on_progress)
        else:
            ids = encode_text(text, scanned.characters, vocabulary, folder, on_progress)
            folded = np.zeros(0, np.int64)
        return EncodedText(ids, folded, scanned.hashes)

    division = divide(
        encode(text, found),
        {name: encode(part, scans[name]) for name, part in own.texts().items()},
        split,
        vocabulary,
        folder,
    )
    return Dataset(
        text.name,
        text.origin,
        found.sha256,
        vocabulary,
        division.ids,
        division.boundaries,
        documents=sum(len(scanned.hashes) for scanned in scans.values()),
        pieces=division.documents,
        unseen=_unseen(division, vocabulary, min_count),
        folded=division.folded,
        rule=division.rule,
        own={
            name: {"name": part.name, "origin": part.origin, "sha256": scans[name].sha256}
            for name, part in own.texts().items()
        },
        lines=text.lines,
        encoding=text.encoding,
        notes=(
            *text.notes,
            *division.notes,
            *_removed(scans.values(), vocabulary, min_count),
            *_shared(scans),
        ),
    )


def _shared(scans: Mapping[str, Scan]) -> list[str]:
    """Return a note for each text of --validation and --test with documents of the text itself."""
    notes = []
    for name in ("validation", "test"):
        if name in scans:
            hashes = scans[name].hashes
            shared = int(np.isin(hashes, scans[""].hashes).sum())
            if shared:
                notes.append(
                    f"--{name} has {plural(shared, 'document')} of the training text among its "
                    f"{len(hashes):,}: remove them from one of the two"
                )
    return notes


def _vocabulary(
    as_bytes: bool, scans: Iterable[Scan], min_count: int, base: Vocabulary | None
) -> Vocabulary:
    counts = np.sum([scanned.counts for scanned in scans], axis=0)
    counts[ord(END)] *= max(1, min_count)  # it always has an id
    distinct = [chr(code) for code in np.flatnonzero(counts >= max(1, min_count))]
    if base is None:
        if len(set(distinct) - {END}) == 0:
            raise CharloomError(
                f"--min-count {min_count} leaves no character of the text: set a lower one"
            )
        return Vocabulary.of("".join(distinct), as_bytes=as_bytes)
    if base.as_bytes != as_bytes:
        raise CharloomError(
            "--from: the earlier run reads bytes, so pass --bytes"
            if base.as_bytes
            else "--from: the earlier run reads UTF-8, so omit --bytes"
        )
    return base.grown(distinct)


def _removed(scans: Iterable[Scan], vocabulary: Vocabulary, min_count: int) -> list[str]:
    """Return a note about the characters that --min-count removes, if there are any."""
    counts = np.sum([scanned.counts for scanned in scans], axis=0)
    counts[code_points("".join(vocabulary.characters))] = 0
    distinct = int(np.count_nonzero(counts))
    if not distinct:
        return []
    return [
        f"--min-count {min_count} removes {plural(distinct, f'distinct {vocabulary.unit}')} with "
        f"{plural(int(counts.sum()), 'occurrence')}, which `charloom evaluate` counts as unknown"
    ]


def _unseen(division: Division, vocabulary: Vocabulary, min_count: int) -> float:
    """Estimate the probability of a character that is not in the vocabulary.

    By Good and Turing, it is the share of characters that occur once in the training split; with
    --min-count that of the characters without an id.
    """
    train = division.ids[: division.boundaries[0]]
    symbols = len(train) + division.folded[0]
    if min_count:
        unseen = division.folded[0]
    else:
        counts = character_counts(train, len(vocabulary))
        if vocabulary.end_id is not None:
            counts[vocabulary.end_id] = 0
        unseen = int((counts == 1).sum())
    return unseen / symbols if unseen and symbols else 1 / (symbols + 1)


def _refuse_other(name: str, found: Scan, sha256: str | None, place: str = "") -> None:
    if sha256 is not None and found.sha256 != sha256:
        raise OtherTextError(
            f"the text {shortened(name)} is not the one that the run was trained on{place} "
            f"(SHA-256 {found.sha256[:12]}…, not {sha256[:12]}…)"
        )


def _check_content(text: Text, found: Scan) -> None:
    """Raise CharloomError for a text without a character to predict."""
    name = text.name
    if found.characters == 0:
        what = "has no documents" if text.ends else "is empty"
        raise CharloomError(f"the text {shortened(name)} {what}: pass a text to train on")
    if text.ends:
        return
    if found.characters == 1:
        raise CharloomError(f"the text {shortened(name)} has one character: pass a longer one")
    if len(found.distinct) == 1:
        raise CharloomError(
            f"the text {shortened(name)} has one distinct character "
            f"({quoted(found.distinct[0])}): pass one with at least two"
        )
