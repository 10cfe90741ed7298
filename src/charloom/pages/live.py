"""A page that is rewritten while a training or a search runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from charloom.errors import CharloomError

REST = 50.0  # pause between two updates of a page, as a multiple of the time of one update


class LivePage:
    """A page that is updated so rarely that it takes at most 2% of the time.

    Attributes:
        seconds: the time that the last update took.
    """

    def __init__(self, notify: Callable[[str], None], consequence: str) -> None:
        """Prepare the page.

        Args:
            notify: called once, with a sentence, if the page cannot be written.
            consequence: the end of that sentence.
        """
        self._notify = notify
        self._consequence = consequence
        self._failed = False
        self._updated_at = -math.inf
        self.seconds = 0.0

    def update(self, write: Callable[[], None], *, now: bool = False) -> None:
        """Write the page, unless the last update is too recent.

        Args:
            write: makes and writes the page.
            now: write the page in any case.
        """
        before = time.monotonic()
        if not now and before - self._updated_at < REST * self.seconds:
            return
        try:
            write()
        except (CharloomError, OSError) as error:
            if not self._failed:
                self._notify(f"{error}; {self._consequence}")
            self._failed = True
        self._updated_at = time.monotonic()
        self.seconds = self._updated_at - before
