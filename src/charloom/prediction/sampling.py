"""Sampling: read a prompt, then sample character after character.

V is the number of characters in the vocabulary, B that of a batch's rows. S, L and H are explained
in charloom.network.parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from charloom.engines.decoding import SamplingSettings
from charloom.engines.restrictions import (
    ENDED,
    FREE,
    HEADER,
    ID_BYTES,
    INDEXED,
    MOST,
    NEXT,
    RECENT,
    RUNNING,
    SEEN,
    STARTS,
    STEPS,
    STUCK,
    SUFFIXES,
    Restrictions,
)
from charloom.errors import CharloomError, plural
from charloom.text.typed import ShownText
from charloom.text.unknown import LONGEST_UTF_8

if TYPE_CHECKING:  # a sample without constraints does not need the package `constraints`
    from charloom.constraints.protocol import Constraints
    from charloom.constraints.texts import Texts
    from charloom.engines.protocol import Predictor
    from charloom.network.units import Clamp
    from charloom.text.overlap import TrainingIndex
    from charloom.text.vocabulary import Vocabulary

# Characters sampled in one call, after which stop texts are searched and the text is yielded. The
# first calls are short, so that text appears at once. Later ones are longer, so that the overhead
# of a call does not matter.
FEWEST_AT_ONCE, MOST_AT_ONCE = 16, 256
ATTEMPTS = 100  # of a sample, where a guard and constraints together exclude every character
# `stop` at the end of a document or at a stop text, `length` at the largest length.
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class OverlapGuard:
    """A limit on the characters in a row that a sample can copy from a training text."""

    index: TrainingIndex
    most: int

    @property
    def window(self) -> int:
        """The number of latest ids that are compared with the training text.

        The training text contains nothing longer than itself, so more are never compared.
        """
        return min(self.most, len(self.index) + 1)

    def excluded(self, recent: NDArray[np.integer], end_id: int | None) -> NDArray[np.bool_]:
        """Return which characters, (V,), would copy too much.

        These follow the latest ids in the training text. The end of a document copies no
        character, so it is never excluded.

        Args:
            recent: the latest ids, (window,).
            end_id: the id of the end of a document, if any.
        """
        copied = self.index.followers(recent)
        if end_id is not None:
            copied[end_id] = False
        return copied

    def exclude(
        self, recent: NDArray[np.integer], logits: NDArray[np.floating], end_id: int | None
    ) -> NDArray[np.floating]:
        """Return logits, (..., V), without the characters that would copy too much.

        They are excluded before the choice, so that temperature and top_k act on the rest.

        Args:
            recent: the latest ids, (window,).
            logits: the next character's.
            end_id: the id of the end of a document, if any.
        """
        copied = self.excluded(recent, end_id)
        return np.where(copied, -np.inf, logits).astype(logits.dtype)


class GuardedText:
    """The latest ids of a text under a guard, also as a kernel reads and continues them.

    Args:
        guard: the guard.
        prompt: the ids before the sample, (N,).
        end_id: the id of the end of a document, if any.
    """

    def __init__(
        self, guard: OverlapGuard, prompt: NDArray[np.integer], end_id: int | None
    ) -> None:
        self._guard, self._end_id = guard, end_id
        self._ids = prompt.astype(np.int32)  # with room behind them
        self._count = len(prompt)
        self._next = guard.window  # ids before the next one can copy too much, at least

    def exclude(self, logits: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return logits, (..., V), without the characters that would copy too much."""
        if self._count < self._next:
            return logits
        recent = self._ids[self._count - self._guard.window : self._count]
        copied = self._guard.index.copied(recent)
        self._next = self._count + max(1, len(recent) - copied)
        if copied < len(recent):
            return logits
        return self._guard.exclude(recent, logits, self._end_id)

    def add(self, id_: int) -> None:
        """Continue the text by an id."""
        self._make_room(1)
        self._ids[self._count] = id_
        self._count += 1

    @property
    def suits_kernels(self) -> bool:
        """Return whether a kernel can read the index, which it cannot above 2 GiB of text."""
        return self._guard.index.arrays.starts.dtype == np.int32

    def write(self, row: NDArray[np.int64], count: int) -> None:
        """Write a row's entries for a kernel that samples a number of ids."""
        self._make_room(count + 1)
        text, starts, width = self._guard.index.arrays
        row[INDEXED], row[STARTS] = text.ctypes.data, starts.ctypes.data
        row[SUFFIXES], row[ID_BYTES], row[MOST] = len(starts), width, self._guard.window
        row[FREE] = -1 if self._end_id is None else self._end_id
        row[RECENT] = self._ids.ctypes.data
        row[SEEN], row[NEXT] = self._count, self._next

    def read(self, row: NDArray[np.int64]) -> None:
        """Continue the text as the kernel did."""
        self._count, self._next = int(row[SEEN]), int(row[NEXT])

    def _make_room(self, count: int) -> None:
        """Make room for some ids; of those before, only the ones that are compared are kept."""
        if self._count + count > len(self._ids):
            kept = self._ids[max(0, self._count - self._guard.window) : self._count]
            self._next -= self._count - len(kept)
            self._count = len(kept)
            self._ids = np.zeros(2 * (self._count + count), np.int32)
            self._ids[: self._count] = kept


def read_prompt(
    predictor: Predictor, vocabulary: Vocabulary, prompt: NDArray[np.unsignedinteger]
) -> tuple[int, Any]:
    """Read a prompt's ids, (N,), from a zero state, after the id that begins any text.

    Returns the last id, which is not read yet, and the state before it.
    """
    ids = np.concatenate([[vocabulary.start_id], prompt]).astype(np.intp)
    return int(ids[-1]), predictor.read(ids[:-1, None], predictor.zero_state(1))


def text_after(vocabulary: Vocabulary, prompt: NDArray[np.unsignedinteger]) -> ShownText:
    """Return a decoder of the text after a prompt's ids, (N,), which can end inside a character."""
    shown = ShownText(vocabulary)
    shown.add(vocabulary.decode(prompt[-LONGEST_UTF_8:]))
    return shown


class StopTexts:
    """A filter that passes a sample on up to the first complete stop text."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)
        self._pending = ""  # sampled, but possibly the beginning of a stop text
        self.found = ""  # the stop text that has ended the sample

    @property
    def searched(self) -> bool:
        """Return whether there is any stop text."""
        return bool(self._texts)

    def add(self, sampled: str) -> tuple[str, bool]:
        """Return the text that can be passed on now, and True if a stop text ends it."""
        if not self._texts:
            return sampled, False
        pending = self._pending + sampled
        places = [(pending.find(text), text) for text in self._texts]
        # The first one to be complete counts, whatever the number of characters in a call.
        found = [(place + len(text), place) for place, text in places if place >= 0]
        if found:
            end, begin = min(found)
            self.found = pending[begin:end]
            return pending[:begin], True
        ready = len(pending) - max(_held_back(pending, text) for text in self._texts)
        self._pending = pending[ready:]
        return pending[:ready], False

    def rest(self) -> str:
        """Return the text that is held back, for a sample that has ended without a stop text."""
        return self._pending


@dataclass(frozen=True, eq=False)
class SampleRequest:
    """A sample to take from a predictor.

    Attributes:
        prompt: the ids before the sample, (N,), or None for an empty prompt.
        length: the largest number of characters to sample, or None for no limit.
        settings: temperature and the other settings of sampling.
        stop: texts that end the sample where they appear, and are not part of it. Like the prompt,
            they consist of characters of the model.
        seed: the random seed.
        index: the number of the sample. Each sample of a seed has random numbers of its own, and
            so does not depend on the others.
        clamps: units that are held at a value from the prompt's last character on.
        guard: excludes characters that would copy too much. The copied stretch can begin in the
            prompt.
        constraints: what the sample can consist of, without the prompt.

    Raises:
        CharloomError: for a negative length, seed or index, for an empty stop text, and for
            constraints that no sample of this length can meet.
    """

    prompt: NDArray[np.unsignedinteger] | None = None
    length: int | None = 500
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    stop: tuple[str, ...] = ()
    seed: int = 0
    index: int = 0
    clamps: tuple[Clamp, ...] = ()
    guard: OverlapGuard | None = None
    constraints: Constraints | None = None

    def __post_init__(self) -> None:
        for name in ("length", "seed", "index"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise CharloomError(f"{name} is {number}: pass 0 or more")
        if any(not text for text in self.stop):
            raise CharloomError("a stop text is empty: pass at least one character")
        least = 0 if self.constraints is None else self.constraints.least
        if self.length is not None and self.length < least:
            raise CharloomError(
                f"a sample under these constraints has at least {plural(least, 'character')}, and "
                f"length is {self.length}: pass a larger one"
            )

    def prompt_ids(self, vocabulary: Vocabulary) -> NDArray[np.unsignedinteger]:
        """Return the prompt's ids, (N,)."""
        return np.zeros(0, vocabulary.id_type) if self.prompt is None else self.prompt

    @property
    def attempts(self) -> int:
        """Return how often a sample can begin.

        More than once where guard and constraints together can exclude every character, unless the
        length is unlimited: its text could then never be passed on.
        """
        rules = self.constraints
        if self.guard is None or self.length is None or rules is None or not rules.can_exclude:
            return 1
        return ATTEMPTS

    def generator(self, index: int, attempt: int = 0) -> np.random.Generator:
        """Return the random numbers of a sample by its index, and by the attempt if not the first.

        Guard and constraints together can exclude every character. Then a further attempt is made,
        see `attempts`.
        """
        more = [ATTEMPTS, attempt] if attempt else []
        return np.random.Generator(np.random.PCG64([self.seed, index, *more]))


class TextStream(Iterator[str]):
    """A sample in pieces as it is taken, without its prompt.

    A document ends where its end is sampled, which is not part of the text. A model of bytes
    samples UTF-8, which is decoded: a character appears with its last byte, and invalid bytes are
    shown like `\\xc3`. A character that the largest length cuts is omitted.

    Attributes:
        request: the sample's settings.
        characters: an iterator over the pieces in characters of the model, which are bytes in a
            model of bytes. Use it instead of the stream where nothing must be decoded.
        finish_reason: the reason why the sample has ended, None before that: `stop` at the end of
            a document or at a stop text, `length` at the largest length.
    """

    def __init__(
        self, predictor: Predictor, vocabulary: Vocabulary, request: SampleRequest
    ) -> None:
        self.finish_reason: FinishReason | None = None
        self.request = request
        self._predictor, self._vocabulary = predictor, vocabulary
        self.characters = self._sample()
        self._shown = self._decoded()

    def __next__(self) -> str:
        return next(self._shown)

    def _decoded(self) -> Iterator[str]:
        shown = text_after(self._vocabulary, self.request.prompt_ids(self._vocabulary))
        for piece in self.characters:
            text = shown.add(piece)
            if text:
                yield text
        rest = shown.rest()
        if rest and self.finish_reason != "length":
            yield rest

    def _sample(self) -> Iterator[str]:
        attempts = self.request.attempts
        if attempts == 1:
            yield from self._attempt(0)
            return
        for attempt in range(attempts):
            try:
                pieces = list(self._attempt(attempt))
            except OverlapError:
                if attempt + 1 == attempts:
                    raise
                continue
            yield from pieces
            return

    def _attempt(self, attempt: int) -> Iterator[str]:
        request, vocabulary = self.request, self._vocabulary
        length, guard, end_id = request.length, request.guard, vocabulary.end_id
        generator = request.generator(request.index, attempt)
        prompt = request.prompt_ids(vocabulary)
        last, state = read_prompt(self._predictor, vocabulary, prompt)
        source: Predictor | RestrictedSampler = self._predictor
        restricted = None
        if guard is not None or request.constraints is not None:
            source = restricted = RestrictedSampler(self._predictor, vocabulary, request)
        stops = StopTexts(request.stop)
        sampled = 0
        complete = restricted is not None and restricted.over
        while not complete and (length is None or sampled < length):
            count = min(max(FEWEST_AT_ONCE, sampled), MOST_AT_ONCE)
            if length is not None:
                count = min(count, length - sampled)
            uniforms = generator.random((count, 1))
            found, state = source.generate(
                np.array([last], dtype=np.intp), state, request.settings, uniforms, request.clamps
            )
            ids, ended = _up_to_end(found[:, 0], end_id)
            sampled += len(ids)
            ready, stopped = stops.add(vocabulary.decode(ids))
            if ready:
                yield ready
            if stopped:
                self.finish_reason = "stop"
                return
            if ended:
                break
            if restricted is not None and restricted.over:
                complete = True
            elif guard is not None and len(ids) < count:
                if stops.rest():
                    yield stops.rest()
                raise overlap_error(sampled, guard)
            else:
                last = int(ids[-1])
        if stops.rest():
            yield stops.rest()
        full = length is not None and sampled == length and not complete
        self.finish_reason = "length" if full else "stop"


def stream_text(predictor: Predictor, vocabulary: Vocabulary, request: SampleRequest) -> TextStream:
    """Return a sample as a stream of pieces.

    Raises:
        CharloomError: if the guard excludes every next character. It comes after the text sampled
            so far, or before any text where the request has further `attempts`.
    """
    return TextStream(predictor, vocabulary, request)


class OverlapError(CharloomError):
    """A sample that cannot continue under its guard."""


def overlap_error(sampled: int, guard: OverlapGuard) -> OverlapError:
    """Return the error of a sample that cannot continue under its guard."""
    return OverlapError(
        f"after {plural(sampled, 'character')} of the sample, every next character would copy "
        f"more than {guard.most:,} in a row from the training text: set a larger --max-overlap"
    )


def _up_to_end(ids: NDArray[np.intp], end_id: int | None) -> tuple[NDArray[np.intp], bool]:
    """Return the ids before the end of a document, and True if it is among them."""
    ends = np.flatnonzero(ids == end_id) if end_id is not None else ids[:0]
    return (ids[: ends[0]], True) if len(ends) else (ids, False)


class RestrictedSampler:
    """A predictor that samples under an overlap guard and constraints, in one row.

    Attributes:
        over: whether the constraints have ended the text.
    """

    def __init__(
        self, predictor: Predictor, vocabulary: Vocabulary, request: SampleRequest
    ) -> None:
        self._predictor, self._end_id = predictor, vocabulary.end_id
        self._guarded = None
        if request.guard is not None:
            prompt = request.prompt_ids(vocabulary)
            self._guarded = GuardedText(request.guard, prompt, self._end_id)
        self._text = None
        if request.constraints is not None:
            from charloom.constraints.texts import ConstrainedText

            self._text = ConstrainedText(request.constraints, request.length, self._end_id)

    @property
    def over(self) -> bool:
        return self._text is not None and self._text.over

    def generate(
        self,
        ids: NDArray[np.intp],
        state: Any,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
        clamps: Sequence[Clamp] = (),
    ) -> tuple[NDArray[np.intp], Any]:
        """Sample one row as a predictor does.

        End where the guard excludes every character, where the constraints end the text, or at the
        end of a document.

        Args:
            ids: the last id, (1,), which is not read yet.
            state: the state before it.
            settings: temperature and the other settings of sampling.
            uniforms: a random number for each character, (n, 1).
            clamps: units that are held at a value.

        Returns:
            The sampled ids, (n, 1) or shorter, and the state before the last of them.
        """
        indexed = self._guarded is None or self._guarded.suits_kernels
        if indexed and in_kernel(self._predictor, [self._text]):
            return self._in_kernel(ids, state, settings, uniforms, clamps)
        return self._step_by_step(ids, state, settings, uniforms, clamps)

    def _in_kernel(
        self,
        ids: NDArray[np.intp],
        state: Any,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
        clamps: Sequence[Clamp],
    ) -> tuple[NDArray[np.intp], Any]:
        """Sample as `generate` does in one call of a kernel, which excludes characters itself."""
        from charloom.constraints.texts import generate_restricted

        predictor: Any = self._predictor
        guarded, most = self._guarded, len(uniforms)

        def generate(rules: Restrictions) -> tuple[NDArray[np.intp], Any]:
            nonlocal most
            row = rules[HEADER:]
            if guarded is not None:
                guarded.write(row, len(uniforms))
            found: tuple[NDArray[np.intp], Any] = predictor.generate(
                ids, state, settings, uniforms, clamps, rules
            )
            if guarded is not None:
                guarded.read(row)
                if row[ENDED] == STUCK:
                    most, row[ENDED] = int(row[STEPS]), RUNNING
            return found

        sampled, counts, after = generate_restricted([self._text], generate)
        count = min(int(counts[0]), most)
        if self._text is not None and self._text.ends_before_last:
            count -= 1
        return _through_end(sampled[:count], self._end_id)[0], after

    def _step_by_step(
        self,
        ids: NDArray[np.intp],
        state: Any,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
        clamps: Sequence[Clamp],
    ) -> tuple[NDArray[np.intp], Any]:
        """Sample as `generate` does, each character from the logits of a step."""
        from charloom.constraints.texts import choose_next, restrict

        sampled = np.empty(uniforms.shape, np.intp)
        for count, numbers in enumerate(uniforms):
            logits, after = self._predictor.step(ids, state, clamps)
            logits = restrict([self._text], logits)
            if self._guarded is not None:
                logits = self._guarded.exclude(logits)
                if not (logits > -np.inf).any():
                    return sampled[:count], state
            ids = sampled[count] = choose_next([self._text], logits, settings, numbers)
            if self._text is not None and self._text.ends_before_last:
                return sampled[:count], state
            if self.over or int(ids[0]) == self._end_id:
                return sampled[: count + 1], state
            if self._guarded is not None:
                self._guarded.add(int(ids[0]))
            state = after
        return sampled, state


def in_kernel(predictor: Predictor, texts: Texts) -> bool:
    """Return whether a predictor's `generate` can restrict the texts."""
    from charloom.constraints.texts import are_regular

    return bool(getattr(predictor, "takes_restrictions", False)) and are_regular(texts)


def _through_end(ids: NDArray[np.intp], end_id: int | None) -> tuple[NDArray[np.intp], bool]:
    """Return ids (n, 1) up to the end of a document, and True if it is among them."""
    ends = np.flatnonzero(ids[:, 0] == end_id) if end_id is not None else ids[:0]
    return (ids[: ends[0] + 1], True) if len(ends) else (ids, False)


def _held_back(text: str, stop: str) -> int:
    """Return the length of the longest end of the text with which the stop text begins."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
