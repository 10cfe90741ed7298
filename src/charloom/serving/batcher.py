"""Serve many requests to one model side by side. No HTTP.

A `Batcher` has a thread, the only one that calls the model. In each of its turns, it removes
cancelled texts and reads a piece of the waiting prompts. Texts whose prompts are complete begin,
and every text gets its next characters. A row gets the same bytes whatever its companions. So a
text depends on nothing but its own request, and is the one that `LanguageModel.sample` returns.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError
from charloom.serving.prompt_cache import CACHE_BYTES, PromptCache
from charloom.serving.prompt_reader import PromptReader
from charloom.serving.requests import Answer, BatcherStats, BusyError, Request
from charloom.serving.suffixes import SuffixFiller
from charloom.serving.text_sampler import TextSampler
from charloom.text.vocabulary import Vocabulary

MOST_TEXTS = 256  # sampled at a time
# Seconds between two notifications of a stream's reader, because waking it for every character
# would cost more than the character. The interval grows with the texts beyond the second number.
NOTIFY_INTERVAL, NOTIFY_TEXTS = 0.02, 64


class Batcher:
    """Requests to one model, served side by side. Any thread can submit them.

    Args:
        predictor: The model.
        vocabulary: Its vocabulary.
        most_texts: The number of texts sampled at a time. As many more can wait.
        cache_bytes: The size of the cache of prompts' states.
        notify: A function that the batcher's thread calls with answers that have new pieces.
    """

    def __init__(
        self,
        predictor: Predictor,
        vocabulary: Vocabulary,
        *,
        most_texts: int = MOST_TEXTS,
        cache_bytes: int = CACHE_BYTES,
        notify: Callable[[list[Answer]], None] = lambda answers: None,
    ) -> None:
        if most_texts < 1:
            raise CharloomError(f"{most_texts} texts at a time are too few: use 1 or more")
        self.most_texts = most_texts
        self.cache = PromptCache(cache_bytes)
        self.stats = BatcherStats()
        self._notify = notify
        self._condition = threading.Condition()
        self._waiting: deque[Answer] = deque()
        self._waiting_texts = 0
        self._active_texts = 0  # after the latest turn, and those admitted since then
        self._closing = False
        # Only the batcher's thread changes these.
        self._reader = PromptReader(predictor, self.cache, self.stats)
        # A character of a grammar takes long. So its texts are not sampled together with others,
        # which get several characters in a turn.
        self._sampler, self._grammars = (
            TextSampler(predictor, vocabulary, self.cache, self.stats) for _ in range(2)
        )
        self._filler = SuffixFiller(predictor, vocabulary, self.stats)
        self._changed: dict[Answer, None] = {}  # answers with pieces not yet reported, in order
        self._thread = threading.Thread(target=self._run, name="charloom-batcher", daemon=True)
        self._thread.start()

    @property
    def active(self) -> int:
        """Return the number of texts that are being sampled, or whose prompts are being read."""
        return self._active_texts

    @property
    def _sampled_texts(self) -> int:
        return len(self._sampler.texts) + len(self._grammars.texts)

    @property
    def waiting(self) -> int:
        """Return the number of texts in the queue."""
        return self._waiting_texts

    def submit(self, *requests: Request) -> list[Answer]:
        """Queue requests, and return their answers, which fill as the texts are sampled.

        Raises:
            BusyError: The queue has no room for all of them. None was queued.
        """
        answers = [Answer(request) for request in requests]
        texts = sum(len(request.indices) for request in requests)
        with self._condition:
            room = 2 * self.most_texts - self.active - self._waiting_texts
            if self._closing or texts > room:
                self.stats.refused += 1
                raise BusyError
            self._waiting.extend(answers)
            self._waiting_texts += texts
            self._condition.notify()
        return answers

    def close(self) -> None:
        """End the thread. Unfinished answers fail."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()

    # The batcher's thread

    def _run(self) -> None:
        with np.errstate(all="ignore"):  # because weights can be as large as floats can be
            while True:
                with self._condition:
                    while not (self._closing or self._waiting or self.active):
                        self._condition.wait()
                    if self._closing:
                        break
                    admitted = self._admit()
                try:
                    self._reader.add(admitted)
                    self._turn()
                except Exception as error:
                    logging.getLogger("charloom").exception("a turn of the batcher failed")
                    self._fail(error, admitted)
                # Not during a turn, in which a text can be counted as read and as sampled.
                reading = sum(len(prompt.answer.request.indices) for prompt in self._reader.prompts)
                self._active_texts = self._sampled_texts + reading + self._filler.texts
                self._notify_readers()
        with self._condition:
            waiting = list(self._waiting)
            self._waiting.clear()
            self._waiting_texts = 0
        self._fail(CharloomError("the server is shutting down"), waiting)
        self._notify_readers()

    def _admit(self) -> list[Answer]:
        """Remove requests from the queue, in their order, while there is room for their texts."""
        admitted: list[Answer] = []
        active = self._active_texts
        while self._waiting:
            answer = self._waiting[0]
            texts = len(answer.request.indices)
            if active and active + texts > self.most_texts and not answer.cancelled:
                break
            self._waiting.popleft()
            self._waiting_texts -= texts
            if answer.cancelled:
                self.stats.cancelled += 1
            else:
                admitted.append(answer)
                active += texts
        self._active_texts = active
        return admitted

    def _turn(self) -> None:
        cancelled = {answer for answer in self._active_answers() if answer.cancelled}
        if cancelled:
            self.stats.cancelled += len(cancelled)
            self._remove(cancelled)
        ready = self._reader.advance()
        if ready:
            answers = [prompt.answer for prompt in ready]
            self._filler.begin([p for p in ready if p.answer.request.suffix is not None])
            others = [prompt for prompt in ready if prompt.answer.request.suffix is None]
            for sampler, grammar in ((self._sampler, False), (self._grammars, True)):
                sampler.begin([p for p in others if _has_grammar(p.answer.request) == grammar])
            self._reader.remove(set(answers))
            self._changed |= dict.fromkeys(answers)
        for sampler in (self._sampler, self._grammars):
            sampled = sampler.advance(one_character=bool(self._reader.prompts))
            self._changed |= dict.fromkeys(sampled)
        self._changed |= dict.fromkeys(self._filler.advance())

    def _active_answers(self) -> list[Answer]:
        reading = [prompt.answer for prompt in self._reader.prompts]
        sampling = [text.answer for text in self._sampler.texts + self._grammars.texts]
        return reading + sampling + self._filler.answers

    def _remove(self, answers: set[Answer]) -> None:
        self._reader.remove(answers)
        self._sampler.remove(answers)
        self._grammars.remove(answers)
        self._filler.remove(answers)

    def _fail(self, error: Exception, others: Iterable[Answer]) -> None:
        """End all active answers, and others, with an error."""
        answers = [*self._active_answers(), *others]
        for answer in answers:
            answer.fail(error)
        self._changed |= dict.fromkeys(answers)
        self._reader.prompts = []
        self._sampler.clear()
        self._grammars.clear()
        self._filler.clear()

    def _notify_readers(self) -> None:
        now = time.monotonic()
        interval = NOTIFY_INTERVAL * max(1.0, self._sampled_texts / NOTIFY_TEXTS)
        due = [
            answer
            for answer in self._changed
            if answer.ended or (answer.request.streams and now - answer.notified >= interval)
        ]
        for answer in due:
            answer.notified = now
            del self._changed[answer]
        if due:
            self._notify(due)


def _has_grammar(request: Request) -> bool:
    """Return whether a text follows a grammar, which has no automaton."""
    constraints = request.constraints
    return constraints is not None and not constraints.is_regular
