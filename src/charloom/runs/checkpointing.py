"""Save a run: the best weights, and everything a resume needs."""

from __future__ import annotations

SAVE_EVERY = 10.0  # seconds between two saves of resume.safetensors
