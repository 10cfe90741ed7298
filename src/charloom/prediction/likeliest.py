"""The likeliest texts: completions of a prompt by beam search, and texts for blanks.

V is the number of characters in the vocabulary, B that of the texts that are continued together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Blank:
    """A blank, and the text after it up to the next one.

    Attributes:
        constraints: the texts that can fill it.
        length: the largest number of its characters.
        following: the ids of the text after it, (N,).
    """

    constraints: Constraints
    length: int
    following: NDArray[np.unsignedinteger]


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
    estimation", 1993), so that the text after a blank decides too.

    Args:
        predictor: the model.
        vocabulary: its characters.
        before: the ids of the text before the first blank, (N,).
        blanks: the blanks in their order.
        rows: the number of rows, B.
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
        texts, log_model, log_sampled, lasts, state = _sample_blank(
            predictor, vocabulary, blank, lasts, state, generator
        )
        for id_ in blank.following.tolist():
            logits, state = predictor.step(lasts, state)
            log_model += _normalized(logits)[:, id_]
            lasts = np.full(rows, id_, np.intp)
        total += log_model
        filled = [(*parts, text) for parts, text in zip(filled, texts, strict=True)]
        weights = np.exp((log_model - log_sampled) - (log_model - log_sampled).max())
        chosen = _resample(weights, generator)
        lasts, total, state = lasts[chosen], total[chosen], rows_of(state, chosen.tolist())
        filled = [filled[row] for row in chosen]
    found = dict(zip(filled, total.tolist(), strict=True))
    return sorted(((value, parts) for parts, value in found.items()), reverse=True)


def _sample_blank(
    predictor: Predictor,
    vocabulary: Vocabulary,
    blank: Blank,
    lasts: NDArray[np.intp],
    state: Any,
    generator: np.random.Generator,
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64], NDArray[np.intp], Any]:
    """Sample a text for a blank in every row.

    Returns:
        The texts, their log-probabilities by the model and as they were sampled, (B,), the last
        ids, (B,), and the state before them.
    """
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
    return decoded, log_model, log_sampled, lasts, join_states(parts)


def _resample(weights: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.intp]:
    """Return rows in proportion to their weights, (B,), by systematic resampling."""
    count = len(weights)
    places = (np.arange(count) + generator.random()) / count
    running = np.cumsum(weights) / weights.sum()
    return np.asarray(np.minimum(np.searchsorted(running, places, side="right"), count - 1))
