"""The crew of threads that run a kernel."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from charloom.kernels.crew import Crew


def test_a_thread_keeps_the_array_of_a_crew_that_is_gone() -> None:
    """A call has only addresses, and a thread writes to the array until it has left the kernel."""
    leave, inside = threading.Event(), threading.Event()

    class Kernel:
        def bind(self, *arguments: Any) -> Callable[[], None]:
            number = arguments[-1]

            def call() -> None:
                if number:
                    inside.set()
                    leave.wait(10)

            return call

    crew = Crew(2)
    sync = weakref.ref(crew.sync)
    crew.run(Kernel(), ())  # type: ignore[arg-type]
    assert inside.wait(10)
    del crew
    gc.collect()
    try:
        assert sync() is not None
    finally:
        leave.set()
    deadline = time.monotonic() + 10
    while sync() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sync() is None
