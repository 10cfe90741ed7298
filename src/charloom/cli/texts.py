"""Open the texts of a command, and describe them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from charloom.cli.terminal import Terminal
from charloom.errors import CharloomError, plural, printable

if TYPE_CHECKING:
    from charloom.language_model import LanguageModel
    from charloom.progress import OnProgress
    from charloom.text.dataset import Dataset
    from charloom.text.format import DocumentReader, Opener, TextFormat
    from charloom.text.source import Text


def text_opener(sources: Sequence[str], on_progress: OnProgress) -> Opener:
    """Return a function that opens a command's texts as one in a format."""
    from charloom.text.format import open_texts

    return lambda format: open_texts(sources, format, on_progress=on_progress)


def training_text(arguments: argparse.Namespace) -> Opener | None:
    """Return a function that opens the texts of --training-text, None without that option."""
    names = arguments.training_text
    return None if names is None else text_opener(names, lambda *_: None)


def format_for(model: LanguageModel, arguments: argparse.Namespace) -> TextFormat:
    """Return the format of a model's texts, with the options that `add_encoding` added.

    Raises CharloomError if the encoding is unknown, or if the model reads bytes.
    """
    from charloom.text.encodings import check_encoding

    format = model.text_format
    for option in ("encoding", "encoding_errors"):
        if getattr(arguments, option) is not None and format.as_bytes:
            raise CharloomError(
                f"--{option.replace('_', '-')} has no effect, because the model reads bytes: omit "
                "it"
            )
    if arguments.encoding is not None:
        check_encoding(arguments.encoding)
        format = replace(format, encoding=arguments.encoding, encoding_is_certain=True)
    if arguments.encoding_errors is not None:
        format = replace(format, encoding_errors=arguments.encoding_errors)
    return format


def open_for(
    model: LanguageModel, arguments: argparse.Namespace, terminal: Terminal, *, live: bool = False
) -> Text:
    """Open a command's texts the way the model's training text was read.

    With `live`, a pipe is read once, as its bytes arrive.
    """
    from charloom.text.format import open_texts

    format = replace(format_for(model, arguments), live=live)
    with terminal.task("reading") as on_progress:
        text = open_texts(arguments.text, format, on_progress=on_progress)
    say_notes(text.notes, terminal)
    return text


def documents_for(
    model: LanguageModel, arguments: argparse.Namespace, terminal: Terminal, *, live: bool = False
) -> DocumentReader:
    """Open the documents of a command's texts for a model of documents, with their places.

    They are read the way the model's training text was; with --lines, each line is a document.
    With `live`, a pipe is read once, as its bytes arrive.
    """
    from charloom.text.format import read_documents

    format = replace(format_for(model, arguments), live=live)
    if arguments.lines:
        format = replace(format, lines=True, separator=None, column=None)
    with terminal.task("reading") as on_progress:
        found = read_documents(arguments.text, format, on_progress=on_progress)
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
            f"{distinct:,} distinct; {len(dataset.train):,} to train, "
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
        f"{plural(dataset.characters, unit_of_text)}, {distinct:,} distinct; {dataset.rule}: "
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
