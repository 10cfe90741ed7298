"""Waiting for what another thread or process does, without a limit that a busy machine breaks."""

import time
from collections.abc import Callable

import pytest


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"nothing came of it in {seconds} seconds")
        time.sleep(0.005)
