"""A command in a terminal of its own, as in a window or through ssh."""

import os
import subprocess
import sys
from collections.abc import Iterator

# The new process makes the terminal its own, so that the system hangs up on it as it closes.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "charloom", *sys.argv[1:]])
"""


def _environment(more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return kept | {"TERM": "xterm"} | more


class InTerminal:
    """`charloom` in a terminal, for a `with` statement that closes the window at its end.

    Line breaks reach the window as they are, so that the exact characters can be compared.
    """

    def __init__(
        self,
        *arguments: str,
        columns: int = 80,
        environment: dict[str, str] | None = None,
    ) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self._window, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        modes = termios.tcgetattr(inside)
        modes[1] &= ~termios.OPOST
        termios.tcsetattr(inside, termios.TCSANOW, modes)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TAKE_TERMINAL, *arguments],
                stdin=inside,
                stdout=inside,
                stderr=inside,
                start_new_session=True,
                env=_environment(environment or {}),
            )
        finally:
            os.close(inside)

    def __enter__(self) -> "InTerminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=60)

    def pieces(self) -> Iterator[str]:
        """Yield what the window shows, until the command has ended."""
        while True:
            try:
                piece = os.read(self._window, 65536)
            except OSError:  # as Linux reports the end
                return
            if not piece:
                return
            yield piece.decode("utf-8", "replace")

    def read(self) -> str:
        """Return the whole content of the window, up to the end of the command."""
        shown = "".join(self.pieces())
        self.process.wait(timeout=60)
        return shown.removesuffix("\x1b[0m")  # which colorama writes, if it is installed

    def wait_for(self, text: str) -> str:
        """Return what the window shows, as soon as a text is in it."""
        shown = ""
        for piece in self.pieces():
            shown += piece
            if text in shown:
                return shown
        raise AssertionError(f"{text!r} did not appear: {shown!r}")

    def close(self) -> None:
        """Close the window, as the end of an ssh session does."""
        if self._window >= 0:
            os.close(self._window)
            self._window = -1
