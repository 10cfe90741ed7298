"""How surprising a text is to a model, character by character: JSON, CSV, a page, the worst places.

N: characters of the text; K: guesses at each place.

Probabilities are given to four decimals and bits to three, in every form: what a page shows is what
the JSON says.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.errors import CharloomError, printable
from charloom.pages.page import fit_page
from charloom.prediction.scoring import Scores
from charloom.text.dataset import Ids
from charloom.text.vocabulary import Vocabulary

GUESSES = 5
MOST_SHOWN = 2_000_000  # characters of a text that a page shows
LISTED = 100  # of the most surprising places, on a page
APART = 20  # characters between two of them
BEFORE, AFTER = 36, 16  # characters of context


@dataclass(frozen=True)
class Surprisal:
    """A text's ids, (N,), and their scores, with K guesses at each. skipped: unknown characters
    that were passed over."""

    text: str
    model: str
    protocol: str
    vocabulary: Vocabulary
    ids: Ids
    scores: Scores
    skipped: int = 0

    def __post_init__(self) -> None:
        if not np.isfinite(self.scores.log_probabilities).all():
            raise CharloomError(
                "the model gives a character no probability, or its numbers overflow: train again "
                "with a lower --learning-rate"
            )

    @property
    def bits(self) -> NDArray[np.float32]:
        """(N,) to three decimals."""
        return np.asarray(np.round(self.scores.bits, 3), np.float32)

    @property
    def probabilities(self) -> NDArray[np.uint16]:
        """Of the guesses, (N, K), in ten-thousandths."""
        return np.asarray(np.round(self.scores.likeliest_probabilities * 1e4), np.uint16)

    def summary(self) -> dict[str, Any]:
        nats = self.scores.nats_per_character
        return {
            "text": self.text,
            "model": self.model,
            "protocol": self.protocol,
            "characters": len(self.ids),
            "skipped_characters": self.skipped,
            "total_bits": float(self.scores.bits.sum()),
            "bits_per_character": nats / math.log(2),
            "nats_per_character": nats,
            "accuracy": float(self.scores.guessed.mean()),
        }

    def most_surprising(self, count: int) -> list[int]:
        """The places of the largest surprisals, largest first, none close to a larger one."""
        bits = self.scores.bits
        free = np.ones(len(bits), dtype=bool)
        found: list[int] = []
        for place in np.argsort(-bits, kind="stable"):
            if len(found) >= count:
                break
            if free[place]:
                found.append(int(place))
                free[max(0, place - APART) : place + APART + 1] = False
        return found

    def context(self, place: int) -> tuple[str, str, str]:
        """What stands before a place, there, and after it."""
        decode = self.vocabulary.decode
        return (
            decode(self.ids[max(0, place - BEFORE) : place]),
            decode(self.ids[place : place + 1]),
            decode(self.ids[place + 1 : place + 1 + AFTER]),
        )

    def lines(self) -> NDArray[np.intp]:
        """The line that each character stands in, (N,), counted from 1."""
        newline = self.vocabulary.start_id
        ends = np.asarray(self.ids == newline) & (self.vocabulary.characters[newline] == "\n")
        return np.asarray(1 + np.cumsum(ends) - ends)

    def _rows(self) -> Iterator[tuple[str, float, list[tuple[str, float]]]]:
        """Of each character: itself, its bits, the guesses with their probabilities."""
        characters = self.vocabulary.characters
        at_once = 10_000  # a long text's rows as Python's numbers take much memory
        for begin in range(0, len(self.ids), at_once):
            block = slice(begin, begin + at_once)
            for id_, bits, guesses, chances in zip(
                self.ids[block].tolist(),
                self.bits[block].tolist(),
                self.scores.likeliest[block].tolist(),
                self.probabilities[block].tolist(),
                strict=True,
            ):
                likeliest = [
                    (characters[guess], chance / 1e4)
                    for guess, chance in zip(guesses, chances, strict=True)
                ]
                yield characters[id_], round(bits, 3), likeliest

    def json(self) -> Iterator[str]:
        """A JSON object, piece by piece: the summary, and under `scores` one of each character."""
        head = json.dumps(self.summary(), indent=2)
        yield head.removesuffix("\n}") + ',\n  "scores": ['
        for number, (character, bits, likeliest) in enumerate(self._rows()):
            entry = {"character": character, "bits": bits, "likeliest": likeliest}
            yield (",\n    " if number else "\n    ") + json.dumps(entry)
        yield "\n  ]\n}\n"

    def csv(self) -> Iterator[str]:
        """CSV, line by line, with a head."""
        guesses = self.scores.likeliest.shape[1]
        columns = [f"{what}{k}" for k in range(1, guesses + 1) for what in ("guess", "probability")]
        yield _csv_row(["place", "line", "character", "bits", *columns])
        lines = self.lines().tolist()
        for place, (character, bits, likeliest) in enumerate(self._rows()):
            pairs = [value for pair in likeliest for value in pair]
            yield _csv_row([place, lines[place], character, bits, *pairs])

    def page(self) -> str:
        """The text, each character colored by its surprisal."""
        return fit_page(self._page, min(len(self.ids), MOST_SHOWN))

    def _page(self, shown: int) -> tuple[str, list[str], dict[str, Any], dict[str, NDArray[Any]]]:
        data = self.summary() | {
            "shown": shown,
            "vocabulary": list(self.vocabulary.characters),
            "surprising": [place for place in self.most_surprising(LISTED) if place < shown],
        }
        vocabulary = self.vocabulary.id_type
        arrays = {
            "ids": self.ids[:shown],
            "bits": self.bits[:shown],
            "guesses": self.scores.likeliest[:shown].astype(vocabulary),
            "probabilities": self.probabilities[:shown],
        }
        return f"Surprisal of {printable(self.text)}", ["text.js", "surprisal.js"], data, arrays


@dataclass(frozen=True)
class LineSurprisal:
    """Lines, each scored by itself: its bits, (N,)."""

    lines: list[str]
    bits: NDArray[np.float64]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Of each line its number, bits per character (None for an empty one), and bits in all."""
        for number, (line, bits) in enumerate(zip(self.lines, self.bits.tolist(), strict=True)):
            yield {
                "line": number + 1,
                "bits_per_character": round(bits / len(line), 4) if line else None,
                "total_bits": round(bits, 3),
                "characters": len(line),
                "text": line,
            }

    def ranked(self) -> list[dict[str, Any]]:
        """The rows, most bits per character first; empty lines last."""
        rows = list(self.rows())
        return sorted(rows, key=lambda row: -(row["bits_per_character"] or -1))

    def json(self) -> Iterator[str]:
        yield "["
        for number, row in enumerate(self.rows()):
            yield (",\n  " if number else "\n  ") + json.dumps(row)
        yield "\n]\n"

    def csv(self) -> Iterator[str]:
        yield _csv_row(["line", "bits_per_character", "total_bits", "characters", "text"])
        for row in self.rows():
            yield _csv_row(list(row.values()))


def _csv_row(values: list[Any]) -> str:
    line = io.StringIO()
    # Every text in quotation marks: a carriage return is as a reader finds it only there.
    csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(values)
    return line.getvalue()
