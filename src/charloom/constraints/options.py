"""From the options of a user to the constraints of a sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.constraints import grammars
from charloom.constraints.automaton import Automaton, containing, everything, intersection
from charloom.constraints.grammars import read_schema
from charloom.constraints.patterns import (
    beyond_ascii,
    characters_of_class,
    compile_pattern,
    complement_of_class,
)
from charloom.constraints.protocol import Constraint, Constraints
from charloom.constraints.schemas import automaton_of_schema
from charloom.errors import CharloomError, shortened
from charloom.text.vocabulary import UnknownCharacterError, Vocabulary

WHOLE = ("match", "json_schema", "grammar")  # options that describe a whole sample
LARGEST_BIAS = 1e30  # beyond which the sum with a logit overflows
NO_NAMES: Mapping[str, str] = {}
Bias = Mapping[str, float] | Sequence[str] | str


@dataclass(frozen=True)
class ConstraintOptions:
    """The options that restrict a sample.

    Attributes:
        match: a regular expression that the whole sample matches.
        forbid: texts that the sample does not contain, or classes of characters such as [0-9].
        require: texts that it contains.
        alphabet: the class of the characters that it consists of.
        bias: additions to the logits of characters, as a mapping or as texts like e=-5.
        json_schema: a JSON schema that the whole sample meets, as a dict or a JSON text.
        grammar: a grammar of Lark or GBNF, of which the whole sample is a text.
    """

    match: str | None = None
    forbid: str | Sequence[str] = ()
    require: str | Sequence[str] = ()
    alphabet: str | None = None
    bias: Bias = ()
    json_schema: Any = None
    grammar: str | None = None

    def read(
        self,
        vocabulary: Vocabulary,
        as_read: Callable[[str], str],
        stops: Sequence[str] = (),
        names: Mapping[str, str] = NO_NAMES,
    ) -> Constraints | None:
        """Return the constraints, None without any.

        Args:
            vocabulary: the model's characters.
            as_read: returns what a user typed as characters of the model.
            stops: the stop texts of the sample, in characters of the model.
            names: other names of options in messages.

        Raises:
            CharloomError: if an option is invalid, or no text meets all of them.
        """
        given = [name for name in WHOLE if getattr(self, name) is not None]
        if len(given) > 1:
            raise CharloomError(f"{given[0]} and {given[1]} exclude each other: pass one of them")
        bias = read_bias(self.bias, vocabulary)
        forbidden = _texts(self.forbid, "forbid")
        required = _texts(self.require, "require")
        end_id = vocabulary.end_id
        parts: list[Automaton] = []
        if self.match is not None:
            parts.append(compile_pattern(self.match, vocabulary, names.get("match", "match")))
        schema, regular = None, None
        if self.json_schema is not None:
            option = names.get("json_schema", "json_schema")
            schema = read_schema(self.json_schema, option)
            regular = automaton_of_schema(schema, vocabulary, option)
            if regular is not None:
                parts.append(regular)
        without: set[int] = set() if end_id is None else {end_id}
        if bias is not None:
            without |= set(np.flatnonzero(np.isneginf(bias)).tolist())
        for text in forbidden:
            if is_class(text):
                inside = characters_of_class(text, vocabulary, "forbid")
                if vocabulary.as_bytes and beyond_ascii(text):
                    parts.append(_repeated(complement_of_class(text), vocabulary, "forbid"))
                else:
                    without |= inside
                continue
            ids = vocabulary.ids_or_minus_one(as_read(text))
            if len(ids) == 1:
                without |= set(ids[ids >= 0].tolist())
            elif ids.min() >= 0:  # a text with an unknown character is never sampled
                parts.append(containing(ids.tolist(), len(vocabulary), contains=False))
        if self.alphabet is not None:
            if not is_class(self.alphabet):
                raise CharloomError(
                    f"alphabet is {shortened(self.alphabet)}: pass a class of characters such as "
                    "[a-z ]"
                )
            inside = characters_of_class(self.alphabet, vocabulary, "alphabet")
            if vocabulary.as_bytes and beyond_ascii(self.alphabet):
                parts.append(_repeated(self.alphabet, vocabulary, "alphabet"))
            else:
                without |= set(range(len(vocabulary))) - inside
        for text in required:
            known = encode_known(as_read(text), vocabulary, "require")
            parts.append(containing(known.tolist(), len(vocabulary)))
        ends: tuple[int, ...] = ()
        if end_id is not None and (bias is None or bias[end_id] > -math.inf):
            ends = (end_id,)
        if given or required:
            # A stop text could cut a sample off before it is complete. It therefore ends the sample
            # as a single character, where the sample is complete, and cannot occur otherwise.
            for stop in stops:
                ids = vocabulary.ids_or_minus_one(stop)
                if len(ids) == 1:
                    without |= set(ids.tolist())
                    ends += tuple(ids.tolist())
                elif ids.min() >= 0:
                    parts.append(containing(ids.tolist(), len(vocabulary), contains=False))
        if given and not ends:
            newline = int(vocabulary.ids_or_minus_one("\n")[0])
            ends = (newline,) * (newline >= 0)
        if not (given or parts or forbidden or self.alphabet is not None):
            return None if bias is None else Constraints(None, bias, ends)
        automaton = intersection(parts or [everything(len(vocabulary))]).without(sorted(without))
        if automaton.is_empty or (not given and automaton.must_end(automaton.start())):
            raise CharloomError(
                "no text of the model's characters meets all constraints: omit one of them"
            )
        found: Constraint = automaton
        if self.grammar is not None or (schema is not None and regular is None):
            found = self._grammar(schema, vocabulary, automaton, names)
        return Constraints(found, bias, ends)

    def with_texts(self, as_read: Callable[[str], str]) -> ConstraintOptions:
        """Return the options with their texts as characters of the model.

        Raises:
            CharloomError: if a text is empty or cannot be read.
        """
        forbidden, required = _texts(self.forbid, "forbid"), _texts(self.require, "require")
        return replace(
            self,
            forbid=tuple(text if is_class(text) else as_read(text) for text in forbidden),
            require=tuple(map(as_read, required)),
        )

    def _grammar(
        self,
        schema: Any,
        vocabulary: Vocabulary,
        automaton: Automaton,
        names: Mapping[str, str],
    ) -> Constraint:
        if schema is None:
            option, simpler = names.get("grammar", "grammar"), None
            source = grammars.grammar_of_text(self.grammar or "", option)
        else:
            option = names.get("json_schema", "json_schema")
            source, simpler = grammars.grammars_of_schema(schema, option)
        return grammars.GrammarConstraint(source, vocabulary, automaton, option, simpler)


def _repeated(source: str, vocabulary: Vocabulary, option: str) -> Automaton:
    """Return the automaton of the texts of a class, whose characters are several bytes each."""
    return compile_pattern(f"{source}*", vocabulary, option)


def is_class(text: str) -> bool:
    """Return whether a text is a class of characters, such as [a-z ]."""
    return isinstance(text, str) and len(text) > 2 and text[0] == "[" and text[-1] == "]"


def encode_known(
    text: str, vocabulary: Vocabulary, name: str, position: int = 0
) -> NDArray[np.unsignedinteger]:
    """Return the ids of a text, (N,).

    Args:
        text: characters of the model.
        vocabulary: the characters that it knows.
        name: the text's name, for messages.
        position: the index of the first character in the whole text, for messages.

    Raises:
        UnknownCharacterError: if a character is unknown.
    """
    ids = vocabulary.ids_or_minus_one(text)
    unknown = np.flatnonzero(ids < 0)
    if not len(unknown):
        return vocabulary.encode(text)
    place = int(unknown[0])
    one = vocabulary.describe_unknown(text, place)
    at = "byte" if vocabulary.as_bytes else "position"
    raise UnknownCharacterError(
        f"{name} has the {one.name} at {at} {position + place}, which the model does not know: "
        f"{one.advice}{'or ' * bool(one.advice)}remove it"
    )


def _texts(texts: str | Sequence[str], option: str) -> Iterable[str]:
    found = (texts,) if isinstance(texts, str) else tuple(texts)
    if any(not isinstance(text, str) or not text for text in found):
        raise CharloomError(f"{option} has an empty text: pass at least one character")
    return found


def read_bias(bias: Bias, vocabulary: Vocabulary) -> NDArray[np.float64] | None:
    """Return additions to the logits, (V,), None without any.

    Args:
        bias: a mapping from characters to numbers, or texts like e=-5. The end of a document is
            <end>, and -inf excludes a character.
        vocabulary: the model's characters.

    Raises:
        CharloomError: if a character is unknown, a number is invalid or no character is left.
    """
    if isinstance(bias, str):
        bias = (bias,)
    if isinstance(bias, Mapping):
        pairs: list[tuple[str, float | str]] = list(bias.items())
    else:
        pairs = [(text[:1] + name, value) for text in bias for name, value in [_cut(text)]]
    if not pairs:
        return None
    names = {name: id_ for id_, name in enumerate(vocabulary.names)}
    found = np.zeros(len(vocabulary))
    for name, value in pairs:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if math.isnan(number) or number == math.inf:
            raise CharloomError(
                f"bias {shortened(f'{name}={value}')} is not a character with a number: pass e=-5, "
                "or e=-inf to exclude it"
            )
        if name not in names:
            raise CharloomError(
                f"bias names {shortened(name)}, which is not a character of the model: omit it"
            )
        finite = min(max(number, -LARGEST_BIAS), LARGEST_BIAS)
        found[names[name]] = number if number == -math.inf else finite
    if np.isneginf(found).all():
        raise CharloomError("bias excludes every character: omit one")
    return found


def _cut(text: str) -> tuple[str, str]:
    """Cut CHARACTER=NUMBER at the last sign; the name is without its first character."""
    name, _, number = text[1:].rpartition("=")
    return name, number
