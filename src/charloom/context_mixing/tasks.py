"""Tasks of which some wait for others, in several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

AT_ONCE = 32  # tasks that are considered, the earliest ones


@dataclass(eq=False)
class Task:
    """A function to be called when other tasks are done, all of them earlier in their list.

    An `urgent` task goes before others that can run.
    """

    run: Callable[[], None]
    after: Sequence[Task] = ()
    urgent: bool = False
    done: bool = field(default=False, init=False)


class _Work:
    """The tasks that are left."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._left = list(tasks)
        self._changed = threading.Condition()
        self._stopped = False

    def work(self) -> None:
        """Run tasks until none is left, or one has failed."""
        try:
            while (task := self._next()) is not None:
                task.run()
                with self._changed:
                    task.done = True
                    self._changed.notify_all()
        except BaseException:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            raise

    def _next(self) -> Task | None:
        """Return the next task that can run, when there is one; None when all are taken."""
        with self._changed:
            while self._left and not self._stopped:
                chosen = None
                for i, task in enumerate(self._left[:AT_ONCE]):
                    considered = task.urgent or chosen is None
                    if considered and all(other.done for other in task.after):
                        chosen = i
                        if task.urgent:
                            break
                if chosen is not None:
                    return self._left.pop(chosen)
                self._changed.wait()
        return None


def run_tasks(tasks: Sequence[Task], threads: int) -> None:
    """Run tasks in several threads, this one among them; a task's error is raised."""
    work = _Work(tasks)
    if threads == 1:
        work.work()
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work.work) for _ in range(threads - 1)]
        work.work()
    for other in others:
        other.result()
