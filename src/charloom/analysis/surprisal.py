"""The surprisal of each character of a text under a model: a table, JSON, CSV and a page.

The end of a document is scored and shown like a character, with the name `<end>`.

N: characters of the text; K: likeliest characters at each place; S: characters of a stretch.

In every format probabilities have four decimals and bits have three, so that all formats agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.analysis.surprisal_stream import (
    GUESSES,
    LISTED,
    NOT_FINITE,
    About,
    Stretch,
    SurprisalStream,
    about_scores,
    context_of,
    rounded_bits,
    ten_thousandths,
)
from charloom.errors import CharloomError
from charloom.evaluation.score_text import score_text
from charloom.language_model import LanguageModel
from charloom.pages.page import MOST_CHARACTERS
from charloom.prediction.scoring import Protocol, Scores
from charloom.progress import OnProgress
from charloom.text.dataset import TextIds
from charloom.text.sources import Texts
from charloom.text.vocabulary import Vocabulary

BLOCK = 1 << 18  # characters of a stretch


@dataclass(frozen=True)
class Surprisal:
    """The surprisal of every character of a text, in memory.

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
            raise CharloomError(NOT_FINITE)

    def stream(self, *, places: int = 0, shown: int = 0) -> SurprisalStream:
        """Return a stream of these scores. Arguments are those of `SurprisalStream`."""

        def stretches() -> Iterator[Stretch]:
            for begin in range(0, len(self.ids), BLOCK):
                block = slice(begin, begin + BLOCK)
                yield self.ids[block], self.scores.part(block)

        return SurprisalStream(
            About(self.text, self.model, self.protocol),
            stretches(),
            lambda: self.vocabulary,
            lambda: self.skipped,
            places=places,
            shown=shown,
        )

    @property
    def documents(self) -> int | None:
        """The number of documents, None for a single text."""
        documents: int | None = self.summary()["documents"]
        return documents

    @property
    def unknown(self) -> int:
        """The number of unknown characters that are scored."""
        return int(np.count_nonzero(self.scores.ids < 0))

    @property
    def bits(self) -> NDArray[np.float32]:
        """The surprisal of each character in bits, (N,), to three decimals."""
        return rounded_bits(self.scores)

    @property
    def probabilities(self) -> NDArray[np.uint16]:
        """The probabilities of the likeliest characters, (N, K), in ten-thousandths."""
        return ten_thousandths(self.scores)

    @property
    def unit(self) -> str:
        """The unit that `numbers` counts: `document`, or `line` of a single text."""
        return self.stream().unit

    def summary(self) -> dict[str, Any]:
        """Return the totals and means as plain JSON values, in bits and nats."""
        stream = self.stream()
        stream.read()
        return stream.summary()

    def most_surprising(self, count: int) -> list[int]:
        """Return the places of the largest surprisals, largest first.

        Args:
            count: the number of places; a place near a larger one is skipped.
        """
        stream = self.stream(places=count)
        stream.read()
        places: list[int] = stream.most_surprising(count).place.tolist()
        return places

    def context(self, place: int) -> tuple[str, str, str]:
        """Return the text before a place, the character at the place, and the text after it."""
        return context_of(self.ids, self.vocabulary, place)

    def json(self, top: int | None = None) -> Iterator[str]:
        """Yield a JSON object piece by piece: `scores` with an object a character, and the sums.

        With `top`, there are only the most surprising characters, highest first, and their places.
        """
        return self.stream(places=top or 0).json(top)

    def csv(self, top: int | None = None) -> Iterator[str]:
        """Yield CSV in pieces, with a header, for the same characters as `json`."""
        return self.stream(places=top or 0).csv(top)

    def page(self) -> str:
        """Return an HTML page: the text, with each character colored by its surprisal."""
        stream = self.stream(places=LISTED, shown=MOST_CHARACTERS)
        stream.read()
        return stream.page()


def surprisal_of(
    model: LanguageModel,
    text: Texts,
    *,
    protocol: str | None = None,
    training_text: Texts | None = None,
    skip_unknown: bool = False,
    on_progress: OnProgress | None = None,
) -> Surprisal:
    """Score a text for `Surprisal`, with the model's likeliest characters at each place.

    It takes some 80 bytes of memory a character. `charloom score` needs none for any.

    Args:
        model: the model.
        text: the text as in `LanguageModel.evaluate`.
        protocol: as in `LanguageModel.score`.
        training_text: the training text, which only the protocol `adaptive` requires.
        skip_unknown: whether unknown characters are skipped, at no cost.
        on_progress: called with the stage, the number of characters scored, and their total.

    Raises:
        CharloomError: as `LanguageModel.score`.
    """
    chosen = Protocol.choose(protocol, model.config.end_id)
    read = model.encode_to_score(text, skip_unknown=skip_unknown, on_progress=on_progress)
    if len(read.ids) == 0:
        raise CharloomError("the text has no characters to score")
    likeliest = min(GUESSES, len(model.vocabulary))
    stretches = score_text(
        model,
        read,
        chosen,
        model.find_training_text(training_text),
        on_progress=on_progress,
        likeliest=likeliest,
    )
    scores = Scores.collected((scores for scores, _ in stretches), len(read.ids), likeliest)
    return Surprisal(
        *about_scores(model, read.name, chosen),
        read.symbols(model.vocabulary),
        read.ids,
        scores,
        read.skipped,
    )
