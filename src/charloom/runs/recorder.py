"""Record a run as it trains: metrics, samples and TensorBoard events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from charloom.training.state import Progress


class SpeedMeter:
    """Characters per second since the last call."""

    def __init__(self) -> None:
        self._before: tuple[int, float] | None = None

    def __call__(self, progress: Progress) -> float | None:
        now = (progress.characters, progress.elapsed)
        before, self._before = self._before, now
        if before is None or now[1] <= before[1]:
            return None
        return round((now[0] - before[0]) / (now[1] - before[1]), 1)


def metrics_line(line: dict[str, Any]) -> dict[str, float | None]:
    """What TensorBoard is to show of a line of metrics.jsonl, by name."""
    if line["event"] == "validation":
        validation = line["validation"]
        return {"loss/validation": validation and validation["nats_per_character"]}
    return {
        "loss/training": line["loss"],
        "loss/smoothed": line["smoothed_loss"],
        "learning_rate": line["learning_rate"],
        "gradient_norm": line["gradient_norm"],
        "characters_per_second": line["timing"]["characters_per_second"],
    }


def append_line(path: Path, text: str) -> int:
    data = text.encode("utf-8")
    with path.open("ab") as file:
        file.write(data)
    return len(data)
