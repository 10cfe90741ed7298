"""The likeliest texts: completions of a prompt by beam search, and texts for blanks.

V is the number of characters in the vocabulary, B that of the texts that are continued together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.protocol import Constraints
from charloom.constraints.texts import ConstrainedText, choose_next, restrict
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError
from charloom.prediction.rows import join_states, rows_of
from charloom.prediction.sampling import SampleRequest, read_prompt
from charloom.text.vocabulary import Vocabulary

MOST_BEAMS = 4096
MOST_BEGINNINGS = 8192  # of texts for an open blank, at most
ROWS = 512  # whose logits are normalized at a time, to save memory
SOON = 4  # characters after an open blank that are read with all beginnings


@dataclass(frozen=True)
class LikelyText:
    """One of the likeliest texts.

    Attributes:
        text: the completion, or the whole text with its blanks filled.
        log_probability: the model's natural log-probability, of a completion with its end if the
            model ends it, of a text with blanks from the first blank on.
        exact: whether every likelier text has been found.
        parts: the texts of the blanks, if there are any.
    """

    text: str
    log_probability: float
    exact: bool
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Beam:
    ids: tuple[int, ...]
    log_p: float
    row: int  # of the batch's state before the last id
    constrained: ConstrainedText | None


def find_likeliest(
    predictor: Predictor, vocabulary: Vocabulary, request: SampleRequest, count: int
) -> list[LikelyText]:
    """Return the likeliest completions of a prompt, by beam search.

    After every character, the `count` likeliest beginnings are kept. A dropped beginning cannot
    lead to a text likelier than itself. The texts that are likelier than every dropped beginning
    are therefore exact.

    Args:
        predictor: the model.
        vocabulary: its characters.
        request: the prompt, the largest length and the constraints.
        count: the number of beginnings and of texts.

    Raises:
        CharloomError: if the count is invalid or the length unlimited.
    """
    if not 1 <= count <= MOST_BEAMS:
        raise CharloomError(f"beam is {count}: pass 1 to {MOST_BEAMS:,}")
    if request.length is None:
        raise CharloomError("length is unlimited, but a beam search needs an end: pass a length")
    if request.settings != SamplingSettings() or request.stop or request.guard is not None:
        raise CharloomError(
            "a beam search samples nothing: omit temperature, top_k, top_p, min_p, stop and "
            "max_overlap"
        )
    bias = None if request.constraints is None else request.constraints.bias
    if bias is not None and bias[np.isfinite(bias)].any():
        raise CharloomError(
            "a beam search ranks by the model's own probabilities, which a bias does not change: "
            "omit it, or exclude a character with -inf"
        )
    last, state = read_prompt(predictor, vocabulary, request.prompt_ids(vocabulary))
    end_id, rules = vocabulary.end_id, request.constraints
    text = None if rules is None else ConstrainedText(rules, request.length, end_id)
    beams = [_Beam((), 0.0, 0, text)]
    finished: list[tuple[float, tuple[int, ...]]] = []
    dropped = -math.inf
    ends = set(() if rules is None else rules.end_ids) | set(() if end_id is None else (end_id,))
    if request.length == 0 or (text is not None and text.over):
        finished, beams = [(0.0, ())], []
    while beams:
        ids = np.array([beam.ids[-1] if beam.ids else last for beam in beams], np.intp)
        logits, after = predictor.step(
            ids, rows_of(state, [beam.row for beam in beams]), request.clamps
        )
        log_p = _normalized(logits) + np.array([beam.log_p for beam in beams])[:, None]
        allowed = restrict([beam.constrained for beam in beams], logits) > -np.inf
        log_p[~allowed] = -np.inf
        # First the ends of texts, however unlikely they are beside other characters.
        for (row, beam), id_ in itertools.product(enumerate(beams), ends):
            text = None if beam.constrained is None else beam.constrained.copy()
            if log_p[row, id_] == -np.inf or (text is not None and not text.take(id_)):
                continue
            if id_ == end_id or (text is not None and text.ends_before_last):
                finished.append((float(log_p[row, id_]), beam.ids))
                log_p[row, id_] = -np.inf
        following: list[_Beam] = []
        for place in np.argsort(-log_p, axis=None, kind="stable").tolist():
            row, id_ = divmod(place, log_p.shape[1])
            value = float(log_p[row, id_])
            if value == -math.inf:
                break
            if len(following) == count:
                dropped = max(dropped, value)
                break
            beam = beams[row]
            constrained = None if beam.constrained is None else beam.constrained.copy()
            if constrained is not None and not constrained.take(id_):
                continue
            longer = (*beam.ids, id_)
            if len(longer) == request.length or (constrained and constrained.over):
                finished.append((value, longer))
            else:
                following.append(_Beam(longer, value, row, constrained))
        finished = sorted(finished, reverse=True)[:count]
        worst = finished[-1][0] if len(finished) == count else -math.inf
        beams, state = [beam for beam in following if beam.log_p > worst], after
    return [
        LikelyText(vocabulary.decode(np.array(ids, np.intp)), value, value >= dropped)
        for value, ids in finished
    ]


def _normalized(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)))


def _log_probabilities_of(logits: NDArray[np.floating], id_: int) -> NDArray[np.float64]:
    """Return the log-probability of one character in each row, (B,), of logits (B, V)."""
    pieces = np.split(logits, range(ROWS, len(logits), ROWS))
    return np.concatenate([_normalized(piece)[:, id_] for piece in pieces])


@dataclass(frozen=True)
class Blank:
    """A blank, and the text after it up to the next one.

    Attributes:
        constraints: the texts that can fill it.
        length: the largest number of its characters.
        following: the ids of the text after it, (N,).
        is_open: whether it can also continue by the first of these ids where it can end. The
            character after it then does not end it.
    """

    constraints: Constraints
    length: int
    following: NDArray[np.unsignedinteger]
    is_open: bool = False


def fill_blanks(
    predictor: Predictor,
    vocabulary: Vocabulary,
    before: NDArray[np.unsignedinteger],
    blanks: Sequence[Blank],
    *,
    rows: int,
    seed: int,
) -> list[tuple[float, tuple[str, ...]]]:
    """Fill the blanks of a text by importance resampling.

    Every row samples a text for a blank, and reads the text after it. Its weight is the model's
    probability of both, divided by the probability with which the text was sampled. Rows are then
    resampled by weight (Gordon et al., "Novel approach to nonlinear/non-Gaussian Bayesian state
    estimation", 1993), so that the text after a blank decides too. For an open blank, every
    beginning of a sampled text that can end is a row. These are also resampled after the first
    characters that follow.

    Args:
        predictor: the model.
        vocabulary: its characters.
        before: the ids of the text before the first blank, (N,).
        blanks: the blanks in their order.
        rows: the number of rows, B. For an open blank of a great length, fewer texts are sampled,
            so that they have MOST_BEGINNINGS at most.
        seed: the random seed.

    Returns:
        The distinct fillings, the likeliest first: the model's natural log-probability of the text
        from the first blank on, and the text of each blank.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    last, state = read_prompt(predictor, vocabulary, before)
    lasts, state = np.full(rows, last, np.intp), rows_of(state, [0] * rows)
    total = np.zeros(rows)
    filled: list[tuple[str, ...]] = [()] * rows
    for blank in blanks:
        texts, log_model, log_sampled, source, lasts, state = _sample_blank(
            predictor, vocabulary, blank, lasts, state, generator
        )
        total = total[source] + log_model
        filled = [(*filled[row], text) for row, text in zip(source.tolist(), texts, strict=True)]
        weights = log_model - log_sampled
        count = len(blank.following)
        for place, id_ in enumerate(blank.following.tolist()):
            logits, state = predictor.step(lasts, state)
            log_p = _log_probabilities_of(logits, id_)
            total, weights = total + log_p, weights + log_p
            lasts = np.full(len(lasts), id_, np.intp)
            if len(lasts) > rows and place == SOON - 1 and count > SOON:
                chosen = _resample(weights, rows, generator)
                total, lasts, state = total[chosen], lasts[chosen], rows_of(state, chosen.tolist())
                filled, weights = [filled[row] for row in chosen], np.zeros(rows)
        chosen = _resample(weights, rows, generator)
        lasts, total, state = lasts[chosen], total[chosen], rows_of(state, chosen.tolist())
        filled = [filled[row] for row in chosen]
    found = dict(zip(filled, total.tolist(), strict=True))
    return sorted(((value, parts) for parts, value in found.items()), reverse=True)


class _Sampled(NamedTuple):
    """Texts for a blank, in rows."""

    texts: list[str]
    log_model: NDArray[np.float64]  # (B,) their log-probabilities by the model
    log_sampled: NDArray[np.float64]  # (B,) and as they were sampled
    source: NDArray[np.intp]  # (B,) the rows before the blank that they continue
    lasts: NDArray[np.intp]  # (B,) the last ids
    state: Any  # before these


def _sample_blank(
    predictor: Predictor,
    vocabulary: Vocabulary,
    blank: Blank,
    lasts: NDArray[np.intp],
    state: Any,
    generator: np.random.Generator,
) -> _Sampled:
    """Sample a text for a blank in every row."""
    if blank.is_open:
        return _sample_beginnings(predictor, vocabulary, blank, lasts, state, generator)
    rows = len(lasts)
    texts = [ConstrainedText(blank.constraints, blank.length, None) for _ in range(rows)]
    ids: list[list[int]] = [[] for _ in range(rows)]
    log_model, log_sampled = np.zeros(rows), np.zeros(rows)
    lasts = lasts.copy()
    parts: list[Any] = [None] * rows  # the state of each row that has ended
    active = [row for row in range(rows) if not texts[row].over]
    for row in set(range(rows)) - set(active):
        parts[row] = rows_of(state, [row])
    state = rows_of(state, active) if active else None
    while active:
        logits, after = predictor.step(lasts[active], state)
        running = [texts[row] for row in active]
        allowed = restrict(running, logits)
        numbers = generator.random(len(active))
        sampled = choose_next(running, allowed, SamplingSettings(), numbers)
        place = np.arange(len(active))
        log_p = _normalized(logits)[place, sampled]
        log_sampled[active] += _normalized(allowed)[place, sampled]
        left: list[int] = []
        for number, row in enumerate(active):
            if texts[row].ends_before_last:  # the state has not read beyond the text
                parts[row] = rows_of(state, [number])
                continue
            log_model[row] += log_p[number]
            lasts[row] = sampled[number]
            ids[row].append(int(sampled[number]))
            if texts[row].over or len(ids[row]) == blank.length:
                parts[row] = rows_of(after, [number])
            else:
                left.append(number)
        active = [active[number] for number in left]
        state = rows_of(after, left) if left else None
    decoded = [vocabulary.decode(np.array(row, np.intp)) for row in ids]
    return _Sampled(decoded, log_model, log_sampled, np.arange(rows), lasts, join_states(parts))


def _sample_beginnings(
    predictor: Predictor,
    vocabulary: Vocabulary,
    blank: Blank,
    lasts: NDArray[np.intp],
    state: Any,
    generator: np.random.Generator,
) -> _Sampled:
    """Sample a text for an open blank in every row, and return all beginnings that can end."""
    most = MOST_BEGINNINGS // (blank.length + 1)
    source = np.arange(0, len(lasts), -(-len(lasts) // most))
    lasts, state = lasts[source], rows_of(state, source.tolist())
    texts = [ConstrainedText(blank.constraints, blank.length, None) for _ in source]
    ids: list[tuple[int, ...]] = [()] * len(source)
    log_model, log_sampled = np.zeros(len(source)), np.zeros(len(source))
    found: list[_Sampled] = []
    while True:
        ended = [row for row, text in enumerate(texts) if text.may_end]
        if ended:
            decoded = [vocabulary.decode(np.array(ids[row], np.intp)) for row in ended]
            found.append(
                _Sampled(
                    decoded, log_model[ended], log_sampled[ended], source[ended], lasts[ended],
                    rows_of(state, ended),
                )
            )  # fmt: skip
        left = [row for row, text in enumerate(texts) if not text.over and text.left]
        if not left:
            break
        texts, ids, source = [texts[row] for row in left], [ids[row] for row in left], source[left]
        logits, state = predictor.step(lasts[left], rows_of(state, left))
        allowed = restrict(texts, logits)
        lasts = choose_next(texts, allowed, SamplingSettings(), generator.random(len(left)))
        place = np.arange(len(left))
        log_model = log_model[left] + _normalized(logits)[place, lasts]
        log_sampled = log_sampled[left] + _normalized(allowed)[place, lasts]
        ids = [(*before, id_) for before, id_ in zip(ids, lasts.tolist(), strict=True)]
    return _Sampled(
        [text for one in found for text in one.texts],
        np.concatenate([one.log_model for one in found]),
        np.concatenate([one.log_sampled for one in found]),
        np.concatenate([one.source for one in found]),
        np.concatenate([one.lasts for one in found]),
        join_states([one.state for one in found]),
    )


def _resample(
    log_weights: NDArray[np.float64], count: int, generator: np.random.Generator
) -> NDArray[np.intp]:
    """Return rows in proportion to their weights, (count,), by systematic resampling."""
    weights = np.exp(log_weights - log_weights.max())
    places = (np.arange(count) + generator.random()) / count
    running = np.cumsum(weights) / weights.sum()
    return np.asarray(np.minimum(np.searchsorted(running, places, side="right"), len(weights) - 1))
