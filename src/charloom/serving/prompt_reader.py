"""Read and score prompts side by side, a piece in each turn of a batcher.

N: characters of a prompt; B: rows, one a prompt; T: characters of a piece; K: alternatives at a
position; V: characters in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from charloom.engines.protocol import Predictor
from charloom.prediction.rows import join_states, rows_of
from charloom.serving.prompt_cache import PromptCache
from charloom.serving.requests import Answer, BatcherStats, Scored

CACHED_EVERY = 256  # characters of a prompt
# Characters of prompts in one turn, in total and of each prompt. More would delay running texts,
# fewer would pay a turn's overhead too often.
READ_IN_A_TURN, READ_OF_EACH = 512, 32
SCORED_TOGETHER, SCORED_OF_EACH = 16, 32


class PendingPrompt:
    """A prompt that is being read: the next character to read, and the state before it."""

    def __init__(self, answer: Answer, predictor: Predictor) -> None:
        request = answer.request
        self.answer = answer
        self.ids = request.prompt.astype(np.intp)
        self.place, self.state = 0, predictor.zero_state(1)
        self.scored, self.scored_state = 0, self.state
        self.to_score = len(self.ids) - 1 if request.scores_prompt else 0

    @property
    def unread(self) -> int:
        """Return the number of characters left to read.

        The last one is read by the first step of sampling.
        """
        return len(self.ids) - 1 - self.place

    @property
    def unscored(self) -> int:
        """Return the number of characters left to score."""
        return self.to_score - self.scored

    @property
    def ready(self) -> bool:
        """Return whether sampling can begin."""
        return not self.unread and not self.unscored

    def before_cached(self, place: int, left: int) -> int:
        """Return the number of the characters left, from a place up to the next cached state."""
        return min(left, CACHED_EVERY - place % CACHED_EVERY)


class PromptReader:
    """The prompts that a batcher is reading. Only the batcher's thread uses it.

    Args:
        predictor: The model.
        cache: The cache for the states after prompts.
        stats: The totals to add to.
    """

    def __init__(self, predictor: Predictor, cache: PromptCache, stats: BatcherStats) -> None:
        self.prompts: list[PendingPrompt] = []
        self._predictor, self._cache, self._stats = predictor, cache, stats

    def add(self, answers: list[Answer]) -> None:
        """Begin to read the prompts of new requests, each after its longest cached beginning."""
        prompts = [PendingPrompt(answer, self._predictor) for answer in answers]
        self.prompts += prompts
        for prompt in prompts:
            if not (prompt.unscored and self._predictor.window_equals_steps):
                length, state = self._cache.longest(prompt.ids[:-1])
                if length:
                    prompt.place, prompt.state = length, state
                    self._stats.cached += length
                    prompt.answer.cached = length

    def advance(self) -> list[PendingPrompt]:
        """Read and score a piece of the prompts, and return the prompts that are ready."""
        self._read()
        self._score()
        return [prompt for prompt in self.prompts if prompt.ready]

    def remove(self, answers: Collection[Answer]) -> None:
        """Remove the prompts of some answers."""
        self.prompts = [prompt for prompt in self.prompts if prompt.answer not in answers]

    def _read(self) -> None:
        """Read a piece of every prompt that is not read by scoring it."""
        exact = self._predictor.window_equals_steps
        prompts = [p for p in self.prompts if p.unread and not (exact and p.unscored)]
        prompts = prompts[:READ_IN_A_TURN]
        if not prompts:
            return
        most = min(READ_OF_EACH, READ_IN_A_TURN // len(prompts))
        steps = min(most, *(p.before_cached(p.place, p.unread) for p in prompts))
        inputs = np.stack([p.ids[p.place : p.place + steps] for p in prompts], axis=1)  # (T, B)
        state = self._predictor.read(inputs, join_states([p.state for p in prompts]))
        self._stats.read += inputs.size
        for row, prompt in enumerate(prompts):
            prompt.place += steps
            prompt.state = rows_of(state, [row])
            self._cache_state(prompt)

    def _score(self) -> None:
        """Score a piece of the prompts that have waited longest for their scores."""
        exact = self._predictor.window_equals_steps
        waiting = [prompt for prompt in self.prompts if prompt.unscored]
        # Where windows are not exact, a row's last digits depend on its companions.
        prompts = waiting[: SCORED_TOGETHER if exact else 1]
        if not prompts:
            return
        steps = min(SCORED_OF_EACH, *(p.before_cached(p.scored, p.unscored) for p in prompts))
        ids = np.stack([p.ids[p.scored : p.scored + steps + 1] for p in prompts], axis=1)
        log_p, state = self._predictor.log_probabilities(
            ids[:-1], join_states([p.scored_state for p in prompts])
        )  # (T, B, V)
        self._stats.read += ids[1:].size
        for row, prompt in enumerate(prompts):
            alternatives = prompt.answer.request.alternatives or 0
            prompt.answer.prompt_scores += score(log_p[:, row], ids[1:, row], alternatives)
            prompt.scored += steps
            prompt.scored_state = rows_of(state, [row])
            if exact:
                prompt.place, prompt.state = prompt.scored, prompt.scored_state
                self._cache_state(prompt)
        if len(waiting) > len(prompts):  # in the next turn, the others come first
            rest = [prompt for prompt in self.prompts if prompt not in prompts]
            self.prompts = rest + prompts

    def _cache_state(self, prompt: PendingPrompt) -> None:
        if prompt.place % CACHED_EVERY == 0 or not prompt.unread:
            self._cache.put(prompt.ids[: prompt.place], prompt.state)


def score(log_p: NDArray[np.floating], ids: NDArray[np.intp], alternatives: int) -> list[Scored]:
    """Return the scores of characters.

    Args:
        log_p: Natural log-probabilities predicted at each position, (S, V).
        ids: The characters at these positions, (S,).
        alternatives: K, the number of likeliest characters to include.
    """
    values = np.take_along_axis(log_p, ids[:, None], axis=1)[:, 0].tolist()
    likeliest = np.argsort(-log_p, axis=1, kind="stable")[:, :alternatives]
    theirs = np.take_along_axis(log_p, likeliest, axis=1).tolist()
    return [
        Scored(id_, value, list(zip(best, log_ps, strict=True)))
        for id_, value, best, log_ps in zip(
            ids.tolist(), values, likeliest.tolist(), theirs, strict=True
        )
    ]
