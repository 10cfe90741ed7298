"""Sampling: read a prompt, then sample character after character.

V is the number of characters in the vocabulary, B that of a batch's rows. S, L and H are explained
in charloom.network.parameters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, eq=False)
class SampleRequest:
    """A sample to take from a predictor.

    Attributes:
        prompt: the ids before the sample, (N,), or None for an empty prompt.
        length: characters to sample, or None for a sample without an end.
        settings: temperature and the other settings of sampling.
        stop: texts that end the sample where they appear, and are not part of it.
        seed: the random seed.
        index: the number of the sample. Each sample of a seed has random numbers of its own, and
            so does not depend on the others.
        clamps: units that are held at a value from the prompt's last character on.
        guard: excludes characters that would copy too much. The copied stretch can begin in the
            prompt.

    Raises:
        CharloomError: for a negative length, seed or index, and for an empty stop text.
    """

    prompt: NDArray[np.unsignedinteger] | None = None
    length: int | None = 500
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    stop: tuple[str, ...] = ()
    seed: int = 0
    index: int = 0
    clamps: tuple[Clamp, ...] = ()
    guard: OverlapGuard | None = None

    def __post_init__(self) -> None:
        for name in ("length", "seed", "index"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise CharloomError(f"{name} is {number}: pass 0 or more")
        if any(not text for text in self.stop):
            raise CharloomError("a stop text is empty: pass at least one character")


def stream_text(
    predictor: Predictor, vocabulary: Vocabulary, request: SampleRequest
) -> Iterator[str]:
    """Yield a sample in pieces as it is taken, without its prompt.

    Raises:
        CharloomError: after the text sampled so far, if the guard excludes every next character.
    """
    length, guard = request.length, request.guard
    prompt = np.zeros(0, vocabulary.id_type) if request.prompt is None else request.prompt
    generator = np.random.Generator(np.random.PCG64([request.seed, request.index]))
    last, state = read_prompt(predictor, vocabulary, prompt)
    source = predictor if guard is None else GuardedSampler(predictor, guard, prompt)
    stops = StopTexts(request.stop)
    sampled = 0
    while length is None or sampled < length:
        count = min(max(FEWEST_AT_ONCE, sampled), MOST_AT_ONCE)
        if length is not None:
            count = min(count, length - sampled)
        uniforms = generator.random((count, 1))
        ids, state = source.generate(
            np.array([last], dtype=np.intp), state, request.settings, uniforms, request.clamps
        )
        sampled += len(ids)
        ready, ended = stops.add(vocabulary.decode(ids[:, 0]))
        if ready:
            yield ready
        if ended:
            return
        if guard is not None and len(ids) < count:
            if stops.rest():
                yield stops.rest()
            raise CharloomError(
                f"after {sampled:,} characters of the sample, every next character would copy more "
                f"than {guard.most:,} in a row from the training text: set a larger --max-overlap"
            )
        last = int(ids[-1, 0])
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
