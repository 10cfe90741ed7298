"""Numbers of rows and nodes that the predictions of a mixer process at once."""

from __future__ import annotations

TOGETHER = 8  # rows whose lists are fetched at once
GROUP = 16  # nodes that are decided at once, as many as lanes have numbers
