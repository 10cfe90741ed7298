"""Sample texts side by side, a character or several in each turn of a batcher.

B: rows, one a text; K: alternatives at a position; V: characters in the vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.texts import (
    ConstrainedText,
    choose_next,
    generate_restricted,
    restrict,
)
from charloom.engines.decoding import SamplingSettings
from charloom.engines.protocol import Predictor
from charloom.prediction.rows import join_states, rows_of
from charloom.prediction.sampling import StopTexts, in_kernel
from charloom.serving.prompt_cache import PromptCache
from charloom.serving.prompt_reader import PendingPrompt, score
from charloom.serving.requests import Answer, BatcherStats, End, Piece, Scored
from charloom.text.vocabulary import END, Vocabulary

# Characters sampled in one turn of all texts together, and those of a model that needs less than
# these seconds for them. A turn of several costs little more than a turn of one, but a new request
# has to wait for its end.
SAMPLED_IN_A_TURN, SAMPLED_IN_A_FAST_TURN, FAST_TURN_SECONDS = 2048, 4096, 0.01
# Characters of each text in one turn: at most, and of a text that has just begun. Those after its
# end are lost, so a turn samples no more than the text has already.
LONGEST_TURN, FIRST_TURN = 64, 16


class RunningText:
    """A text that is being sampled."""

    def __init__(self, answer: Answer, number: int, end_id: int | None = None) -> None:
        request = answer.request
        self.answer, self.number = answer, number
        # The same random numbers as in sampling.stream_text.
        seed = [request.seed, request.indices[number]]
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self.stops = StopTexts(request.stop)
        self.sampled: list[int] = []
        self.held: list[Scored] = []  # of characters that might begin a stop text
        self.end: End | None = None
        self.constrained: ConstrainedText | None = None
        if request.constraints is not None:
            self.constrained = ConstrainedText(request.constraints, request.length, end_id)

    @property
    def left(self) -> int:
        """Return the number of characters left to sample."""
        return self.answer.request.length - len(self.sampled)

    def add(
        self, id_: int, character: str, scored: Scored | None = None, *, is_last: bool = True
    ) -> None:
        """Add a sampled symbol, and pass what is certain of the text to the answer.

        The end of a document ends the text without being part of it.

        Args:
            id_: The symbol.
            character: Its character.
            scored: Its score, if that was requested.
            is_last: Whether it is the last symbol that the constraints have taken.
        """
        ends_before = self.constrained is not None and self.constrained.ends_before_last and is_last
        over = self.constrained is not None and self.constrained.over and is_last
        self.sampled.append(id_)
        self.answer.sampled += 1
        if scored is not None:
            self.held.append(scored)
        if character == END or ends_before:
            if character != END and scored is not None:
                self.held.pop()
            self.end = "stop"
            self.answer.add(Piece(self.number, self.stops.rest(), self.held, self.end))
            return
        text, stopped = self.stops.add(character)
        if stopped:
            self.end = "stop"
            if self.answer.request.includes_stop:
                text += self.stops.found
        elif over:
            self.end = "stop"
            text += self.stops.rest()
        elif not self.left:
            self.end = "length"
            text += self.stops.rest()
        if text or self.end:
            ready, self.held = self.held[: len(text)], self.held[len(text) :]
            self.answer.add(Piece(self.number, text, ready, self.end))

    def add_all(self, ids: list[int], characters: Sequence[str]) -> None:
        """Add sampled symbols up to the text's end, in one piece if no stop text can end it."""
        if self.stops.searched:
            for place, id_ in enumerate(ids, 1):
                self.add(id_, characters[id_], is_last=place == len(ids))
                if self.end is not None:
                    return
            return
        text = "".join([characters[id_] for id_ in ids])
        if self.constrained is not None and self.constrained.over:
            self.end = "stop"
            if self.constrained.ends_before_last:
                text = text[:-1]
        elif END in text:
            text = text[: text.index(END)]
            ids = ids[: len(text) + 1]
            self.end = "stop"
        self.sampled += ids
        self.answer.sampled += len(ids)
        if self.end is None and not self.left:
            self.end = "length"
        self.answer.add(Piece(self.number, text, [], self.end))


class TextSampler:
    """The texts that a batcher is sampling. Only the batcher's thread uses it.

    Args:
        predictor: The model.
        vocabulary: Its vocabulary.
        cache: The cache for the states after texts that have ended.
        stats: The totals to add to.
    """

    def __init__(
        self,
        predictor: Predictor,
        vocabulary: Vocabulary,
        cache: PromptCache,
        stats: BatcherStats,
    ) -> None:
        self.texts: list[RunningText] = []
        self._predictor, self._vocabulary = predictor, vocabulary
        self._cache, self._stats = cache, stats
        self._last = np.zeros(0, np.intp)  # (B,), sampled, and not yet read
        self._state: Any = None  # of all texts, before the last characters
        self._speed = 0.0  # characters a second in the last call of `generate`

    def begin(self, prompts: list[PendingPrompt]) -> None:
        """Begin to sample after prompts that are ready."""
        states = [] if self._state is None else [self._state]
        last = [self._last]
        for prompt in prompts:
            answer, request = prompt.answer, prompt.answer.request
            count = len(request.indices)
            if request.length == 0:
                for number in range(count):
                    answer.add(Piece(number, "", end="length"))
                continue
            begun = [RunningText(answer, n, self._vocabulary.end_id) for n in range(count)]
            if begun[0].constrained is not None and begun[0].constrained.over:
                for number in range(count):  # because only the empty text meets the constraints
                    answer.add(Piece(number, "", end="stop"))
                continue
            self.texts += begun
            states.append(rows_of(prompt.state, [0] * count))
            last.append(np.full(count, prompt.ids[-1]))
        if self.texts:
            self._state, self._last = join_states(states), np.concatenate(last)

    def advance(self, *, one_character: bool) -> list[Answer]:
        """Sample one or several more characters of every text, and return the texts' answers."""
        answers = [text.answer for text in self.texts]
        if self.texts and not self._generate(1 if one_character else LONGEST_TURN):
            self._step()
        return answers

    def remove(self, answers: Collection[Answer]) -> None:
        """Remove the texts of some answers."""
        self._keep([row for row, text in enumerate(self.texts) if text.answer not in answers])

    def clear(self) -> None:
        """Remove all texts, whatever state a failed turn left them in."""
        self.texts, self._last, self._state = [], np.zeros(0, np.intp), None

    def _keep(self, rows: list[int]) -> None:
        if len(rows) < len(self.texts):
            self.texts = [self.texts[row] for row in rows]
            self._last = self._last[rows]
            self._state = rows_of(self._state, rows) if rows else None

    def _step(self) -> None:
        """Sample one more character of every text."""
        logits, state = self._predictor.step(self._last, self._state)
        ids, choices = self._choose(logits)
        scored = self._score(logits, ids, choices)
        for row, text in enumerate(self.texts):
            id_ = int(ids[row])
            text.add(id_, self._vocabulary.characters[id_], scored.get(row))
        self._stats.steps += 1
        self._stats.sampled += len(ids)
        self._finish_turn(ids, state, 1)

    def _generate(self, most: int) -> bool:
        """Sample one or several more characters of every text in one call of `generate`.

        Args:
            most: The largest number of characters of each text.

        Returns:
            False, without sampling, if the texts have different settings, a bias, or constraints
            that the model cannot take in one call, or need scores.
        """
        requests = [text.answer.request for text in self.texts]
        settings = requests[0].settings
        if any(r.settings != settings or r.alternatives is not None or r.bias for r in requests):
            return False
        constrained = [text.constrained for text in self.texts]
        restricted = any(text is not None for text in constrained)
        if restricted and not in_kernel(self._predictor, constrained):
            return False
        fast = self._speed * FAST_TURN_SECONDS > SAMPLED_IN_A_FAST_TURN
        together = SAMPLED_IN_A_FAST_TURN if fast else SAMPLED_IN_A_TURN
        each = max(1, together // len(self.texts))
        shortest = min(len(text.sampled) for text in self.texts)
        least_left = min(text.left for text in self.texts)
        count = min(most, each, least_left, max(FIRST_TURN, shortest))
        uniforms = np.stack([text.generator.random(count) for text in self.texts], axis=1)
        predictor: Any = self._predictor
        last, before_last = self._last, self._state
        started = time.perf_counter()
        if restricted:
            sampled, counts, state = generate_restricted(
                constrained,
                lambda rules: predictor.generate(last, before_last, settings, uniforms, (), rules),
            )
        else:
            sampled, state = predictor.generate(last, before_last, settings, uniforms)
            counts = np.full(len(self.texts), count)
        self._speed = sampled.size / (time.perf_counter() - started)
        for text, ids, own in zip(self.texts, sampled.T.tolist(), counts.tolist(), strict=True):
            before = len(text.sampled)
            text.add_all(ids[:own], self._vocabulary.characters)
            self._stats.sampled += len(text.sampled) - before
        self._stats.steps += count
        self._finish_turn(sampled[-1], state, count)
        return True

    def _finish_turn(self, last: NDArray[np.intp], state: Any, count: int) -> None:
        """Remove the texts that have ended, and cache their states.

        Args:
            last: The last sampled characters, (B,).
            state: The state before them.
            count: The number of characters sampled of each text in this turn.
        """
        left = []
        for row, text in enumerate(self.texts):
            if text.end is None:
                left.append(row)
            elif text.end == "length" or count == 1:  # the state has read no more than the text
                # A prompt that continues this text need not be read again.
                read = np.concatenate([text.answer.request.prompt, text.sampled[:-1]])
                self._cache.put(read.astype(np.intp), rows_of(state, [row]))
        self._last, self._state = last, state
        self._keep(left)

    def _choose(self, logits: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Choose every text's next character, (B,), at once for texts with the same settings.

        Returns:
            The characters, and the logits with bias and constraints, (B, V).
        """
        ids = np.empty(len(self.texts), np.intp)
        alike: dict[SamplingSettings, list[int]] = {}
        biased = logits.astype(np.float64)
        for row, text in enumerate(self.texts):
            request = text.answer.request
            if request.bias:
                biased[row, list(request.bias)] += list(request.bias.values())
            alike.setdefault(request.settings, []).append(row)
        constrained = [text.constrained for text in self.texts]
        biased = restrict(constrained, biased)
        for settings, rows in alike.items():
            uniforms = np.array([self.texts[row].generator.random() for row in rows])
            some = biased[rows]
            ids[rows] = choose_next([constrained[row] for row in rows], some, settings, uniforms)
            biased[rows] = some  # from which characters can have been excluded
        return ids, biased

    def _score(
        self,
        logits: NDArray[np.floating],
        ids: NDArray[np.intp],
        choices: NDArray[np.float64],
    ) -> dict[int, Scored]:
        """Return the scores of the sampled characters by row, for texts that need them."""
        alike: dict[int, list[int]] = {}
        for row, text in enumerate(self.texts):
            alternatives = text.answer.request.alternatives
            if alternatives is not None:
                alike.setdefault(alternatives, []).append(row)
        found: dict[int, Scored] = {}
        for alternatives, rows in alike.items():
            scored = score(_normalized(logits[rows]), ids[rows], alternatives)
            conditioned = _normalized(choices[rows])[np.arange(len(rows)), ids[rows]].tolist()
            for row, one, log_p in zip(rows, scored, conditioned, strict=True):
                found[row] = one._replace(conditioned=log_p)
        return found


def _normalized(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return natural log-probabilities, (B, V)."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x
