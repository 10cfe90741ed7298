"""The surprisal of a text under a model, by character or by line: as JSON, as CSV and as a page.

N: characters of the text; K: likeliest characters at each place.

In every format probabilities have four decimals and bits have three, so that all formats agree.
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
from charloom.language_model import LanguageModel
from charloom.pages.page import MOST_CHARACTERS, PageContent, fit_page
from charloom.prediction.scoring import Scores
from charloom.progress import OnProgress
from charloom.text.dataset import TextIds
from charloom.text.format import Sources
from charloom.text.source import Text
from charloom.text.vocabulary import Vocabulary

GUESSES = 5
LISTED = 100  # most surprising places on a page
APART = 20  # characters between two of them
BEFORE, AFTER = 36, 16  # characters of context
BLOCK = 10_000  # characters converted to Python's numbers at once, which take much memory


@dataclass(frozen=True)
class Surprisal:
    """The surprisal of every character of a text.

    Attributes:
        text: the name of the text.
        model: `network` or `mixture`.
        protocol: `carried`, `adaptive` or `cold-N`.
        vocabulary: the characters of `ids`.
        ids: the characters of the text, (N,).
        scores: their scores, with the K likeliest characters at each place.
        skipped: the number of unknown characters that were skipped.

    Raises:
        CharloomError: if a score is not finite.
    """

    text: str
    model: str
    protocol: str
    vocabulary: Vocabulary
    ids: TextIds
    scores: Scores
    skipped: int = 0

    def __post_init__(self) -> None:
        if not np.isfinite(self.scores.log_probabilities).all():
            raise CharloomError(
                "the model's log-probabilities are not finite: train again with a lower "
                "--learning-rate"
            )

    @property
    def bits(self) -> NDArray[np.float32]:
        """The surprisal of each character in bits, (N,), to three decimals."""
        return np.asarray(np.round(self.scores.bits, 3), np.float32)

    @property
    def probabilities(self) -> NDArray[np.uint16]:
        """The probabilities of the likeliest characters, (N, K), in ten-thousandths."""
        return np.asarray(np.round(self.scores.likeliest_probabilities * 1e4), np.uint16)

    def summary(self) -> dict[str, Any]:
        """Return the totals and means as plain JSON values, in bits and nats."""
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
        """Return the places of the largest surprisals, largest first.

        Args:
            count: the number of places; a place near a larger one is skipped.
        """
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
        """Return the text before a place, the character at the place, and the text after it."""
        decode = self.vocabulary.decode
        return (
            decode(self.ids[max(0, place - BEFORE) : place]),
            decode(self.ids[place : place + 1]),
            decode(self.ids[place + 1 : place + 1 + AFTER]),
        )

    def lines(self) -> NDArray[np.intp]:
        """Return the line number of each character, (N,), from 1."""
        newline = self.vocabulary.start_id
        ends = np.asarray(self.ids == newline) & (self.vocabulary.characters[newline] == "\n")
        return np.asarray(1 + np.cumsum(ends) - ends)

    def _rows(self) -> Iterator[tuple[str, float, list[tuple[str, float]]]]:
        """Yield each character, its bits, and the likeliest characters with their probabilities."""
        characters = self.vocabulary.characters
        for begin in range(0, len(self.ids), BLOCK):
            block = slice(begin, begin + BLOCK)
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
        """Yield a JSON object piece by piece: the summary, and `scores` with an object for each
        character."""
        head = json.dumps(self.summary(), indent=2)
        yield head.removesuffix("\n}") + ',\n  "scores": ['
        for number, (character, bits, likeliest) in enumerate(self._rows()):
            entry = {"character": character, "bits": bits, "likeliest": likeliest}
            yield (",\n    " if number else "\n    ") + json.dumps(entry)
        yield "\n  ]\n}\n"

    def csv(self) -> Iterator[str]:
        """Yield CSV line by line, with a header."""
        guesses = self.scores.likeliest.shape[1]
        columns = [f"{name}{k}" for k in range(1, guesses + 1) for name in ("guess", "probability")]
        yield _csv_row(["place", "line", "character", "bits", *columns])
        lines = self.lines().tolist()
        for place, (character, bits, likeliest) in enumerate(self._rows()):
            pairs = [value for pair in likeliest for value in pair]
            yield _csv_row([place, lines[place], character, bits, *pairs])

    def page(self) -> str:
        """Return an HTML page: the text, with each character colored by its surprisal."""
        return fit_page(self._page, min(len(self.ids), MOST_CHARACTERS))

    def _page(self, shown: int) -> PageContent:
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
        title = f"Surprisal of {printable(self.text)}"
        return PageContent(title, ["text.js", "surprisal.js"], data, arrays)


def surprisal_of(
    model: LanguageModel,
    text: Text,
    *,
    protocol: str = "carried",
    training_text: Sources | None = None,
    skip_unknown: bool = False,
    on_progress: OnProgress | None = None,
) -> Surprisal:
    """Score a text for `Surprisal`, with the model's likeliest characters at each place.

    Args:
        model: the model.
        text: the text.
        protocol: `carried`, `cold-N` or `adaptive`.
        training_text: path of the training text, which only the protocol `adaptive` requires.
        skip_unknown: whether unknown characters are skipped.
        on_progress: called with the stage, the number of characters scored, and their total.

    Raises:
        CharloomError: as `LanguageModel.score`.
    """
    content = text.read()
    ids, skipped = model.vocabulary.encode_known(content)
    scores = model.score(
        content,
        protocol=protocol,
        skip_unknown=skip_unknown,
        likeliest=GUESSES,
        training_text=training_text,
        on_progress=on_progress,
    )
    kind = "network" if model.mixture is None else "mixture"
    return Surprisal(text.name, kind, protocol, model.vocabulary, ids, scores, skipped)


@dataclass(frozen=True)
class LineSurprisal:
    """The surprisal of lines, each scored by itself.

    Attributes:
        lines: the N lines.
        bits: the surprisal of each line, (N,).
    """

    lines: list[str]
    bits: NDArray[np.float64]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield for each line its number, bits per character (None for an empty line), total bits,
        length and text."""
        for number, (line, bits) in enumerate(zip(self.lines, self.bits.tolist(), strict=True)):
            yield {
                "line": number + 1,
                "bits_per_character": round(bits / len(line), 4) if line else None,
                "total_bits": round(bits, 3),
                "characters": len(line),
                "text": line,
            }

    def ranked(self) -> list[dict[str, Any]]:
        """Return the rows sorted by bits per character, largest first, with empty lines last."""
        rows = list(self.rows())
        return sorted(rows, key=lambda row: -(row["bits_per_character"] or -1))

    def json(self) -> Iterator[str]:
        """Yield a JSON array of the rows, piece by piece."""
        yield "["
        for number, row in enumerate(self.rows()):
            yield (",\n  " if number else "\n  ") + json.dumps(row)
        yield "\n]\n"

    def csv(self) -> Iterator[str]:
        """Yield CSV line by line, with a header."""
        yield _csv_row(["line", "bits_per_character", "total_bits", "characters", "text"])
        for row in self.rows():
            yield _csv_row(list(row.values()))


def _csv_row(values: list[Any]) -> str:
    line = io.StringIO()
    # All texts are quoted, because readers keep a carriage return only in quotation marks.
    csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(values)
    return line.getvalue()
