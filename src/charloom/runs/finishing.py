"""Finish a run: fit the mixture, and reserve the time that takes."""

from __future__ import annotations

# Seconds for each number that fitting a mixture touches; what counting costs at the end, as a part
# of what choosing the context cost.
MIXING, COUNTING = 2e-8, 1.2
