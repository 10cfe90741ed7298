"""A run's report: what it holds, and the lines that a run writes."""

import json
from pathlib import Path
from typing import Any

from charloom.runs.opening import open_run
from charloom.runs.report import make_report
from charloom.runs.run import RunControl, TrainingRun
from charloom.text.corpora import open_text
from charloom.text.source import Text
from charloom.training.options import TrainingConfig

OPTIONS: dict[str, Any] = {"hidden_size": 8, "batch_size": 4, "window": 16, "seed": 1}


def data_of(page: str) -> dict[str, Any]:
    """What a page holds for its script."""
    begin = page.index('id="data">') + len('id="data">')
    return json.loads(page[begin : page.index("</script>", begin)])


def drawn(*folders: Path) -> dict[str, Any]:
    return data_of(make_report(folders))


def lines_of(folder: Path, event: str | None = None) -> list[dict[str, Any]]:
    """A run's metrics; those of an event alone, if one is given."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if event in (None, line["event"])]


def report_line(step: int, **figures: Any) -> dict[str, Any]:
    line = {
        "event": "report",
        "step": step,
        "epoch": step / 100,
        "loss": 2.0,
        "smoothed_loss": 2.5,
        "learning_rate": 0.01,
        "gradient_norm": 0.5,
        "timing": {"elapsed_seconds": step / 10, "characters_per_second": 1000.0},
    }
    return line | figures


def validation_line(step: int, nats: float | None) -> dict[str, Any]:
    found = nats and {"nats_per_character": nats, "characters": 500, "protocol": "carried"}
    return report_line(step, event="validation", validation=found, best=True)


def written(folder: Path, lines: list[Any], samples: str = "") -> Path:
    """A run's folder with these lines and samples, and nothing else."""
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    (folder / "samples.txt").write_bytes(samples.encode())
    return folder


def training_run(place: Path, folder: Path, *, resume: bool = False, **control: Any) -> TrainingRun:
    def open_source(config: TrainingConfig) -> Text:
        return open_text(place / "tables.txt")

    options = {"steps": 6, **OPTIONS}
    return open_run(open_source, folder, options, resume=resume, control=RunControl(**control))
