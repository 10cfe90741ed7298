"""One field of every row of a table (.csv, .tsv, .jsonl), as a document.

Rows are read one by one. A row whose field is empty or missing (null) is skipped.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from charloom.errors import CharloomError, error_reason, plural, shortened
from charloom.text.vocabulary import END

Kind = Literal["csv", "tsv", "jsonl"]
KINDS: dict[str, Kind] = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

LONGEST_FIELD = 2**31 - 1  # characters; the largest limit that every system accepts
PIECE = 1 << 16  # characters


@dataclass(frozen=True)
class Table:
    """A column of a table.

    Attributes:
        column: its name.
        label: the table's name in errors.
        kind: that of the file; None to see it from the first characters.
        as_bytes: the table is read as bytes, one character each.
    """

    column: str
    label: str
    kind: Kind | None = None
    as_bytes: bool = False

    def cut(self, pieces: Iterable[str]) -> Iterator[str]:
        """Return the column's fields as pieces in which each one ends with END."""
        held: list[str] = []
        length = 0
        for value in self.fields(pieces):
            if not value:
                continue
            held.append(value)
            length += len(value)
            if length >= PIECE:
                yield END.join(held) + END
                held, length = [], 0
        if held:
            yield END.join(held) + END

    def fields(self, pieces: Iterable[str]) -> Iterator[str]:
        """Return the column's field in every row, empty where it is missing."""
        kind, pieces = (self.kind, pieces) if self.kind else kind_of(pieces)
        rows = _Lines(pieces)
        if kind == "jsonl":
            return self._json_fields(rows)
        return self._csv_fields(rows, kind)

    def _csv_fields(self, lines: _Lines, kind: Kind) -> Iterator[str]:
        csv.field_size_limit(LONGEST_FIELD)
        rest = iter(lines)
        first = next(rest, "")
        delimiter = delimiter_of(first, kind)
        reader = csv.reader(chain([first], rest), delimiter=delimiter, strict=True)
        column = self.column.encode().decode("latin-1") if self.as_bytes else self.column
        names: list[str] = []
        place = -1
        begin = 1
        try:
            for row in reader:
                if not row:
                    pass
                elif not names:
                    names = row
                    if column not in names:
                        raise self._missing(names)
                    place = names.index(column)
                elif len(row) != len(names):
                    raise CharloomError(
                        f"line {begin:,} of {self.label} begins a row of "
                        f"{plural(len(row), 'field')}, but the first row names {len(names)}: "
                        "correct the row"
                    )
                else:
                    yield row[place]
                begin = lines.read + 1
        except csv.Error as error:
            raise CharloomError(
                f"line {begin:,} of {self.label} does not begin a valid row "
                f"({error_reason(error)}): correct the row"
            ) from None

    def _json_fields(self, lines: _Lines) -> Iterator[str]:
        names: dict[str, None] = {}
        found = False
        for line in lines:
            if not line.strip():
                continue
            row = self._json_row(line, lines.read)
            if self.column in row:
                found = True
                yield self._text_of(row[self.column], lines.read)
                continue
            if not found and len(names) < 100:
                names |= dict.fromkeys(row)
            yield ""
        if not found:
            raise self._missing(list(names))

    def _json_row(self, line: str, number: int) -> dict[str, Any]:
        try:
            line = line.encode("latin-1").decode("utf-8") if self.as_bytes else line
            row = json.loads(line.rstrip())
        except json.JSONDecodeError as error:
            raise self._not_json(number, f"{error.msg} at character {error.colno}") from None
        except (ValueError, RecursionError) as error:
            raise self._not_json(number, error_reason(error)) from None
        if not isinstance(row, dict):
            raise CharloomError(
                f"line {number:,} of {self.label} is {shortened(row)}, not an object of JSON: "
                "write one object on each line"
            )
        return row

    def _not_json(self, number: int, reason: str) -> CharloomError:
        return CharloomError(
            f"line {number:,} of {self.label} is not valid JSON ({reason}): correct the line"
        )

    def _text_of(self, value: object, number: int) -> str:
        """Return a field as text: strings and numbers; null is empty."""
        if value is None:
            return ""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return json.dumps(value)
        if not isinstance(value, str):
            raise CharloomError(
                f"the column {shortened(self.column)} holds {shortened(value)} in line "
                f"{number:,} of {self.label}: use a column of texts"
            )
        if "\0" in value and not self.as_bytes:
            raise CharloomError(
                f"the column {shortened(self.column)} holds a null character in line {number:,} of "
                f"{self.label}: correct the line"
            )
        try:
            encoded = value.encode("utf-8")
        except UnicodeEncodeError:
            raise CharloomError(
                f"the column {shortened(self.column)} holds half of a surrogate pair in line "
                f"{number:,} of {self.label}: correct the line"
            ) from None
        return encoded.decode("latin-1") if self.as_bytes else value

    def _missing(self, names: list[str]) -> CharloomError:
        if self.as_bytes:
            names = [name.encode("latin-1", "replace").decode("utf-8", "replace") for name in names]
        shown = ", ".join(shortened(name) for name in names[:20]) or "no columns"
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        return CharloomError(
            f"{self.label} has no column {shortened(self.column)}: pass one of {shown}{more}"
        )


@dataclass
class _Lines:
    """The lines of a text with their line breaks, counted."""

    pieces: Iterable[str]
    read: int = field(default=0)  # lines that have been returned

    def __iter__(self) -> Iterator[str]:
        held: list[str] = []
        for piece in self.pieces:
            start = 0
            while (end := piece.find("\n", start) + 1) > 0:
                self.read += 1
                if held:
                    held.append(piece[start:end])
                    yield "".join(held)
                    held = []
                else:
                    yield piece[start:end]
                start = end
            if start < len(piece):
                held.append(piece[start:])
        if held:
            self.read += 1
            yield "".join(held)


def kind_of(pieces: Iterable[str]) -> tuple[Kind, Iterator[str]]:
    """See from a table's first line of what kind it is; return its kind and all its pieces."""
    pieces = iter(pieces)
    beginning = ""
    for piece in pieces:
        beginning += piece
        if "\n" in beginning.lstrip():
            break

    def all_pieces() -> Iterator[str]:
        yield beginning
        yield from pieces

    first = beginning.lstrip().partition("\n")[0]
    if first.startswith("{"):
        return "jsonl", all_pieces()
    return ("tsv" if first.count("\t") > first.count(",") else "csv"), all_pieces()


def delimiter_of(first: str, kind: Kind) -> str:
    """Return the delimiter of a table's fields: in .csv the commoner of comma and semicolon."""
    if kind == "tsv":
        return "\t"
    return ";" if first.count(";") > first.count(",") else ","


def column_names(beginning: str, kind: Kind) -> list[str]:
    """Return the names of a table's columns from its first line; empty if it is damaged."""
    line = beginning.lstrip("\ufeff\n").partition("\n")[0].rstrip("\r")
    if kind == "jsonl":
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return []
        return list(row) if isinstance(row, dict) else []
    try:
        return next(csv.reader([line], delimiter=delimiter_of(line, kind)), [])
    except csv.Error:
        return []
