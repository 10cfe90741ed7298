"""From a regular expression of Python's `re` to an automaton over a vocabulary.

Python's own parser reads the pattern, so that it means what `re.fullmatch` would match. Thompson's
construction makes a nondeterministic automaton of it ("Regular expression search algorithm", 1968),
and the subset construction a deterministic one. Both have a limit in size and time.

V is the number of characters in the vocabulary, C that of the classes of characters between which
the pattern does not distinguish.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.constraints.automaton import Automaton, Deadline, TooLargeError
from charloom.constraints.categories import UnknownCategoryError, replace_categories
from charloom.errors import CharloomError, shortened
from charloom.text.typed import compose
from charloom.text.vocabulary import END, Vocabulary

# The standard library's parser. `sre_parse` was its public name before Python 3.11.
parser: Any = re._parser  # type: ignore[attr-defined]

LONGEST_PATTERN = 10_000  # characters
MOST_FRAGMENTS = 50_000  # states of the nondeterministic automaton
SURROGATES = range(0xD800, 0xE000)
CATEGORIES = {
    "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s", "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W",
}  # fmt: skip
UNSUPPORTED = {
    "ASSERT": "a lookahead or lookbehind",
    "ASSERT_NOT": "a negative lookahead or lookbehind",
    "GROUPREF": "a reference to a group",
    "GROUPREF_EXISTS": "a conditional group",
    "ATOMIC_GROUP": "an atomic group",
    "POSSESSIVE_REPEAT": "a possessive repetition",
    "AT_BOUNDARY": r"\b",
    "AT_NON_BOUNDARY": r"\B",
}
KINDS = re.ASCII | re.LOCALE | re.UNICODE  # flags that exclude each other
AT_START = ("AT_BEGINNING", "AT_BEGINNING_STRING")
AT_END = ("AT_END", "AT_END_STRING")


def compile_pattern(pattern: str, vocabulary: Vocabulary, option: str = "match") -> Automaton:
    """Return the automaton of the texts that match a regular expression as a whole.

    Args:
        pattern: the regular expression, in the syntax of Python's `re`.
        vocabulary: the characters of the texts. In a vocabulary of bytes, a character of the
            pattern stands for the bytes of its UTF-8.
        option: the option's name, for messages.

    Raises:
        CharloomError: if the pattern is invalid, has a construct without an automaton, is too large
            or matches no text of these characters.
    """
    if not isinstance(pattern, str):
        raise CharloomError(f"{option} is {shortened(pattern)}: pass a regular expression as a str")
    if len(pattern) > LONGEST_PATTERN:
        raise CharloomError(
            f"{option} has {len(pattern):,} characters: pass at most {LONGEST_PATTERN:,}"
        )
    try:
        tree = _parse(pattern, vocabulary, option)
        found = _Compiler(vocabulary, option).compile(tree)
    except TooLargeError as error:
        raise TooLargeError(f"{option} {shortened(pattern)}: {error}") from None
    except RecursionError:
        raise TooLargeError(
            f"{option} {shortened(pattern)}: groups nested too deeply, use fewer"
        ) from None
    if found.is_empty:
        raise CharloomError(_why_empty(pattern, tree, vocabulary, option))
    return found


def compile_source(
    source: str, vocabulary: Vocabulary, option: str, deadline: Deadline
) -> Automaton:
    """Return the automaton of a regular expression that the program has made for an option.

    Raises:
        TooLargeError: if it is too large.
        CharloomError: if it matches no text of the model's characters.
    """
    tree = parser.parse(source)
    found = _Compiler(vocabulary, option, deadline).compile(tree)
    if found.is_empty:
        unknown = [c for c in _literals(tree, required=True) if c not in vocabulary.known]
        why = "use a model that knows its characters"
        if unknown and not vocabulary.as_bytes:
            name = vocabulary.describe_unknown(unknown[0], 0).name
            why = f"it requires the {name}, which the model does not know"
        raise CharloomError(f"no text of the model's characters meets {option}: {why}")
    return found


def characters_of_class(source: str, vocabulary: Vocabulary, option: str) -> set[int]:
    """Return the ids of the characters that a class such as [a-z ] matches.

    In a vocabulary of bytes, only its ASCII characters are found: the others have several bytes.

    Raises:
        CharloomError: if it is not a class.
    """
    source = _with_categories(source, option)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(source)
    except re.error as error:
        raise CharloomError(
            f"{option} {shortened(source)} is not a class of characters ({error.msg}): correct it"
        ) from None
    if len(tree) != 1 or str(tree[0][0]) not in ("IN", "LITERAL", "NOT_LITERAL"):
        raise CharloomError(
            f"{option} {shortened(source)} is not one class of characters: pass one such as [a-z ]"
        )
    known = [c for c in vocabulary.characters if not vocabulary.as_bytes or c.isascii()]
    found = set(re.findall(source, "".join(known)))
    return {id_ for id_, c in enumerate(vocabulary.characters) if c in found and c != END}


def beyond_ascii(source: str) -> bool:
    """Return whether a class of characters has some beyond ASCII."""
    return re.search(replace_categories(source), _all_characters()[0x80:]) is not None


def complement_of_class(source: str) -> str:
    """Return the class of all other characters."""
    if source[1] != "^":
        return f"[^{source[1:]}"
    members = source[2:]
    return f"[\\{members}" if members[0] == "^" else f"[{members}"


def _with_categories(source: str, option: str) -> str:
    try:
        return replace_categories(source)
    except UnknownCategoryError as error:
        raise CharloomError(
            f"{option} has the unknown category {shortened(str(error))}: pass one of Unicode's "
            "general categories, such as \\p{Lu} or \\p{L}"
        ) from None


def _parse(pattern: str, vocabulary: Vocabulary, option: str) -> Any:
    source = _with_categories(compose(pattern, vocabulary), option)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(source)
    except re.error as error:
        place = "" if error.pos is None else f" at character {error.pos + 1}"
        raise CharloomError(
            f"{option} {shortened(pattern)} is not a regular expression ({error.msg}{place}): "
            "correct it"
        ) from None
    except OverflowError:
        raise TooLargeError("a repetition is too large: use smaller repetitions") from None
    return tree


def _why_empty(pattern: str, tree: Any, vocabulary: Vocabulary, option: str) -> str:
    unknown = [c for c in _literals(tree) if not vocabulary.as_bytes and c not in vocabulary.known]
    if unknown:
        name = vocabulary.describe_unknown(unknown[0], 0).name
        return (
            f"no text of the model matches {option} {shortened(pattern)}, because the model does "
            f"not know the {name}: use characters of its training text"
        )
    return (
        f"no text of the model's characters matches {option} {shortened(pattern)}: pass another "
        "pattern"
    )


def _literals(tree: Any, *, required: bool = False) -> Iterator[str]:
    """Yield the characters of a parsed pattern outside classes.

    With `required`, only the characters that every text has.
    """
    for operation, argument in tree:
        name = str(operation)
        if name == "LITERAL":
            yield chr(argument)
        elif name == "SUBPATTERN":
            yield from _literals(argument[3], required=required)
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            if argument[0] or not required:
                yield from _literals(argument[2], required=required)
        elif name == "BRANCH" and not required:
            for choice in argument[1]:
                yield from _literals(choice)


class _Compiler:
    """The construction of one automaton.

    A state of the nondeterministic automaton has one edge with a set of characters (`_edge`), or
    edges without a character (`_free`). Some of these are passed at the beginning or the end of the
    text only.
    """

    def __init__(
        self, vocabulary: Vocabulary, option: str, deadline: Deadline | None = None
    ) -> None:
        self._vocabulary, self._option = vocabulary, option
        self._deadline = deadline or Deadline()
        self._free: list[list[tuple[int, str]]] = []  # targets and their conditions
        self._edge: list[tuple[int, int] | None] = []  # the number of the set, and the target
        self._sets: dict[bytes, int] = {}  # masks of characters, (V,)
        self._known: dict[tuple[str, int], list[tuple[int, int]]] = {}
        text = "".join(vocabulary.characters)
        self._characters = text
        if vocabulary.as_bytes:
            byte = np.array([ord(c) if c != END else -1 for c in text])
            self._id_bytes = byte

    def compile(self, tree: Any) -> Automaton:
        end = self._state()
        self._refuse_flags(tree.state.flags)
        start = self._sequence(tree, end, tree.state.flags)
        return self._determine(start, end)

    # Thompson's construction, from the end of the pattern to its beginning

    def _state(self, edge: tuple[int, int] | None = None) -> int:
        if len(self._free) >= MOST_FRAGMENTS:
            raise TooLargeError("the pattern is too large: use smaller repetitions")
        self._free.append([])
        self._edge.append(edge)
        return len(self._free) - 1

    def _sequence(self, items: Any, end: int, flags: int) -> int:
        for operation, argument in reversed(list(items)):
            end = self._item(str(operation), argument, end, flags)
        return end

    def _item(self, name: str, argument: Any, end: int, flags: int) -> int:
        """Return the state before one item of the pattern, whose texts lead to `end`."""
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self._characters_of(name, argument, end, flags)
        if name == "SUBPATTERN":
            _, added, removed, items = argument
            self._refuse_flags(added)
            if added & KINDS:
                flags &= ~KINDS  # because each of them replaces the others
            return self._sequence(items, end, (flags | added) & ~removed)
        if name == "BRANCH":
            begin = self._state()
            for choice in argument[1]:
                self._free[begin].append((self._sequence(choice, end, flags), ""))
            return begin
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeat(argument, end, flags)
        if name == "AT":
            name = str(argument)
            if name in AT_START or name in AT_END:
                begin = self._state()
                self._free[begin].append((end, "start" if name in AT_START else "end"))
                return begin
        raise CharloomError(
            f"{self._option} has {UNSUPPORTED.get(name, name.lower())}, which is not supported: "
            "omit it"
        )

    def _refuse_flags(self, flags: int) -> None:
        if flags & (re.MULTILINE | re.LOCALE):
            raise CharloomError(
                f"{self._option} has the flag m or L, which is not supported: omit it"
            )

    def _repeat(self, argument: Any, end: int, flags: int) -> int:
        least, most, items = argument
        begin = end
        if most == parser.MAXREPEAT:
            loop = self._state()
            self._free[loop] += [(end, ""), (self._sequence(items, loop, flags), "")]
            begin = loop
        else:
            for _ in range(most - least):
                choice = self._state()
                self._free[choice] += [(end, ""), (self._sequence(items, begin, flags), "")]
                begin = choice
        for _ in range(least):
            before = len(self._free)
            begin = self._sequence(items, begin, flags)
            if len(self._free) == before:  # nothing is repeated
                break
        return begin

    # Sets of characters

    def _characters_of(self, name: str, argument: Any, end: int, flags: int) -> int:
        """Return the state before one character of a set."""
        self._deadline.check()  # because a class of bytes takes a while
        source = _as_class(name, argument)
        key = source, flags & (re.IGNORECASE | re.ASCII | re.DOTALL)
        if self._vocabulary.as_bytes:
            return self._bytes_of(*key, end)
        if key not in self._known:
            mask = self._mask(_characters_in(*key, self._characters))
            self._known[key] = [(self._set(mask), 0)]
        return self._state((self._known[key][0][0], end))

    def _mask(self, characters: set[str]) -> NDArray[np.bool_]:
        return np.array([c in characters and c != END for c in self._characters], bool)

    def _set(self, mask: NDArray[np.bool_]) -> int:
        return self._sets.setdefault(mask.tobytes(), len(self._sets))

    def _bytes_of(self, source: str, flags: int, end: int) -> int:
        """Return the state before the UTF-8 of one character of a set."""
        begin = self._state()
        before: dict[tuple[tuple[int, int], int], int] = {}  # so that equal ends are one state
        for sequence in _byte_ranges(source, flags):
            state = end
            for low, high in reversed(sequence):
                key = (low, high), state
                if key not in before:
                    inside = (self._id_bytes >= low) & (self._id_bytes <= high)
                    before[key] = self._state((self._set(inside), state))
                state = before[key]
            self._free[begin].append((state, ""))
        return begin

    # The subset construction

    def _determine(self, start: int, end: int) -> Automaton:
        size = len(self._characters)
        masks = np.array([np.frombuffer(mask, bool) for mask in self._sets]).reshape(-1, size)
        columns, classes = np.unique(masks, axis=1, return_inverse=True)
        classes = classes.reshape(-1)
        members = [np.flatnonzero(row).tolist() for row in columns]
        closures: dict[int, frozenset[int]] = {}

        def closure(state: int) -> frozenset[int]:
            if state not in closures:
                closures[state] = self._closure([state])
            return closures[state]

        first = self._closure([start], passes=("", "start"))
        if any(condition == "start" for edges in self._free for _, condition in edges):
            first |= {self._state()}  # unlike all others, because only here is the beginning
        subsets: dict[frozenset[int], int] = {first: 0}
        waiting = deque([first])
        rows: list[list[int]] = []
        while waiting:
            self._deadline.check(len(subsets))
            targets: dict[int, set[int]] = {}
            for state in waiting.popleft():
                edge = self._edge[state]
                if edge is not None:
                    after = closure(edge[1])
                    for column in members[edge[0]]:
                        targets.setdefault(column, set()).update(after)
            row = [-1] * columns.shape[1]
            for column, states in targets.items():
                subset = frozenset(states)
                if subset not in subsets:
                    subsets[subset] = len(subsets)
                    waiting.append(subset)
                row[column] = subsets[subset]
            rows.append(row)
        accepting = [
            end in self._closure(subset, passes=("", "end") + ("start",) * (subset is first))
            for subset in subsets
        ]
        table = np.array(rows, np.int32).reshape(len(rows), columns.shape[1])
        if not columns.shape[1]:  # a pattern without any character
            classes, table = np.full(size, -1), np.full((len(rows), 1), -1, np.int32)
        return Automaton(classes, table, np.array(accepting, bool), self._deadline)

    def _closure(
        self, states: Sequence[int] | frozenset[int], passes: tuple[str, ...] = ("",)
    ) -> frozenset[int]:
        """Return the states that are reached without a character, if they have a meaning.

        These are states with an edge, the end, and those before a condition.
        """
        found: set[int] = set()
        waiting = list(states)
        seen = set(waiting)
        while waiting:
            state = waiting.pop()
            if not self._free[state] or any(c not in passes for _, c in self._free[state]):
                found.add(state)
            for target, condition in self._free[state]:
                if condition in passes and target not in seen:
                    seen.add(target)
                    waiting.append(target)
            if len(seen) % 1000 == 999:
                self._deadline.check()
        return frozenset(found)


def _as_class(name: str, argument: Any) -> str:
    """Return an item that matches one character as the source of a pattern."""
    if name == "ANY":
        return "."
    if name in ("LITERAL", "NOT_LITERAL"):
        return f"[{'^' * (name == 'NOT_LITERAL')}{_escaped(argument)}]"
    source = ""
    for operation, value in argument:
        kind = str(operation)
        if kind == "NEGATE":
            source += "^"
        elif kind == "LITERAL":
            source += _escaped(value)
        elif kind == "RANGE":
            source += f"{_escaped(value[0])}-{_escaped(value[1])}"
        else:
            source += CATEGORIES[str(value)]
    return f"[{source}]"


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"


def _characters_in(source: str, flags: int, characters: str) -> set[str]:
    """Return the characters that a class of a regular expression matches."""
    return set(re.findall(source, characters, flags))


@functools.lru_cache(64)
def _byte_ranges(source: str, flags: int) -> list[list[tuple[int, int]]]:
    """Return the UTF-8 of the characters that a class matches, as sequences of ranges of bytes."""
    found: list[list[tuple[int, int]]] = []
    for run in re.finditer(f"{source}+", _all_characters(), flags):
        low, high = run.start(), run.end() - 1
        if low < SURROGATES.start:
            _split(low, min(high, SURROGATES.start - 1), found.append)
        if high >= SURROGATES.stop:
            _split(max(low, SURROGATES.stop), high, found.append)
    return found


@functools.cache
def _all_characters() -> str:
    return "".join(map(chr, range(0x110000)))


def _split(low: int, high: int, add: Callable[[list[tuple[int, int]]], None]) -> None:
    """Cut a range of code points into sequences of ranges of bytes."""
    for limit in (0x7F, 0x7FF, 0xFFFF):  # the last code points of one, two and three bytes
        if low <= limit < high:
            _split(low, limit, add)
            _split(limit + 1, high, add)
            return
    if high > 0x7F:
        for bits in (6, 12, 18):  # in the last one, two and three bytes
            mask = (1 << bits) - 1
            if low & ~mask != high & ~mask:
                if low & mask:
                    _split(low, low | mask, add)
                    _split((low | mask) + 1, high, add)
                    return
                if high & mask != mask:
                    _split(low, (high & ~mask) - 1, add)
                    _split(high & ~mask, high, add)
                    return
    add(list(zip(chr(low).encode(), chr(high).encode(), strict=True)))
