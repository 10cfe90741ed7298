"""The clock of a run: the seconds that it has taken, in all its processes."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Measure the seconds that count against a run's --minutes.

    Args:
        started: start of the command, by `time.monotonic`; by default this call.
        before: seconds that earlier processes of the run took.
        held_up: returns the seconds in which the run was held up, which do not count.
    """

    def __init__(
        self,
        started: float | None = None,
        before: float = 0.0,
        held_up: Callable[[], float] | None = None,
    ) -> None:
        self.before = before
        self._started = self.now() if started is None else started
        self._held_up = held_up or (lambda: 0.0)

    def now(self) -> float:
        """Return the seconds since an arbitrary moment."""
        return time.monotonic()

    def elapsed(self) -> float:
        """Return the seconds that the run has taken."""
        return self.before + self.now() - self._started - self._held_up()
