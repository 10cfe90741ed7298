"""TensorBoard's event files.

tensorboardX writes them, which needs neither TensorFlow nor PyTorch. Its thread is not used, so
that a full disk raises an error at once.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError


def load_tensorboard() -> None:
    """Import tensorboardX.

    Raises:
        CharloomError: if it is not installed.
    """
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise CharloomError(
            f"--tensorboard needs tensorboardX ({error}): install it with "
            "pip install 'charloom[tensorboard]', or omit the option"
        ) from None


class EventFile:
    """The event file of one session in a run's folder.

    Args:
        folder: the folder of event files, which is created if needed.
        first_step: the first step of the session; TensorBoard drops the events of earlier files
            from this step on, because the run repeats these steps.

    Raises:
        OSError: if the file cannot be written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        load_tensorboard()
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        self._event, self._session = event_pb2.Event, event_pb2.SessionLog
        self._summary = summary
        folder = folder.absolute()  # a relative path can look like an address to the library
        folder.mkdir(exist_ok=True)
        # The library gives two sessions of the same second the same name, so add a number.
        number = len(list(folder.iterdir()))
        self._writer = event_file_writer.EventsWriter(str(folder / "events"), f".{number}")
        if first_step or number:
            start = self._session(status=self._session.START)
            self._write(first_step, session_log=start)
        self.flush()

    def add(self, step: int, metrics: dict[str, float | None], sample: str | None = None) -> None:
        """Append a step's metrics, by name, without the missing ones, and a sample."""
        for name, value in metrics.items():
            if value is not None:
                self._write(step, summary=self._summary.scalar(name, value))
        if sample is not None:
            # TensorBoard renders Markdown, and a block of code keeps the sample as it is.
            lines = "".join(f"    {line}\n" for line in sample.split("\n"))
            self._write(step, summary=self._summary.text("sample", lines))

    def _write(self, step: int, **content: Any) -> None:
        self._writer.write_event(self._event(step=step, wall_time=time.time(), **content))

    def flush(self) -> None:
        """Write all events to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
