"""Names of engines and devices. NumPy stays out, so that `--help` is quick."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "compiled", "reference", "pytorch"]
Device = Literal["cpu", "cuda"]
