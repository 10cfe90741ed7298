"""A text as ids, split into training, validation and test; in a memory-mapped file if it is long.

The text is read twice, piece by piece: once for its vocabulary, its length and its SHA-256, once
for its ids. Nothing of the size of the text is ever held in memory, unless it is small.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError
from charloom.progress import OnProgress
from charloom.text.source import Text
from charloom.text.vocabulary import Vocabulary, code_points

COUNTED_AT_ONCE = 1 << 20  # characters
IN_MEMORY_AT_MOST = 1 << 26  # bytes of ids; a longer text is stored in a memory-mapped file

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
                f"--split {text!r} is invalid: set three percentages like 90/5/5 (training, "
                "validation, test)"
            ) from None
        return cls(train, validation, test)

    def __str__(self) -> str:
        return "/".join(f"{p:g}" for p in (self.train, self.validation, self.test))

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
    """

    name: str
    origin: str
    sha256: str
    vocabulary: Vocabulary
    ids: TextIds
    boundaries: tuple[int, int]

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
    """The results of the first reading of a text."""

    characters: int
    distinct: tuple[str, ...]  # sorted by code point
    sha256: str


def scan(text: Text, on_progress: OnProgress | None = None) -> Scan:
    """Read a text once, for its length, its distinct characters and its SHA-256.

    The SHA-256 is that of the text's UTF-8 encoding (of its bytes where a character is a byte).
    `on_progress` is called with the stage "reading" and the characters read.
    """
    digest = hashlib.sha256()
    seen = np.zeros(0x110000, dtype=bool)
    characters = 0
    for chunk in text.chunks():
        digest.update(_encoded(chunk, text))
        seen[code_points(chunk)] = True
        characters += len(chunk)
        if on_progress is not None:
            on_progress("reading", characters, None)
    distinct = tuple(chr(code) for code in np.flatnonzero(seen))
    return Scan(characters, distinct, digest.hexdigest())


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
    ids: TextIds
    if characters * vocabulary.id_type.itemsize <= in_memory:
        ids = np.empty(characters, dtype=vocabulary.id_type)
        _fill(ids, text, vocabulary, on_progress)
        return ids
    with tempfile.TemporaryFile(dir=folder) as file:
        written = 0
        for chunk in text.chunks():
            file.write(vocabulary.encode(chunk, position=written).tobytes())
            written += len(chunk)
            if on_progress is not None:
                on_progress("encoding", written, characters)
        _check_length(written, characters)
        file.flush()
        # The mapping keeps the file's bytes alive after the file is closed.
        return np.memmap(cast(BinaryIO, file), dtype=vocabulary.id_type, mode="r")


def _fill(ids: TextIds, text: Text, vocabulary: Vocabulary, on_progress: OnProgress | None) -> None:
    written = 0
    for chunk in text.chunks():
        _check_length(min(written + len(chunk), len(ids)), written + len(chunk))
        ids[written : written + len(chunk)] = vocabulary.encode(chunk, position=written)
        written += len(chunk)
        if on_progress is not None:
            on_progress("encoding", written, len(ids))
    _check_length(written, len(ids))


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


def load_dataset(
    text: Text,
    split: Split,
    *,
    base: Vocabulary | None = None,
    sha256: str | None = None,
    folder: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """Read, encode and split a text, with the vocabulary of the whole text.

    Args:
        text: the text.
        split: the percentages of its splits.
        base: a vocabulary whose characters keep their ids; new ones are appended to it.
        sha256: the expected SHA-256, or None to accept any text.
        folder: where the ids of a long text are stored, as in `encode_text`.
        on_progress: called while the text is read ("reading") and encoded ("encoding").

    Raises:
        OtherTextError: if the text does not have the expected SHA-256.
        CharloomError: if the text is too short, has a single distinct character, or is read as
            bytes where `base` is not, or the reverse.
    """
    found = scan(text, on_progress)
    if sha256 is not None and found.sha256 != sha256:
        raise OtherTextError(
            f"the text {text.name!r} is not the one that the run was trained on: its SHA-256 is "
            f"{found.sha256[:12]}…, the run's is {sha256[:12]}…"
        )
    _check_content(text.name, found)
    if base is None:
        vocabulary = Vocabulary.of("".join(found.distinct), as_bytes=text.as_bytes)
    elif base.as_bytes != text.as_bytes:
        raise CharloomError(
            "--from: the earlier run reads bytes, so pass --bytes"
            if base.as_bytes
            else "--from: the earlier run reads UTF-8, so omit --bytes"
        )
    else:
        vocabulary = base.grown(found.distinct)
    ids = encode_text(text, found.characters, vocabulary, folder, on_progress)
    return Dataset(
        text.name, text.origin, found.sha256, vocabulary, ids, split.boundaries(len(ids))
    )


def _check_content(name: str, found: Scan) -> None:
    """Raise CharloomError for a text without a character to predict."""
    if found.characters == 0:
        raise CharloomError(f"the text {name!r} is empty: pass a text to train on")
    if found.characters == 1:
        raise CharloomError(f"the text {name!r} has one character: pass a longer one")
    if len(found.distinct) == 1:
        raise CharloomError(
            f"the text {name!r} has one distinct character ({found.distinct[0]!r}): pass one "
            "with at least two"
        )
