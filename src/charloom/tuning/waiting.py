"""Wait for an SQLite file that another program has locked, such as one that shows a study."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Patience:
    """Waiting for a locked file.

    SQLite itself waits in C, where Python handles no signal, so it waits for `PIECE` seconds at a
    time.

    Attributes:
        waited: the seconds that have passed in waiting.
    """

    PIECE, SILENT, MOST = 1.0, 4.0, 600.0  # seconds; MOST ends the search

    def __init__(
        self,
        path: Path,
        on_wait: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Begin without a lock.

        Args:
            path: the file.
            on_wait: called with a message for the user after `SILENT` seconds.
            should_stop: True ends the waiting, and raises the error of the lock.
        """
        self.waited = 0.0
        self._path = path
        self._on_wait = on_wait
        self._should_stop = should_stop

    def call(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of an operation of SQLite, which is repeated until no lock stops it."""
        began, said = time.monotonic(), False
        while True:
            try:
                result = operation(*arguments)
            except sqlite3.OperationalError as error:
                seconds = time.monotonic() - began
                stops = self._should_stop is not None and self._should_stop()
                if not is_locked(error) or stops or seconds > self.MOST:
                    raise
                if not said and seconds > self.SILENT and self._on_wait is not None:
                    said = True
                    self._on_wait(
                        f"another program has locked {self._path}: the search waits until it is "
                        "free"
                    )
                time.sleep(0.05)  # because SQLite returns at once where it would wait for ever
            else:
                if (seconds := time.monotonic() - began) > self.PIECE:
                    self.waited += seconds
                return result


class WaitingConnection(sqlite3.Connection):
    """A connection that has patience."""

    def __init__(self, *arguments: Any, patience: Patience, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.patience = patience

    def cursor(self, *_: Any) -> Any:
        return super().cursor(_Cursor)

    def commit(self) -> None:
        self.patience.call(super().commit)


class _Cursor(sqlite3.Cursor):
    connection: WaitingConnection

    def execute(self, *arguments: Any) -> Any:
        return self.connection.patience.call(super().execute, *arguments)

    def executemany(self, *arguments: Any) -> Any:
        return self.connection.patience.call(super().executemany, *arguments)


def is_locked(error: sqlite3.Error) -> bool:
    """Return whether another connection keeps a file locked."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extension of the code
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
