"""One model, many requests side by side: what a server needs of a model. No HTTP.

A `Batcher` has a thread, which alone calls the model. In a turn of it every text that is being
drawn gets its next character, all by one call of `step`, or several, by one call of `generate`; and
a piece is read of the prompts that are still to be read. Texts come and go between turns. A row
gets the same bytes whatever its companions, so a text depends on nothing but its own request, and
is the one that `LanguageModel.sample` draws.

N: characters of a prompt; B: rows, each a text that is being drawn; K: alternatives at a place;
V: characters in the vocabulary.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.engines.decoding import SamplingSettings, choose
from charloom.engines.protocol import Predictor
from charloom.errors import CharloomError
from charloom.prediction.mixture import join_states, rows_of
from charloom.prediction.sampling import StopTexts
from charloom.serving.prompt_cache import CACHE_BYTES, PromptCache
from charloom.serving.requests import Answer, BusyError, Piece, Request, Scored
from charloom.text.vocabulary import Vocabulary

MOST_TEXTS = 256  # drawn at a time
CACHED_EVERY = 256  # characters of a prompt
# Characters of prompts in one turn: all together, and of each. More would hold up the texts that
# are being drawn, fewer would cost a turn's overhead too often.
READ_IN_A_TURN, READ_OF_EACH = 512, 32
SCORED_TOGETHER, SCORED_OF_EACH = 16, 32
# Characters that are drawn in one turn, of all texts together and of each: a turn of several costs
# little more than of one, but whoever comes has to wait for its end.
DRAWN_IN_A_TURN, DRAWN_OF_EACH = 512, 16
# Whoever reads a stream need not be woken for every character: only after so many seconds, longer
# where there are more than so many texts.
TOLD_EVERY, TOLD_TEXTS = 0.02, 64


class _Prompt:
    """A request whose prompt is being read: the next character to read, and the state before it."""

    def __init__(self, answer: Answer, predictor: Predictor) -> None:
        request = answer.request
        self.answer = answer
        self.ids = request.prompt.astype(np.intp)
        self.place, self.state = 0, predictor.zero_state(1)
        self.scored, self.scored_state = 0, self.state
        self.to_score = len(self.ids) - 1 if request.scores_prompt else 0

    @property
    def unread(self) -> int:
        """Of all but the last character, which is read when the next one is drawn."""
        return len(self.ids) - 1 - self.place

    def before_kept(self, place: int, left: int) -> int:
        """Of the characters left from a place on, those up to the next state that is kept."""
        return min(left, CACHED_EVERY - place % CACHED_EVERY)

    @property
    def unscored(self) -> int:
        return self.to_score - self.scored


class _Text:
    """A text that is being drawn."""

    def __init__(self, answer: Answer, number: int) -> None:
        request = answer.request
        self.answer, self.number = answer, number
        # The numbers that sampling.stream_text draws by.
        seed = [request.seed, request.indices[number]]
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self.stops = StopTexts(request.stop)
        self.drawn: list[int] = []
        self.held: list[Scored] = []  # of characters that may begin a stop text
        self.end: str | None = None

    @property
    def left(self) -> int:
        return self.answer.request.length - len(self.drawn)

    def add(self, id_: int, character: str, scored: Scored | None = None) -> None:
        self.drawn.append(id_)
        self.answer.drawn += 1
        text, stopped = self.stops.add(character)
        if scored is not None:
            self.held.append(scored)
        if stopped:
            self.end = "stop"
        elif not self.left:
            self.end = "length"
            text += self.stops.rest()
        if text or self.end:
            ready, self.held = self.held[: len(text)], self.held[len(text) :]
            self.answer.add(Piece(self.number, text, ready, self.end))


@dataclass
class Counts:
    """What a batcher has done since it began."""

    refused: int = 0
    cancelled: int = 0
    read: int = 0  # characters of prompts
    cached: int = 0  # of prompts, not read again
    drawn: int = 0
    steps: int = 0


class Batcher:
    """Serves requests to one model; any thread may submit them.

    tell: called from the batcher's thread with answers that have something new.
    """

    def __init__(
        self,
        predictor: Predictor,
        vocabulary: Vocabulary,
        *,
        most_texts: int = MOST_TEXTS,
        cache_bytes: int = CACHE_BYTES,
        tell: Callable[[list[Answer]], None] | None = None,
    ) -> None:
        if most_texts < 1:
            raise CharloomError(f"{most_texts} texts at a time are too few: give 1 or more")
        self.predictor = predictor
        self.vocabulary = vocabulary
        self.most_texts = most_texts
        self.cache = PromptCache(cache_bytes)
        self.counts = Counts()
        self._tell = tell
        self._condition = threading.Condition()
        self._waiting: deque[Answer] = deque()
        self._waiting_texts = 0
        self._closing = False
        # Of the batcher's thread alone:
        self._prompts: list[_Prompt] = []
        self._texts: list[_Text] = []
        self._last = np.zeros(0, np.intp)  # (B,), drawn, and not yet read
        self._state: Any = None  # of all texts, before that
        self._untold: dict[int, Answer] = {}
        self._thread = threading.Thread(target=self._run, name="charloom-batcher", daemon=True)
        self._thread.start()

    @property
    def drawing(self) -> int:
        """Texts that are being drawn, or whose prompts are being read."""
        return len(self._texts) + sum(len(p.answer.request.indices) for p in self._prompts)

    @property
    def waiting(self) -> int:
        """Texts that wait until there is room."""
        return self._waiting_texts

    def submit(self, *requests: Request) -> list[Answer]:
        """The requests' answers, which come by and by.

        Raises BusyError, for all of them, where more texts would wait than are drawn at a time.
        """
        answers = [Answer(request) for request in requests]
        texts = sum(len(request.indices) for request in requests)
        with self._condition:
            room = 2 * self.most_texts - self.drawing - self._waiting_texts
            if self._closing or texts > room:
                self.counts.refused += 1
                raise BusyError
            self._waiting.extend(answers)
            self._waiting_texts += texts
            self._condition.notify()
        return answers

    def close(self) -> None:
        """Ends the thread; what is not finished gets no more."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()

    # The batcher's thread.

    def _run(self) -> None:
        with np.errstate(all="ignore"):  # weights as large as numbers go
            while True:
                with self._condition:
                    while not (self._closing or self._waiting or self._prompts or self._texts):
                        self._condition.wait()
                    if self._closing:
                        break
                    admitted = self._admit()
                try:
                    self._begin_to_read(admitted)
                    self._turn()
                except Exception as error:
                    for answer in admitted:
                        answer.fail(error)
                    logging.getLogger("charloom").exception("a turn of the batcher failed")
                    self._fail(error)
                self._tell_readers()
        self._fail(CharloomError("the server stops"))
        self._tell_readers()

    def _admit(self) -> list[Answer]:
        """Takes up requests in the order in which they came, while there is room."""
        admitted: list[Answer] = []
        drawing = self.drawing
        while self._waiting:
            answer = self._waiting[0]
            texts = len(answer.request.indices)
            if drawing and drawing + texts > self.most_texts and not answer.cancelled:
                break
            self._waiting.popleft()
            self._waiting_texts -= texts
            if answer.cancelled:
                self.counts.cancelled += 1
            else:
                admitted.append(answer)
                drawing += texts
        return admitted

    def _begin_to_read(self, answers: list[Answer]) -> None:
        prompts = [_Prompt(answer, self.predictor) for answer in answers]
        self._prompts += prompts
        for prompt in prompts:
            if not (prompt.unscored and self.predictor.window_equals_steps):
                length, state = self.cache.longest(prompt.ids[:-1])
                if length:
                    prompt.place, prompt.state = length, state
                    self.counts.cached += length
                    prompt.answer.cached = length

    def _turn(self) -> None:
        self._drop_cancelled()
        if self._texts and (self._prompts or not self._generate()):
            self._step()
        self._read()
        self._score()
        ready = [p for p in self._prompts if not p.unread and not p.unscored]
        if ready:
            self._prompts = [p for p in self._prompts if p.unread or p.unscored]
            self._begin(ready)

    def _drop_cancelled(self) -> None:
        answers = [p.answer for p in self._prompts] + [text.answer for text in self._texts]
        cancelled = {id(answer) for answer in answers if answer.cancelled}
        if cancelled:
            self.counts.cancelled += len(cancelled)
            self._prompts = [p for p in self._prompts if id(p.answer) not in cancelled]
            texts = enumerate(self._texts)
            self._keep([row for row, text in texts if id(text.answer) not in cancelled])

    def _keep(self, rows: list[int]) -> None:
        if len(rows) < len(self._texts):
            self._texts = [self._texts[row] for row in rows]
            self._last = self._last[rows]
            self._state = rows_of(self._state, rows) if rows else None

    def _read(self) -> None:
        """A piece of every prompt that is not read yet, side by side."""
        exact = self.predictor.window_equals_steps
        prompts = [p for p in self._prompts if p.unread and not (exact and p.unscored)]
        prompts = prompts[:READ_IN_A_TURN]
        if not prompts:
            return
        most = min(READ_OF_EACH, READ_IN_A_TURN // len(prompts))
        steps = min(most, *(p.before_kept(p.place, p.unread) for p in prompts))
        inputs = np.stack([p.ids[p.place : p.place + steps] for p in prompts], axis=1)
        state = self.predictor.read(inputs, join_states([p.state for p in prompts]))
        self.counts.read += inputs.size
        for row, prompt in enumerate(prompts):
            prompt.place += steps
            prompt.state = rows_of(state, [row])
            self._keep_state(prompt)

    def _score(self) -> None:
        """A piece of the prompts that have waited longest for their scores, side by side."""
        exact = self.predictor.window_equals_steps
        waiting = [p for p in self._prompts if p.unscored]
        # Where windows are not exact, a row's last digits depend on its companions.
        prompts = waiting[: SCORED_TOGETHER if exact else 1]
        if not prompts:
            return
        steps = min(SCORED_OF_EACH, *(p.before_kept(p.scored, p.unscored) for p in prompts))
        ids = np.stack([p.ids[p.scored : p.scored + steps + 1] for p in prompts], axis=1)
        log_p, state = self.predictor.log_probabilities(
            ids[:-1], join_states([p.scored_state for p in prompts])
        )
        self.counts.read += ids[1:].size
        for row, prompt in enumerate(prompts):
            alternatives = prompt.answer.request.alternatives or 0
            prompt.answer.prompt_scores += _scored(log_p[:, row], ids[1:, row], alternatives)
            prompt.scored += steps
            prompt.scored_state = rows_of(state, [row])
            if exact:
                prompt.place, prompt.state = prompt.scored, prompt.scored_state
                self._keep_state(prompt)
        if len(waiting) > len(prompts):  # it is the others' turn
            rest = [p for p in self._prompts if p not in prompts]
            self._prompts = rest + prompts

    def _keep_state(self, prompt: _Prompt) -> None:
        if prompt.place % CACHED_EVERY == 0 or not prompt.unread:
            self.cache.put(prompt.ids[: prompt.place], prompt.state)

    def _begin(self, prompts: list[_Prompt]) -> None:
        """Draws from here on what comes after these prompts."""
        states = [] if self._state is None else [self._state]
        last = [self._last]
        for prompt in prompts:
            answer, request = prompt.answer, prompt.answer.request
            self._untold[id(answer)] = answer
            if request.length == 0:
                for number in range(len(request.indices)):
                    answer.add(Piece(number, "", end="length"))
                continue
            count = len(request.indices)
            self._texts += [_Text(answer, number) for number in range(count)]
            states.append(rows_of(prompt.state, [0] * count))
            last.append(np.full(count, prompt.ids[-1]))
        if self._texts:
            self._state, self._last = join_states(states), np.concatenate(last)

    def _step(self) -> None:
        """One more character for every text."""
        logits, state = self.predictor.step(self._last, self._state)
        ids = self._choose(logits)
        scored = self._score_drawn(logits, ids)
        for row, text in enumerate(self._texts):
            id_ = int(ids[row])
            text.add(id_, self.vocabulary.characters[id_], scored.get(row))
        self.counts.steps += 1
        self.counts.drawn += len(ids)
        self._go_on(ids, state, 1)

    def _generate(self) -> bool:
        """Several more characters for every text in one call, which chooses them itself; False if
        they are not all to be drawn in the same way, or to be scored."""
        requests = [text.answer.request for text in self._texts]
        settings = requests[0].settings
        if any(r.settings != settings or r.alternatives is not None for r in requests):
            return False
        each = max(1, DRAWN_IN_A_TURN // len(self._texts))
        count = min(DRAWN_OF_EACH, each, *(text.left for text in self._texts))
        uniforms = np.stack([text.generator.random(count) for text in self._texts], axis=1)
        drawn, state = self.predictor.generate(self._last, self._state, settings, uniforms)
        for text, ids in zip(self._texts, drawn.T.tolist(), strict=True):
            for id_ in ids:
                text.add(id_, self.vocabulary.characters[id_])
                self.counts.drawn += 1
                if text.end is not None:
                    break
        self.counts.steps += count
        self._go_on(drawn[-1], state, count)
        return True

    def _go_on(self, last: NDArray[np.intp], state: Any, count: int) -> None:
        """With the texts that have not ended, now that so many more characters were drawn."""
        left = []
        for row, text in enumerate(self._texts):
            self._untold[id(text.answer)] = text.answer
            if text.end is None:
                left.append(row)
            elif text.end == "length" or count == 1:  # the state has read no more than the text
                # What goes on from here need not be read again.
                read = np.concatenate([text.answer.request.prompt, text.drawn[:-1]])
                self.cache.put(read.astype(np.intp), rows_of(state, [row]))
        self._last, self._state = last, state
        self._keep(left)

    def _choose(self, logits: NDArray[np.floating]) -> NDArray[np.intp]:
        """Every text's next character, (B,); those with the same settings all at once."""
        ids = np.empty(len(self._texts), np.intp)
        alike: dict[SamplingSettings, list[int]] = {}
        for row, text in enumerate(self._texts):
            alike.setdefault(text.answer.request.settings, []).append(row)
        for settings, rows in alike.items():
            uniforms = np.array([self._texts[row].generator.random() for row in rows])
            ids[rows] = choose(logits[rows], settings, uniforms)
        return ids

    def _score_drawn(
        self, logits: NDArray[np.floating], ids: NDArray[np.intp]
    ) -> dict[int, Scored]:
        """The scores of the characters drawn, by row, where they were asked for."""
        alike: dict[int, list[int]] = {}
        for row, text in enumerate(self._texts):
            alternatives = text.answer.request.alternatives
            if alternatives is not None:
                alike.setdefault(alternatives, []).append(row)
        found: dict[int, Scored] = {}
        for alternatives, rows in alike.items():
            x = logits[rows].astype(np.float64)
            x -= x.max(axis=1, keepdims=True)
            x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
            found |= zip(rows, _scored(x, ids[rows], alternatives), strict=True)
        return found

    def _fail(self, error: Exception) -> None:
        """Ends all that is being read or drawn, or at the very end all there is, with an error."""
        answers = [p.answer for p in self._prompts] + [t.answer for t in self._texts]
        if self._closing:
            with self._condition:
                answers += self._waiting
                self._waiting.clear()
                self._waiting_texts = 0
        for answer in answers:
            answer.fail(error)
            self._untold[id(answer)] = answer
        self._prompts, self._texts = [], []
        self._last, self._state = np.zeros(0, np.intp), None

    def _tell_readers(self) -> None:
        now = time.monotonic()
        after = TOLD_EVERY * max(1.0, len(self._texts) / TOLD_TEXTS)
        told = [
            answer
            for answer in self._untold.values()
            if answer.ended or (answer.request.streams and now - answer.told >= after)
        ]
        for answer in told:
            answer.told = now
            del self._untold[id(answer)]
        if told and self._tell is not None:
            self._tell(told)


def _scored(log_p: NDArray[np.floating], came: NDArray[np.intp], alternatives: int) -> list[Scored]:
    """What came, (S,), where log p, (S, V), was predicted."""
    values = np.take_along_axis(log_p, came[:, None], axis=1)[:, 0].tolist()
    likeliest = np.argsort(-log_p, axis=1, kind="stable")[:, :alternatives]
    theirs = np.take_along_axis(log_p, likeliest, axis=1).tolist()
    return [
        Scored(id_, value, list(zip(ids, log_ps, strict=True)))
        for id_, value, ids, log_ps in zip(
            came.tolist(), values, likeliest.tolist(), theirs, strict=True
        )
    ]
