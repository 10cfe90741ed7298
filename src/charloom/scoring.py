"""How well a model predicts a text: bits per character, by a named protocol, beside baselines.

Every figure names its protocol, and every character of the part is scored exactly once:

    carried   zero state, the first input is the character before the part (a newline if there is
              none), the state runs through
    cold-N    consecutive windows of N characters, each from a zero state with the character before
              it as its first input
    adaptive  (compressors) a character is coded before anything learns from it

N: characters of the part; V: characters in the vocabulary; T: time steps; B: rows.
"""

from __future__ import annotations

import bz2
import lzma
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.dataset import Ids
from charloom.engines import Engine
from charloom.errors import CharloomError, shortened
from charloom.ngram import NGramModel, choose_context
from charloom.vocabulary import Vocabulary

NUMBERS_AT_ONCE = 1 << 22  # held for one block of positions, to bound its memory
LONGEST_FOR_BASELINES = 50_000_000  # characters; counting and compressing more takes too long
LONGEST_CONTEXT = 8  # characters of context tried for the n-gram model
WARM_UP = 64  # characters that a row of validation reads before the first it scores

Report = Callable[[int, int], None]  # characters scored, of how many


@dataclass(frozen=True)
class Protocol:
    """`carried`, or `cold-N` where `window` is N."""

    window: int | None = None

    @classmethod
    def parse(cls, name: str) -> Protocol:
        if name == "carried":
            return cls()
        kind, _, window = name.partition("-")
        number = window.isascii() and window.isdigit() and len(window) < 10
        if kind == "cold" and number and int(window) > 0:
            return cls(int(window))
        raise CharloomError(
            f"protocol {shortened(name)} is not known: give carried, or cold-N like cold-256 "
            "(windows of N characters)"
        )

    def __str__(self) -> str:
        return "carried" if self.window is None else f"cold-{self.window}"


@dataclass(frozen=True)
class Scores:
    """For every character of a text, (N,): its natural log-probability, and whether it was the
    model's top guess."""

    log_probabilities: NDArray[np.float64]
    guessed: NDArray[np.bool_]

    @property
    def nats_per_character(self) -> float:
        return -float(self.log_probabilities.mean())


def score_ids(
    engine: Engine, ids: Ids, before: int, protocol: Protocol, report: Report | None = None
) -> Scores:
    """Scores ids, (N,), each exactly once; `before` is the id of the character before them."""
    log_p = np.empty(len(ids))
    guessed = np.empty(len(ids), dtype=bool)
    window = len(ids) if protocol.window is None else min(protocol.window, len(ids))
    at_once = max(1, NUMBERS_AT_ONCE // engine.config.numbers_per_position)
    for begin, rows, length in _groups_of_windows(len(ids), window, max(1, at_once // window)):
        state = engine.config.zero_state(rows)
        steps = max(1, at_once // rows)
        for start in range(0, length, steps):
            times = np.arange(start, min(start + steps, length))[:, None]
            places = begin + np.arange(rows) * length + times  # (T, B), of the targets
            inputs = np.where(places > 0, ids[np.maximum(places - 1, 0)], before).astype(np.intp)
            block, state = engine.log_probabilities(inputs, state)
            targets = ids[places].astype(np.intp)
            log_p[places] = np.take_along_axis(block, targets[..., None], axis=2)[..., 0]
            guessed[places] = block.argmax(axis=2) == targets
            if report is not None:
                report(int(places[-1, -1]) + 1, len(ids))
    return Scores(log_p, guessed)


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
    length = len(ids) // rows
    extra = len(ids) - rows * length  # the first rows are one longer: all are scored once
    lengths = np.full(rows, length)
    lengths[:extra] += 1
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])  # (B,)
    state = engine.config.zero_state(rows)
    warm = WARM_UP if rows > 1 else 0
    # A row's inputs: the warm-up, then the character before each that it scores.
    places = starts + np.arange(-warm, length + 1)[:, None]  # (T, B), of targets; inputs lie before
    total = 0.0
    scored = 0
    at_once = max(1, NUMBERS_AT_ONCE // (engine.config.numbers_per_position * rows))
    for begin in range(0, len(places), at_once):
        block_places = places[begin : begin + at_once]
        inputs = np.where(block_places > 0, ids[np.maximum(block_places - 1, 0)], before)
        # Nothing precedes the first row: its state stays at zero until its first input.
        block, state = _log_probabilities_after_start(engine, inputs, state, block_places >= 0)
        inside = (block_places >= starts) & (block_places < starts + lengths)
        targets = ids[np.where(inside, block_places, 0)].astype(np.intp)
        values = np.take_along_axis(block, targets[..., None], axis=2)[..., 0]
        total += float(values[inside].sum(dtype=np.float64))
        scored += int(inside.sum())
        yield scored
    protocol = "carried" if rows == 1 else f"carried-{rows}-rows"
    return Validation(-total / len(ids), len(ids), protocol)


def _log_probabilities_after_start(
    engine: Engine,
    inputs: NDArray[np.integer],
    state: NDArray[np.floating],
    started: NDArray[np.bool_],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """As engine.log_probabilities, but the first row's state is zero until `started` (T, B)."""
    late = int((~started[:, 0]).sum())
    if late == 0:
        return engine.log_probabilities(inputs.astype(np.intp), state)
    blocks = []
    for part in (slice(0, late), slice(late, None)):
        if len(inputs[part]):
            block, state = engine.log_probabilities(inputs[part].astype(np.intp), state)
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


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a text. Perplexity is per character; accuracy is the top guess's."""

    text: str
    protocol: str
    characters: int
    utf8_bytes: int
    nats_per_character: float
    accuracy: float
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
            "protocol": self.protocol,
            "characters": self.characters,
            "utf8_bytes": self.utf8_bytes,
            "skipped_characters": self.skipped_characters,
            "nats_per_character": self.nats_per_character,
            "bits_per_character": self.bits_per_character,
            "bits_per_byte": self.bits_per_byte,
            "perplexity": self.perplexity,
            "accuracy": self.accuracy,
            "baselines": {
                name: {
                    "bits_per_character": baseline.bits_per_character,
                    "protocol": baseline.protocol,
                    "note": baseline.note,
                    "reason": baseline.reason,
                }
                for name, baseline in self.baselines.items()
            },
        }


def evaluate_ids(
    engine: Engine,
    vocabulary: Vocabulary,
    ids: Ids,
    before: int,
    protocol: Protocol,
    *,
    text: str,
    skipped: int = 0,
    report: Report | None = None,
) -> Evaluation:
    """Scores a part, (N,), without baselines. Raises CharloomError where it is empty."""
    if len(ids) == 0:
        raise CharloomError(f"{text} has no characters to evaluate")
    with np.errstate(all="ignore"):
        scores = score_ids(engine, ids, before, protocol, report)
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
        skipped_characters=skipped,
    )


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
    validation: Ids | None = None,
    reason: str = "the training text is not at hand",
) -> dict[str, Baseline]:
    """What counting and compressing make of the same part, (N,).

    train: what is counted; None leaves those rows empty, for that `reason`. validation: where the
    n-gram model's order is chosen; None takes the last tenth of the training part, which counts
    again once the order is chosen. before: the character before the part, for the n-gram.
    """
    size = len(vocabulary)
    result = {
        "uniform": Baseline(math.log2(size), "static", f"each of {size} characters alike"),
    }
    if train is not None and len(train) + len(part) > LONGEST_FOR_BASELINES:
        reason = f"the text is longer than {LONGEST_FOR_BASELINES:,} characters"
        train = None
    if train is None or len(train) == 0:
        result["unigram"] = Baseline(None, "static", reason=reason)
        result["ngram"] = Baseline(None, str(protocol), reason=reason)
        result["xz"] = Baseline(None, "adaptive", reason=reason)
        result["bzip2"] = Baseline(None, "adaptive", reason=reason)
        return result
    # One added to every count, so that a character of the part that never occurs has a probability.
    counts = np.bincount(train, minlength=size) + 1.0
    unigram = -float(np.log2(counts / counts.sum())[part].mean())
    result["unigram"] = Baseline(unigram, "static", "how often each character occurs")
    counted, chosen_on = train, "the validation part"
    if validation is None or len(validation) == 0:
        cut = max(1, len(train) * 9 // 10)
        counted, validation = train[:cut], train[cut:]
        chosen_on = "the last tenth of the training part"
    longest = min(LONGEST_CONTEXT, max(1, len(counted) - 1))
    context = choose_context(counted, validation, size, longest=longest) if len(validation) else 1
    model = NGramModel.fit(train, size, context)
    preceding = None
    if before is not None:
        preceding = np.array([before])
    log_p = model.log_probabilities(part, preceding=preceding, window=protocol.window)
    result["ngram"] = Baseline(
        -float(log_p.mean()) / math.log(2),
        str(protocol),
        f"Kneser-Ney, {context} characters of context, chosen on {chosen_on}",
    )
    train_bytes, part_bytes = _encoded(vocabulary, train), _encoded(vocabulary, part)
    compressors: dict[str, Callable[[bytes], bytes]] = {"xz": _xz, "bzip2": bz2.compress}
    for name, compress in compressors.items():
        added = len(compress(train_bytes + part_bytes)) - len(compress(train_bytes))
        result[name] = Baseline(
            8 * added / len(part),
            "adaptive",
            "bytes that the part adds to the compressed training part",
        )
    return result


def _xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
