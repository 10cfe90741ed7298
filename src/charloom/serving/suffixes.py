"""Texts between a prompt and a suffix, one call of the model in each turn of a batcher."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Sequence

import numpy as np

from charloom.engines.protocol import Predictor
from charloom.prediction.middle import Middle, fill_middle
from charloom.serving.prompt_reader import PendingPrompt
from charloom.serving.requests import Answer, BatcherStats, Piece
from charloom.text.vocabulary import Vocabulary

Filling = Generator[None, None, list[tuple[int, ...]]]


class SuffixFiller:
    """The requests with a suffix that a batcher serves. Only the batcher's thread uses it.

    Args:
        predictor: The model.
        vocabulary: Its vocabulary.
        stats: The totals to add to.
    """

    def __init__(self, predictor: Predictor, vocabulary: Vocabulary, stats: BatcherStats) -> None:
        self._predictor, self._vocabulary, self._stats = predictor, vocabulary, stats
        self._jobs: deque[tuple[Answer, Filling]] = deque()

    @property
    def answers(self) -> list[Answer]:
        """Return the answers that are not complete."""
        return [answer for answer, _ in self._jobs]

    @property
    def texts(self) -> int:
        """Return the number of their texts."""
        return sum(len(answer.request.indices) for answer, _ in self._jobs)

    def begin(self, prompts: Sequence[PendingPrompt]) -> None:
        """Begin to fill the texts after prompts that are ready."""
        for prompt in prompts:
            request, vocabulary = prompt.answer.request, self._vocabulary
            assert request.suffix is not None
            stops = (vocabulary.ids_or_minus_one(text) for text in request.stop)
            middle = Middle(
                request.suffix,
                request.length,
                request.settings,
                request.constraints,
                tuple(tuple(ids.tolist()) for ids in stops),
                vocabulary.end_id,
                request.seed,
            )
            last = int(prompt.ids[-1])
            job = fill_middle(self._predictor, last, prompt.state, middle, request.indices)
            self._jobs.append((prompt.answer, job))

    def advance(self) -> list[Answer]:
        """Take a step of one request, in turn, and return its answer if it is complete."""
        if not self._jobs:
            return []
        answer, job = self._jobs.popleft()
        try:
            next(job)
        except StopIteration as ended:
            for number, ids in enumerate(ended.value):
                text = self._vocabulary.decode(np.array(ids, np.intp))
                answer.sampled += len(ids)
                self._stats.sampled += len(ids)
                answer.add(Piece(number, text, [], "stop"))
            return [answer]
        except BaseException:
            self._jobs.append((answer, job))  # so that it fails with the others
            raise
        self._jobs.append((answer, job))
        return []

    def remove(self, answers: Collection[Answer]) -> None:
        """Remove some answers."""
        self._jobs = deque(job for job in self._jobs if job[0] not in answers)

    def clear(self) -> None:
        """Remove all of them."""
        self._jobs.clear()
