"""JSON that people can read: characters as themselves, unless they control, hide or reorder."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any


class _Escapes(dict[int, str]):
    """A table for `str.translate` with an escape for each character that has no shape."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        shown = character.isprintable() or unicodedata.category(character) == "Zs"
        self[code] = character if shown else _escape(character)
        return self[code]


_ESCAPES = _Escapes({ord("\n"): "\n"})  # line breaks inside strings have been escaped before


def to_json(value: Any, *, indent: int | None = None, allow_nan: bool = True) -> str:
    """Return a value as JSON, with the arguments of `json.dumps`."""
    text = json.dumps(value, indent=indent, allow_nan=allow_nan, ensure_ascii=False)
    return text.translate(_ESCAPES)


def in_ascii(text: str) -> str:
    """Return JSON, or a piece of it, for an output that is not UTF-8."""
    return re.sub("[^\0-\x7f]", lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
