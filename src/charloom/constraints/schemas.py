"""From a JSON schema to a regular expression of its JSON texts, where that is possible.

An automaton is exact and fast: it knows how long a text must still be, and the kernels of sampling
follow it. Schemas without an automaton (`multipleOf`, `uniqueItems`, `format` and others) are left
to the grammars of `charloom.constraints.grammars`.

Properties come in the order of the schema. A value that the schema leaves open contains values at
most DEPTH levels deep, and a definition that contains itself does so at most RECURSION times.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from charloom.constraints.automaton import Automaton, Deadline, TooLargeError
from charloom.constraints.patterns import compile_source, parser
from charloom.text.vocabulary import Vocabulary

DEPTH = 2  # levels of arrays and objects in a value that the schema leaves open
RECURSION = 3  # times that a definition contains itself
SECONDS = 20.0  # for the automaton, whose size is limited too
LONGEST = 200_000  # characters of the regular expression
# Between the symbols of JSON: nothing, a space, or a line break with an indentation.
SPACE = r"(?: |\n {0,16})?"
PLAIN = r'[^"\\\x00-\x1f]'
HEX = "[0-9A-Fa-f]"
ESCAPED = rf'\\(?:["\\/bfnrt]|u(?:[0-9A-CE-Fa-ce-f]{HEX}{{3}}|[Dd][0-7]{HEX}{{2}}))'
CHARACTER = f"(?:{PLAIN}|{ESCAPED})"
FRACTION, EXPONENT = r"(?:\.[0-9]+)?", "(?:[eE][+-]?[0-9]+)?"
COMMA, COLON = f"{SPACE},{SPACE}", f"{SPACE}:{SPACE}"
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
ANNOTATIONS = {
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
    *("$schema", "$id", "$comment", "$defs", "definitions"),
}
OF_TYPE = {
    "string": {"minLength", "maxLength", "pattern"},
    "number": {"minimum", "maximum"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
}


class NotRegularError(Exception):
    """A schema has a part that no automaton of this module describes."""


def automaton_of_schema(schema: Any, vocabulary: Vocabulary, option: str) -> Automaton | None:
    """Return the automaton of the JSON texts that meet a schema, None if another way is needed.

    It can be empty, if the model does not know a character.
    """
    try:
        source = pattern_of_schema(schema)
        return compile_source(source, vocabulary, option, Deadline(SECONDS))
    except (NotRegularError, TooLargeError, RecursionError):
        return None


def pattern_of_schema(schema: Any) -> str:
    """Return a regular expression of the JSON texts that meet a schema.

    Raises:
        NotRegularError: if it is not regular.
    """
    found = _Schemas(schema).value(schema, ())
    if len(found) > LONGEST:
        raise NotRegularError
    return found


class _TooDeepError(NotRegularError):
    """A definition contains itself too often here, so that another choice must be taken."""


class _Property(NamedTuple):
    pattern: str
    required: bool


class _Schemas:
    """The parts of one schema, `root`, to which references refer."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._open: dict[int, str] = {}

    def value(self, schema: Any, above: tuple[str, ...]) -> str:
        """Return the pattern of a schema; `above` are the references that have led to it."""
        if schema is True or schema == {}:
            return self._any(DEPTH)
        if not isinstance(schema, dict):
            raise NotRegularError
        keywords = set(schema) - ANNOTATIONS
        if keywords == {"$ref"}:
            return self._reference(schema["$ref"], above)
        if len(keywords) == 1 and keywords <= {"anyOf", "oneOf", "allOf"}:
            return self._choices(keywords.pop(), schema, above)
        if "const" in keywords or "enum" in keywords:
            return self._values(schema, keywords)
        return self._of_types(schema, keywords, above)

    def _reference(self, reference: Any, above: tuple[str, ...]) -> str:
        if not isinstance(reference, str) or reference[:1] != "#":
            raise NotRegularError
        if above.count(reference) > RECURSION:
            raise _TooDeepError
        target = self._root
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or name not in target:
                raise NotRegularError
            target = target[name]
        if "%" in reference or (reference != "#" and reference[1] != "/") or "$id" in repr(target):
            raise NotRegularError
        return self.value(target, (*above, reference))

    def _choices(self, keyword: str, schema: Mapping[str, Any], above: tuple[str, ...]) -> str:
        choices = schema[keyword]
        if not isinstance(choices, list) or not choices:
            raise NotRegularError
        if keyword == "allOf" and len(choices) > 1:
            raise NotRegularError
        if keyword == "oneOf":
            kinds = [kind for choice in choices for kind in _kinds_of(choice)]
            if len(set(kinds)) < len(kinds):
                raise NotRegularError
        found = [self._if_possible(choice, above) for choice in choices]
        if not any(found):
            raise _TooDeepError
        return _one_of([pattern for pattern in found if pattern is not None])

    def _if_possible(self, schema: Any, above: tuple[str, ...]) -> str | None:
        """Return the pattern of a schema that can be omitted, None if it is too deep."""
        try:
            return self.value(schema, above)
        except _TooDeepError:
            return None

    def _values(self, schema: Mapping[str, Any], keywords: set[str]) -> str:
        if not keywords <= {"const", "enum", "type"} or {"const", "enum"} <= keywords:
            raise NotRegularError
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if not isinstance(values, list) or not values:
            raise NotRegularError
        if "type" in schema:
            types = _types(schema["type"])
            values = [value for value in values if _type_of(value) in (*types, *_wider(types))]
            if not values:
                raise NotRegularError
        return _one_of(map(_literal, values))

    def _of_types(
        self, schema: Mapping[str, Any], keywords: set[str], above: tuple[str, ...]
    ) -> str:
        types = _types(schema.get("type", [kind for kind in TYPES if kind != "integer"]))
        known = {"type"}.union(*(OF_TYPE.get(kind, set()) for kind in types))
        others = set().union(*OF_TYPE.values())
        if keywords - known - others or ("number" in types and keywords & EXCLUSIVE):
            raise NotRegularError
        return _one_of(self._of_type(kind, schema, above) for kind in types)

    def _of_type(self, kind: str, schema: Mapping[str, Any], above: tuple[str, ...]) -> str:
        if kind == "null":
            return "null"
        if kind == "boolean":
            return "(?:true|false)"
        if kind == "integer":
            return _one_of(_integers(*_bounds(schema)))
        if kind == "number":
            return _numbers(schema)
        if kind == "string":
            return _strings(schema)
        if kind == "array":
            return self._arrays(schema, above)
        return self._objects(schema, above)

    def _arrays(self, schema: Mapping[str, Any], above: tuple[str, ...]) -> str:
        least, most = _size(schema, "minItems", "maxItems")
        first = schema.get("prefixItems", [])
        if not isinstance(first, list):
            raise NotRegularError
        items = schema.get("items", True)
        patterns = [self.value(one, above) for one in first]
        if most is not None:
            patterns = patterns[:most]
        rest = ""
        item = None
        if items is not False and (most is None or most > len(patterns)):
            item = self._if_possible(items, above)
            if item is None and least > len(patterns):
                raise _TooDeepError
        if item is not None:
            few = max(0, least - len(patterns))
            many = None if most is None else most - len(patterns)
            if not patterns:
                rest = _repeated_list(item, few, many)
                return rf"\[{SPACE}{rest}{SPACE}\]" if few else rf"\[{SPACE}(?:{rest}{SPACE})?\]"
            rest = f"(?:{COMMA}{item}){_times(few, many)}"
        elif least > len(patterns):
            raise NotRegularError
        elif not patterns:
            return rf"\[{SPACE}\]"
        found = rest
        for place in range(len(patterns) - 1, -1, -1):
            found = (COMMA if place else "") + patterns[place] + found
            if place >= least:
                found = f"(?:{found})?"
        return rf"\[{SPACE}{found}{SPACE}\]"

    def _objects(self, schema: Mapping[str, Any], above: tuple[str, ...]) -> str:
        named, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(named, dict) or not isinstance(required, list):
            raise NotRegularError
        additional = schema.get("additionalProperties", True)
        properties = []
        missing = [name for name in required if name not in named]
        if missing and additional is False:
            raise NotRegularError
        for name, one in (*named.items(), *((name, additional) for name in missing)):
            if not isinstance(name, str) or (one is False and name in required):
                raise NotRegularError
            if one is False:
                continue
            pattern = self._if_possible(one, above)
            if pattern is not None:
                member = f"{_text(name)}{COLON}{pattern}"
                properties.append(_Property(member, name in required))
            elif name in required:
                raise _TooDeepError
        more = None if additional is False else self._if_possible(additional, above)
        if more is not None:
            more = f"{_other_names([*named, *missing])}{COLON}{more}"
        return rf"\{{{SPACE}{_members(properties, more or '')}{SPACE}\}}"

    def _any(self, depth: int) -> str:
        """Return the pattern of any value with arrays and objects of at most `depth` levels."""
        if depth not in self._open:
            found = ["null", "true", "false", _numbers({}), _strings({})]
            if depth:
                inner = self._any(depth - 1)
                member = f"{_strings({})}{COLON}{inner}"
                for begin, one, end in ((r"\[", inner, r"\]"), (r"\{", member, r"\}")):
                    found.append(f"{begin}{SPACE}(?:{_repeated_list(one, 1, None)}{SPACE})?{end}")
            self._open[depth] = _one_of(found)
        return self._open[depth]


EXCLUSIVE = {"exclusiveMinimum", "exclusiveMaximum"}


def _one_of(patterns: Iterator[str] | Sequence[str]) -> str:
    found = list(dict.fromkeys(patterns))
    return found[0] if len(found) == 1 else f"(?:{'|'.join(found)})"


def _times(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"


def _repeated_list(item: str, least: int, most: int | None) -> str:
    """Return the pattern of items with commas between them, at least one."""
    further = None if most is None else most - 1
    return f"{item}(?:{COMMA}{item}){_times(max(0, least - 1), further)}"


def _members(properties: Sequence[_Property], more: str) -> str:
    """Return the pattern of the members of an object.

    Args:
        properties: the properties of the schema, in their order.
        more: the pattern of another member, empty if the schema excludes others.
    """
    others = f"(?:{COMMA}{more})*" if more else ""
    place = next((n for n, one in enumerate(properties) if one.required), None)
    if place is not None:
        before = "".join(f"(?:{one.pattern}{COMMA})?" for one in properties[:place])
        return before + properties[place].pattern + _further(properties[place + 1 :]) + others
    choices = [
        one.pattern + _further(properties[number + 1 :]) + others
        for number, one in enumerate(properties)
    ]
    if more:
        choices.append(more + others)
    return f"(?:{'|'.join(choices)})?" if choices else ""


def _further(properties: Sequence[_Property]) -> str:
    return "".join(
        COMMA + one.pattern if one.required else f"(?:{COMMA}{one.pattern})?" for one in properties
    )


def _other_names(names: Sequence[str]) -> str:
    """Return the pattern of names that differ from some, without escaped characters."""
    written = [name for name in names if re.fullmatch(f"{PLAIN}*", name)]
    return f'"{_not_among(written)}"'


def _not_among(texts: Sequence[str]) -> str:
    """Return the pattern of texts that are not among some."""
    if not texts:
        return f"{PLAIN}*"
    by_first: dict[str, list[str]] = {}
    for text in texts:
        if text:
            by_first.setdefault(text[0], []).append(text[1:])
    firsts = "".join(rf"\U{ord(first):08x}" for first in by_first)
    choices = [rf'[^"\\\x00-\x1f{firsts}]{PLAIN}*']
    for first, rests in by_first.items():
        choices.append(re.escape(first) + _not_among(rests))
    found = f"(?:{'|'.join(choices)})"
    return found if "" in texts else f"{found}?"


def _text(text: str) -> str:
    """Return the pattern of a JSON string, whose characters can be escaped where need be."""
    forms = (json.dumps(text, ensure_ascii=False), json.dumps(text))
    return _one_of([re.escape(form) for form in forms])


def _literal(value: Any) -> str:
    """Return the pattern of the JSON of a value."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        items = COMMA.join(map(_literal, value))
        return rf"\[{SPACE}{items}{SPACE}\]"
    if isinstance(value, dict):
        members = (f"{_text(name)}{COLON}{_literal(one)}" for name, one in value.items())
        return rf"\{{{SPACE}{COMMA.join(members)}{SPACE}\}}"
    if isinstance(value, float) and not math.isfinite(value):
        raise NotRegularError
    return re.escape(json.dumps(value))


def _types(value: Any) -> list[str]:
    types = value if isinstance(value, list) else [value]
    if not types or any(not isinstance(kind, str) or kind not in TYPES for kind in types):
        raise NotRegularError
    return list(types)


def _type_of(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, (int, float)):
        return "integer" if float(value).is_integer() else "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _wider(types: Sequence[str]) -> tuple[str, ...]:
    return ("integer",) if "number" in types else ()


def _kinds_of(schema: Any) -> list[str]:
    """Return the types of a schema's values, an integer as a number."""
    if not isinstance(schema, dict):
        raise NotRegularError
    if "const" in schema:
        kinds = [_type_of(schema["const"])]
    elif "type" in schema:
        kinds = _types(schema["type"])
    else:
        raise NotRegularError
    return list({"number" if kind == "integer" else kind for kind in kinds})


def _size(schema: Mapping[str, Any], least: str, most: str) -> tuple[int, int | None]:
    low, high = schema.get(least, 0), schema.get(most)
    for value in (low, 0 if high is None else high):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
            raise NotRegularError
    if low < 0 or (high is not None and high < low):
        raise NotRegularError
    return int(low), None if high is None else int(high)


def _strings(schema: Mapping[str, Any]) -> str:
    least, most = _size(schema, "minLength", "maxLength")
    if "pattern" not in schema:
        return f'"{CHARACTER}{_times(least, most) if least or most is not None else "*"}"'
    source = schema["pattern"]
    if "minLength" in schema or "maxLength" in schema or not isinstance(source, str):
        raise NotRegularError
    try:
        tree = list(parser.parse(source))
    except (re.error, OverflowError):
        raise NotRegularError from None
    ends = [str(item[1]) for item in (tree[0], tree[-1]) if str(item[0]) == "AT"] if tree else []
    if ends != ["AT_BEGINNING", "AT_END"] or not source.startswith("^") or source[-1] != "$":
        raise NotRegularError
    _check_plain(tree[1:-1])
    return f'"(?a:{source[1:-1]})"'


def _check_plain(tree: Any) -> None:
    """Raise NotRegularError unless a pattern matches only characters that JSON does not escape."""
    for operation, argument in tree:
        name = str(operation)
        if name == "LITERAL":
            _check_codes(argument, argument)
        elif name == "IN":
            for kind, value in argument:
                if str(kind) == "RANGE":
                    _check_codes(*value)
                elif str(kind) == "LITERAL":
                    _check_codes(value, value)
                elif str(kind) != "CATEGORY" or str(value) not in PLAIN_CATEGORIES:
                    raise NotRegularError
        elif name == "SUBPATTERN" and not argument[1] and not argument[2]:
            _check_plain(argument[3])
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            _check_plain(argument[2])
        elif name == "BRANCH":
            for choice in argument[1]:
                _check_plain(choice)
        else:
            raise NotRegularError


PLAIN_CATEGORIES = ("CATEGORY_DIGIT", "CATEGORY_WORD")


def _check_codes(low: int, high: int) -> None:
    if low < 0x20 or any(low <= ord(character) <= high for character in '"\\'):
        raise NotRegularError


def _bounds(schema: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the smallest and the largest integer of a schema."""
    found: list[int | None] = []
    for name, sign in (("inimum", 1), ("aximum", -1)):
        side = "m" + name
        values = []
        for keyword, exclusive in ((side, False), (f"exclusive{side.capitalize()}", True)):
            if keyword in schema:
                bound = _number(schema[keyword])
                first = math.ceil(sign * bound)
                values.append(first + (exclusive and first == sign * bound))
        found.append(sign * max(values) if values else None)
    low, high = found
    if low is not None and high is not None and low > high:
        raise NotRegularError
    return low, high


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise NotRegularError
    return value


def _numbers(schema: Mapping[str, Any]) -> str:
    """Return the pattern of numbers, with integers as bounds if there are any."""
    bounds = [schema.get(name) for name in ("minimum", "maximum")]
    if bounds == [None, None]:
        return f"-?(?:0|[1-9][0-9]*){FRACTION}{EXPONENT}"
    if any(bound is not None and _number(bound) != int(bound) for bound in bounds):
        raise NotRegularError
    low, high = _bounds({n: schema[n] for n in ("minimum", "maximum") if n in schema})
    found: list[str] = []
    for sign, least, most in (("", low, high), ("-", _minus(high), _minus(low))):
        least = 0 if least is None else max(0, least)
        if most is None:
            found += [f"{sign}{one}{FRACTION}" for one in _digits(least, None)]
        elif most >= least:
            found += [f"{sign}{one}{FRACTION}" for one in _digits(least, most - 1)]
            found.append(rf"{sign}{most}(?:\.0+)?")
    return _one_of(found)


def _minus(number: int | None) -> int | None:
    return None if number is None else -number


def _integers(low: int | None, high: int | None) -> list[str]:
    """Return the patterns of the integers from `low` to `high`."""
    found = []
    if low is None or low < 0:
        least = 1 if high is None or high > -1 else -high
        found += [f"-{one}" for one in _digits(least, _minus(low))]
    if high is None or high >= 0:
        found += _digits(max(0, low or 0), high)
    return found


def _digits(low: int, high: int | None) -> list[str]:
    """Return the patterns of the natural numbers from `low` to `high`, without leading zeros."""
    if high is None:
        width = len(str(low))
        longer = [rf"[1-9][0-9]{{{width},}}"]
        return _digits(low, 10**width - 1) + longer
    if low > high:
        return []
    one, other = str(low), str(high)
    if len(one) < len(other):
        edge = 10 ** len(one)
        return _digits(low, edge - 1) + _digits(edge, high)
    same = len([None for a, b in zip(one, other, strict=True) if a == b])
    prefix = next((n for n in range(len(one)) if one[n] != other[n]), len(one))
    if same == len(one):
        return [one]
    rest = len(one) - prefix - 1
    first, last = int(one[prefix]), int(other[prefix])
    if one[prefix + 1 :] == "0" * rest and other[prefix + 1 :] == "9" * rest:
        return [f"{one[:prefix]}[{first}-{last}]" + (f"[0-9]{{{rest}}}" if rest else "")]
    edge = int(one[: prefix + 1] + "9" * rest)
    return _digits(low, edge) + _digits(edge + 1, high)
