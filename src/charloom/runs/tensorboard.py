"""TensorBoard's event files, for those who look at their runs there.

They are written by tensorboardX, which needs neither TensorFlow nor PyTorch, without its thread: a
disk that is full must end in a sentence, not in a queue that nobody reads.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError


def load_tensorboard() -> None:
    """Imports the library. Raises CharloomError where it is not installed."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise CharloomError(
            f"--tensorboard needs tensorboardX ({error}): install it with "
            "pip install 'charloom[tensorboard]', or leave the option out"
        ) from None


class EventFile:
    """One session's event file in a run's folder.

    first_step: TensorBoard drops what earlier files hold of this step and later ones: it is taken
    again. Raises OSError where it cannot be written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        load_tensorboard()
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        self._event, self._session = event_pb2.Event, event_pb2.SessionLog
        self._summary = summary
        folder = folder.absolute()  # a relative path may look like an address to the library
        folder.mkdir(exist_ok=True)
        # The library's names tell no two sessions of one second apart.
        number = len(list(folder.iterdir()))
        self._writer = event_file_writer.EventsWriter(str(folder / "events"), f".{number}")
        if first_step or number:
            start = self._session(status=self._session.START)
            self._write(first_step, session_log=start)
        self.flush()

    def add(self, step: int, figures: dict[str, float | None], sample: str | None = None) -> None:
        """Adds a step's figures, by name, those that there are; and a sample."""
        for name, value in figures.items():
            if value is not None:
                self._write(step, summary=self._summary.scalar(name, value))
        if sample is not None:
            # Their page reads Markdown: as a block of code a sample stays as it is.
            lines = "".join(f"    {line}\n" for line in sample.split("\n"))
            self._write(step, summary=self._summary.text("sample", lines))

    def _write(self, step: int, **what: Any) -> None:
        self._writer.write_event(self._event(step=step, wall_time=time.time(), **what))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
