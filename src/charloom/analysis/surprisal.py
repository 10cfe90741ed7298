"""The surprisal of a text under a model, by character, line or document: JSON, CSV and a page.

The end of a document is scored and shown like a character, with the name `<end>`.

N: characters of the text; K: likeliest characters at each place; D: lines or documents.

In every format probabilities have four decimals and bits have three, so that all formats agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.analysis.rows import csv_rows
from charloom.errors import CharloomError, printable
from charloom.json_text import to_json
from charloom.language_model import LanguageModel
from charloom.pages.page import MOST_CHARACTERS, PageContent, fit_page
from charloom.prediction.scoring import Protocol, Scores
from charloom.progress import OnProgress
from charloom.text.dataset import TextIds
from charloom.text.format import Sources
from charloom.text.source import Text
from charloom.text.typed import as_shown
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
        protocol: `documents`, `carried`, `adaptive` or `cold-N`.
        vocabulary: the characters of `ids`. Those after the model's are unknown to it.
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
    def documents(self) -> int | None:
        """The number of documents, None for a single text."""
        end_id = self.vocabulary.end_id
        return None if end_id is None else int(np.count_nonzero(self.ids == end_id))

    @property
    def unknown(self) -> int:
        """The number of unknown characters that are scored."""
        return int(np.count_nonzero(self.scores.ids < 0))

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
            "documents": self.documents,
            "unknown_characters": self.unknown,
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
        vocabulary, ids = self.vocabulary, self.ids
        begin, end = max(0, place - BEFORE), place + 1 + AFTER
        before, after = vocabulary.decode(ids[begin:place]), vocabulary.decode(ids[place + 1 : end])
        return (
            as_shown(before, vocabulary, begins=begin == 0),
            vocabulary.name(vocabulary.characters[ids[place]]),
            as_shown(after, vocabulary, ends=end >= len(ids)),
        )

    @property
    def unit(self) -> str:
        """The unit that `numbers` counts: `document`, or `line` of a single text."""
        return "line" if self.vocabulary.end_id is None else "document"

    def numbers(self) -> NDArray[np.intp]:
        """Return the number of each character's line or document, (N,), from 1."""
        end_id = self.vocabulary.end_id
        last = int(self.vocabulary.ids_or_minus_one("\n")[0]) if end_id is None else end_id
        ends = np.asarray(self.ids == last)
        return np.asarray(1 + np.cumsum(ends) - ends)

    def _entries(self, top: int | None) -> Iterator[dict[str, Any]]:
        """Yield the values of each character, or of the `top` most surprising ones."""
        names = self.vocabulary.names
        numbers = self.numbers()
        places = np.arange(len(self.ids)) if top is None else np.array(self.most_surprising(top))
        for begin in range(0, len(places), BLOCK):
            block = places[begin : begin + BLOCK]
            for place, number, id_, bits, guesses, chances in zip(
                block.tolist(),
                numbers[block].tolist(),
                self.ids[block].tolist(),
                self.bits[block].tolist(),
                self.scores.likeliest[block].tolist(),
                self.probabilities[block].tolist(),
                strict=True,
            ):
                yield {
                    "place": place,
                    self.unit: number,
                    "character": names[id_],
                    "bits": round(bits, 3),
                    "likeliest": [
                        (names[guess], chance / 1e4)
                        for guess, chance in zip(guesses, chances, strict=True)
                    ],
                }

    def json(self, top: int | None = None) -> Iterator[str]:
        """Yield a JSON object piece by piece: the summary, and `scores` with an object a character.

        With `top`, there are only the most surprising characters, highest first, and their places.
        """
        head = to_json(self.summary(), indent=2)
        yield head.removesuffix("\n}") + ',\n  "scores": ['
        for number, entry in enumerate(self._entries(top)):
            if top is None:
                del entry["place"], entry[self.unit]
            yield (",\n    " if number else "\n    ") + to_json(entry)
        yield "\n  ]\n}\n"

    def csv(self, top: int | None = None) -> Iterator[str]:
        """Yield CSV line by line, with a header, for the same characters as `json`."""
        guesses = self.scores.likeliest.shape[1]
        columns = [f"{name}{k}" for k in range(1, guesses + 1) for name in ("guess", "probability")]
        yield csv_rows([["place", self.unit, "character", "bits", *columns]])
        for entry in self._entries(top):
            pairs = [value for pair in entry.pop("likeliest") for value in pair]
            yield csv_rows([[*entry.values(), *pairs]])

    def page(self) -> str:
        """Return an HTML page: the text, with each character colored by its surprisal."""
        return fit_page(self._page, min(len(self.ids), MOST_CHARACTERS))

    def _page(self, shown: int) -> PageContent:
        data = self.summary() | {
            "shown": shown,
            "vocabulary": list(self.vocabulary.names),
            "unit": self.vocabulary.unit,
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
    protocol: str | None = None,
    training_text: Sources | None = None,
    skip_unknown: bool = False,
    on_progress: OnProgress | None = None,
) -> Surprisal:
    """Score a text for `Surprisal`, with the model's likeliest characters at each place.

    Args:
        model: the model.
        text: the text.
        protocol: as in `LanguageModel.score`.
        training_text: path of the training text, which only the protocol `adaptive` requires.
        skip_unknown: whether unknown characters are skipped, at no cost.
        on_progress: called with the stage, the number of characters scored, and their total.

    Raises:
        CharloomError: as `LanguageModel.score`.
    """
    scores = model.score(
        text,
        protocol=protocol,
        skip_unknown=skip_unknown,
        likeliest=GUESSES,
        training_text=training_text,
        on_progress=on_progress,
    )
    read = model.encode_to_score(text, skip_unknown=skip_unknown)
    return Surprisal(
        text.name,
        "network" if model.mixture is None else "mixture",
        str(Protocol.choose(protocol, model.config.end_id)),
        read.symbols(model.vocabulary),
        read.ids,
        scores,
        read.skipped,
    )
