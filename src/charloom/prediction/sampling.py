"""Sampling: read a prompt, then sample character after character.

V is the number of characters in the vocabulary, B that of a batch's rows. S, L and H are explained
in charloom.network.parameters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError
from charloom.network.units import Clamp
from charloom.text.overlap import TrainingIndex
from charloom.text.vocabulary import Vocabulary

# Characters sampled in one call, after which stop texts are searched and the text is yielded. The
# first calls are short, so that text appears at once. Later ones are longer, so that the overhead
# of a call does not matter.
FEWEST_AT_ONCE, MOST_AT_ONCE = 16, 256


@dataclass(frozen=True)
class OverlapGuard:
    """A limit on the characters in a row that a sample can copy from a training text."""

    index: TrainingIndex
    most: int


def read_prompt(
    predictor: Predictor, vocabulary: Vocabulary, prompt: NDArray[np.unsignedinteger]
) -> tuple[int, Any]:
    """Read a prompt's ids, (N,), from a zero state, after a newline as at the start of any text.

    Returns the last id, which is not read yet, and the state before it.
    """
    ids = np.concatenate([[vocabulary.start_id], prompt]).astype(np.intp)
    return int(ids[-1]), predictor.read(ids[:-1, None], predictor.zero_state(1))


class StopTexts:
    """A filter that passes a sample on up to the first complete stop text."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)
        self._pending = ""  # sampled, but possibly the beginning of a stop text

    def add(self, sampled: str) -> tuple[str, bool]:
        """Return the text that can be passed on now, and True if a stop text ends it."""
        if not self._texts:
            return sampled, False
        pending = self._pending + sampled
        places = [(pending.find(text), text) for text in self._texts]
        # The first one to be complete counts, whatever the number of characters in a call.
        found = [(place + len(text), place) for place, text in places if place >= 0]
        if found:
            return pending[: min(found)[1]], True
        ready = len(pending) - max(_held_back(pending, text) for text in self._texts)
        self._pending = pending[ready:]
        return pending[:ready], False

    def rest(self) -> str:
        """Return the text that is held back, for a sample that has ended without a stop text."""
        return self._pending


# Ten parameters, because each option of a sample is a keyword with a default of its own.
def stream_text(
    predictor: Predictor,
    vocabulary: Vocabulary,
    *,
    prompt: NDArray[np.unsignedinteger] | None = None,
    length: int | None = 500,
    settings: SamplingSettings | None = None,
    stop: Sequence[str] = (),
    seed: int = 0,
    index: int = 0,
    clamps: Sequence[Clamp] = (),
    guard: OverlapGuard | None = None,
) -> Iterator[str]:
    """Sample the text after a prompt, and yield it in pieces, without the prompt itself.

    Args:
        predictor: the model.
        vocabulary: its characters.
        prompt: ids, (N,).
        length: characters to sample, or None for a sample without an end.
        settings: temperature and the other settings of sampling.
        stop: texts that end the sample where they appear. They are not yielded.
        seed: the random seed.
        index: the number of the sample. Each sample of a seed has random numbers of its own, and
            so does not depend on the others.
        clamps: units that are held at a value from the prompt's last character on.
        guard: excludes characters that would copy too much. The copied stretch can begin in the
            prompt.

    Raises:
        CharloomError: for a negative length, seed or index and an empty stop text. Also, after the
            text sampled so far, if the guard excludes every character.
    """
    if length is not None and length < 0:
        raise CharloomError(f"length is {length}: pass 0 or more")
    for name, number in (("seed", seed), ("index", index)):
        if number < 0:
            raise CharloomError(f"{name} is {number}: pass 0 or more")
    if any(not text for text in stop):
        raise CharloomError("a stop text is empty: pass at least one character")

    def pieces() -> Iterator[str]:  # A generator, so that the prompt is read with the first piece.
        ids = np.zeros(0, vocabulary.id_type) if prompt is None else prompt
        sampler = _Sampler(
            predictor, vocabulary, ids, settings or SamplingSettings(), tuple(clamps), guard
        )
        generator = np.random.Generator(np.random.PCG64([seed, index]))
        yield from _pieces(sampler, generator, length, StopTexts(stop))

    return pieces()


class _Sampler:
    """The state of one sample, which is advanced by a number of characters at a time."""

    def __init__(
        self,
        predictor: Predictor,
        vocabulary: Vocabulary,
        prompt: NDArray[np.unsignedinteger],
        settings: SamplingSettings,
        clamps: tuple[Clamp, ...],
        guard: OverlapGuard | None,
    ) -> None:
        self._vocabulary, self._settings, self._clamps = vocabulary, settings, clamps
        self._last, self._state = read_prompt(predictor, vocabulary, prompt)
        self._source = predictor if guard is None else GuardedSampler(predictor, guard, prompt)
        self.guard = guard

    def sample(self, uniforms: NDArray[np.float64]) -> str:
        """Sample one character for each random number, (n, 1), or fewer if the guard ends it."""
        ids, self._state = self._source.generate(
            np.array([self._last], dtype=np.intp),
            self._state,
            self._settings,
            uniforms,
            self._clamps,
        )
        if len(ids):
            self._last = int(ids[-1, 0])
        return self._vocabulary.decode(ids[:, 0])


def _pieces(
    sampler: _Sampler, generator: np.random.Generator, length: int | None, stops: StopTexts
) -> Iterator[str]:
    sampled = 0
    while length is None or sampled < length:
        count = min(max(FEWEST_AT_ONCE, sampled), MOST_AT_ONCE)
        if length is not None:
            count = min(count, length - sampled)
        text = sampler.sample(generator.random((count, 1)))
        sampled += len(text)
        ready, ended = stops.add(text)
        if ready:
            yield ready
        if ended:
            return
        if sampler.guard is not None and len(text) < count:
            if stops.rest():
                yield stops.rest()
            raise CharloomError(
                f"after {sampled:,} characters of the sample, every next character would copy more "
                f"than {sampler.guard.most:,} in a row from the training text: set a larger "
                "--max-overlap"
            )
    if stops.rest():
        yield stops.rest()


class GuardedSampler:
    """A predictor that samples under an overlap guard, and keeps the latest ids for it."""

    def __init__(
        self, predictor: Predictor, guard: OverlapGuard, prompt: NDArray[np.unsignedinteger]
    ) -> None:
        self._predictor, self._index = predictor, guard.index
        # The training text contains nothing longer than itself, so more ids are never compared.
        self._recent = deque((int(id_) for id_ in prompt), min(guard.most, len(guard.index) + 1))

    def generate(
        self,
        ids: NDArray[np.intp],
        state: Any,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
        clamps: Sequence[Clamp] = (),
    ) -> tuple[NDArray[np.intp], Any]:
        """Sample one row as a predictor does, and end where the guard excludes every character.

        Args:
            ids: the last id, (1,), which is not read yet.
            state: the state before it.
            settings: temperature and the other settings of sampling.
            uniforms: a random number for each character, (n, 1).
            clamps: units that are held at a value.

        Returns:
            The sampled ids, (n, 1) or shorter, and the state before the last of them.
        """
        sampled = np.empty(uniforms.shape, np.intp)
        for count, numbers in enumerate(uniforms):
            logits, after = self._predictor.step(ids, state, clamps)
            if len(self._recent) == self._recent.maxlen:
                copied = self._index.followers(np.array(self._recent))
                # Excluded before the choice, so that temperature and top_k act on the rest.
                logits = np.where(copied, -np.inf, logits).astype(logits.dtype)
                if not (logits > -np.inf).any():
                    return sampled[:count], state
            ids = sampled[count] = choose(logits, settings, numbers)
            self._recent.append(int(ids[0]))
            state = after
        return sampled, state


def _held_back(text: str, stop: str) -> int:
    """Return the length of the longest end of the text with which the stop text begins."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
