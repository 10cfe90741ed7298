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
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.engines.protocol import Engine, Predictor
from charloom.errors import CharloomError, shortened
from charloom.prediction.unseen import UnseenCharacters
from charloom.progress import OnProgress
from charloom.text.dataset import TextIds
from charloom.text.excerpt import document_ends

NUMBERS_AT_ONCE = 1 << 22  # held for a block of positions, which bounds the memory of scoring
PIECES_AT_ONCE = 64  # separate pieces of a text that are scored side by side
WARM_UP = 64  # characters that a row of validation reads before the first that it scores

Floats = NDArray[np.floating]
# Inputs (T, B) and a state to an output for each input, (T, B, ·), and the next state.
Read = Callable[[NDArray[np.intp], Floats], tuple[Floats, Floats]]


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
        return -float(self.log_probabilities.mean())


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
    assert not protocol.adaptive, "use charloom.prediction.adaptive"
    if protocol.documents:
        return score_pieces(
            predictor,
            ids,
            document_lengths(ids, before),
            before,
            on_progress,
            likeliest,
            numbers_at_once=numbers_at_once,
        )
    scores = Scores.empty(len(ids), likeliest)
    window = len(ids) if protocol.window is None else min(protocol.window, len(ids))
    at_once = max(1, numbers_at_once // predictor.config.numbers_per_position)
    for begin, rows, length in _groups_of_windows(len(ids), window, max(1, at_once // window)):
        state = predictor.zero_state(rows)
        steps = max(1, at_once // rows)
        for start in range(0, length, steps):
            times = np.arange(start, min(start + steps, length))[:, None]
            places = begin + np.arange(rows) * length + times  # (T, B), of the targets
            inputs = np.where(places > 0, ids[np.maximum(places - 1, 0)], before).astype(np.intp)
            block, state = predictor.log_probabilities(inputs, state)
            flat = places.reshape(-1)
            scores.put(flat, block.reshape(len(flat), -1), ids[flat].astype(np.intp))
            if on_progress is not None:
                on_progress("scoring", int(places[-1, -1]) + 1, len(ids))
    return scores


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
            inside = times < lengths[group]  # (T, B)
            places = starts[group] + np.minimum(times, lengths[group] - 1)  # of the targets
            inputs = np.where(times > 0, ids[np.maximum(places - 1, 0)], before).astype(np.intp)
            block, state = predictor.log_probabilities(inputs, state)
            flat = places[inside]
            scores.put(flat, block[inside], ids[flat].astype(np.intp))
            if on_progress is not None:
                on_progress(
                    "scoring", done + int(np.minimum(lengths[group], times[-1] + 1).sum()), len(ids)
                )
        done += int(lengths[group].sum())
    return scores


def sums_of_pieces(values: NDArray[Any], lengths: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the sum of the values, (N,), of each piece of a text, (D,), 0 for an empty one."""
    piece = np.repeat(np.arange(len(lengths)), lengths)
    return np.asarray(np.bincount(piece, values, len(lengths)), np.float64)


def _groups_of_windows(length: int, window: int, rows: int) -> Iterator[tuple[int, int, int]]:
    """Cut `length` characters into windows, side by side in groups of at most `rows`.

    Yields the beginning of each group, its rows and the length of its windows. The last window can
    be shorter.
    """
    whole = length // window if window else 0
    for first in range(0, whole, rows):
        yield first * window, min(rows, whole - first), window
    if whole * window < length:
        yield whole * window, 1, length - whole * window


@dataclass(frozen=True)
class Validation:
    """The result of a validation during training.

    Its protocol is `carried`, or `carried-R-rows` for a longer split. That is cut into R equal
    pieces side by side. Each but the first starts from a zero state and first reads the 64
    characters before it.
    """

    nats_per_character: float
    characters: int
    protocol: str


def validate(
    engine: Engine,
    ids: TextIds,
    before: int,
    rows: int,
    *,
    numbers_at_once: int = NUMBERS_AT_ONCE,
) -> Generator[int, None, Validation]:
    """Score ids, (N,), in `rows` rows, as a generator, so that a caller can interrupt it.

    Args:
        engine: the network.
        ids: the validation split's.
        before: the id of the character before it.
        rows: rows side by side.
        numbers_at_once: the memory limit, in numbers that the engine holds.

    Yields:
        The number of characters scored so far.

    Returns:
        The validation.
    """
    total = 0.0
    scored = 0
    for places, block in blocks_in_rows(engine, ids, before, rows, numbers_at_once=numbers_at_once):
        values = block[np.arange(len(places)), ids[places].astype(np.intp)]
        total += float(values.sum(dtype=np.float64))
        scored += len(places)
        yield scored
    protocol = "carried" if rows == 1 else f"carried-{rows}-rows"
    return Validation(-total / len(ids), len(ids), protocol)


def blocks_in_rows(
    engine: Engine,
    ids: TextIds,
    before: int,
    rows: int,
    *,
    read: Read | None = None,
    warm_up: int = WARM_UP,
    numbers_at_once: int = NUMBERS_AT_ONCE,
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.floating]]]:
    """Cut ids, (N,), into rows side by side, and predict each place exactly once.

    Args:
        engine: the network.
        ids: the text's.
        before: the id of the character before it.
        rows: rows side by side, B.
        read: computes the output for each input; by default the log-probabilities.
        warm_up: characters that every row but the first reads before the first that it predicts.
        numbers_at_once: the memory limit, in numbers that the engine holds.

    Yields:
        Some of the places, (S,), and the output of `read` there, (S, ·); by default log p, (S, V).
    """
    read = read or engine.log_probabilities
    length = len(ids) // rows
    extra = len(ids) - rows * length  # The first rows are one longer, so that all ids are scored.
    lengths = np.full(rows, length)
    lengths[:extra] += 1
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])  # (B,)
    state = engine.zero_state(rows)
    warm = warm_up if rows > 1 else 0
    # The inputs of a row are its warm-up, then the character before each that it scores.
    places = starts + np.arange(-warm, length + 1)[:, None]  # (T, B), of targets; inputs lie before
    at_once = max(1, numbers_at_once // (engine.config.numbers_per_position * rows))
    for begin in range(0, len(places), at_once):
        block_places = places[begin : begin + at_once]
        inputs = np.where(block_places > 0, ids[np.maximum(block_places - 1, 0)], before)
        # No text precedes the first row, so its state stays at zero until its first input.
        block, state = _read_after_start(read, inputs, state, block_places >= 0)
        inside = (block_places >= starts) & (block_places < starts + lengths)
        yield block_places[inside], block[inside]


def _read_after_start(
    read: Read,
    inputs: NDArray[np.integer],
    state: NDArray[np.floating],
    started: NDArray[np.bool_],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Call `read`, and reset the first row's state where its text has not started.

    Args:
        read: computes an output for each input.
        inputs: ids, (T, B).
        state: the state before them.
        started: False where an input lies before the beginning of the text, (T, B).

    Returns:
        The outputs, (T, B, ·), and the state after them.
    """
    late = int((~started[:, 0]).sum())
    if late == 0:
        return read(inputs.astype(np.intp), state)
    blocks = []
    for part in (slice(0, late), slice(late, None)):
        if len(inputs[part]):
            block, state = read(inputs[part].astype(np.intp), state)
            blocks.append(block)
        if part.start == 0:
            state[:, :, 0] = 0
    return np.concatenate(blocks), state
