"""The position of a run in its resume file: its types, and the check of a stored one."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from charloom.context_mixing.layout import VERSION
from charloom.schema import Count, Mismatch, field_types, find_mismatch
from charloom.training.options import COMPUTE_OPTIONS, OPTIONS, STOP_OPTIONS
from charloom.training.state import TrainingState

# Every file has these. The other options came later: a file without one has its default.
REQUIRED_OPTIONS = ("engine", "threads")
MIXER_VERSION = "mixer_version"  # of a run with context mixing

# The hidden state is one of the file's tensors.
SavedState = msgspec.defstruct(
    "SavedState",
    [
        (name, kind, getattr(TrainingState(), name))
        for name, kind in field_types(TrainingState).items()
        if name != "hidden"
    ],
    forbid_unknown_fields=True,
)
Ends = msgspec.defstruct(
    "Ends",
    [(name, OPTIONS[name].kind, OPTIONS[name].default) for name in STOP_OPTIONS],
    forbid_unknown_fields=True,
)
Position = msgspec.defstruct(
    "Position",
    [
        ("state", SavedState),
        ("ends", Ends),
        ("metrics_lines", Count),
        ("samples_bytes", Count),
        *((name, OPTIONS[name].kind) for name in REQUIRED_OPTIONS),
        *(
            (name, OPTIONS[name].kind, OPTIONS[name].default)
            for name in COMPUTE_OPTIONS
            if name not in REQUIRED_OPTIONS
        ),
        ("ranks", Annotated[int, Meta(ge=1)], 1),
        (MIXER_VERSION, Annotated[int, Meta(ge=1, le=VERSION)], 1),
    ],
)


def find_wrong_entry(position: dict[str, Any]) -> Mismatch | None:
    """Return the first entry of a position that is missing, unknown or invalid."""
    return find_mismatch(position, Position)


def mixer_version(position: dict[str, Any] | None) -> int:
    """Return the version of the mixer of a run with context mixing, by its position."""
    return 1 if position is None else int(position.get(MIXER_VERSION, 1))


def compute_options(position: dict[str, Any]) -> dict[str, Any]:
    """Return the compute options of a checked position."""
    return {name: position.get(name, OPTIONS[name].default) for name in COMPUTE_OPTIONS}
