"""Texts between a prompt and a suffix: fill in the middle.

V is the number of characters in the vocabulary, N that of the suffix, B that of the texts that are
continued together.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.protocol import Constraints
from charloom.constraints.texts import ConstrainedText, choose_next, restrict
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Predictor
from charloom.prediction.rows import join_states, rows_of

LONGEST_MIDDLE = 512  # characters
LONGEST_SUFFIX = 256  # characters of it that decide
FEWEST_ROWS, MOST_ROWS = 8, 64  # texts that are sampled
CANDIDATES = 2048  # beginnings of them, if these are not too few rows
SCORED_TOGETHER = 128
STAGES = (2, 6, 8)  # characters of the suffix, after which candidates are dropped; then 16
FAR = 15.0  # nats below the best candidate


@dataclass(frozen=True, eq=False)
class Middle:
    """A request for texts between a prompt and a suffix.

    Attributes:
        suffix: the ids of the text that follows, (N,).
        length: the largest number of characters of a text.
        settings: how characters are sampled. A temperature of 0 samples at a temperature of
            1, and returns the likeliest texts.
        constraints: what a text can consist of, if that is restricted.
        stop: ids that no text contains.
        end_id: the end of a document, which no text contains.
        seed: the random seed.
    """

    suffix: NDArray[np.unsignedinteger]
    length: int
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    constraints: Constraints | None = None
    stop: tuple[tuple[int, ...], ...] = ()
    end_id: int | None = None
    seed: int = 0


@dataclass
class _Candidates:
    """Beginnings of sampled texts that can be followed by the suffix."""

    ids: list[tuple[int, ...]]
    weights: NDArray[np.float64]  # (B,), their logarithms
    log_p: NDArray[np.float64]  # (B,) the model's, of the text and as much of the suffix
    lasts: NDArray[np.intp]  # (B,)
    state: Any  # before the last ids

    def chosen(self, rows: Sequence[int]) -> _Candidates:
        kept = list(rows)
        return _Candidates(
            [self.ids[row] for row in kept],
            self.weights[kept],
            self.log_p[kept],
            self.lasts[kept],
            rows_of(self.state, kept),
        )


def fill_middle(
    predictor: Predictor, last: int, state: Any, request: Middle, indices: Sequence[int]
) -> Generator[None, None, list[tuple[int, ...]]]:
    """Return the ids of texts after a prompt, chosen by how well the suffix follows them.

    Texts are sampled after the prompt. Each of their beginnings that can end is a candidate. Its
    weight is the model's probability of the suffix after it, times that of the characters that the
    constraints allow. Candidates are sampled by weight (importance resampling). A text depends on
    the seed and its index only.

    Yields:
        after every call of the predictor, so that other work can be done in between.

    Args:
        predictor: the model.
        last: the prompt's last id, which is not read yet.
        state: the state before it, of one row.
        request: the texts.
        indices: the numbers of the texts under the seed.
    """
    found = _join((yield from _sample(predictor, last, state, request)))
    suffix = request.suffix[:LONGEST_SUFFIX].astype(np.intp)
    place = 0
    for count in _stages(len(suffix)):
        yield from _score(predictor, found, suffix[place : place + count])
        kept = np.zeros(len(found.ids), bool)
        for value in (found.weights, found.log_p):
            kept |= ~(value < value.max() - FAR)
        found = found.chosen(np.flatnonzero(kept).tolist())
        place += count
    return [_draw(found, request, index) for index in indices]


def _stages(size: int) -> Iterator[int]:
    """Yield the numbers of characters of the stages in which a suffix is scored."""
    place = 0
    for count in (*STAGES, *[16] * (size // 16 + 1)):
        if place < size:
            yield min(count, size - place)
        place += count


def _sample(
    predictor: Predictor, last: int, state: Any, request: Middle
) -> Generator[None, None, list[_Candidates]]:
    """Sample texts, and return the beginnings of each length that can end."""
    count = min(MOST_ROWS, max(FEWEST_ROWS, CANDIDATES // (request.length + 1)))
    generator = np.random.Generator(np.random.PCG64([request.seed, 2]))
    rules = request.constraints
    texts: list[ConstrainedText | None] = [None] * count
    if rules is not None:
        texts = [ConstrainedText(rules, request.length, None) for _ in range(count)]
    now = _Candidates(
        [()] * count,
        np.zeros(count),
        np.zeros(count),
        np.full(count, last, np.intp),
        rows_of(state, [0] * count),
    )
    settings = request.settings
    if settings.temperature == 0:
        settings = replace(settings, temperature=1.0)
    found: list[_Candidates] = []
    while True:
        can_end = [row for row, text in enumerate(texts) if text is None or text.may_end]
        if can_end:
            found.append(now.chosen(can_end))
        left = [row for row, text in enumerate(texts) if text is None or not text.over]
        if not left or len(now.ids[0]) == request.length:
            return found
        now, texts = now.chosen(left), [texts[row] for row in left]
        logits, after = predictor.step(now.lasts, now.state)
        yield
        logits = logits.astype(np.float64)
        if request.end_id is not None:
            logits[:, request.end_id] = -np.inf
        allowed = restrict(texts, logits)
        if request.end_id is not None:
            allowed[:, request.end_id] = -np.inf
        ids = choose_next(texts, allowed, settings, generator.random(len(left)))
        place = np.arange(len(left))
        with np.errstate(all="ignore"):
            log_p = _normalized(logits)[place, ids]
            weights = log_p - _normalized(allowed)[place, ids]
        longer = [(*before, int(id_)) for before, id_ in zip(now.ids, ids, strict=True)]
        now = _Candidates(longer, now.weights + weights, now.log_p + log_p, ids, after)
        going = [row for row, text in enumerate(texts) if not _ended(text, longer[row], request)]
        if not going:
            return found
        now, texts = now.chosen(going), [texts[row] for row in going]


def _ended(text: ConstrainedText | None, ids: tuple[int, ...], request: Middle) -> bool:
    """Return whether the last id does not belong to a text, which has ended before it."""
    if text is not None and text.ends_before_last:
        return True
    return any(ids[-len(stop) :] == stop for stop in request.stop)


def _join(found: list[_Candidates]) -> _Candidates:
    return _Candidates(
        [ids for one in found for ids in one.ids],
        np.concatenate([one.weights for one in found]),
        np.concatenate([one.log_p for one in found]),
        np.concatenate([one.lasts for one in found]),
        join_states([one.state for one in found]),
    )


def _score(
    predictor: Predictor, found: _Candidates, ids: NDArray[np.intp]
) -> Generator[None, None, None]:
    """Multiply the weights by the probability of further ids, (T,), and read these."""
    states: list[Any] = []
    for begin in range(0, len(found.ids), SCORED_TOGETHER):
        rows = slice(begin, begin + SCORED_TOGETHER)
        lasts = found.lasts[rows]
        repeated = np.repeat(ids[:-1, None], len(lasts), axis=1)
        inputs = np.concatenate([lasts[None], repeated])
        part = rows_of(found.state, list(range(begin, begin + len(lasts))))
        log_p, after = predictor.log_probabilities(inputs, part)  # (T, B, V)
        yield
        of_suffix = log_p[np.arange(len(ids)), :, ids].sum(axis=0, dtype=np.float64)
        found.weights[rows] += of_suffix
        found.log_p[rows] += of_suffix
        states.append(after)
    found.state = join_states(states)
    found.lasts = np.full(len(found.ids), ids[-1], np.intp)


def _draw(found: _Candidates, request: Middle, index: int) -> tuple[int, ...]:
    """Return the text of an index: by weight, or one of the best at a temperature of 0."""
    weights = np.nan_to_num(found.weights, nan=-1e300, neginf=-1e300)
    if request.settings.temperature == 0:
        order = np.argsort(-np.nan_to_num(found.log_p, nan=-1e300), kind="stable")
        best: list[tuple[int, ...]] = list(dict.fromkeys(found.ids[row] for row in order.tolist()))
        return best[min(index, len(best) - 1)]
    running = np.cumsum(np.exp(weights - weights.max()))
    uniform = np.random.Generator(np.random.PCG64([request.seed, index, 2])).random()
    row = int(np.searchsorted(running, uniform * running[-1], side="right"))
    return found.ids[min(row, len(found.ids) - 1)]


def _normalized(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    x = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)))
