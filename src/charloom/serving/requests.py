"""Requests to a batcher, their answers, and the batcher's statistics."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.protocol import Constraints
from charloom.engines.decoding import SamplingSettings

# Why a text ends: at the end of a document or a stop text, or at its length.
End = Literal["stop", "length"]


class BusyError(Exception):
    """The batcher's queue is full."""


@dataclass(frozen=True)
class Request:
    """A request for some texts after one prompt.

    Attributes:
        prompt: All ids that the model reads, (N,), N >= 1. Those of a text follow the id that
            precedes any text.
        length: The largest number of characters to sample.
        settings: The sampling settings.
        bias: Additions to the logits of ids, before the settings apply. Scores do not include them.
        constraints: What the texts can consist of, if that is restricted.
        stop: Texts that end a sampled text.
        includes_stop: Keep the stop text at the end, instead of cutting it off.
        seed: The random seed.
        indices: The indices of the seed's samples, one a text.
        alternatives: K, the number of likeliest characters to report at each position. None scores
            nothing.
        scores_prompt: Also score the prompt's characters, from the second on.
        streams: Notify the reader of every piece, not only of the end.
        suffix: The ids of the text after the texts, (N,), if there is one.
    """

    prompt: NDArray[np.unsignedinteger]
    length: int
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    bias: Mapping[int, float] = field(default_factory=dict)
    constraints: Constraints | None = None
    stop: tuple[str, ...] = ()
    includes_stop: bool = False
    seed: int = 0
    indices: range = range(1)
    alternatives: int | None = None
    scores_prompt: bool = False
    streams: bool = False
    suffix: NDArray[np.unsignedinteger] | None = None


class Scored(NamedTuple):
    """A character's natural log-probability, and the likeliest ones there with theirs.

    `conditioned` is its log-probability in the choice from which it was sampled, with constraints
    and bias; None for a character of a prompt.
    """

    id: int
    log_probability: float
    likeliest: Sequence[tuple[int, float]]
    conditioned: float | None = None


@dataclass
class Piece:
    """New characters of one text.

    Attributes:
        number: The text's number in the request.
        text: The characters.
        scored: Their scores, if requested. That of the end of a document comes last.
        end: In the last piece, the reason for the text's end.
    """

    number: int
    text: str
    scored: list[Scored] = field(default_factory=list)
    end: End | None = None


class Answer:
    """The answer to a request. A batcher adds pieces to it, and one other thread takes them."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.prompt_scores: list[Scored] = []  # complete before the first piece
        self.cached = 0  # characters of the prompt whose state was cached
        self.sampled = 0  # characters, and ends of documents
        self.error: Exception | None = None
        self.cancelled = False
        self.notified = 0.0  # the time of its reader's last notification
        self._pieces: deque[Piece] = deque()
        self._texts_left = len(request.indices)
        self._ended = threading.Event()

    @property
    def ended(self) -> bool:
        """Return whether all texts have ended, or the answer failed or was cancelled."""
        return self._ended.is_set()

    def add(self, piece: Piece) -> None:
        """Add a piece of one text."""
        self._pieces.append(piece)
        if piece.end is not None:
            self._texts_left -= 1
            if self._texts_left == 0:
                self._ended.set()

    def fail(self, error: Exception) -> None:
        """End the answer with an error."""
        self.error = error
        self._ended.set()

    def cancel(self) -> None:
        """End the answer at the next turn, incomplete."""
        self.cancelled = True
        self._ended.set()

    def take(self) -> list[Piece]:
        """Return the new pieces, joined to at most one a text. Raises the error it failed with."""
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
        """Wait for the end, and return the whole texts."""
        self._ended.wait()
        return self.take()


@dataclass
class BatcherStats:
    """Totals of a batcher since its start."""

    refused: int = 0  # requests
    cancelled: int = 0  # requests
    read: int = 0  # characters of prompts
    cached: int = 0  # characters of prompts that were not read again
    sampled: int = 0  # characters
    steps: int = 0
