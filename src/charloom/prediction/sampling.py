"""Sample text after a prompt, one character after another.

V: characters in the vocabulary; B: rows of a batch.
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

# Characters that one call of the engine samples, at first and at most. The first calls are short so
# that text appears at once. The later ones are longer, so that the cost of a call is negligible.
FIRST_DRAWN, MOST_DRAWN = 16, 256


@dataclass(frozen=True)
class OverlapGuard:
    """A limit of `most` consecutive characters that a sample can copy from a training text."""

    index: TrainingIndex
    most: int


def read_prompt(
    predictor: Predictor, vocabulary: Vocabulary, prompt: NDArray[np.unsignedinteger]
) -> tuple[int, Any]:
    """Read a newline and a prompt's ids, (N,), from a zero state.

    Returns:
        The last id, which has not been read yet, and the state before it.
    """
    ids = np.concatenate([[vocabulary.start_id], prompt]).astype(np.intp)
    return int(ids[-1]), predictor.read(ids[:-1, None], predictor.zero_state(1))


class StopTexts:
    """A filter that passes sampled text on, up to the first complete stop text."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)
        self._pending = ""  # sampled, but possibly the beginning of a stop text

    def add(self, drawn: str) -> tuple[str, bool]:
        """Add sampled text; return the text to pass on, and whether a stop text ends it."""
        if not self._texts:
            return drawn, False
        pending = self._pending + drawn
        places = [(pending.find(text), text) for text in self._texts]
        # The earliest end wins, so that the result does not depend on the size of the pieces.
        found = [(place + len(text), place) for place, text in places if place >= 0]
        if found:
            return pending[: min(found)[1]], True
        ready = len(pending) - max(_held_back(pending, text) for text in self._texts)
        self._pending = pending[ready:]
        return pending[:ready], False

    def rest(self) -> str:
        """Return the pending text at the end of the sample."""
        return self._pending


@dataclass(frozen=True, eq=False)
class SampleRequest:
    """The options of one sample.

    Attributes:
        prompt: the ids that precede the sample, (N,); None for an empty prompt.
        length: the number of characters to sample; None is unlimited.
        settings: how each character is chosen.
        stop: texts that end the sample where they appear, and are not part of it.
        seed: the random seed.
        index: the number of the sample under that seed. Each has random numbers of its own, so
            that a sample does not depend on the others.
        clamps: units that are held from the prompt's last character on.
        guard: excludes characters that would copy too much; the copied stretch can begin in the
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
        if self.length is not None and self.length < 0:
            raise CharloomError(f"length is {self.length}: pass 0 or more")
        if self.seed < 0 or self.index < 0:
            raise CharloomError(f"seed is {self.seed}: pass 0 or more")
        if any(not text for text in self.stop):
            raise CharloomError("a stop text is empty: pass at least one character, or omit it")


def stream_text(
    predictor: Predictor, vocabulary: Vocabulary, request: SampleRequest
) -> Iterator[str]:
    """Yield a sample in pieces while it is generated, without its prompt.

    Raises:
        CharloomError: after the sample so far, if the guard excludes every next character.
    """
    length, guard = request.length, request.guard
    prompt = np.zeros(0, vocabulary.id_type) if request.prompt is None else request.prompt
    generator = np.random.Generator(np.random.PCG64([request.seed, request.index]))
    last, state = read_prompt(predictor, vocabulary, prompt)
    source = predictor if guard is None else GuardedSampler(predictor, guard, prompt)
    stops = StopTexts(request.stop)
    drawn = 0
    while length is None or drawn < length:
        count = min(max(FIRST_DRAWN, drawn), MOST_DRAWN)
        if length is not None:
            count = min(count, length - drawn)
        uniforms = generator.random((count, 1))
        ids, state = source.generate(
            np.array([last], dtype=np.intp), state, request.settings, uniforms, request.clamps
        )
        drawn += len(ids)
        ready, ended = stops.add(vocabulary.decode(ids[:, 0]))
        if ready:
            yield ready
        if ended:
            return
        if guard is not None and len(ids) < count:
            if stops.rest():
                yield stops.rest()
            raise CharloomError(
                f"after {drawn:,} characters of the sample, every next one would copy more than "
                f"{guard.most:,} consecutive characters from the training text: pass a larger "
                "--max-overlap"
            )
        last = int(ids[-1, 0])
    if stops.rest():
        yield stops.rest()


class GuardedSampler:
    """A predictor's `generate` under a guard, with the last characters of prompt and sample."""

    def __init__(
        self, predictor: Predictor, guard: OverlapGuard, prompt: NDArray[np.unsignedinteger]
    ) -> None:
        self._predictor, self._index = predictor, guard.index
        # A longer limit is equivalent, because no copy is longer than the training text.
        self._recent = deque((int(id_) for id_ in prompt), min(guard.most, len(guard.index) + 1))

    def generate(
        self,
        ids: NDArray[np.intp],
        state: Any,
        settings: SamplingSettings,
        uniforms: NDArray[np.float64],
        clamps: Sequence[Clamp] = (),
    ) -> tuple[NDArray[np.intp], Any]:
        """Sample one row as a predictor does, but stop if every next character is excluded."""
        drawn = np.empty(uniforms.shape, np.intp)
        for count, numbers in enumerate(uniforms):
            logits, after = self._predictor.step(ids, state, clamps)
            if len(self._recent) == self._recent.maxlen:
                copied = self._index.followers(np.array(self._recent))
                # Before the choice, so that temperature, top_k and the others act on the rest.
                logits = np.where(copied, -np.inf, logits).astype(logits.dtype)
                if not (logits > -np.inf).any():
                    return drawn[:count], state
            ids = drawn[count] = choose(logits, settings, numbers)
            self._recent.append(int(ids[0]))
            state = after
        return drawn, state


def _held_back(text: str, stop: str) -> int:
    """Return the number of characters at a text's end that begin the stop text."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
