"""Names for `--from` beside the paths of runs, and the mark of models that start from one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

ENGLISH = "english"  # the base model that the package carries
NOTHING = "none"
BASE = "base"  # the entry in a model's header that names a carried model that it descends from


def absolute_base(name: str) -> str:
    """Return a name for --from that means the same in every folder."""
    return name if name in (ENGLISH, NOTHING) else str(Path(name).absolute())


def base_of(text: Mapping[str, Any]) -> str | None:
    """Return the carried model that a model descends from, given the entry `text` of its header."""
    return ENGLISH if text.get(BASE) == ENGLISH else None
