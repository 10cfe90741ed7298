"""Names for `--from` beside the paths of runs."""

from __future__ import annotations

from pathlib import Path

ENGLISH = "english"  # the base model that the package carries
NOTHING = "none"


def absolute_base(name: str) -> str:
    """Return a name for --from that means the same in every folder."""
    return name if name in (ENGLISH, NOTHING) else str(Path(name).absolute())
