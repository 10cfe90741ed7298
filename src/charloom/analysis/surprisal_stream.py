"""The surprisal of each character of a text of any length, which is read once, in stretches.

Only sums, the most surprising places and the beginning of the text are kept.

N: characters of the text; K: likeliest characters at each place; S: characters of a stretch.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.analysis.rows import csv_rows
from charloom.errors import CharloomError, printable
from charloom.evaluation.score_text import KNOWN_AT_ONCE, score_blocks, score_text
from charloom.evaluation.scored_text import ScoredText, TextEncoder, open_to_score
from charloom.json_text import to_json
from charloom.language_model import LanguageModel
from charloom.pages.page import PageContent, fit_page
from charloom.prediction.scoring import Protocol, Scores, Total
from charloom.progress import OnProgress
from charloom.text.arrivals import in_batches
from charloom.text.dataset import TextIds
from charloom.text.source import Text
from charloom.text.sources import Texts
from charloom.text.typed import as_shown
from charloom.text.vocabulary import Vocabulary

GUESSES = 5
LISTED = 100  # most surprising places on a page
APART = 20  # characters between two of them
BEFORE, AFTER = 36, 16  # characters of context
ROWS = 10_000  # characters converted to Python's numbers at once, which take much memory
NOT_FINITE = (
    "the model's log-probabilities are not finite: train again with a lower --learning-rate"
)

Stretch = tuple[TextIds, Scores]  # the ids and the scores of S characters


class About(NamedTuple):
    """The facts about scores that are known before they are computed.

    Attributes:
        text: the name of the text.
        model: `network` or `mixture`.
        protocol: `documents`, `carried`, `adaptive` or `cold-N`.
    """

    text: str
    model: str
    protocol: str


class Places(NamedTuple):
    """Some places of a text.

    Attributes:
        place: the index in the text of each, (S,).
        number: the number of its line or document, from 1, (S,).
        id: the character there, (S,).
        exact_bits: its surprisal, (S,).
        bits: the same to three decimals, (S,).
        likeliest: the ids of the likeliest characters, (S, K).
        chances: their probabilities in ten-thousandths, (S, K).
    """

    place: NDArray[np.intp]
    number: NDArray[np.intp]
    id: NDArray[np.intp]
    exact_bits: NDArray[np.float64]
    bits: NDArray[np.float32]
    likeliest: NDArray[np.intp]
    chances: NDArray[np.uint16]

    def part(self, index: slice | NDArray[np.integer]) -> Places:
        """Return the chosen ones of these places, in order."""
        return Places._make(values[index] for values in self)


class SurprisalStream:
    """The surprisal of a text, whose scores are read once.

    Args:
        about: the text, the model and the protocol.
        stretches: the ids and the scores of consecutive stretches.
        symbols: returns the characters of the ids read so far. Those after the model's are unknown.
        skipped: returns the number of unknown characters that were skipped so far.
        places: the number of most surprising places to keep.
        shown: the number of characters to keep for a page.

    Raises:
        CharloomError: while the scores are read, if one is not finite, or without any.
    """

    def __init__(
        self,
        about: About,
        stretches: Iterable[Stretch],
        symbols: Callable[[], Vocabulary],
        skipped: Callable[[], int] = lambda: 0,
        *,
        places: int = 0,
        shown: int = 0,
    ) -> None:
        self._about, self._symbols, self._skipped = about, symbols, skipped
        self._end_id = symbols().end_id
        self._bits, self._nats = Total(), Total()
        self._characters = self._guessed = self._unknown = self._ended = 0
        self._ranking = _Ranking(places)
        # Characters, their bits, guesses and probabilities.
        self._head: list[tuple[NDArray[Any], ...]] = []
        self._shown = shown
        self._stretches = stretches

    @property
    def unit(self) -> str:
        """The unit in which places are numbered: `document`, or `line` of a single text."""
        return "line" if self._end_id is None else "document"

    @property
    def unknown(self) -> int:
        """The number of unknown characters so far, scored or skipped."""
        return self._unknown + self._skipped()

    def read(self) -> None:
        """Read the scores to their end."""
        for _ in self._read():
            pass

    def summary(self) -> dict[str, Any]:
        """Return the totals and means so far as plain JSON values, in bits and nats."""
        count = max(self._characters, 1)
        nats = self._nats.value / count
        return {
            **self._about._asdict(),
            "characters": self._characters,
            "documents": None if self._end_id is None else self._ended,
            "unknown_characters": self._unknown,
            "skipped_characters": self._skipped(),
            "total_bits": self._bits.value,
            "bits_per_character": nats / math.log(2),
            "nats_per_character": nats,
            "accuracy": self._guessed / count,
        }

    def most_surprising(self, count: int) -> Places:
        """Return the places of the largest surprisals, largest first, of as many as were kept.

        A place near a larger one is omitted.
        """
        return self._ranking.chosen(count)

    def json(self, top: int | None = None) -> Iterator[str]:
        """Read the scores, and yield a JSON object in pieces.

        Its `scores` have an object for each character. The sums follow. With `top`, there are only
        the most surprising characters, highest first, and their places.
        """
        head = to_json(self._about._asdict(), indent=2).removesuffix("\n}")
        before = head + ',\n  "scores": [\n    '
        for places in self._rows(top):
            piece = []
            for entry in self._entries(places):
                if top is None:
                    del entry["place"], entry[self.unit]
                piece.append(before + to_json(entry))
                before = ",\n    "
            yield "".join(piece)
        yield self.json_end()

    def json_end(self) -> str:
        """Return the end of the JSON object, with the sums so far."""
        sums = {k: v for k, v in self.summary().items() if k not in self._about._fields}
        return "\n  ],\n" + to_json(sums, indent=2).removeprefix("{\n") + "\n"

    def csv(self, top: int | None = None) -> Iterator[str]:
        """Read the scores, and yield CSV in pieces, with a header, of the characters of `json`."""
        header = ""
        for places in self._rows(top):
            if not header:
                guesses = range(1, places.likeliest.shape[1] + 1)
                columns = [f"{name}{k}" for k in guesses for name in ("guess", "probability")]
                header = csv_rows([["place", self.unit, "character", "bits", *columns]])
                yield header
            rows = []
            for entry in self._entries(places):
                pairs = entry.pop("likeliest")
                rows.append([*entry.values(), *itertools.chain.from_iterable(pairs)])
            yield csv_rows(rows)

    def page(self) -> str:
        """Return an HTML page: the beginning, with each character colored by its surprisal."""
        columns = map(np.concatenate, zip(*self._head, strict=True))
        arrays = dict(zip(("ids", "bits", "guesses", "probabilities"), columns, strict=True))
        surprising = self.most_surprising(LISTED).place.tolist()
        vocabulary = self._symbols()
        data = self.summary() | {"vocabulary": list(vocabulary.names), "unit": vocabulary.unit}

        def content(shown: int) -> PageContent:
            inside = [place for place in surprising if place < shown]
            return PageContent(
                f"Surprisal of {printable(self._about.text)}",
                ["text.js", "surprisal.js"],
                data | {"shown": shown, "surprising": inside},
                {name: values[:shown] for name, values in arrays.items()},
            )

        return fit_page(content, len(arrays["ids"]))

    def _read(self) -> Iterator[Places]:
        """Read the scores, and yield the places of each stretch."""
        for ids, scores in self._stretches:
            if len(ids):
                yield self._added(ids, scores)
        if not self._characters:
            raise CharloomError("the text has no characters to score")

    def _added(self, ids: TextIds, scores: Scores) -> Places:
        """Add a stretch to the sums and rankings, and return its places."""
        if not np.isfinite(scores.log_probabilities).all():
            raise CharloomError(NOT_FINITE)
        if self._characters < self._shown:
            rest = slice(self._shown - self._characters)
            self._head.append(
                (
                    ids[rest],
                    rounded_bits(scores)[rest],
                    scores.likeliest[rest].astype(self._symbols().id_type),
                    ten_thousandths(scores)[rest],
                )
            )
        end_id = self._end_id
        if end_id is None:
            end_id = int(self._symbols().ids_or_minus_one("\n")[0])
        ends = np.asarray(ids == end_id)
        bits = scores.bits
        places = Places(
            self._characters + np.arange(len(ids)),
            1 + self._ended + np.cumsum(ends) - ends,
            ids.astype(np.intp),
            bits,
            rounded_bits(scores),
            scores.likeliest,
            ten_thousandths(scores),
        )
        self._ranking.add(places)
        self._characters += len(ids)
        self._ended += int(np.count_nonzero(ends))
        self._guessed += int(np.count_nonzero(scores.guessed))
        self._unknown += int(np.count_nonzero(scores.ids < 0))
        self._bits.add(bits)
        self._nats.add(-scores.log_probabilities)
        return places

    def _rows(self, top: int | None) -> Iterator[Places]:
        """Read the scores, and yield all places, or the `top` most surprising ones, in pieces."""
        if top is not None:
            self.read()
        for places in self._read() if top is None else [self.most_surprising(top)]:
            for begin in range(0, len(places.place), ROWS):
                yield places.part(slice(begin, begin + ROWS))

    def _entries(self, places: Places) -> Iterator[dict[str, Any]]:
        names = self._symbols().names
        for place, number, id_, bits, guesses, chances in zip(
            places.place.tolist(),
            places.number.tolist(),
            places.id.tolist(),
            places.bits.tolist(),
            places.likeliest.tolist(),
            places.chances.tolist(),
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


class _Ranking:
    """The most surprising places of a text, of which none is near a larger one.

    A chosen place excludes at most 2 · APART others. The largest (2 · APART + 1) · n surprisals
    therefore always contain the n places that are chosen from all.
    """

    def __init__(self, count: int) -> None:
        self._most = count * (2 * APART + 1)
        self._kept: Places | None = None  # largest first; of equal ones, the first of the text

    def add(self, places: Places) -> None:
        """Consider the next places of the text, (S,)."""
        if not self._most:
            return
        kept = self._kept
        if kept is not None:
            if len(kept.place) == self._most:
                larger = np.flatnonzero(places.exact_bits > kept.exact_bits[-1])
                if not len(larger):
                    return
                places = places.part(larger)
            columns: Iterator[Any] = zip(kept, places, strict=True)
            places = Places._make(map(np.concatenate, columns))
        self._kept = places.part(np.argsort(-places.exact_bits, kind="stable")[: self._most])

    def chosen(self, count: int) -> Places:
        """Return at most n = `count` places, largest first."""
        assert self._kept is not None
        chosen: list[int] = []
        excluded: set[int] = set()
        for index, place in enumerate(self._kept.place.tolist()):
            if len(chosen) == count:
                break
            if place not in excluded:
                chosen.append(index)
                excluded.update(range(place - APART, place + APART + 1))
        return self._kept.part(np.array(chosen, np.intp))


def rounded_bits(scores: Scores) -> NDArray[np.float32]:
    """Return the surprisal of each character in bits, (S,), to three decimals."""
    return np.asarray(np.round(scores.bits, 3), np.float32)


def ten_thousandths(scores: Scores) -> NDArray[np.uint16]:
    """Return the probabilities of the likeliest characters, (S, K), in ten-thousandths."""
    return np.asarray(np.round(scores.likeliest_probabilities * 1e4), np.uint16)


def context_of(ids: TextIds, vocabulary: Vocabulary, place: int) -> tuple[str, str, str]:
    """Return the text before a place, the character at the place, and the text after it."""
    begin, end = max(0, place - BEFORE), place + 1 + AFTER
    before, after = vocabulary.decode(ids[begin:place]), vocabulary.decode(ids[place + 1 : end])
    return (
        as_shown(before, vocabulary, begins=begin == 0),
        vocabulary.name(vocabulary.characters[ids[place]]),
        as_shown(after, vocabulary, ends=end >= len(ids)),
    )


def about_scores(model: LanguageModel, text: str, protocol: Protocol) -> About:
    """Return the facts about a model's scores of a text, given its name."""
    return About(text, "network" if model.mixture is None else "mixture", str(protocol))


def score_stored(
    model: LanguageModel,
    text: ScoredText,
    *,
    protocol: str | None = None,
    training_text: Texts | None = None,
    places: int = 0,
    shown: int = 0,
    on_progress: OnProgress | None = None,
) -> SurprisalStream:
    """Return the surprisal of a text whose ids are stored. Arguments are as in `surprisal_of`.

    `places` and `shown` are those of `SurprisalStream`.
    """
    chosen = Protocol.choose(protocol, model.config.end_id)

    def stretches() -> Iterator[Stretch]:
        begin = 0
        for scores, _ in score_text(
            model,
            text,
            chosen,
            model.find_training_text(training_text),
            on_progress=on_progress,
            likeliest=min(GUESSES, len(model.vocabulary)),
        ):
            yield text.ids[begin : begin + len(scores)], scores
            begin += len(scores)

    symbols = text.symbols(model.vocabulary)
    return SurprisalStream(
        about_scores(model, text.name, chosen),
        stretches(),
        lambda: symbols,
        lambda: text.skipped,
        places=places,
        shown=shown,
    )


def score_while_read(
    model: LanguageModel,
    text: Text,
    *,
    protocol: str | None = None,
    training_text: Texts | None = None,
    skip_unknown: bool = False,
    on_progress: OnProgress | None = None,
) -> SurprisalStream:
    """Return the surprisal of a text that is scored while it is read, once.

    A live text is scored as it arrives. Arguments are as in `surprisal_of`.
    """
    chosen = Protocol.choose(protocol, model.config.end_id)
    encoder = TextEncoder(model.vocabulary, model.unseen, skip_unknown=skip_unknown)
    pieces = open_to_score(lambda format: text, model.text_format, model.vocabulary).pieces()
    if text.live:
        pieces = map("".join, in_batches(pieces, len, live=True))
    unscored: deque[TextIds] = deque()

    def blocks() -> Iterator[TextIds]:
        for piece in pieces:
            for begin in range(0, len(piece), KNOWN_AT_ONCE):
                unscored.append(encoder.encode(piece[begin : begin + KNOWN_AT_ONCE]))
                yield unscored[-1]

    def stretches() -> Iterator[Stretch]:
        for scores, _ in score_blocks(
            model,
            blocks(),
            chosen,
            model.find_training_text(training_text),
            None if skip_unknown else model.unseen,
            on_progress=on_progress,
            likeliest=min(GUESSES, len(model.vocabulary)),
        ):
            yield _taken(unscored, len(scores)), scores

    return SurprisalStream(
        about_scores(model, text.name, chosen),
        stretches(),
        lambda: encoder.symbols,
        lambda: encoder.skipped,
    )


def _taken(blocks: deque[TextIds], count: int) -> TextIds:
    """Remove and return the first n = `count` ids of consecutive blocks."""
    parts: list[TextIds] = []
    while count:
        block = blocks.popleft()
        parts.append(block[:count])
        if len(block) > count:
            blocks.appendleft(block[count:])
        count -= len(parts[-1])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
