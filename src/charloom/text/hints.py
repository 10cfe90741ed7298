"""Recognize texts that are lists or tables, to suggest the option that reads them as documents."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from charloom.errors import printable
from charloom.text.corpora import CORPORA
from charloom.text.folders import suffix_inside
from charloom.text.source import ORIGIN_SEPARATOR, Text
from charloom.text.tables import KINDS, column_names

FEWEST_SORTED, FEWEST_LINES = 200, 1000  # lines of a list in sorted order, and of another one
LONGEST_SORTED, LONGEST_LINE, LONGEST_RECORD = 200, 32, 1000  # mean lengths
NEARLY_ALL = 0.98


def suggestion(text: Text, lines: int) -> str | None:
    """Return a line that suggests --lines or --column for a book that looks like a list or table.

    Args:
        text: the text.
        lines: the number of its lines.
    """
    if text.ends or ORIGIN_SEPARATOR in text.origin or text.origin in CORPORA:
        return None
    path = Path(text.origin)
    named = text.origin not in ("", "-")
    label = printable(path.name) if named else "the text"
    beginning = next(text.chunks(), "")
    kind = KINDS.get(suffix_inside(path)) if named else None
    if kind is not None:
        columns = [printable(name) for name in column_names(beginning, kind)[:8]]
        names = f" ({', '.join(columns)})" if columns else ""
        return (
            f"{label} is a table: to learn the fields of a column{names} as documents, use "
            f"`{_command(text)} --column NAME`"
        )
    whole = beginning.split("\n")[:-1]
    if is_list(whole, lines):
        return (
            f"{label} looks like a list of {lines:,} lines: to learn each line as a document, use "
            f"`{_command(text)} --lines`"
        )
    return None


def _command(text: Text) -> str:
    """Return the command that trains on the text, in a folder other than that of a book's run."""
    source = text.origin or "TEXT"
    if source != "-" and text.origin:
        path = Path(source)
        source = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    folder = f"runs/{text.name}-documents"
    return shlex.join(["charloom", "train", source, "--out", folder])


def is_list(beginning: Sequence[str], lines: int) -> bool:
    """Return True for lines that are records: sorted, or short, or all beginning alike.

    Args:
        beginning: the first lines.
        lines: the number of all lines.
    """
    found = [line.rstrip("\r") for line in beginning]
    filled = [line for line in found if line]
    if lines < FEWEST_SORTED or len(filled) < FEWEST_SORTED // 2:
        return False
    if len(filled) < NEARLY_ALL * len(found):  # paragraphs or stanzas
        return False
    if len(set(filled)) < len(filled) / 10:
        return False
    mean = sum(map(len, filled)) / len(filled)
    if mean <= LONGEST_SORTED and _are_sorted(filled):
        return True
    if lines < FEWEST_LINES or any(line[0] in " \t" for line in filled[:FEWEST_LINES]):
        return False
    return mean <= LONGEST_LINE or (mean <= LONGEST_RECORD and _begin_alike(filled))


def _are_sorted(lines: Sequence[str]) -> bool:
    keys = [line.casefold() for line in lines]
    least = NEARLY_ALL * (len(keys) - 1)
    ascending = sum(one <= other for one, other in pairwise(keys))
    descending = sum(one >= other for one, other in pairwise(keys))
    return max(ascending, descending) >= least


def _begin_alike(lines: Sequence[str]) -> bool:
    """Return True if the first characters of lines have one form, as times and addresses have."""
    forms = [_form(line[:6]) for line in lines[:FEWEST_LINES]]
    commonest = max(set(forms), key=forms.count)
    has_structure = re.search(r"[0-9{\[<(]", commonest) is not None
    return has_structure and forms.count(commonest) >= 0.9 * len(forms)


def _form(beginning: str) -> str:
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "0", beginning))
