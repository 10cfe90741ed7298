"""A second process that compiles kernels while this one compiles others.

Python's lock and LLVM's would let two threads take as long as one. The process writes its kernels
to the cache. It prints the name of each one when it begins and when the file is written, so that
this process neither compiles it too nor misses it.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from typing import TextIO

from charloom.kernels import cache

LOG = logging.getLogger("charloom")
NOTICE = "compiling the kernel for %s: some seconds, %s"
ONCE = "once on this machine"
BEGINS, ENDS = "begins ", "ends "  # before a kernel's name, in a line of the helper


def command(program: str) -> list[str]:
    """Return the command that runs a Python program with the modules of this process.

    They are those of this process wherever it found them, and no others of the current folder.
    """
    path = [place for place in sys.path if isinstance(place, str)]  # as an import reads it
    return [sys.executable, "-c", f"import sys\nsys.path[:] = {path!r}\n{program}"]


class Helper:
    """A process that compiles kernels.

    Args:
        code: the Python program that it runs, which needs the kernels.
    """

    def __init__(self, code: str) -> None:
        import subprocess  # which a kernel in the cache does not need

        program = f"from charloom.kernels import helper; helper.announce()\n{code}"
        self._process = subprocess.Popen(
            command(program),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        atexit.register(self._process.kill)
        assert self._process.stdout is not None
        self._changed = threading.Condition()
        self._compiles: str | None = None
        self._ended = False
        lines = self._process.stdout
        threading.Thread(target=self._listen, args=(lines,), daemon=True).start()

    def _listen(self, lines: TextIO) -> None:
        with lines:
            self._follow(lines)
        self._process.wait()
        atexit.unregister(self._process.kill)
        with self._changed:
            self._compiles, self._ended = None, True
            self._changed.notify_all()

    def _follow(self, lines: TextIO) -> None:
        for line in lines:
            begins, name = line.startswith(BEGINS), line.rstrip("\n")
            if begins:
                LOG.warning(NOTICE, name.removeprefix(BEGINS), ONCE)
            with self._changed:
                self._compiles = name.removeprefix(BEGINS) if begins else None
                self._changed.notify_all()

    def wait_for(self, what: str) -> bool:
        """Wait while it compiles a kernel of this name, and return whether it did."""
        with self._changed:
            if self._compiles != what:
                return False
            self._changed.wait_for(lambda: self._compiles != what)
        return True

    def wait(self) -> None:
        """Wait for its end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended)


_helper: Helper | None = None
_announces = False


def start(code: str) -> None:
    """Start the helper with a Python program that needs kernels, unless one runs already."""
    global _helper
    if _helper is None and sys.executable and cache.cache_folder() is not None:
        try:
            _helper = Helper(code)
        except OSError:
            LOG.debug("no process can be started")


def wait_for(what: str) -> bool:
    """Wait while the helper compiles a kernel of this name, and return whether it did."""
    return _helper is not None and _helper.wait_for(what)


def wait() -> None:
    """Wait for the end of the helper, if it runs."""
    global _helper
    if _helper is not None:
        _helper.wait()
        _helper = None


def announce() -> None:
    """Print the names of kernels that this process compiles, because it is a helper."""
    global _announces
    _announces = True


def report(line: str) -> None:
    """Print a line if this process is a helper."""
    if _announces:
        print(line, flush=True)
