"""Batches of lines or documents: of a fixed size, or of whatever has arrived from a pipe."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

CHARACTERS_AT_ONCE = 1 << 20  # of a batch
ITEMS_AT_ONCE = 1 << 16


def in_batches(
    items: Iterable[Item], length: Callable[[Item], int], *, live: bool = False
) -> Iterator[list[Item]]:
    """Group items into batches, so that they can be scored side by side.

    Args:
        items: lines or documents.
        length: returns the number of characters of one.
        live: True if items arrive slowly. A batch then has the arrived ones, and never waits.
    """
    if live:
        yield from _Arrivals(items, length)
        return
    batch: list[Item] = []
    characters = 0
    for item in items:
        batch.append(item)
        characters += length(item)
        if characters >= CHARACTERS_AT_ONCE or len(batch) >= ITEMS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _Arrivals(Generic[Item]):
    """The items that a thread has read while the batch before them was processed."""

    def __init__(self, items: Iterable[Item], length: Callable[[Item], int]) -> None:
        self._items, self._length = items, length
        self._changed = threading.Condition()
        self._arrived: list[Item] = []
        self._characters = 0
        self._ended = False
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[list[Item]]:
        # A daemon, because it can wait for input forever when the program ends.
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            with self._changed:
                while not (self._arrived or self._ended):
                    self._changed.wait()
                batch, self._arrived, self._characters = self._arrived, [], 0
                self._changed.notify()
            if batch:
                yield batch
            elif self._error is not None:
                raise self._error
            else:
                return

    def _read(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    while self._is_full():
                        self._changed.wait()
                    self._arrived.append(item)
                    self._characters += self._length(item)
                    self._changed.notify()
        except BaseException as error:  # It is raised where the items are used.
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def _is_full(self) -> bool:
        return self._characters >= CHARACTERS_AT_ONCE or len(self._arrived) >= ITEMS_AT_ONCE
