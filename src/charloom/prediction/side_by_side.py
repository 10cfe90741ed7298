"""Sample many texts side by side, in the rows of one batch.

A row whose text has ended begins the next one at once, so that every row is always in use. A text
depends on its seed and index only, not on the other rows: it is the text that
`charloom.prediction.sampling.stream_text` samples.

V is the number of characters in the vocabulary, B that of the batch's rows, C that of the
characters that a row has memory for.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.rows import ConstrainedRows, constrained_rows
from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError, plural
from charloom.network.parameters import ModelConfig
from charloom.prediction.rows import put_rows, rows_of
from charloom.prediction.sampling import (
    FinishReason,
    GuardedText,
    SampleRequest,
    overlap_error,
    read_prompt,
    text_after,
)
from charloom.prediction.unseen import UnseenCharacters
from charloom.text.document_set import DocumentSet
from charloom.text.vocabulary import Vocabulary

FEWEST_ROWS, MOST_ROWS = 16, 512
MULTIPLICATIONS = 1e8  # of a step of all rows, at most: further rows make it no more efficient
NUMBERS = 1 << 22  # that a step of all rows holds, which bounds its memory
RANDOM_NUMBERS = 32  # of a row, which are taken at once
# Samples among which distinct or new documents are searched.
FEWEST_SEARCHED, SEARCHED_FOR_EACH = 1_000, 20
ROW_ARRAYS = ("_index", "_attempt", "_uniforms", "_ids", "_log_p", "_sampled", "_last")
SAMPLED_FOR_EXACT = 10_000  # samples for each that is accepted, at most
LEAST_ALLOWED = 1e-200  # probability of the allowed characters, for a sum of the model's
MOST_WAITING = 100_000  # texts that have ended while an earlier one has not


@dataclass(frozen=True)
class SampledDocument:
    """A sample with the reason of its end.

    Attributes:
        text: the prompt and the sample, as `LanguageModel.sample` returns it.
        log_probability: the model's natural log-probability of the text with its prompt, as
            `LanguageModel.score` returns it. That of a document which has ended includes its end.
            Settings such as the temperature do not change it.
        conditioned_log_probability: the natural log-probability of the sample without its prompt,
            renormalized over the characters that the constraints allow at each step, with their
            bias; None without constraints.
        log_allowed: the natural logarithm of the probability that the model gives to the allowed
            characters, multiplied over all steps; None without constraints.
        finish_reason: `stop` at the end of the document or at a stop text, `length` at the largest
            length.
        seed: the random seed.
        index: the number of the sample under that seed.
        characters: the sample without the prompt in characters of the model, which are bytes in a
            model of bytes.
    """

    text: str
    log_probability: float
    finish_reason: FinishReason
    seed: int
    index: int
    characters: str = field(repr=False)
    conditioned_log_probability: float | None = None
    log_allowed: float | None = None


def rows_for(config: ModelConfig, count: int) -> int:
    """Return the number of rows in which to sample `count` texts."""
    by_work = int(MULTIPLICATIONS / config.parameter_count)
    by_memory = NUMBERS // config.numbers_per_position
    return max(1, min(max(by_work, FEWEST_ROWS), by_memory, MOST_ROWS, count))


def sample_side_by_side(
    predictor: Predictor,
    vocabulary: Vocabulary,
    request: SampleRequest,
    indices: Iterable[int],
    rows: int,
    *,
    prompt_text: str = "",
    unseen: UnseenCharacters | None = None,
) -> Iterator[SampledDocument]:
    """Yield the samples of some indices in their order, each as soon as those before it have ended.

    Args:
        predictor: the model.
        vocabulary: its characters.
        request: the samples, whose `index` has no effect.
        indices: the numbers of the samples under the request's seed.
        rows: the number of samples that are taken at a time, B.
        prompt_text: the prompt as the user passed it, with which each text begins.
        unseen: the share of unknown characters, which reduces every log-probability.

    Raises:
        CharloomError: in the place of the first sample whose guard excludes every next character.
    """
    remaining = iter(indices)
    batch: _Batch | None = None
    order: deque[int] = deque()  # begun, and not yielded yet
    ended: dict[int, SampledDocument | CharloomError] = {}
    idle = list(range(rows))
    exhausted = False
    while True:
        begun: list[tuple[int, int]] = []
        while idle and not exhausted and len(order) < MOST_WAITING:
            index = next(remaining, None)
            if index is None:
                exhausted = True
            else:
                order.append(index)
                begun.append((idle.pop(), index))
        if batch is None:
            if not begun:
                return
            batch = _Batch(predictor, vocabulary, request, rows, prompt_text, unseen)
        batch.begin(begun)
        if exhausted and 2 * len(idle) >= batch.rows:
            idle = batch.drop(idle)
        for row, index, result in batch.step():
            ended[index] = result
            idle.append(row)
        while order and order[0] in ended:
            result = ended.pop(order.popleft())
            if isinstance(result, CharloomError):
                raise result
            yield result
        if exhausted and not order:
            return


def searched_for(count: int) -> int:
    """Return the number of samples among which n distinct or new documents are searched."""
    return max(FEWEST_SEARCHED, SEARCHED_FOR_EACH * count)


def sample_documents(
    predictor: Predictor,
    vocabulary: Vocabulary,
    request: SampleRequest,
    count: int,
    *,
    unique: bool = False,
    known: DocumentSet | None = None,
    min_length: int | None = None,
    exact: bool = False,
    prompt_text: str = "",
    unseen: UnseenCharacters | None = None,
) -> Iterator[SampledDocument]:
    """Return an iterator over n samples, from the request's index on.

    With `exact`, they are accepted by rejection, see `_accepted`. They are chosen as in
    `choose_documents` if they must be distinct, new or long enough. The other
    arguments are those of `sample_side_by_side`.

    Raises:
        CharloomError: if a sample has no end, or `min_length` is invalid.
    """
    ends = request.constraints is not None and request.constraints.end_ids
    if request.length is None and vocabulary.end_id is None and not (request.stop or ends):
        raise CharloomError(
            "length is unlimited, but a sample of a single text has no end: pass a length or a "
            "stop text"
        )
    if min_length is not None:
        most = min_length if request.length is None else request.length
        if not 1 <= min_length <= most:
            raise CharloomError(
                f"min_length is {min_length}: pass at least 1, and at most the length of a sample"
            )
    searches = unique or known is not None or min_length is not None
    if exact:
        _check_exact(request)
    first = request.index
    most = searched_for(count) if searches else count
    documents = sample_side_by_side(
        predictor,
        vocabulary,
        request,
        range(first, first + most * (SAMPLED_FOR_EXACT if exact else 1)),
        rows_for(predictor.config, MOST_ROWS if exact else 2 * count if searches else count),
        prompt_text=prompt_text,
        unseen=unseen,
    )
    if exact:
        documents = _accepted(documents, most)
    if not searches:
        return documents
    prompt = vocabulary.decode(request.prompt_ids(vocabulary))
    return choose_documents(
        documents, count, unique=unique, known=known, prompt=prompt, min_length=min_length or 0
    )


def _check_exact(request: SampleRequest) -> None:
    rules = request.constraints
    if rules is None or rules.constraint is None or rules.bias is not None:
        raise CharloomError(
            "exact requires a constraint and excludes bias: add --match, or omit it"
        )
    if request.settings != SamplingSettings() or request.stop or request.guard is not None:
        raise CharloomError(
            "exact weighs texts by the model's own probabilities: omit temperature, top_k, top_p, "
            "min_p, stop and max_overlap"
        )


def _accepted(documents: Iterator[SampledDocument], count: int) -> Iterator[SampledDocument]:
    """Yield the first n documents that are accepted by rejection sampling.

    A document is sampled with its probability divided by that of the allowed characters at all
    steps, which is at most 1. Accepted with the latter probability, every document that meets the
    constraints has the model's own probability, up to one factor for all.

    Raises:
        CharloomError: at the end, if fewer were accepted.
    """
    found = sampled = 0
    for document in documents:
        sampled += 1
        generator = np.random.Generator(np.random.PCG64([document.seed, document.index, 1]))
        if generator.random() >= math.exp(min(0.0, document.log_allowed or 0.0)):
            continue
        yield document
        found += 1
        if found == count:
            return
    raise CharloomError(
        f"only {found:,} of {sampled:,} samples were accepted, because the model seldom meets the "
        "constraints by itself: omit --exact, or constrain less"
    )


def choose_documents(
    documents: Iterator[SampledDocument],
    count: int,
    unique: bool,
    known: DocumentSet | None,
    prompt: str = "",
    min_length: int = 0,
) -> Iterator[SampledDocument]:
    """Yield the first n documents that are distinct, new or long enough.

    Args:
        documents: the samples in their order.
        count: the number of documents, n.
        unique: whether they must differ from each other.
        known: documents from which they must differ, if any.
        prompt: the characters of the model with which each begins.
        min_length: the smallest number of characters after the prompt.

    Raises:
        CharloomError: at the end, if no document was found.
    """
    seen: set[str] = set()
    found = searched = 0
    for document in documents:
        searched += 1
        if len(document.characters) < min_length:
            continue
        text = prompt + document.characters
        if known is not None and (not text or text in known):
            continue
        if unique and text in seen:
            continue
        if unique:
            seen.add(text)
        yield document
        found += 1
        if found == count:
            return
    if not found:
        wanted = "is a document" if known is None else "is a new document"
        if min_length:
            wanted += f" of at least {plural(min_length, 'character')}"
        raise CharloomError(
            f"none of {searched:,} samples {wanted}: raise --temperature, or set another --seed"
        )


class _Batch:
    """The rows of a batch, each of which samples a text."""

    def __init__(
        self,
        predictor: Predictor,
        vocabulary: Vocabulary,
        request: SampleRequest,
        rows: int,
        prompt_text: str,
        unseen: UnseenCharacters | None,
    ) -> None:
        self._predictor, self._vocabulary, self._request = predictor, vocabulary, request
        self._end_id = vocabulary.end_id
        prompt = request.prompt_ids(vocabulary)
        self._first, self._start = read_prompt(predictor, vocabulary, prompt)
        self._prompt = prompt.astype(np.intp)
        self._prompt_text = prompt_text
        self._log_known = 0.0 if unseen is None else unseen.log_known  # of each symbol
        self._prompt_log_p = _score_prompt(predictor, vocabulary, self._prompt)
        self._stops = [
            stop
            for stop in map(vocabulary.ids_or_minus_one, request.stop)
            if stop.min() >= 0  # A text with an unknown character is never sampled.
        ]
        self._ends_a_stop = np.zeros(len(vocabulary), dtype=bool)  # (V,)
        self._ends_a_stop[[int(stop[-1]) for stop in self._stops]] = True
        self._index = np.full(rows, -1)  # (B,), -1 for a row without a text
        self._attempt = np.zeros(rows, np.intp)  # (B,) the number of each text's attempt
        self._generators: list[np.random.Generator | None] = [None] * rows
        self._copies: list[GuardedText | None] = [None] * rows
        self._texts: ConstrainedRows | None = None
        if request.constraints is not None:
            self._texts = constrained_rows(request.constraints, request.length, self._end_id, rows)
        self._conditioned = np.zeros(rows)  # (B,) log-probability of each sample as conditioned
        self._allowed = np.zeros(rows)  # (B,) of the characters that were allowed
        self._uniforms = np.zeros((rows, RANDOM_NUMBERS))
        self._ids = np.zeros((rows, 2 * RANDOM_NUMBERS), np.intp)  # (B, C)
        self._log_p = np.zeros(self._ids.shape)  # (B, C) of each sampled id
        self._sampled = np.zeros(rows, np.intp)  # (B,) characters of each row
        self._last = np.full(rows, self._first, np.intp)  # (B,)
        self._state = rows_of(self._start, [0] * rows)

    @property
    def rows(self) -> int:
        return len(self._index)

    def begin(self, texts: list[tuple[int, int]], attempt: int = 0) -> None:
        """Begin texts, each a row and an index."""
        if not texts:
            return
        rows = [row for row, _ in texts]
        self._attempt[rows] = attempt
        for row, index in texts:
            generator = self._request.generator(index, attempt)
            self._generators[row], self._index[row] = generator, index
            if self._request.guard is not None:
                self._copies[row] = GuardedText(self._request.guard, self._prompt, self._end_id)
            self._uniforms[row] = generator.random(RANDOM_NUMBERS)
        if self._texts is not None:
            self._texts.begin(rows)
        self._sampled[rows] = 0
        self._conditioned[rows] = self._allowed[rows] = 0
        self._last[rows] = self._first
        put_rows(self._state, rows, self._start)

    def drop(self, idle: list[int]) -> list[int]:
        """Remove rows without a text, unless all are, and return the idle rows that remain."""
        keep = np.flatnonzero(self._index >= 0)
        if not len(keep) or not idle:
            return idle
        self._generators = [self._generators[row] for row in keep]
        self._copies = [self._copies[row] for row in keep]
        if self._texts is not None:
            self._texts.keep(keep)
        for name in (*ROW_ARRAYS, "_conditioned", "_allowed"):
            setattr(self, name, getattr(self, name)[keep])
        self._state = rows_of(self._state, keep.tolist())
        return []

    def step(self) -> list[tuple[int, int, SampledDocument | CharloomError]]:
        """Sample a character of every row, and return the texts that have ended.

        Each is a row, its index and the result.
        """
        request, rows = self._request, np.arange(self.rows)
        if request.length == 0:
            return self._collect(rows[self._index >= 0])
        texts = self._texts
        if texts is not None and texts.over.any():  # since the constraints allow only the empty one
            return self._collect(np.flatnonzero(texts.over))
        uniforms = self._uniforms[rows, self._sampled % RANDOM_NUMBERS]
        logits, self._state = self._predictor.step(self._last, self._state, request.clamps)
        allowed = logits if texts is None else texts.restrict(logits)
        failed: list[int] = []
        if request.guard is not None:
            allowed, failed = self._guarded(allowed)
        with np.errstate(all="ignore"):  # The largest weights can overflow.
            if texts is None:
                ids = choose(allowed, request.settings, uniforms)
            else:
                ids = texts.choose(allowed, request.settings, uniforms)
            rules = request.constraints
            biased = rules is not None and rules.bias is not None
            log_p, conditioned = _log_p_of(logits, ids, None if texts is None else allowed, biased)
            if conditioned is not None:
                self._conditioned += conditioned
                self._allowed += log_p - conditioned
        self._ids[rows, self._sampled] = ids
        self._log_p[rows, self._sampled] = log_p
        self._sampled += 1
        self._last = ids
        over = self._ends_a_stop[ids]
        if self._end_id is not None:
            over |= ids == self._end_id
        if request.length is not None:
            over |= self._sampled >= request.length
        over[failed] = True
        if texts is not None:
            over |= texts.over
        ended = self._collect(rows[over & (self._index >= 0)], failed)
        self._sampled[self._index < 0] = 0
        self._prepare()
        return ended

    def _guarded(self, logits: NDArray[np.floating]) -> tuple[NDArray[np.floating], list[int]]:
        """Exclude characters by the guard; return the logits, and the rows without any left."""
        allowed, failed = logits.copy(), []
        for row in np.flatnonzero(self._index >= 0):
            text = self._copies[row]
            assert text is not None
            if self._sampled[row]:
                text.add(int(self._last[row]))
            own = allowed[row]
            found = text.exclude(own)
            if found is own:
                continue
            if (found > -np.inf).any():
                allowed[row] = found
            else:
                failed.append(int(row))
        return allowed, failed

    def _collect(
        self, rows: NDArray[np.intp], failed: Iterable[int] = ()
    ) -> list[tuple[int, int, SampledDocument | CharloomError]]:
        """Return the texts that have ended among some rows, and make those rows idle."""
        ended: list[tuple[int, int, SampledDocument | CharloomError]] = []
        for row in rows.tolist():
            result: SampledDocument | CharloomError | None
            if row in failed:
                assert self._request.guard is not None
                attempt = int(self._attempt[row]) + 1
                if attempt < self._request.attempts:
                    self.begin([(row, int(self._index[row]))], attempt)
                    continue
                result = overlap_error(int(self._sampled[row]) - 1, self._request.guard)
            else:
                result = self._result(row)
            if result is not None:
                ended.append((row, int(self._index[row]), result))
                self._index[row] = -1
                if self._texts is not None:
                    self._texts.end(row)
        return ended

    def _result(self, row: int) -> SampledDocument | None:
        """Return the text of a row, None if it has not ended."""
        count = int(self._sampled[row])
        text = scored = count  # ids of the text, and of its log-probability
        reason: FinishReason = "stop"
        texts = self._texts
        if texts is not None and texts.ends_before_last[row]:
            text -= 1
            scored -= int(self._ids[row, text] != self._end_id)
        elif texts is not None and texts.over[row]:
            pass
        elif count and self._ids[row, count - 1] == self._end_id:
            text -= 1
        elif stopped := self._length_of_stop(row):
            text = scored = count - stopped
        elif count == self._request.length:
            reason = "length"
        else:
            return None
        characters = self._vocabulary.decode(self._ids[row, :text])
        return SampledDocument(
            self._prompt_text + self._shown(characters, reason),
            self._prompt_log_p
            + float(self._log_p[row, :scored].sum())
            + (len(self._prompt) + scored) * self._log_known,
            reason,
            self._request.seed,
            int(self._index[row]),
            characters,
            None if texts is None else float(self._conditioned[row]),
            None if texts is None else float(self._allowed[row]),
        )

    def _shown(self, characters: str, reason: FinishReason) -> str:
        """Return the characters of a sample as text, like `TextStream`."""
        decoder = text_after(self._vocabulary, self._request.prompt_ids(self._vocabulary))
        shown = decoder.add(characters)
        return shown if reason == "length" else shown + decoder.rest()

    def _length_of_stop(self, row: int) -> int:
        """Return the length of the longest stop text that a row ends with, 0 without one."""
        ids = self._ids[row, : self._sampled[row]]
        lengths = (
            len(stop)
            for stop in self._stops
            if len(stop) <= len(ids) and np.array_equal(ids[len(ids) - len(stop) :], stop)
        )
        return max(lengths, default=0)

    def _prepare(self) -> None:
        """Make room for the next character of every row, and take its random numbers."""
        capacity = self._ids.shape[1]
        if self._sampled.max() == capacity:
            self._ids = np.pad(self._ids, ((0, 0), (0, capacity)))
            self._log_p = np.pad(self._log_p, ((0, 0), (0, capacity)))
        for row in np.flatnonzero((self._sampled % RANDOM_NUMBERS == 0) & (self._sampled > 0)):
            generator = self._generators[row]
            assert generator is not None
            self._uniforms[row] = generator.random(RANDOM_NUMBERS)


def _log_p_of(
    logits: NDArray[np.floating],
    ids: NDArray[np.intp],
    allowed: NDArray[np.floating] | None,
    biased: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return the natural log-probability, (B,), of an id in each row of logits, (B, V).

    Args:
        logits: the model's.
        ids: an id for each row, (B,).
        allowed: the logits from which they were chosen, if these differ, (B, V).
        biased: whether they differ in more than −∞ for excluded characters.

    Returns:
        The model's log-probabilities, and those of the choice, None if `allowed` is.
    """
    rows = np.arange(len(ids))
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    p = np.exp(x)
    chosen = x[rows, ids]
    own = np.asarray(chosen - np.log(p.sum(axis=1)))
    if allowed is None:
        return own, None
    p *= allowed > -np.inf
    total = p.sum(axis=1)
    conditioned = np.asarray(chosen - np.log(total))
    # Where only improbable characters are allowed, their sum has lost its precision.
    again = rows if biased else np.flatnonzero(~(total > LEAST_ALLOWED))
    if len(again):
        choice = allowed[again].astype(np.float64)
        choice -= choice.max(axis=1, keepdims=True)
        chosen = choice[np.arange(len(again)), ids[again]]
        conditioned[again] = chosen - np.log(np.exp(choice).sum(axis=1))
    return own, conditioned


def _score_prompt(predictor: Predictor, vocabulary: Vocabulary, prompt: NDArray[np.intp]) -> float:
    """Return the natural log-probability of a prompt, (N,), from the beginning of a text."""
    at_once = max(1, NUMBERS // predictor.config.numbers_per_position)
    inputs = np.concatenate([[vocabulary.start_id], prompt]).astype(np.intp)
    state, total = predictor.zero_state(1), 0.0
    with np.errstate(all="ignore"):
        for begin in range(0, len(prompt), at_once):
            targets = prompt[begin : begin + at_once]
            read = inputs[begin : begin + len(targets), None]
            log_p, state = predictor.log_probabilities(read, state)
            total += float(log_p[np.arange(len(targets)), 0, targets].sum(dtype=np.float64))
    return total
