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

import bz2
import lzma
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.dataset import Ids, character_counts
from charloom.engines import Engine, Predictor
from charloom.errors import CharloomError, shortened
from charloom.ngram import NGramModel, context_from_parts
from charloom.overlap import LONGEST_TO_INDEX, Overlap, longest_overlap
from charloom.vocabulary import Vocabulary

NUMBERS_AT_ONCE = 1 << 22  # held for one block of positions, to bound its memory
LONGEST_FOR_BASELINES = 50_000_000  # characters; counting and compressing more takes too long
LONGEST_CONTEXT = 8  # characters of context tried for the n-gram model
RESAMPLES = 2_000  # of the bootstrap
BLOCK = 1_000  # characters, at most; longer than what one character tells of the next ones
FEWEST_BLOCKS = 10  # for fewer there is no interval
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


def confidence_interval(log_probabilities: NDArray[np.float64]) -> tuple[float, float] | None:
    """Between which nats per character the mean of such a text's (N,) lies, in 95 of 100 cases.

    By a circular block bootstrap (Politis and Romano 1992): as many blocks as fill the text are
    drawn from it, with their neighbors, since what is hard to predict comes in stretches. None for
    a text of few blocks.
    """
    length = len(log_probabilities)
    block = min(BLOCK, length // (2 * FEWEST_BLOCKS))
    if block < FEWEST_BLOCKS:
        return None
    around = np.concatenate([[0.0], np.cumsum(np.resize(log_probabilities, length + block))])
    sums = around[block : block + length] - around[:length]  # of the block that begins at each
    generator = np.random.Generator(np.random.PCG64(0))
    means = np.empty(RESAMPLES)
    for sample in range(RESAMPLES):
        means[sample] = sums[generator.integers(0, length, length // block)].mean()
    low, high = np.quantile(-means / block, [0.025, 0.975])
    return float(low), float(high)


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


@dataclass(frozen=True)
class Baseline:
    """A simple predictor's figure on the same part; `reason` says why there is none."""

    bits_per_character: float | None
    protocol: str
    note: str = ""
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The baseline as plain JSON values."""
        return {
            "bits_per_character": self.bits_per_character,
            "protocol": self.protocol,
            "note": self.note,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a text. Perplexity is per character; accuracy is the top guess's.

    model: `mixture` of network and counts, or `network`. interval: of nats per character, in 95 of
    100 cases; None for a short text. overlap: the longest stretch of the text that stands in the
    training text, None where that is not known.
    """

    text: str
    protocol: str
    characters: int
    utf8_bytes: int
    nats_per_character: float
    accuracy: float
    model: str = "network"
    interval: tuple[float, float] | None = None
    overlap: Overlap | None = None
    overlap_text: str = ""
    baselines: dict[str, Baseline] = field(default_factory=dict)
    skipped_characters: int = 0

    @property
    def bits_per_character(self) -> float:
        return self.nats_per_character / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        return self.bits_per_character * self.characters / self.utf8_bytes

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nats_per_character, 700))

    def as_dict(self) -> dict[str, Any]:
        """The evaluation as plain JSON values."""
        return {
            "text": self.text,
            "model": self.model,
            "protocol": self.protocol,
            "characters": self.characters,
            "utf8_bytes": self.utf8_bytes,
            "skipped_characters": self.skipped_characters,
            "nats_per_character": self.nats_per_character,
            "nats_per_character_95_percent": self.interval and list(self.interval),
            "bits_per_character": self.bits_per_character,
            "bits_per_byte": self.bits_per_byte,
            "perplexity": self.perplexity,
            "accuracy": self.accuracy,
            "longest_overlap": self.overlap
            and {
                "characters": self.overlap.length,
                "place": self.overlap.place,
                "training_place": self.overlap.training_place,
                "text": self.overlap_text,
            },
            "baselines": {name: baseline.as_dict() for name, baseline in self.baselines.items()},
        }


def evaluation_of(
    scores: Scores, vocabulary: Vocabulary, ids: Ids, protocol: Protocol, *, text: str, **more: Any
) -> Evaluation:
    """What the scores of a part's ids, (N,), come to; without baselines."""
    if not math.isfinite(scores.nats_per_character):
        raise CharloomError(
            "the model gives a character no probability, or its numbers overflow: train again with "
            "a lower --learning-rate"
        )
    return Evaluation(
        text=text,
        protocol=str(protocol),
        characters=len(ids),
        utf8_bytes=count_bytes(vocabulary, ids),
        nats_per_character=scores.nats_per_character,
        accuracy=float(scores.guessed.mean()),
        interval=confidence_interval(scores.log_probabilities),
        **more,
    )


def find_overlap(train: Ids, part: Ids) -> Overlap | None:
    """The longest stretch of a part, (N,), that stands in the training part; None where looking for
    it takes too long, or needs a library that is missing."""
    if len(train) + len(part) > LONGEST_TO_INDEX:
        return None
    try:
        return longest_overlap(train, part)
    except ImportError:
        return None


def count_bytes(vocabulary: Vocabulary, ids: Ids) -> int:
    """The bytes of the text that ids, (N,), stand for: UTF-8, or one each where they are bytes."""
    sizes = np.array([1 if vocabulary.as_bytes else len(c.encode()) for c in vocabulary.characters])
    return int(np.bincount(ids, minlength=len(vocabulary)) @ sizes)


def _encoded(vocabulary: Vocabulary, ids: Ids) -> bytes:
    return vocabulary.decode(ids).encode("latin-1" if vocabulary.as_bytes else "utf-8")


def baselines(
    vocabulary: Vocabulary,
    part: Ids,
    protocol: Protocol,
    *,
    before: int | None = None,
    train: Ids | None = None,
    counted: Ids | None = None,
    validation: Ids | None = None,
    reason: str = "the training text is not at hand",
) -> dict[str, Baseline]:
    """What counting and compressing make of the same part, (N,).

    train: what is counted; None leaves those rows empty, for that `reason`. validation: where the
    n-gram model's order is chosen, by counts of `counted` (by default `train`); None takes the last
    tenth of the latter, which counts again once the order is chosen. before: the character before
    the part, for the n-gram.
    """
    size = len(vocabulary)
    static = Protocol() if protocol.adaptive else protocol  # these counts learn nothing further
    result = {"uniform": _uniform(size)}
    if train is not None and len(train) + len(part) > LONGEST_FOR_BASELINES:
        reason = f"the text is longer than {LONGEST_FOR_BASELINES:,} characters"
        train = None
    if train is None or len(train) == 0:
        result["unigram"] = Baseline(None, "static", reason=reason)
        result["ngram"] = Baseline(None, str(static), reason=reason)
        result["xz"] = Baseline(None, "adaptive", reason=reason)
        result["bzip2"] = Baseline(None, "adaptive", reason=reason)
        return result
    result["unigram"] = _unigram(character_counts(train, size), part)
    context, chosen_on, _ = context_from_parts(
        train if counted is None else counted, validation, size, LONGEST_CONTEXT
    )
    model = NGramModel.fit(train, size, context)
    preceding = None
    if before is not None:
        preceding = np.array([before])
    log_p = model.log_probabilities(part, preceding=preceding, window=static.window)
    result["ngram"] = Baseline(
        -float(log_p.mean()) / math.log(2),
        str(static),
        f"Kneser-Ney, {context} characters of context, chosen on {chosen_on}",
    )
    train_bytes, part_bytes = _encoded(vocabulary, train), _encoded(vocabulary, part)
    compressors: dict[str, Callable[[bytes], bytes]] = {"xz": _xz, "bzip2": bz2.compress}
    for name, compress in compressors.items():
        result[name] = _compressed(compress, train_bytes, part_bytes, len(part))
    return result


def baselines_of_validation(
    vocabulary: Vocabulary,
    train: Ids,
    part: Ids,
    *,
    counts: NDArray[np.integer],
    ngram: float | None,
    compressed: bool,
) -> dict[str, Baseline]:
    """What a run's validations can be held against: the same figures, of a part (N,) of at least
    one character, as far as they take hardly any time.

    counts: of the training part's characters, (V,). ngram: nats per character of the n-grams that
    the run counts anyway. compressed: with bzip2, whose time grows with the training text.
    """
    result = {"uniform": _uniform(len(vocabulary)), "unigram": _unigram(counts, part)}
    if ngram is not None:
        note = "Kneser-Ney, the best context on this part"
        result["ngram"] = Baseline(ngram / math.log(2), "carried", note)
    if compressed:
        train_bytes, part_bytes = _encoded(vocabulary, train), _encoded(vocabulary, part)
        result["bzip2"] = _compressed(bz2.compress, train_bytes, part_bytes, len(part))
    return result


def _uniform(size: int) -> Baseline:
    return Baseline(math.log2(size), "static", f"each of {size} characters alike")


def _unigram(counts: NDArray[np.integer], part: Ids) -> Baseline:
    # One added to every count, so that a character of the part that never occurs has a probability.
    one_more = counts + 1.0
    unigram = -float(np.log2(one_more / one_more.sum())[part].mean())
    return Baseline(unigram, "static", "how often each character occurs")


def _compressed(
    compress: Callable[[bytes], bytes], train: bytes, part: bytes, characters: int
) -> Baseline:
    added = len(compress(train + part)) - len(compress(train))
    note = "bytes that the part adds to the compressed training part"
    return Baseline(8 * added / characters, "adaptive", note)


def _xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
