r"""Unicode's general categories in patterns, such as \p{Lu}, which Python's `re` does not know.

They are replaced by classes of characters. Scripts such as \p{Greek} are not supported, because
Python has no table of them.
"""

from __future__ import annotations

import functools
import itertools
import sys
import unicodedata

CATEGORIES = {
    "L": "Letter", "Lu": "Uppercase_Letter", "Ll": "Lowercase_Letter", "Lt": "Titlecase_Letter",
    "Lm": "Modifier_Letter", "Lo": "Other_Letter",
    "M": "Mark", "Mn": "Nonspacing_Mark", "Mc": "Spacing_Mark", "Me": "Enclosing_Mark",
    "N": "Number", "Nd": "Decimal_Number", "Nl": "Letter_Number", "No": "Other_Number",
    "P": "Punctuation", "Pc": "Connector_Punctuation", "Pd": "Dash_Punctuation",
    "Ps": "Open_Punctuation", "Pe": "Close_Punctuation", "Pi": "Initial_Punctuation",
    "Pf": "Final_Punctuation", "Po": "Other_Punctuation",
    "S": "Symbol", "Sm": "Math_Symbol", "Sc": "Currency_Symbol", "Sk": "Modifier_Symbol",
    "So": "Other_Symbol",
    "Z": "Separator", "Zs": "Space_Separator", "Zl": "Line_Separator", "Zp": "Paragraph_Separator",
    "C": "Other", "Cc": "Control", "Cf": "Format", "Co": "Private_Use", "Cn": "Unassigned",
}  # fmt: skip
NAMES = {name.lower().replace("_", ""): short for short, name in CATEGORIES.items()}


class UnknownCategoryError(ValueError):
    """A name between braces that is not a general category."""


def replace_categories(pattern: str) -> str:
    r"""Return a pattern in which classes of characters replace \p{…} and \P{…}.

    Raises:
        UnknownCategoryError: if a category is unknown.
    """
    if "\\p" not in pattern and "\\P" not in pattern:
        return pattern
    found: list[str] = []
    place, inside = 0, False  # whether this is inside a class
    while place < len(pattern):
        character = pattern[place]
        size = 1
        if character == "\\":
            size = 2
            if pattern[place + 1 : place + 3] in ("p{", "P{"):
                size = max(pattern.find("}", place), place + 2) + 1 - place
                ranges = _ranges(pattern[place + 3 : place + size - 1], pattern[place + 1] == "P")
                found.append(ranges if inside else f"[{ranges}]")
                place += size
                continue
        elif inside:
            inside = character != "]"
        elif character == "[":
            inside = True
            size += pattern[place + 1 : place + 2] == "^"
            size += pattern[place + size : place + size + 1] == "]"
        found.append(pattern[place : place + size])
        place += size
    return "".join(found)


@functools.lru_cache(32)
def _ranges(name: str, negated: bool) -> str:
    """Return the characters of a category, or all others, as ranges inside a class."""
    plain = name.removeprefix("^").lower().replace("_", "").replace(" ", "")
    short = NAMES.get(plain, plain.capitalize())
    if short not in CATEGORIES:
        raise UnknownCategoryError(name)
    negated ^= name.startswith("^")
    found: list[tuple[int, int]] = []  # the first code point of each range, and the one after it
    first = 0
    for one, size in _runs():
        if one.startswith(short) != negated:
            begin = found.pop()[0] if found and found[-1][1] == first else first
            found.append((begin, first + size))
        first += size
    return "".join(rf"\U{begin:08x}-\U{end - 1:08x}" for begin, end in found)


@functools.cache
def _runs() -> list[tuple[str, int]]:
    """Return the categories of all code points in their order, with the number of each in a row."""
    categories = map(unicodedata.category, map(chr, range(sys.maxunicode + 1)))
    return [(one, sum(1 for _ in run)) for one, run in itertools.groupby(categories)]
