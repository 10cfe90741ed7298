"""From the options of a user to the constraints of a sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.automaton import Automaton, containing, everything, intersection
from charloom.constraints.patterns import characters_of_class, compile_pattern
from charloom.constraints.protocol import Constraints
from charloom.errors import CharloomError, shortened
from charloom.text.vocabulary import Vocabulary

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
    """

    match: str | None = None
    forbid: str | Sequence[str] = ()
    require: str | Sequence[str] = ()
    alphabet: str | None = None
    bias: Bias = ()

    def read(
        self, vocabulary: Vocabulary, as_read: Callable[[str], str], stops: Sequence[str] = ()
    ) -> Constraints | None:
        """Return the constraints, None without any.

        Args:
            vocabulary: the model's characters.
            as_read: returns what a user typed as characters of the model.
            stops: the stop texts of the sample, in characters of the model.

        Raises:
            CharloomError: if an option is invalid, or no text meets all of them.
        """
        bias = read_bias(self.bias, vocabulary)
        forbidden = _texts(self.forbid, "forbid")
        required = _texts(self.require, "require")
        end_id = vocabulary.end_id
        parts: list[Automaton] = []
        if self.match is not None:
            parts.append(compile_pattern(self.match, vocabulary))
        without: set[int] = set() if end_id is None else {end_id}
        for text in forbidden:
            if is_class(text):
                without |= characters_of_class(text, vocabulary, "forbid")
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
            without |= set(range(len(vocabulary))) - inside
        for text in required:
            parts.append(containing(vocabulary.encode(as_read(text)).tolist(), len(vocabulary)))
        ends: tuple[int, ...] = () if end_id is None else (end_id,)
        if self.match is not None or required:
            # A stop text could cut a sample off before it is complete. It therefore ends the sample
            # as a single character, where the sample is complete, and cannot occur otherwise.
            for stop in stops:
                ids = vocabulary.ids_or_minus_one(stop)
                if len(ids) == 1:
                    without |= set(ids.tolist())
                    ends += tuple(ids.tolist())
                elif ids.min() >= 0:
                    parts.append(containing(ids.tolist(), len(vocabulary), contains=False))
        if self.match is not None and not ends:
            newline = int(vocabulary.ids_or_minus_one("\n")[0])
            ends = (newline,) * (newline >= 0)
        if parts or forbidden or self.alphabet is not None:
            parts.append(everything(len(vocabulary), sorted(without)))
        elif bias is None:
            return None
        found = intersection(parts) if parts else None
        if found is not None and found.is_empty:
            raise CharloomError(
                "no text of the model's characters meets all constraints: omit one of them"
            )
        return Constraints(found, bias, ends, whole=self.match is not None)


def is_class(text: str) -> bool:
    """Return whether a text is a class of characters, such as [a-z ]."""
    return isinstance(text, str) and len(text) > 2 and text[0] == "[" and text[-1] == "]"


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
        found[names[name]] = number
    if np.isneginf(found).all():
        raise CharloomError("bias excludes every character: omit one")
    return found


def _cut(text: str) -> tuple[str, str]:
    """Cut CHARACTER=NUMBER at the last sign, and return what follows its first character."""
    name, _, number = text[1:].rpartition("=")
    return name, number
