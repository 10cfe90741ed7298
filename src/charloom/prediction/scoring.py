"""How well a model predicts a text: bits per character, by a named protocol, beside baselines.

Every figure names its protocol, and every character of the part is scored exactly once:

    carried   zero state, the first input is the character before the part (a newline if there is
              none), the state runs through
    cold-N    consecutive windows of N characters, each from a zero state with the character before
              it as its first input
    adaptive  a character is scored before anything learns from it; then the network does, as
              compressors do (charloom.adaptive)

N: characters of the part; V: characters in the vocabulary; T: time steps; B: rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charloom.engines.protocol import Engine, Predictor
from charloom.errors import CharloomError, shortened
from charloom.text.dataset import Ids

NUMBERS_AT_ONCE = 1 << 22  # held for one block of positions, to bound its memory
LINES_AT_ONCE = 64  # that are scored by themselves, side by side
WARM_UP = 64  # characters that a row of validation reads before the first it scores

Report = Callable[[int, int], None]  # characters scored, of how many
Floats = NDArray[np.floating]
Read = Callable[[NDArray[np.intp], Floats], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Protocol:
    """`carried`, `cold-N` where `window` is N, or `adaptive`."""

    window: int | None = None
    adaptive: bool = False

    @classmethod
    def parse(cls, name: str) -> Protocol:
        if name in ("carried", "adaptive"):
            return cls(adaptive=name == "adaptive")
        kind, _, window = name.partition("-")
        number = window.isascii() and window.isdigit() and len(window) < 10
        if kind == "cold" and number and int(window) > 0:
            return cls(int(window))
        raise CharloomError(
            f"protocol {shortened(name)} is not known: give carried, adaptive, or cold-N like "
            "cold-256 (windows of N characters)"
        )

    def __str__(self) -> str:
        if self.adaptive:
            return "adaptive"
        return "carried" if self.window is None else f"cold-{self.window}"


@dataclass(frozen=True)
class Scores:
    """For every character of a text: its natural log-probability, (N,), and whether it was the
    model's top guess, (N,); the ids of the K characters that were likeliest there, (N, K), and
    their probabilities, (N, K), where they were asked for."""

    log_probabilities: NDArray[np.float64]
    guessed: NDArray[np.bool_]
    likeliest: NDArray[np.intp]
    likeliest_probabilities: NDArray[np.float32]

    @classmethod
    def empty(cls, count: int, likeliest: int = 0) -> Scores:
        """Room for so many characters, and so many guesses at each."""
        return cls(
            np.empty(count),
            np.empty(count, dtype=bool),
            np.empty((count, likeliest), np.intp),
            np.empty((count, likeliest), np.float32),
        )

    def put(
        self, places: NDArray[np.intp], log_p: NDArray[np.floating], came: NDArray[np.intp]
    ) -> None:
        """Scores some places, (S,), where log p, (S, V), was predicted and `came`, (S,), came."""
        rows = np.arange(len(came))
        self.log_probabilities[places] = log_p[rows, came]
        self.guessed[places] = log_p.argmax(axis=1) == came
        if self.likeliest.shape[1]:
            left = log_p.copy()
            for k in range(self.likeliest.shape[1]):  # among equals the smaller id comes first
                best = left.argmax(axis=1)
                self.likeliest[places, k] = best
                self.likeliest_probabilities[places, k] = np.exp(log_p[rows, best])
                left[rows, best] = -np.inf

    @property
    def bits(self) -> NDArray[np.float64]:
        """Each character's surprisal, (N,): -log2 p."""
        return -self.log_probabilities / math.log(2)

    @property
    def nats_per_character(self) -> float:
        return -float(self.log_probabilities.mean())


def score_ids(
    predictor: Predictor,
    ids: Ids,
    before: int,
    protocol: Protocol,
    report: Report | None = None,
    likeliest: int = 0,
) -> Scores:
    """Scores ids, (N,), each exactly once, carried or cold; `before` is the id of the character
    before them."""
    assert not protocol.adaptive, "charloom.adaptive scores so"
    scores = Scores.empty(len(ids), likeliest)
    window = len(ids) if protocol.window is None else min(protocol.window, len(ids))
    at_once = max(1, NUMBERS_AT_ONCE // predictor.config.numbers_per_position)
    for begin, rows, length in _groups_of_windows(len(ids), window, max(1, at_once // window)):
        state = predictor.zero_state(rows)
        steps = max(1, at_once // rows)
        for start in range(0, length, steps):
            times = np.arange(start, min(start + steps, length))[:, None]
            places = begin + np.arange(rows) * length + times  # (T, B), of the targets
            inputs = np.where(places > 0, ids[np.maximum(places - 1, 0)], before).astype(np.intp)
            block, state = predictor.log_probabilities(inputs, state)
            flat = places.reshape(-1)
            came = ids[flat].astype(np.intp)
            scores.put(flat, block.reshape(len(flat), -1), came)
            if report is not None:
                report(int(places[-1, -1]) + 1, len(ids))
    return scores


def score_lines(
    predictor: Predictor, lines: Sequence[Ids], before: int, report: Report | None = None
) -> NDArray[np.float64]:
    """Each line's natural log-probability, (N,): each from a zero state, with the character
    `before` as its first input. Of ids; an empty line's is 0."""
    totals = np.zeros(len(lines))
    lengths = np.array([len(line) for line in lines], dtype=np.intp)
    order = np.argsort(lengths, kind="stable")
    at_once = max(1, NUMBERS_AT_ONCE // predictor.config.numbers_per_position)
    done = begin = 0
    while begin < len(lines):
        # Lines of about the same length, side by side: a row goes on to the end of the longest.
        most = 2 * int(lengths[order[begin]]) + 16
        group = order[begin : begin + LINES_AT_ONCE]
        group = group[lengths[group] <= most]
        begin += len(group)
        longest = int(lengths[group[-1]])
        text = np.full((longest + 1, len(group)), before, dtype=np.intp)  # (T + 1, B)
        for row, line in enumerate(group):
            text[1 : lengths[line] + 1, row] = lines[line]
        state = predictor.zero_state(len(group))
        steps = max(1, at_once // len(group))
        for start in range(0, longest, steps):
            inputs, targets = text[start : start + steps + 1][:-1], text[start + 1 :][:steps]
            block, state = predictor.log_probabilities(inputs, state)
            log_p = np.take_along_axis(block, targets[..., None], axis=2)[..., 0]
            inside = np.arange(start, start + len(targets))[:, None] < lengths[group]
            totals[group] += np.where(inside, log_p, 0).sum(axis=0, dtype=np.float64)
        done += int(lengths[group].sum())
        if report is not None:
            report(done, int(lengths.sum()))
    return totals


def _groups_of_windows(length: int, window: int, rows: int) -> Iterator[tuple[int, int, int]]:
    """Cuts `length` characters into windows, side by side in groups of at most `rows`: where each
    group begins, its rows and the length of its windows. The last window may be shorter."""
    whole = length // window if window else 0
    for first in range(0, whole, rows):
        yield first * window, min(rows, whole - first), window
    if whole * window < length:
        yield whole * window, 1, length - whole * window


@dataclass(frozen=True)
class Validation:
    """A validation during training. Its protocol is `carried`, or `carried-R-rows` for a longer
    part: R equal pieces side by side, each but the first from a zero state warmed with the 64
    characters before it."""

    nats_per_character: float
    characters: int
    protocol: str


def validate(engine: Engine, ids: Ids, before: int, rows: int) -> Generator[int, None, Validation]:
    """Scores ids, (N,), in that many rows; yields the number scored so far, returns a Validation.

    Only a generator can be left in the middle: a long validation must not hold up an interrupt.
    """
    total = 0.0
    scored = 0
    for places, block in blocks_in_rows(engine, ids, before, rows):
        values = block[np.arange(len(places)), ids[places].astype(np.intp)]
        total += float(values.sum(dtype=np.float64))
        scored += len(places)
        yield scored
    protocol = "carried" if rows == 1 else f"carried-{rows}-rows"
    return Validation(-total / len(ids), len(ids), protocol)


def blocks_in_rows(
    engine: Engine,
    ids: Ids,
    before: int,
    rows: int,
    *,
    read: Read | None = None,
    warm_up: int = WARM_UP,
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.floating]]]:
    """Cuts ids, (N,), into that many rows side by side; yields some of the places, (S,), and log p
    of what may stand there, (S, V), until each place has come once.

    read: what takes inputs (T, B) and a state to something else for each, (T, B, ·), and the next
    state. warm_up: characters that a row but the first reads before the first it is about.
    """
    read = read or engine.log_probabilities
    length = len(ids) // rows
    extra = len(ids) - rows * length  # the first rows are one longer: all are scored once
    lengths = np.full(rows, length)
    lengths[:extra] += 1
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])  # (B,)
    state = engine.zero_state(rows)
    warm = warm_up if rows > 1 else 0
    # A row's inputs: the warm-up, then the character before each that it scores.
    places = starts + np.arange(-warm, length + 1)[:, None]  # (T, B), of targets; inputs lie before
    at_once = max(1, NUMBERS_AT_ONCE // (engine.config.numbers_per_position * rows))
    for begin in range(0, len(places), at_once):
        block_places = places[begin : begin + at_once]
        inputs = np.where(block_places > 0, ids[np.maximum(block_places - 1, 0)], before)
        # Nothing precedes the first row: its state stays at zero until its first input.
        block, state = _read_after_start(read, inputs, state, block_places >= 0)
        inside = (block_places >= starts) & (block_places < starts + lengths)
        yield block_places[inside], block[inside]


def _read_after_start(
    read: Read,
    inputs: NDArray[np.integer],
    state: NDArray[np.floating],
    started: NDArray[np.bool_],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """As `read`, but the first row's state is zero until `started` (T, B)."""
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
