"""The surprisal of lines or documents, each scored by itself: in order as they are read, or ranked.

D: lines or documents.

Bits per character have four decimals, bits have three.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.analysis.rows import csv_rows
from charloom.errors import CharloomError
from charloom.json_text import to_json
from charloom.language_model import LanguageModel
from charloom.progress import OnProgress
from charloom.text.arrivals import in_batches
from charloom.text.sources import strings_to_score
from charloom.text.typed import as_shown, compose

NOT_FINITE = (
    "the model's log-probabilities are not finite: train again with a lower --learning-rate"
)
COLUMNS = ("bits_per_character", "total_bits", "characters", "unknown", "text")


@dataclass(frozen=True)
class LineSurprisal:
    """The surprisal of lines or documents, each scored by itself.

    Attributes:
        lines: the D lines or documents as text, in the Unicode form in which they were passed.
        lengths: the number of scored and unknown characters of each, which are bytes in a model of
            bytes.
        bits: the surprisal of each, (D,).
        unknown: the number of unknown characters in each, (D,).
        places: for each line its number, for each document its name.
        ends: whether the end of each is scored, like a character.
        skipped: whether unknown characters are skipped, at no cost.
    """

    lines: Sequence[str]
    lengths: Sequence[int]
    bits: NDArray[np.float64]
    unknown: NDArray[np.intp]
    places: Sequence[int] | Sequence[str]
    ends: bool = False
    skipped: bool = False

    @property
    def unit(self) -> str:
        """The name of the column of places."""
        return "document" if self.places and isinstance(self.places[0], str) else "line"

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the values of each line or document.

        The length excludes the end. Bits per character are None if nothing of it is scored.
        """
        for place, line, length, bits, unknown in zip(
            self.places,
            self.lines,
            self.lengths,
            self.bits.tolist(),
            self.unknown.tolist(),
            strict=True,
        ):
            scored = length + self.ends - (unknown if self.skipped else 0)
            yield {
                self.unit: place,
                "bits_per_character": round(bits / scored, 4) if scored else None,
                "total_bits": round(bits, 3),
                "characters": length,
                "unknown": unknown,
                "text": line,
            }

    def ranked(self, top: int | None = None) -> list[dict[str, Any]]:
        """Return the rows sorted by bits per character, largest first, with empty lines last.

        `top` is the number of rows to return, by default all.
        """
        return rank_rows(self.rows(), len(self.lines) if top is None else top)

    def json(self, top: int | None = None) -> Iterator[str]:
        """Yield a JSON array piece by piece: all rows in order, or the first `top` ranked ones."""
        yield from as_json([self.rows() if top is None else self.ranked(top)])
        yield JSON_END

    def csv(self, top: int | None = None) -> Iterator[str]:
        """Yield CSV in pieces, with a header, for the same rows as `json`."""
        yield from as_csv([self.rows() if top is None else self.ranked(top)], self.unit)


Rows = Iterable[dict[str, Any]]
JSON_END = "\n]\n"


def rank_rows(rows: Rows, top: int) -> list[dict[str, Any]]:
    """Return the `top` rows with the most bits per character, largest first; empty lines are last.

    No more than `top` rows are in memory. Equal ones stay in their order.
    """
    return heapq.nlargest(top, rows, key=lambda row: row["bits_per_character"] or -1)


def as_csv(batches: Iterable[Rows], unit: str) -> Iterator[str]:
    """Yield the CSV of each batch of rows, with a header before the first."""
    header = csv_rows([[unit, *COLUMNS]])
    for rows in batches:
        yield header + csv_rows(row.values() for row in rows)
        header = ""
    if header:
        yield header


def as_json(batches: Iterable[Rows]) -> Iterator[str]:
    """Yield the rows of each batch as part of a JSON array, without `JSON_END`."""
    before = "[\n  "
    for rows in batches:
        piece = []
        for row in rows:
            piece.append(before + to_json(row))
            before = ",\n  "
        yield "".join(piece)
    if before.startswith("["):
        yield "["


def line_surprisal(
    model: LanguageModel,
    lines: Sequence[str],
    places: Sequence[int] | Sequence[str],
    *,
    prefix: bool = False,
    skip_unknown: bool = False,
    on_progress: OnProgress | None = None,
) -> LineSurprisal:
    """Score each line or document by itself.

    Args:
        model: the model. A model of documents scores the end of each line or document too.
        lines: the lines or documents, in characters of the model. Their Unicode form becomes the
            one that the vocabulary knows.
        places: for each line its number, for each document its name.
        prefix: whether they are only the beginnings of documents, whose ends are not scored.
        skip_unknown: whether unknown characters are skipped, at no cost.
        on_progress: called with the stage, the number of characters scored, and their total.

    Raises:
        CharloomError: as `LanguageModel.score_lines` and `LanguageModel.score_documents`.
    """
    vocabulary = model.vocabulary
    read = lines if vocabulary.as_bytes else [compose(line, vocabulary) for line in lines]
    nats, unknown = model.score_pieces(
        read, prefix=prefix, skip_unknown=skip_unknown, places=places, on_progress=on_progress
    )
    if not np.isfinite(nats).all():
        raise CharloomError(NOT_FINITE)
    return LineSurprisal(
        [as_shown(line, vocabulary) for line in lines],
        [len(line) for line in read],
        -nats / math.log(2) + 0.0,
        unknown,
        places,
        model.config.end_id is not None and not prefix,
        skip_unknown,
    )


def surprisal_of_lines(
    model: LanguageModel,
    lines: Iterable[str | bytes],
    *,
    prefix: bool = False,
    skip_unknown: bool = False,
    on_progress: OnProgress | None = None,
) -> LineSurprisal:
    """Score each line by itself, in a model of documents each document.

    Args:
        model: the model. A model of documents scores the end of each document too.
        lines: the lines or documents.
        prefix: whether they are only the beginnings of documents, whose ends are not scored.
        skip_unknown: whether unknown characters are skipped, at no cost.
        on_progress: called with the stage, the number of characters scored, and their total.

    Raises:
        CharloomError: as `LanguageModel.score_lines` and `LanguageModel.score_documents`.
    """
    read = [model.as_read(line) for line in strings_to_score(lines, "line")]
    return line_surprisal(
        model,
        read,
        range(1, len(read) + 1),
        prefix=prefix,
        skip_unknown=skip_unknown,
        on_progress=on_progress,
    )


def score_in_batches(
    model: LanguageModel,
    pieces: Iterable[tuple[int | str, str]],
    *,
    prefix: bool = False,
    skip_unknown: bool = False,
    live: bool = False,
    on_progress: OnProgress | None = None,
) -> Iterator[LineSurprisal]:
    """Score lines or documents while they are read, and yield the results of each batch in order.

    Args:
        model: the model.
        pieces: the number or the name of each line or document, and its characters of the model.
        prefix, skip_unknown: as in `line_surprisal`.
        live: whether the pieces arrive slowly. Each one is then scored as soon as it arrives.
        on_progress: called with the stage and the number of characters scored.

    Raises:
        CharloomError: as `line_surprisal`, and if there is nothing to score.
    """
    done = 0
    empty: list[LineSurprisal] | None = []  # before the first piece with characters

    def report(stage: str, scored: int, total: int | None) -> None:
        if on_progress is not None:
            on_progress(stage, done + scored, None)

    for batch in in_batches(pieces, lambda piece: len(piece[1]), live=live):
        places, lines = zip(*batch, strict=True)
        part = line_surprisal(
            model,
            lines,
            places,
            prefix=prefix,
            skip_unknown=skip_unknown,
            on_progress=report,
        )
        characters = sum(part.lengths)
        done += characters
        if empty is not None and not characters:
            empty.append(part)
            continue
        yield from empty or ()
        empty = None
        yield part
    if empty is not None:
        raise CharloomError("the text has no characters to score")
