"""JSON schemas and grammars, by the engine llguidance.

llguidance knows which characters can come next, but not whether the text can still be completed: in
time, and with the characters of the model. A state therefore keeps a completion of its text. After
every character, the completion or an end of it usually still fits. Otherwise another one is
searched for, and a character after which none is found cannot be chosen.

V is the number of characters in the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.automaton import Automaton, Deadline
from charloom.errors import CharloomError, shortened
from charloom.text.vocabulary import Vocabulary

LONGEST_GRAMMAR = 100_000  # characters
# Between the symbols of JSON: nothing, a space, or a line break with an indentation.
WHITESPACE = r" |\n {0,16}"
SEARCHED = 100_000  # states, for the first completion
SEARCHED_AGAIN = 300  # states, for another one
ALIKE = 3  # states of a search, at most, with as many characters and the same signature
FEW = 4  # characters whose continuations are compared too


def grammar_of_schema(schema: Any, option: str = "json_schema") -> str:
    """Return llguidance's grammar of a JSON schema, which is a dict or a JSON text.

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
    _check_size(json.dumps(schema), option)
    matcher = _engine(option).LLMatcher
    return str(
        matcher.grammar_from_json_schema(
            json.dumps(schema), defaults={"whitespace_pattern": WHITESPACE}
        )
    )


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


@dataclass(frozen=True)
class GrammarState:
    """A text so far: llguidance's matcher, the automaton's state, and ids that complete the text.

    Attributes:
        matcher: it is never changed, but copied.
        automaton: the state of the automaton.
        rest: ids after which the text can end.
    """

    matcher: Any
    automaton: int
    rest: tuple[int, ...]


class GrammarConstraint:
    """The texts of a grammar that an automaton contains too: a Constraint.

    Args:
        grammar: the grammar, as llguidance reads it.
        vocabulary: the characters of the texts.
        automaton: restricts the texts.
        option: the option's name, for messages.

    Raises:
        CharloomError: if the grammar is invalid or not supported, or no short text is found.
    """

    def __init__(
        self, grammar: str, vocabulary: Vocabulary, automaton: Automaton, option: str
    ) -> None:
        self._automaton, self._size = automaton, len(vocabulary)
        matcher = _engine(option).LLMatcher(_tokenizer(vocabulary), grammar, log_level=0)
        if matcher.is_error():
            raise _invalid(option, matcher.get_error())
        self._nothing = np.zeros(self._size, bool)
        begin = GrammarState(matcher, automaton.start(), ())
        rest = self._search(begin, SEARCHED, Deadline())
        if rest is None:
            raise CharloomError(
                f"no text of the model's characters that meets {option} and the other constraints "
                "was found: allow more characters, or simplify it"
            )
        self._start = GrammarState(matcher, begin.automaton, rest)
        self.least = len(rest)

    def start(self) -> GrammarState:
        return self._start

    def allowed(self, state: GrammarState, left: int) -> NDArray[np.bool_]:
        if left <= 0:
            return self._nothing
        return self._mask(state.matcher) & self._automaton.allowed(state.automaton, left)

    def advance(self, state: GrammarState, id_: int, left: int) -> GrammarState | None:
        after = self._step(state, id_)
        if after is None:
            return None
        rest = state.rest[1:] if state.rest[:1] == (id_,) else self._rest(after, state.rest, left)
        return None if rest is None else GrammarState(after.matcher, after.automaton, rest)

    def may_end(self, state: GrammarState) -> bool:
        return bool(state.matcher.is_accepting()) and self._automaton.may_end(state.automaton)

    def must_end(self, state: GrammarState) -> bool:
        return not self.allowed(state, 2**31 - 1).any()

    def _mask(self, matcher: Any) -> NDArray[np.bool_]:
        if matcher.is_stopped():
            return self._nothing
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        return np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)

    def _step(self, state: GrammarState, id_: int) -> GrammarState | None:
        matcher = state.matcher.deep_copy()
        automaton = self._automaton.advance(state.automaton, id_)
        if automaton < 0 or not matcher.consume_token(id_):
            return None
        return GrammarState(matcher, automaton, ())

    def _rest(
        self, state: GrammarState, rest: tuple[int, ...], left: int
    ) -> tuple[int, ...] | None:
        """Return ids that complete a text, of which `rest` completed the text before."""
        for begin in range(max(0, len(rest) - left), len(rest) + 1):
            if self._completes(state, rest[begin:]):
                return rest[begin:]
        found = self._search(state, SEARCHED_AGAIN, Deadline(), rest)
        return found if found is not None and len(found) <= left else None

    def _completes(self, state: GrammarState, rest: tuple[int, ...]) -> bool:
        matcher, automaton = state.matcher, state.automaton
        if rest:
            if matcher.validate_tokens(list(rest)) < len(rest):
                return False
            matcher = matcher.deep_copy()
            matcher.consume_tokens(list(rest))
            for id_ in rest:
                automaton = self._automaton.advance(automaton, id_)
                if automaton < 0:
                    return False
        return bool(matcher.is_accepting()) and self._automaton.may_end(automaton)

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
            known: ids whose ends may complete a text too.
        """
        level: list[tuple[GrammarState, tuple[int, ...]]] = [(state, ())]
        visited = 0
        while level:
            for found, ids in level:
                if self.may_end(found):
                    return ids
                for begin in range(len(known)):
                    if self._completes(found, known[begin:]):
                        return ids + known[begin:]
            following: list[tuple[GrammarState, tuple[int, ...]]] = []
            alike: dict[object, int] = {}
            for found, ids in level:
                for id_, after in self._following(found):
                    visited += 1
                    if visited > most or deadline.over:
                        return None
                    key = self._signature(after)
                    alike[key] = alike.get(key, 0) + 1
                    if alike[key] <= ALIKE:
                        following.append((after, (*ids, id_)))
            level = following
        return None

    def _signature(self, state: GrammarState, depth: int = 2) -> object:
        """Return what two states share that probably have the same continuations."""
        mask = self.allowed(state, 2**31 - 1)
        ids = np.flatnonzero(mask)
        deeper: list[object] = []
        if depth and len(ids) <= FEW:
            deeper = [self._signature(after, depth - 1) for _, after in self._following(state)]
        return mask.tobytes(), self.may_end(state), state.automaton, tuple(deeper)

    def _following(self, state: GrammarState) -> Iterator[tuple[int, GrammarState]]:
        for id_ in np.flatnonzero(self.allowed(state, 2**31 - 1)).tolist():
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
