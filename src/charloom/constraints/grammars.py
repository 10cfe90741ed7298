"""JSON schemas and grammars, by the engine llguidance.

llguidance knows which characters can come next, but not whether the text can still be completed: in
time, and with the characters of the model. A state therefore keeps a completion of its text. After
every character, the completion or an end of it usually still fits. Otherwise another one is
searched for, and a character after which none is found cannot be chosen.

V is the number of characters in the vocabulary.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.automaton import Automaton, Deadline
from charloom.constraints.protocol import UNLIMITED
from charloom.errors import CharloomError, shortened
from charloom.text.vocabulary import Vocabulary

LONGEST_GRAMMAR = 100_000  # characters
# Between the symbols of JSON: nothing, a space, or a line break with an indentation.
WHITESPACE = r" |\n {0,16}"
SEARCHED = 100_000  # states, for the first completion
SEARCHED_AGAIN = 3_000  # states, for another one
ALIKE = 2  # states of a search, at most, with the same length, signature and progress
MOST_TRIED = 64  # earlier completions that are tried before a search
EXPLORED = 40  # of them that are searched for at once
FOREVER = 3600.0  # seconds
MOST_KEPT = 20_000  # states that are kept for other texts with the same beginning
MOST_ITEMS = 10_000  # of llguidance's parser at one character: about as many alternatives
# In llguidance's error at a character that cannot come. Its other errors there are limits.
NO_CONTINUATION = "satisfy the grammar"
FEW = 4  # characters whose continuations are compared too


def read_schema(schema: Any, option: str = "json_schema") -> dict[str, Any]:
    """Return a JSON schema, which a user passes as a dict or a JSON text, as a dict.

    Raises:
        CharloomError: if it is not JSON.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise CharloomError(
                f"{option} is not JSON ({str(error).splitlines()[0]}): correct it"
            ) from None
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise CharloomError(f"{option} is {shortened(schema)}: pass a JSON schema, an object")
    try:
        written = json.dumps(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise CharloomError(
            f"{option} cannot be written as JSON ({error}): pass a JSON schema"
        ) from None
    _check_size(written, option)
    return schema


def grammars_of_schema(schema: dict[str, Any], option: str = "json_schema") -> tuple[str, str]:
    """Return llguidance's grammar of a JSON schema.

    The second grammar has some of its texts only, among which one is found sooner: without white
    space and without properties that the schema does not name.
    """
    _refuse_counted_names(schema, option)
    compiled = _engine(option).LLMatcher.grammar_from_json_schema
    try:
        return (
            compiled(json.dumps(schema), defaults={"whitespace_pattern": WHITESPACE}),
            compiled(json.dumps(_closed(schema)), overrides={"whitespace_flexible": False}),
        )
    except (ValueError, RecursionError) as error:  # such as too many levels
        raise _invalid(option, str(error)) from None


def _refuse_counted_names(schema: Any, option: str) -> None:
    """Raise CharloomError if properties are counted whose names can repeat.

    llguidance counts every member, and a JSON parser keeps the last one of each name only.
    """
    if isinstance(schema, list):
        for part in schema:
            _refuse_counted_names(part, option)
    if not isinstance(schema, dict):
        return
    least, required = schema.get("minProperties"), schema.get("required")
    named = len(required) if isinstance(required, list) else 0
    free = schema.get("additionalProperties", True) is not False or "patternProperties" in schema
    if isinstance(least, int) and free and least > max(1, named):
        raise CharloomError(
            f"{option} has minProperties of any name, which is not supported: name required "
            "properties, or omit it"
        )
    for part in schema.values():
        _refuse_counted_names(part, option)


def _closed(schema: Any) -> Any:
    """Return a JSON schema in which no object has properties that it does not name."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed


def grammar_of_text(text: str, option: str = "grammar") -> str:
    """Return llguidance's grammar of one in the notation of Lark or of GBNF.

    Raises:
        CharloomError: if it is not a grammar.
    """
    if not isinstance(text, str) or not text.strip():
        raise CharloomError(f"{option} is {shortened(text)}: pass a grammar of Lark or GBNF")
    _check_size(text, option)
    engine = _engine(option)
    if "::=" in text:
        from llguidance.gbnf_to_lark import gbnf_to_lark

        try:
            text = gbnf_to_lark(text)
        except Exception as error:  # of its own class, and others for some texts
            raise _invalid(option, str(error)) from None
    return str(engine.LLMatcher.grammar_from_lark(text))


def _check_size(text: str, option: str) -> None:
    if len(text) > LONGEST_GRAMMAR:
        raise CharloomError(
            f"{option} has {len(text):,} characters: pass at most {LONGEST_GRAMMAR:,}"
        )


def _engine(option: str) -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise CharloomError(
            f"{option} requires llguidance, which cannot be imported ({error}): pip install "
            "'charloom[constrain]'"
        ) from None
    return llguidance


def _invalid(option: str, message: str) -> CharloomError:
    reason = next((line.strip() for line in message.splitlines() if line.strip()), "unknown reason")
    return CharloomError(f"{option} cannot be used ({reason.rstrip('.:')}): correct or omit that")


Tried = tuple[bytes, int, tuple[int, ...]]


class GrammarState:
    """A text so far: llguidance's matcher, the automaton's state, and ids that complete the text.

    Attributes:
        matcher: it is never changed, but copied.
        automaton: the state of the automaton.
        rest: ids after which the text can end.
        tried: completions found by searches for this text alone, so that no text depends on
            another. Each is the mask of the next character, the number of ids that were dropped
            from `rest`, and the ids before the others.
        after: the states after characters, by their id and the characters left, so that texts with
            the same beginning share the work.
        mask: the characters that the grammar allows next, (V,), once they are known.
    """

    __slots__ = ("after", "automaton", "mask", "matcher", "rest", "tried")

    def __init__(
        self,
        matcher: Any,
        automaton: int,
        rest: tuple[int, ...] = (),
        tried: tuple[Tried, ...] = (),
    ) -> None:
        self.matcher, self.automaton, self.rest, self.tried = matcher, automaton, rest, tried
        self.after: dict[tuple[int, int], GrammarState | None] = {}
        self.mask: NDArray[np.bool_] | None = None

    def with_rest(self, rest: tuple[int, ...], tried: tuple[Tried, ...]) -> GrammarState:
        """Return the state with another completion."""
        found = GrammarState(self.matcher, self.automaton, rest, tried)
        found.mask = self.mask
        return found


class GrammarConstraint:
    """The texts of a grammar that an automaton contains too: a Constraint.

    Args:
        grammar: the grammar, as llguidance reads it.
        vocabulary: the characters of the texts.
        automaton: restricts the texts.
        option: the option's name, for messages.
        simpler: a grammar with some of its texts, in which a first one is searched for.

    Raises:
        CharloomError: if the grammar is invalid or not supported, or no short text is found.
    """

    is_regular = False

    def __init__(
        self,
        grammar: str,
        vocabulary: Vocabulary,
        automaton: Automaton,
        option: str,
        simpler: str | None = None,
    ) -> None:
        self._source = grammar, vocabulary, option
        self._automaton, self._size = automaton, len(vocabulary)
        self._room = MOST_KEPT
        self._stuck: Any = None
        self._failure = ""  # the limit of llguidance that was reached, if any
        self._nothing = np.zeros(self._size, bool)
        matcher = self._matcher(grammar)
        if matcher.is_error():
            raise _invalid(option, matcher.get_error())
        begin = GrammarState(matcher, automaton.start())
        rest = None
        if simpler is not None:
            simple = self._matcher(simpler)
            if not simple.is_error():
                first = GrammarState(simple, begin.automaton)
                rest = self._search(first, SEARCHED, Deadline())
        if rest is None or not self._completes(begin, rest):
            rest = self._search(begin, SEARCHED, Deadline())
        if rest is None and self._failure:
            raise _invalid(option, self._failure)
        if rest is None:
            raise CharloomError(
                f"no text of the model's characters that meets {option} and the other constraints "
                f"was found: {self._required(vocabulary)}"
            )
        self._start = self._explored(GrammarState(matcher, begin.automaton, rest))
        self.least = len(rest)

    def _matcher(self, grammar: str) -> Any:
        _, vocabulary, option = self._source
        engine = _engine(option)
        limits = engine.LLParserLimits(max_items_in_row=MOST_ITEMS, verbose_errors=False)
        return engine.LLMatcher(_tokenizer(vocabulary), grammar, log_level=0, limits=limits)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs, to which llguidance's objects cannot be sent."""
        start = self._start.automaton, self._start.rest, self._start.tried
        return {**self.__dict__, "_start": start, "_stuck": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start = GrammarState(self._matcher(self._source[0]), *state["_start"])

    def start(self) -> GrammarState:
        return self._start

    def allowed(self, state: GrammarState, left: int) -> NDArray[np.bool_]:
        if left <= 0:
            return self._nothing
        return self._mask(state) & self._automaton.allowed(state.automaton, left)

    def advance(self, state: GrammarState, id_: int, left: int) -> GrammarState | None:
        key = id_, left
        if key not in state.after:
            found = self._advance(state, id_, left)
            if not self._room:
                return found
            self._room -= 1
            state.after[key] = found
        return state.after[key]

    def _advance(self, state: GrammarState, id_: int, left: int) -> GrammarState | None:
        after = self._step(state, id_)
        if after is None:
            return None
        if state.rest[:1] == (id_,):
            after.rest, after.tried = state.rest[1:], state.tried
            return after
        after.rest, after.tried = state.rest, state.tried
        return self._completed(after, left)

    def may_end(self, state: GrammarState) -> bool:
        return bool(state.matcher.is_accepting()) and self._automaton.may_end(state.automaton)

    def must_end(self, state: GrammarState) -> bool:
        return not self.allowed(state, UNLIMITED).any()

    def _mask(self, state: GrammarState) -> NDArray[np.bool_]:
        if state.mask is None:
            state.mask = self._nothing
            if not state.matcher.is_stopped():
                bits = np.frombuffer(state.matcher.compute_bitmask(), np.uint8)
                found = np.unpackbits(bits, count=self._size, bitorder="little")
                state.mask = found.view(np.bool_)
        return state.mask

    def _step(self, state: GrammarState, id_: int) -> GrammarState | None:
        matcher = state.matcher.deep_copy()
        automaton = self._automaton.advance(state.automaton, id_)
        if automaton < 0:
            return None
        if not matcher.consume_token(id_):
            reason = matcher.get_error()
            if NO_CONTINUATION not in reason:  # but a limit
                self._failure = reason
            return None
        return GrammarState(matcher, automaton)

    def _explored(self, start: GrammarState) -> GrammarState:
        """Return a first state that knows how texts which depart from its own are completed.

        The searches for it are limited in number, not in time, so that samples do not depend on
        the speed of the machine.
        """
        waiting = deque([start])
        tried: tuple[Tried, ...] = ()
        seen: set[object] = set()
        searches = 0
        while waiting:
            state = waiting.popleft()
            for id_ in state.rest:
                for other, after in self._following(state):
                    signature = self._signature(after)
                    if other == id_ or signature in seen:
                        continue
                    seen.add(signature)
                    left = after.with_rest(state.rest, tried)
                    found = self._completed(left, UNLIMITED)
                    if found is not None and found.tried is not tried:
                        tried = found.tried
                        searches += 1
                        waiting.append(found)
                    if searches == EXPLORED:
                        return start.with_rest(start.rest, tried)
                following = self._step(state, id_)
                assert following is not None  # because the ids complete the text
                state = following.with_rest(state.rest[1:], ())
        return start.with_rest(start.rest, tried)

    def _completed(self, state: GrammarState, left: int) -> GrammarState | None:
        """Return a state with ids that complete its text; its `rest` completed the text before."""
        rest = state.rest
        for begin in range(max(0, len(rest) - left), len(rest) + 1):
            if self._completes(state, rest[begin:]):
                return state.with_rest(rest[begin:], state.tried)
        # A completion after the same choice of characters probably fits again.
        mask = self._mask(state).tobytes()
        for known, dropped, first in state.tried:
            found = first + rest[dropped:]
            if known == mask and len(found) <= left and self._completes(state, found):
                return state.with_rest(found, state.tried)
        searched = self._search(state, SEARCHED_AGAIN, Deadline(FOREVER), rest)
        if searched is None or len(searched) > left:
            return None
        same = 0  # ids at the end of both
        while same < min(len(rest), len(searched)) and searched[-same - 1] == rest[-same - 1]:
            same += 1
        entry = mask, len(rest) - same, searched[: len(searched) - same]
        return state.with_rest(searched, (entry, *state.tried)[:MOST_TRIED])

    def _completes(self, state: GrammarState, rest: tuple[int, ...]) -> bool:
        if not rest:
            return self.may_end(state)
        # The end of a text is valid after them where the grammar accepts it.
        if state.matcher.validate_tokens([*rest, self._size]) <= len(rest):
            return False
        automaton = state.automaton
        for id_ in rest:
            automaton = self._automaton.advance(automaton, id_)
            if automaton < 0:
                return False
        return self._automaton.may_end(automaton)

    def _search(
        self,
        state: GrammarState,
        most: int,
        deadline: Deadline,
        known: tuple[int, ...] = (),
    ) -> tuple[int, ...] | None:
        """Return ids that complete a text, None if none are found. Short ones are found first.

        Args:
            state: the text so far.
            most: the number of states to visit.
            deadline: the time for it.
            known: ids whose ends can complete a text too.
        """
        # Beside a state, its ids and the signatures before it, whose number grows with progress.
        level: list[tuple[GrammarState, tuple[int, ...], frozenset[object]]]
        level = [(state, (), frozenset())]
        visited = 0
        while level:
            for found, ids, _ in level:
                if self.may_end(found):
                    return ids
                for begin in range(len(known)):
                    if self._completes(found, known[begin:]):
                        return ids + known[begin:]
            following: list[tuple[GrammarState, tuple[int, ...], frozenset[object]]] = []
            alike: dict[object, int] = {}
            for found, ids, seen in level:
                for id_, after in self._following(found):
                    visited += 1
                    if visited > most or (visited % 64 == 0 and deadline.over):
                        return None
                    signature = self._signature(after)
                    signatures = seen | {signature}
                    key = signature, len(signatures)
                    alike[key] = alike.get(key, 0) + 1
                    if alike[key] <= ALIKE:
                        following.append((after, (*ids, id_), signatures))
            if not following:
                self._stuck = level[0][0].matcher
            level = following
        return None

    def _required(self, vocabulary: Vocabulary) -> str:
        """Return a sentence about a character that the text requires where a search got stuck."""
        text = b"" if self._stuck is None else self._stuck.compute_ff_bytes()
        unknown = [c for c in text.decode("utf-8", "ignore") if c not in vocabulary.known]
        if vocabulary.as_bytes or not unknown:
            return "simplify it, or use a model that knows its characters"
        name = vocabulary.describe_unknown(unknown[0], 0).name
        return f"it requires the {name}, which the model does not know"

    def _signature(self, state: GrammarState, depth: int = 2) -> object:
        """Return what two states share that probably have the same continuations."""
        mask = self.allowed(state, UNLIMITED)
        ids = np.flatnonzero(mask)
        deeper: list[object] = []
        if depth and len(ids) <= FEW:
            deeper = [self._signature(after, depth - 1) for _, after in self._following(state)]
        return mask.tobytes(), self.may_end(state), state.automaton, tuple(deeper)

    def _following(self, state: GrammarState) -> Iterator[tuple[int, GrammarState]]:
        for id_ in np.flatnonzero(self.allowed(state, UNLIMITED)).tolist():
            after = self._step(state, id_)
            if after is not None:
                yield id_, after


def _tokenizer(vocabulary: Vocabulary) -> Any:
    """Return llguidance's tokenizer whose tokens are the characters, and the end of a text."""
    from llguidance import LLTokenizer

    encoding = "latin-1" if vocabulary.as_bytes else "utf-8"
    tokens = [
        b"" if id_ == vocabulary.end_id else character.encode(encoding)
        for id_, character in enumerate(vocabulary.characters)
    ]
    return LLTokenizer(_Tokens(tokens), slices=[])


class _Tokens:
    """A tokenizer as llguidance expects it. The end of a text has the id V."""

    is_tokenizer_wrapper = True

    def __init__(self, tokens: list[bytes]) -> None:
        self.tokens = [*tokens, b"<end of text>"]
        self.eos_token_id = len(tokens)
        self.bos_token_id = None
        self.special_token_ids = [len(tokens)]

    def __call__(self, text: str | bytes) -> list[int]:
        encoded = text if isinstance(text, bytes) else text.encode()
        return [
            self.tokens.index(bytes([byte])) for byte in encoded if bytes([byte]) in self.tokens
        ]
