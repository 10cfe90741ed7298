"""Open the texts of a command, and describe them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from charloom.cli.terminal import Terminal
from charloom.errors import printable

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel
    from charloom.progress import OnProgress
    from charloom.text.dataset import Dataset
    from charloom.text.source import Text
    from charloom.training.options import TrainingConfig


def text_opener(
    sources: Sequence[str], on_progress: OnProgress
) -> Callable[[TrainingConfig], Text]:
    """Return a function that opens a command's texts as one, with a configuration's options."""
    from charloom.text.corpora import open_text
    from charloom.text.source import join_texts

    def open_source(config: TrainingConfig) -> Text:
        return join_texts(
            [
                open_text(
                    source,
                    raw=config.raw,
                    normalize_newlines=config.normalize_newlines,
                    as_bytes=config.bytes,
                    on_progress=on_progress,
                )
                for source in sources
            ]
        )

    return open_source


def open_for(model: LanguageModel, source: str, terminal: Terminal) -> Text:
    """Open a text the way the model's training text was read."""
    from charloom.text.corpora import open_text

    with terminal.task("reading") as on_progress:
        return open_text(
            source,
            normalize_newlines=bool(model.checkpoint.training.get("normalize_newlines")),
            as_bytes=model.vocabulary.as_bytes,
            on_progress=on_progress,
        )


def report_text(dataset: Dataset, terminal: Terminal) -> None:
    """Write a line about a text and its split."""
    terminal.note(
        f"{printable(dataset.name)}: {len(dataset.ids):,} characters, {len(dataset.vocabulary)} "
        f"distinct; {len(dataset.train):,} to train, {len(dataset.validation):,} to validate, "
        f"{len(dataset.test):,} to test"
    )
