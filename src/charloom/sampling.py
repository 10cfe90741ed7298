"""From a prompt to text: reads the prompt, then draws character after character.

V: characters in the vocabulary; B: rows of a batch; S, L, H: see charloom.model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.decoding import SamplingSettings
from charloom.engines import Predictor
from charloom.errors import CharloomError
from charloom.units import Clamp
from charloom.vocabulary import Vocabulary

# Characters between two looks at stop texts and at the reader: few at first, so that the first ones
# appear at once, then more, so that a call's own cost does not count.
FIRST_DRAWN, MOST_DRAWN = 16, 256


def read_prompt(
    predictor: Predictor, vocabulary: Vocabulary, prompt: NDArray[np.unsignedinteger]
) -> tuple[int, Any]:
    """Reads a prompt's ids, (N,), from a zero state, a newline first as before any text.

    Returns the last id, which is still to be read, and the state before it.
    """
    last = vocabulary.start_id
    state = predictor.zero_state(1)
    for id_ in prompt:
        _, state = predictor.step(np.array([last], dtype=np.intp), state)
        last = int(id_)
    return last, state


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
) -> Iterator[str]:
    """Yields what is drawn after a prompt, in pieces, as it is drawn; without the prompt itself.

    prompt: its ids, (N,). length: characters to draw; None goes on for ever. stop: texts that end
    the sample where they appear; they are not yielded. seed, index: the index-th sample of a seed
    draws its own random numbers, so that each is the same whatever the others are. clamps: units
    that are held from the prompt's last character on.
    Raises CharloomError for a negative length, seed or index and an empty stop text.
    """
    if length is not None and length < 0:
        raise CharloomError(f"length is {length}: give 0 or more")
    if seed < 0 or index < 0:
        raise CharloomError(f"seed is {seed}: give 0 or more")
    if any(not text for text in stop):
        raise CharloomError("a stop text is empty: give at least one character, or none at all")
    return _stream(
        predictor,
        vocabulary,
        np.zeros(0, vocabulary.id_type) if prompt is None else prompt,
        length,
        settings or SamplingSettings(),
        tuple(stop),
        np.random.Generator(np.random.PCG64([seed, index])),
        tuple(clamps),
    )


def _stream(
    predictor: Predictor,
    vocabulary: Vocabulary,
    prompt: NDArray[np.unsignedinteger],
    length: int | None,
    settings: SamplingSettings,
    stop: tuple[str, ...],
    generator: np.random.Generator,
    clamps: tuple[Clamp, ...],
) -> Iterator[str]:
    last, state = read_prompt(predictor, vocabulary, prompt)
    pending = ""  # drawn, but possibly the beginning of a stop text
    drawn = 0
    while length is None or drawn < length:
        count = min(max(FIRST_DRAWN, drawn), MOST_DRAWN)
        if length is not None:
            count = min(count, length - drawn)
        ids, state = predictor.generate(
            np.array([last], dtype=np.intp), state, settings, generator.random((count, 1)), clamps
        )
        drawn += count
        last = int(ids[-1, 0])
        pending += vocabulary.decode(ids[:, 0])
        found = [place for place in (pending.find(text) for text in stop) if place >= 0]
        if found:
            if pending[: min(found)]:
                yield pending[: min(found)]
            return
        held = max((_held_back(pending, text) for text in stop), default=0)
        ready = len(pending) - held
        if ready:
            yield pending[:ready]
            pending = pending[ready:]
    if pending:
        yield pending


def _held_back(text: str, stop: str) -> int:
    """How many of the last characters of the text are the beginning of the stop text."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
