"""Open the texts of a command, and describe them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from charloom.cli.terminal import Terminal
from charloom.errors import plural, printable

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel
    from charloom.progress import OnProgress
    from charloom.text.dataset import Dataset
    from charloom.text.format import DocumentReader, Opener
    from charloom.text.source import Text


def text_opener(sources: Sequence[str], on_progress: OnProgress) -> Opener:
    """Return a function that opens a command's texts as one in a format."""
    from charloom.text.format import open_texts

    return lambda format: open_texts(sources, format, on_progress=on_progress)


def training_text(arguments: argparse.Namespace) -> Opener | None:
    """Return a function that opens the texts of --training-text, None without that option."""
    names = arguments.training_text
    return None if names is None else text_opener(names, lambda *_: None)


def open_for(model: LanguageModel, *sources: str, terminal: Terminal, live: bool = False) -> Text:
    """Open texts the way the model's training text was read.

    With `live`, a pipe is read once, as its bytes arrive.
    """
    from charloom.text.format import open_texts

    format = replace(model.text_format, live=live)
    with terminal.task("reading") as on_progress:
        text = open_texts(sources, format, on_progress=on_progress)
    say_notes(text.notes, terminal)
    return text


def documents_for(
    model: LanguageModel, *sources: str, by_line: bool, terminal: Terminal, live: bool = False
) -> DocumentReader:
    """Open the documents of texts for a model of documents, with their places.

    They are read the way the model's training text was, or each line is a document. With `live`, a
    pipe is read once, as its bytes arrive.
    """
    from charloom.text.format import read_documents

    format = replace(model.text_format, live=live)
    if by_line:
        format = replace(format, lines=True, separator=None, column=None)
    with terminal.task("reading") as on_progress:
        found = read_documents(sources, format, on_progress=on_progress)
    say_notes(found.notes, terminal)
    return found


def say_notes(notes: Iterable[str], terminal: Terminal) -> None:
    """Write the notes of a text; some are only made while it is read."""
    for note in notes:
        terminal.say_once(note)


def report_text(dataset: Dataset, terminal: Terminal) -> None:
    """Write a line about a text and its split, and how documents were split."""
    unit_of_text = dataset.vocabulary.unit
    distinct = len(dataset.vocabulary) - (dataset.vocabulary.end_id is not None)
    if not dataset.documents:
        terminal.note(
            f"{printable(dataset.name)}: {plural(len(dataset.ids), unit_of_text)}, "
            f"{distinct} distinct; {len(dataset.train):,} to train, "
            f"{len(dataset.validation):,} to validate, {len(dataset.test):,} to test"
            f"{_own_parts(dataset)}"
        )
        return
    train, validation, test = dataset.pieces
    unit = ""
    if train + validation + test != dataset.documents:  # each one is in several splits
        parts = dataset.train, dataset.validation, dataset.test
        train, validation, test = (
            len(part) - ends for part, ends in zip(parts, dataset.pieces, strict=True)
        )
        unit = f" {unit_of_text}s"
    terminal.note(
        f"{printable(dataset.name)}: {plural(dataset.documents, 'document')}, "
        f"{plural(dataset.characters, unit_of_text)}, {distinct} distinct; {dataset.rule}: "
        f"{train:,}{unit} to train, {validation:,} to validate, {test:,} to test"
        f"{_own_parts(dataset)}"
    )


def _own_parts(dataset: Dataset) -> str:
    """Return where parts come from that are texts of their own."""
    parts = [
        f"{'validates on' if name == 'validation' else 'tests on'} {printable(part['name'])}"
        for name, part in dataset.own.items()
    ]
    return f" ({', '.join(parts)})" if parts else ""
