"""Open the texts that a command names, and report what was read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from charloom.errors import printable

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel
    from charloom.text.dataset import Dataset
    from charloom.text.source import Text
    from charloom.training.options import TrainingConfig


def _open(bar: Any, source: str, **reading: bool) -> Text:
    """The text of a name or path, as open_text gives it; the bar shows a download."""
    from charloom.text.corpora import open_text

    tasks: list[Any] = []

    def report(stage: str, done: int, of: int | None) -> None:
        if not tasks:
            tasks.append(bar.add_task(stage, total=of, figures=""))
        bar.update(tasks[0], completed=done, total=of, figures=f"{done:,} bytes")

    text = open_text(source, on_progress=report, **reading)
    for task in tasks:
        bar.remove_task(task)
    return text


@contextlib.contextmanager
def reading_progress(bar: Any) -> Iterator[Callable[[str, int, int | None], None]]:
    """What tells, on the bar, how far a text is read."""
    tasks: dict[str, Any] = {}

    def report(what: str, done: int, of: int | None) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(f"{what} the text", total=of, figures="")
        bar.update(tasks[what], completed=done, figures=f"{done:,} characters")

    yield report
    for task in tasks.values():
        bar.remove_task(task)


def text_opener_for(bar: Any, sources: Sequence[str]) -> Callable[[TrainingConfig], Text]:
    """What opens a command's texts, as one, the way that a configuration reads them."""
    from charloom.text.source import join_texts

    def open_source(config: TrainingConfig) -> Text:
        reading = {
            "raw": config.raw,
            "normalize_newlines": config.normalize_newlines,
            "as_bytes": config.bytes,
        }
        return join_texts([_open(bar, source, **reading) for source in sources])

    return open_source


def report_text(dataset: Dataset, bar: Any) -> None:
    bar.console.print(
        f"{printable(dataset.name)}: {len(dataset.ids):,} characters, {len(dataset.vocabulary)} "
        f"distinct; {len(dataset.train):,} to train, {len(dataset.validation):,} to validate, "
        f"{len(dataset.test):,} to test",
        markup=False,
    )


def open_for(model: LanguageModel, bar: Any, source: str) -> Text:
    """A text as the model's was read."""
    return _open(
        bar,
        source,
        raw=False,
        normalize_newlines=bool(model.checkpoint.training.get("normalize_newlines")),
        as_bytes=model.vocabulary.as_bytes,
    )
