"""Scores of a text: the log-probability that a model predicts for each character, by a protocol.

Every result names its protocol, and every character of the text is scored exactly once:

    documents each document of a collection from a zero state, with its end; the first input is the
              end of a document
    carried   from a zero state, with the character before the text as its first input (a newline
              if the text has no predecessor); the state is carried to the end
    cold-N    consecutive windows of N characters, each from a zero state with the character before
              it as its first input
    adaptive  each window is scored and then trained on, as compressors adapt (see
              charloom.prediction.adaptive)

The end of a document is scored like a character.

N is the number of characters of the text, V that of the vocabulary, T that of time steps, B that
of rows, D that of documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError, shortened
from charloom.prediction.unseen import UnseenCharacters
from charloom.progress import OnProgress
from charloom.text.dataset import TextIds
from charloom.text.excerpt import document_ends

NUMBERS_AT_ONCE = 1 << 22  # held for a block of positions, which bounds the memory of scoring
DOCUMENTS_AT_ONCE = 1 << 17  # ids of documents that are scored side by side
SUMMED_AT_ONCE = 1 << 20  # values
PIECES_AT_ONCE = 64  # separate pieces of a text that are scored side by side

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Protocol:
    """The way a text is scored.

    It is `cold-N` where `window` is N, `adaptive`, `documents`, and otherwise `carried`.
    """

    window: int | None = None
    adaptive: bool = False
    documents: bool = False

    @classmethod
    def parse(cls, name: str) -> Protocol:
        """Return the protocol of a name. Raises CharloomError if it is unknown."""
        if name in ("carried", "adaptive", "documents"):
            return cls(adaptive=name == "adaptive", documents=name == "documents")
        kind, _, window = name.partition("-")
        number = window.isascii() and window.isdigit() and len(window) < 10
        if kind == "cold" and number and int(window) > 0:
            return cls(int(window))
        raise CharloomError(
            f"unknown protocol {shortened(name)}: use carried, documents, adaptive, or cold-N like "
            "cold-256 (windows of N characters)"
        )

    @classmethod
    def choose(cls, name: str | None, end_id: int | None) -> Protocol:
        """Return the protocol of a name, or a model's default protocol.

        Args:
            name: the name; None for `documents` with a model of documents, else for `carried`.
            end_id: the id of the end of a document, None for a model of a single text.

        Raises:
            CharloomError: if the name is unknown, or if the protocol does not suit the model.
        """
        if name is None:
            return cls(documents=end_id is not None)
        found = cls.parse(name)
        if found.documents and end_id is None:
            raise CharloomError(
                "the protocol documents is for models of collections, and this one was trained on "
                "a single text: use carried, adaptive or cold-N"
            )
        if found == cls() and end_id is not None:
            raise CharloomError(
                "the protocol carried is for models of a single text, and this one begins every "
                "document with an empty state: use documents"
            )
        return found

    def __str__(self) -> str:
        if self.adaptive:
            return "adaptive"
        if self.documents:
            return "documents"
        return "carried" if self.window is None else f"cold-{self.window}"


@dataclass(frozen=True)
class Scores:
    """A model's predictions for each of the N characters of a text.

    Attributes:
        log_probabilities: the natural log-probability of each character, (N,).
        guessed: True where the character was the likeliest one, (N,).
        likeliest: ids of the K likeliest characters at each place, (N, K), where K can be 0.
        likeliest_probabilities: their probabilities, (N, K).
        ids: the id of each character, -1 for an unknown one, (N,).
    """

    log_probabilities: NDArray[np.float64]
    guessed: NDArray[np.bool_]
    likeliest: NDArray[np.intp]
    likeliest_probabilities: NDArray[np.float32]
    ids: NDArray[np.intp]

    @classmethod
    def empty(cls, count: int, likeliest: int = 0) -> Scores:
        """Return uninitialized scores of N = `count` characters, with K = `likeliest` guesses."""
        return cls(
            np.empty(count),
            np.empty(count, dtype=bool),
            np.empty((count, likeliest), np.intp),
            np.empty((count, likeliest), np.float32),
            np.empty(count, np.intp),
        )

    @classmethod
    def of(
        cls, log_p: NDArray[np.floating], targets: NDArray[np.intp], likeliest: int = 0
    ) -> Scores:
        """Return the scores of N characters, with K = `likeliest` guesses.

        Args:
            log_p: the predicted log-probabilities at each, (N, V).
            targets: their ids, (N,).
            likeliest: the number of guesses to keep.
        """
        scores = cls.empty(len(targets), likeliest)
        scores.put(np.arange(len(targets)), log_p, targets)
        return scores

    @classmethod
    def collected(cls, stream: Iterable[Scores], count: int, likeliest: int = 0) -> Scores:
        """Return the scores of consecutive stretches of a text, N = `count` in all, as one."""
        whole, begin = cls.empty(count, likeliest), 0
        for scores in stream:
            end = begin + len(scores)
            for name in cls.__dataclass_fields__:
                getattr(whole, name)[begin:end] = getattr(scores, name)
            begin = end
        return whole

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, places: slice) -> Scores:
        """Return the scores of a slice of the places."""
        return Scores(*(getattr(self, name)[places] for name in self.__dataclass_fields__))

    def put(
        self, places: NDArray[np.intp], log_p: NDArray[np.floating], targets: NDArray[np.intp]
    ) -> None:
        """Store the scores of some places.

        Args:
            places: indices of the characters in the text, (S,).
            log_p: the predicted log-probabilities there, (S, V).
            targets: ids of the characters, (S,).
        """
        rows = np.arange(len(targets))
        self.ids[places] = targets
        self.log_probabilities[places] = log_p[rows, targets]
        self.guessed[places] = log_p.argmax(axis=1) == targets
        if self.likeliest.shape[1]:
            left = log_p.copy()
            for k in range(self.likeliest.shape[1]):  # Of equal ones, the smaller id comes first.
                best = left.argmax(axis=1)
                self.likeliest[places, k] = best
                self.likeliest_probabilities[places, k] = np.exp(log_p[rows, best])
                left[rows, best] = -np.inf

    def with_unknown(self, known: NDArray[np.bool_], unseen: UnseenCharacters) -> Scores:
        """Return the scores of a text of N characters, some of them unknown.

        An unknown character has the guesses of the next known one, because the model does not
        read it.

        Args:
            known: True for each known character, (N,).
            unseen: the probability of the others.

        These scores are those of the known characters in order. After an unknown character at the
        end of the text, they must have one more entry, whose guesses are used.
        """
        # The known character at each place, or the next one after it.
        source: NDArray[np.intp] = np.subtract(np.cumsum(known), known)
        log_p = self.log_probabilities[source] + unseen.log_known
        chances = self.likeliest_probabilities[source] * np.float32(1 - unseen.share)
        return Scores(
            np.where(known, log_p, unseen.log_probability),
            known & self.guessed[source],
            self.likeliest[source],
            chances,
            np.where(known, self.ids[source], -1),
        )

    @property
    def bits(self) -> NDArray[np.float64]:
        """The surprisal of each character, -log2 p, (N,)."""
        return -self.log_probabilities / math.log(2)

    @property
    def nats_per_character(self) -> float:
        """The mean loss."""
        return -total_of(self.log_probabilities) / len(self)


class Total:
    """The sum of many values, which does not depend on how they are cut into stretches."""

    def __init__(self) -> None:
        self._sum = 0.0  # of whole blocks
        self._block = np.empty(SUMMED_AT_ONCE)
        self._filled = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Add the next values, (S,)."""
        while len(values):
            part = values[: SUMMED_AT_ONCE - self._filled]
            self._block[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            values = values[len(part) :]
            if self._filled == SUMMED_AT_ONCE:
                self._sum += float(self._block.sum())
                self._filled = 0

    @property
    def value(self) -> float:
        """The sum of the values so far."""
        return self._sum + float(self._block[: self._filled].sum())


def total_of(values: NDArray[np.float64]) -> float:
    """Return the sum of values, (N,), like `Total`."""
    total = Total()
    total.add(values)
    return total.value


def score_ids(
    predictor: Predictor,
    ids: TextIds,
    before: int,
    protocol: Protocol,
    on_progress: OnProgress | None = None,
    likeliest: int = 0,
    *,
    numbers_at_once: int = NUMBERS_AT_ONCE,
) -> Scores:
    """Score ids, (N,), each exactly once, by a protocol other than `adaptive`.

    Args:
        predictor: the model.
        ids: the text's.
        before: the id of the character before the text.
        protocol: carried, cold-N, or documents, where `before` is the end of a document.
        on_progress: called with the stage "scoring", the characters scored and N.
        likeliest: the number of guesses to keep at each place.
        numbers_at_once: the memory limit, in numbers that the model holds.
    """
    stream = stream_scores(
        predictor,
        [ids],
        before,
        protocol,
        on_progress,
        likeliest,
        total=len(ids),
        numbers_at_once=numbers_at_once,
    )
    return Scores.collected(stream, len(ids), likeliest)


def stream_scores(
    predictor: Predictor,
    blocks: Iterable[TextIds],
    before: int,
    protocol: Protocol,
    on_progress: OnProgress | None = None,
    likeliest: int = 0,
    *,
    total: int | None = None,
    numbers_at_once: int = NUMBERS_AT_ONCE,
) -> Iterator[Scores]:
    """Score a text of any length while it is read, and yield the scores of consecutive stretches.

    Args:
        predictor: the model.
        blocks: consecutive ids of the text. Each block is scored before the next one is read. Only
            a window or a document that is not complete waits for the next one.
        before, protocol, likeliest, numbers_at_once: as in `score_ids`.
        on_progress: called with the stage "scoring", the characters scored and `total`.
        total: the length of the text, if it is known.
    """
    assert not protocol.adaptive, "use charloom.prediction.adaptive"
    at_once = max(1, numbers_at_once // predictor.config.numbers_per_position)
    done = 0

    def report(scored: int) -> None:
        if on_progress is not None:
            on_progress("scoring", done + scored, total)

    if protocol.documents:
        stream = _stream_documents(predictor, blocks, before, report, likeliest, numbers_at_once)
    elif protocol.window is None:
        row = _Row(predictor, before, likeliest, at_once)
        stream = (scores for block in blocks for scores in row.score(block))
    else:
        stream = _stream_windows(predictor, blocks, before, protocol.window, likeliest, at_once)
    for scores in stream:
        report(len(scores))
        done += len(scores)
        yield scores


def regrouped(blocks: Iterable[TextIds], size: int) -> Iterator[TextIds]:
    """Return the same ids in blocks whose lengths are multiples of `size`, except for the last."""
    held: TextIds | None = None
    for block in blocks:
        ids = block if held is None or not len(held) else np.concatenate([held, block])
        whole = len(ids) // size * size
        if whole:
            yield ids[:whole]
        held = ids[whole:]
    if held is not None and len(held):
        yield held


class _Row:
    """A text in one row, whose state is carried from each of its ids to the next."""

    def __init__(self, predictor: Predictor, before: int, likeliest: int, at_once: int) -> None:
        self._predictor, self._likeliest, self._at_once = predictor, likeliest, at_once
        self._last, self._state = before, predictor.zero_state(1)

    def score(self, ids: NDArray[np.integer[Any]]) -> Iterator[Scores]:
        """Score the next ids of the text, (S,), in stretches."""
        for start in range(0, len(ids), self._at_once):
            targets = ids[start : start + self._at_once].astype(np.intp)
            inputs = np.concatenate([[self._last], targets[:-1]])[:, None]
            self._last = int(targets[-1])
            log_p, self._state = self._predictor.log_probabilities(inputs, self._state)
            yield Scores.of(log_p[:, 0], targets, self._likeliest)


def _stream_windows(
    predictor: Predictor,
    blocks: Iterable[TextIds],
    before: int,
    window: int,
    likeliest: int,
    at_once: int,
) -> Iterator[Scores]:
    """Score windows, each from a zero state, as many side by side as are scored at once."""
    most = max(1, at_once // window)
    for ids in regrouped(blocks, window):
        for begin in range(0, len(ids), most * window):
            group = ids[begin : begin + most * window].astype(np.intp)
            whole = len(group) // window * window  # The last window of a text can be shorter.
            for part in (group[:whole], group[whole:]):
                if most == 1:
                    yield from _Row(predictor, before, likeliest, at_once).score(part)
                elif len(part):
                    rows = max(1, len(part) // window)
                    yield _score_rows(predictor, part, before, rows, likeliest)
                before = int(part[-1]) if len(part) else before


def _score_rows(
    predictor: Predictor, ids: NDArray[np.intp], before: int, rows: int, likeliest: int
) -> Scores:
    """Score windows of the same length, (B·T,) ids, in B = `rows` rows side by side."""
    inputs = np.concatenate([[before], ids[:-1]]).reshape(rows, -1).T
    log_p, _ = predictor.log_probabilities(np.ascontiguousarray(inputs), predictor.zero_state(rows))
    return Scores.of(log_p.swapaxes(0, 1).reshape(len(ids), -1), ids, likeliest)


def _stream_documents(
    predictor: Predictor,
    blocks: Iterable[TextIds],
    end_id: int,
    report: Callable[[int], None],
    likeliest: int,
    numbers_at_once: int,
) -> Iterator[Scores]:
    """Score documents side by side, and one that is too long for it in a row of its own."""
    at_once = max(1, numbers_at_once // predictor.config.numbers_per_position)

    def side_by_side(ids: TextIds) -> Scores:
        return score_pieces(
            predictor,
            ids,
            document_lengths(ids, end_id),
            end_id,
            lambda stage, done, total: report(done),
            likeliest,
            numbers_at_once=numbers_at_once,
        )

    held: TextIds | None = None
    long: _Row | None = None
    for block in blocks:
        for start in range(0, len(block), DOCUMENTS_AT_ONCE):
            ids = block[start : start + DOCUMENTS_AT_ONCE]
            ids = ids if held is None or not len(held) else np.concatenate([held, ids])
            ends = np.flatnonzero(ids == end_id) + 1
            if long is not None:
                rest = int(ends[0]) if len(ends) else len(ids)
                yield from long.score(ids[:rest])
                long = None if len(ends) else long
                ids, ends = ids[rest:], ends[1:] - rest
            if len(ends):
                yield side_by_side(ids[: ends[-1]])
                ids = ids[ends[-1] :]
            if len(ids) >= DOCUMENTS_AT_ONCE:
                long = _Row(predictor, end_id, likeliest, at_once)
                yield from long.score(ids)
                ids = ids[:0]
            held = ids
    if held is not None and len(held):
        yield side_by_side(held)


def document_lengths(ids: TextIds, end_id: int) -> NDArray[np.intp]:
    """Return the number of ids of each document of a text, (D,), its end included.

    A document at the end of the ids, (N,), can lack its end.
    """
    return np.diff(document_ends(ids, end_id), prepend=0)


def score_pieces(
    predictor: Predictor,
    ids: TextIds,
    lengths: NDArray[np.intp],
    before: int,
    on_progress: OnProgress | None = None,
    likeliest: int = 0,
    *,
    numbers_at_once: int = NUMBERS_AT_ONCE,
) -> Scores:
    """Score the pieces of a text, like lines or documents, each from a zero state.

    Args:
        predictor: the model.
        ids: those of all pieces, one after the other, (N,).
        lengths: the number of ids of each piece, (D,); the sum is N.
        before: the id that is the first input of every piece.
        on_progress: called with the stage "scoring", the characters scored and N.
        likeliest: the number of guesses to keep at each place.
        numbers_at_once: the memory limit, in numbers that the model holds.
    """
    scores = Scores.empty(len(ids), likeliest)
    for part in blocks_of_pieces(predictor, ids, lengths, before, on_progress, numbers_at_once):
        places = part.places[part.inside]
        scores.put(places, part.outputs[part.inside], ids[places].astype(np.intp))
    return scores


def total_of_pieces(
    predictor: Predictor,
    ids: TextIds,
    lengths: NDArray[np.intp],
    before: int,
    on_progress: OnProgress | None = None,
    *,
    numbers_at_once: int = NUMBERS_AT_ONCE,
) -> NDArray[np.float64]:
    """Return the log-probability of each piece, (D,). Arguments are those of `score_pieces`."""
    totals = np.zeros(len(lengths))
    for part in blocks_of_pieces(predictor, ids, lengths, before, on_progress, numbers_at_once):
        targets = ids[part.places].astype(np.intp)[:, :, None]
        values = np.take_along_axis(part.outputs, targets, axis=2)[:, :, 0]
        values = np.where(part.inside, values.astype(np.float64), 0)
        # Added one after the other, so that the length of a block does not change the sum.
        totals[part.pieces] = np.cumsum([totals[part.pieces], *values], axis=0)[-1]
    return totals


class BlockOfPieces(NamedTuple):
    """Predictions for some places of B pieces side by side.

    Attributes:
        pieces: the indices of the pieces, (B,).
        places: the indices of the targets in the text, (T, B).
        inside: False where a piece has ended, (T, B).
        outputs: the log-probabilities predicted there, (T, B, V), or other outputs, (T, B, ·).
    """

    pieces: NDArray[np.intp]
    places: NDArray[np.intp]
    inside: NDArray[np.bool_]
    outputs: Floats


def blocks_of_pieces(
    predictor: Predictor,
    ids: TextIds,
    lengths: NDArray[np.intp],
    before: int,
    on_progress: OnProgress | None = None,
    numbers_at_once: int = NUMBERS_AT_ONCE,
    read: Callable[[NDArray[np.intp], Any], tuple[Floats, Any]] | None = None,
) -> Iterator[BlockOfPieces]:
    """Predict all places of pieces side by side, in blocks.

    Args:
        predictor, ids, lengths, before, on_progress, numbers_at_once: as in `score_pieces`.
        read: computes outputs for inputs, (T, B), and a state; by default the log-probabilities.
    """
    read = read or predictor.log_probabilities
    starts = np.cumsum(lengths) - lengths
    order = np.argsort(lengths, kind="stable")
    in_order = lengths[order]
    at_once = max(1, numbers_at_once // predictor.config.numbers_per_position)
    done = 0
    begin = int(np.searchsorted(in_order, 0, side="right"))  # An empty piece has no scores.
    while begin < len(order):
        # Pieces of similar length share a batch, because every row runs to the end of the longest.
        most = 2 * int(in_order[begin]) + 16
        end = min(begin + PIECES_AT_ONCE, int(np.searchsorted(in_order, most, side="right")))
        group, begin = order[begin:end], end
        longest = int(lengths[group[-1]])
        state = predictor.zero_state(len(group))
        steps = max(1, at_once // len(group))
        for start in range(0, longest, steps):
            times = np.arange(start, min(start + steps, longest))[:, None]
            places = starts[group] + np.minimum(times, lengths[group] - 1)  # of the targets
            inputs = np.where(times > 0, ids[np.maximum(places - 1, 0)], before).astype(np.intp)
            outputs, state = read(inputs, state)
            yield BlockOfPieces(group, places, times < lengths[group], outputs)
            if on_progress is not None:
                on_progress(
                    "scoring", done + int(np.minimum(lengths[group], times[-1] + 1).sum()), len(ids)
                )
        done += int(lengths[group].sum())
