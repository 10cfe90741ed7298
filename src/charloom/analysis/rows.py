"""Rows of CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any


def csv_rows(rows: Iterable[Iterable[Any]]) -> str:
    """Return lines of CSV."""
    lines = io.StringIO()
    # All texts are quoted, because readers keep a carriage return only in quotation marks.
    csv.writer(lines, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    return lines.getvalue()
