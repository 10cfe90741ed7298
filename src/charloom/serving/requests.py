"""Requests to a batcher, and their answers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.engines.decoding import SamplingSettings


class BusyError(Exception):
    """As many requests wait as may wait."""


@dataclass(frozen=True)
class Request:
    """What is asked of a model: some texts after one prompt.

    prompt: ids, (N,), all that the model reads, N >= 1: before a text, too, the newline that stands
    before any text. length: characters to draw. stop: texts that end a text and are left out.
    indices: which samples of the seed. alternatives: K likeliest characters to name at each place
    that is scored; None scores nothing. scores_prompt: score the prompt's characters too, from the
    second on. streams: whether its reader is told of every piece, or only of the end.
    """

    prompt: NDArray[np.unsignedinteger]
    length: int
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    stop: tuple[str, ...] = ()
    seed: int = 0
    indices: range = range(1)
    alternatives: int | None = None
    scores_prompt: bool = False
    streams: bool = False


class Scored(NamedTuple):
    """A character's natural log-probability, and the likeliest ones there with theirs."""

    id: int
    log_probability: float
    likeliest: Sequence[tuple[int, float]]


@dataclass
class Piece:
    """What came of one text: which of the request's, its characters, their scores where they were
    asked for, and, if it is the last one, why it ends: `stop` or `length`."""

    number: int
    text: str
    scored: list[Scored] = field(default_factory=list)
    end: str | None = None


class Answer:
    """What comes of a request. A batcher adds to it, one other thread takes from it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.prompt_scores: list[Scored] = []  # all there before the first piece
        self.cached = 0  # characters of the prompt whose state was there
        self.drawn = 0
        self.error: Exception | None = None
        self.cancelled = False
        self.told = 0.0  # when its reader was last told
        self._pieces: deque[Piece] = deque()
        self._texts_left = len(request.indices)
        self._ended = threading.Event()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def add(self, piece: Piece) -> None:
        self._pieces.append(piece)
        if piece.end is not None:
            self._texts_left -= 1
            if self._texts_left == 0:
                self._ended.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self._ended.set()

    def cancel(self) -> None:
        """Ends it at the next turn, with what there is."""
        self.cancelled = True
        self._ended.set()

    def take(self) -> list[Piece]:
        """What has come since the last time, at most one piece a text. Raises what went wrong."""
        news: dict[int, list[Piece]] = {}
        while self._pieces:
            piece = self._pieces.popleft()
            news.setdefault(piece.number, []).append(piece)
        if self.error is not None:
            raise self.error
        return [
            Piece(
                number,
                "".join(piece.text for piece in pieces),
                [score for piece in pieces for score in piece.scored],
                pieces[-1].end,
            )
            for number, pieces in sorted(news.items())
        ]

    def wait(self) -> list[Piece]:
        """The whole texts, when they are there."""
        self._ended.wait()
        return self.take()
