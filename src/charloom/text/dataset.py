"""A text as ids, split into training, validation and test parts; in a mapped file when it is long.

The text is read twice, piece by piece: once for its vocabulary, its length and its SHA-256, once
for its ids. Nothing of the size of the text is ever held in memory, unless it is small.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError
from charloom.text.source import Text
from charloom.text.vocabulary import Vocabulary, code_points

COUNTED_AT_ONCE = 1 << 20  # characters
IN_MEMORY_AT_MOST = 1 << 26  # bytes of ids; a longer text goes to a mapped file

Ids = NDArray[np.unsignedinteger]
Report = Callable[[str, int, int | None], None]  # what is being done, characters done, of how many


class OtherTextError(CharloomError):
    """A text is not the one that it should be."""


@dataclass(frozen=True)
class Split:
    """Percentages of the text for training, validation and test, in the order of the text."""

    train: float = 90
    validation: float = 5
    test: float = 5

    def __post_init__(self) -> None:
        parts = (self.train, self.validation, self.test)
        if not all(np.isfinite(part) and part >= 0 for part in parts) or self.train <= 0:
            raise CharloomError(f"--split {self}: give a training part above 0 and none below it")
        if abs(sum(parts) - 100) > 1e-9:
            raise CharloomError(f"--split {self}: the three percentages must add up to 100")

    @classmethod
    def parse(cls, text: str) -> Split:
        """A split from its usual form, `90/5/5`."""
        try:
            train, validation, test = (float(part) for part in text.split("/"))
        except ValueError:
            raise CharloomError(
                f"--split {text!r}: write three percentages like 90/5/5 (training, validation, "
                "test)"
            ) from None
        return cls(train, validation, test)

    def __str__(self) -> str:
        return "/".join(f"{part:g}" for part in (self.train, self.validation, self.test))

    def boundaries(self, length: int) -> tuple[int, int]:
        """Where the validation and the test part begin: floor(N · cumulative percent / 100)."""
        first = int(length * self.train / 100)
        second = int(length * (self.train + self.validation) / 100)
        return first, second if self.test > 0 else length


@dataclass(frozen=True)
class Dataset:
    """An encoded text. `ids` is (N,), in the vocabulary's `id_type`; the parts are views on it."""

    name: str
    origin: str
    sha256: str
    vocabulary: Vocabulary
    ids: Ids
    split: Split

    @property
    def train(self) -> Ids:
        return self.ids[: self.split.boundaries(len(self.ids))[0]]

    @property
    def validation(self) -> Ids:
        first, second = self.split.boundaries(len(self.ids))
        return self.ids[first:second]

    @property
    def test(self) -> Ids:
        return self.ids[self.split.boundaries(len(self.ids))[1] :]

    def learned_and_watched(self, refit: bool) -> tuple[Ids, Ids]:
        """What is learned from, and the part after it that is held against it: the training and
        the validation part. When all is chosen that the validation part is there for, four fifths
        of it are learned from too (`refit`): no text is nearer to the test part.
        """
        first, second = self.split.boundaries(len(self.ids))
        if refit:
            first += (second - first) * 4 // 5
        return self.ids[:first], self.ids[first:second]


@dataclass(frozen=True)
class Scan:
    """What the first reading of a text finds."""

    characters: int
    distinct: tuple[str, ...]  # sorted by code point
    sha256: str


def scan(text: Text, report: Report | None = None) -> Scan:
    """Reads a text once: its length, its distinct characters and its SHA-256.

    The SHA-256 is that of the text's UTF-8 encoding (of its bytes where a character is a byte).
    """
    digest = hashlib.sha256()
    seen = np.zeros(0x110000, dtype=bool)
    characters = 0
    for chunk in text.chunks():
        digest.update(chunk.encode("latin-1" if text.as_bytes else "utf-8"))
        seen[code_points(chunk)] = True
        characters += len(chunk)
        if report is not None:
            report("reading", characters, None)
    distinct = tuple(chr(code) for code in np.flatnonzero(seen))
    return Scan(characters, distinct, digest.hexdigest())


def encode_text(
    text: Text,
    characters: int,
    vocabulary: Vocabulary,
    folder: Path | None = None,
    report: Report | None = None,
) -> Ids:
    """The ids of a text of that many characters, (N,).

    A long text's ids lie in a mapped temporary file in `folder` (the system's own folder for such
    files if None), which vanishes with the process.
    """
    ids: Ids
    if characters * vocabulary.id_type.itemsize <= IN_MEMORY_AT_MOST:
        ids = np.empty(characters, dtype=vocabulary.id_type)
        _fill(ids, text, vocabulary, report)
        return ids
    with tempfile.TemporaryFile(dir=folder) as file:
        written = 0
        for chunk in text.chunks():
            file.write(vocabulary.encode(chunk, position=written).tobytes())
            written += len(chunk)
            if report is not None:
                report("encoding", written, characters)
        _check_length(written, characters)
        file.flush()
        # The mapping keeps the file's bytes alive after the file is closed.
        return np.memmap(cast(BinaryIO, file), dtype=vocabulary.id_type, mode="r")


def _fill(ids: Ids, text: Text, vocabulary: Vocabulary, report: Report | None) -> None:
    written = 0
    for chunk in text.chunks():
        _check_length(min(written + len(chunk), len(ids)), written + len(chunk))
        ids[written : written + len(chunk)] = vocabulary.encode(chunk, position=written)
        written += len(chunk)
        if report is not None:
            report("encoding", written, len(ids))
    _check_length(written, len(ids))


def _check_length(found: int, expected: int) -> None:
    if found != expected:
        raise CharloomError("the text changed while it was being read: try again when it is still")


def character_counts(ids: Ids, vocabulary_size: int) -> NDArray[np.int64]:
    """How often each character stands in a text, ids (N,) -> (V,); a mapped one is read piece by
    piece."""
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
    report: Report | None = None,
) -> Dataset:
    """Reads and encodes a text. The vocabulary is the whole text's; `base`, if given, comes first.

    Raises OtherTextError where the text has not the SHA-256 that is asked for, and CharloomError
    for a text that is empty or too short, or has one distinct character.
    """
    found = scan(text, report)
    if sha256 is not None and found.sha256 != sha256:
        raise OtherTextError(
            f"the text {text.name!r} is not the one that the run was trained on: its SHA-256 is "
            f"{found.sha256[:12]}…, the run's is {sha256[:12]}…"
        )
    if found.characters == 0:
        raise CharloomError(f"the text {text.name!r} is empty: give one with something to learn")
    if found.characters == 1:
        raise CharloomError(f"the text {text.name!r} has one character: give a longer one")
    if len(found.distinct) == 1:
        raise CharloomError(
            f"the text {text.name!r} has one distinct character ({found.distinct[0]!r}): give one "
            "with something to predict"
        )
    if base is None:
        vocabulary = Vocabulary(found.distinct, text.as_bytes)
    elif base.as_bytes != text.as_bytes:
        raise CharloomError(
            "--from: the earlier run reads "
            + ("bytes, so this one needs --bytes" if base.as_bytes else "text, not --bytes")
        )
    else:
        vocabulary = base.grown(found.distinct)
    ids = encode_text(text, found.characters, vocabulary, folder, report)
    return Dataset(text.name, text.origin, found.sha256, vocabulary, ids, split)
