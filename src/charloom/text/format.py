"""Read texts as a model's text was read: the one place that defines documents.

A single text is one book, in which nothing marks an end. A collection consists of documents. They
are the lines of its texts, the texts between separators, or the fields of a column. Without these
options, several texts or the files of a folder are a document each. In the pieces of a collection,
each document ends with END.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from charloom.errors import CharloomError, quoted_path, shortened
from charloom.progress import OnProgress
from charloom.text import documents
from charloom.text.documents import Cut, check_cuts, unescape
from charloom.text.reading import Reading
from charloom.text.source import (
    BYTE_ORDER_MARK,
    ORIGIN_SEPARATOR,
    Notes,
    Text,
    join_texts,
    mark_remover,
    newline_normalizer,
    safe_name,
    split_lines,
    text_from_string,
)
from charloom.text.vocabulary import END, Vocabulary

if TYPE_CHECKING:  # imports that only opening needs are inside functions
    from charloom.text.tables import Table

Source = str | Path | Text


@dataclass(frozen=True)
class TextFormat(Reading):
    """The options that decide how texts are read: their bytes (`Reading`), and their documents.

    Without `lines`, `separator` and `column`, the sources decide: several texts or a folder are a
    collection of files, a single text is a book.

    Attributes:
        raw: keep the header and license of a built-in book.
        lines: each line is a document.
        separator: the text between two documents, with escapes as in '\\n\\n'.
        column: the column of a table whose fields are the documents.
        joined: all texts are one book, as models without an end of documents read them.
        collection: a single text is a document too, as models of documents read it.
    """

    raw: bool = False
    lines: bool = False
    separator: str | None = None
    column: str | None = None
    joined: bool = False
    collection: bool = False

    def __post_init__(self) -> None:
        check_cuts(self.lines, self.separator, self.column)

    @classmethod
    def of_training(
        cls, training: Mapping[str, Any], *, as_bytes: bool, collection: bool | None
    ) -> TextFormat:
        """Return the format of a model's texts, from its recorded options.

        Args:
            training: options of TrainingConfig by name, as a checkpoint records them.
            as_bytes: True for a model of bytes.
            collection: True if the model's vocabulary has an end of documents; None for a model
                that is yet to be trained, whose texts decide.
        """
        raw = bool(training.get("raw"))
        keeps_newlines, keeps_mark = _kept(training, raw or as_bytes, is_book=collection is False)
        encoding = training.get("encoding")
        reading = cls(
            raw=raw,
            as_bytes=as_bytes,
            keep_newlines=keeps_newlines,
            keep_mark=keeps_mark,
            encoding=None if encoding is None else str(encoding),
            encoding_errors="replace" if training.get("encoding_errors") == "replace" else "strict",
            keep_nulls="normalize_newlines" in training,
        )
        if collection is False:
            return replace(reading, joined=True)
        separator, column = training.get("separator"), training.get("column")
        return replace(
            reading,
            lines=bool(training.get("lines")),
            separator=None if separator is None else str(separator),
            column=None if column is None else str(column),
            collection=bool(collection),
        )

    def for_model(self, vocabulary: Vocabulary) -> TextFormat:
        """Return the format in which a model reads a text that is not its training text.

        Line ends and a byte order mark that the model never saw are not kept. The text can have
        another encoding than the training text.
        """
        if self.as_bytes:
            return self
        return replace(
            self,
            encoding_is_certain=False,
            keep_newlines=self.keep_newlines and "\r" in vocabulary.characters,
            keep_mark=self.keep_mark and BYTE_ORDER_MARK in vocabulary.characters,
        )

    def text_of(self, string: str) -> Text:
        """Return a string as a text that is read like a file's."""
        text = text_from_string(string, as_bytes=self.as_bytes)
        return replace(text, pieces=self.read(text.pieces))

    @property
    def cuts(self) -> bool:
        """True if documents are parts of texts, and not whole ones."""
        return self.lines or self.separator is not None or self.column is not None


def open_texts(
    sources: Sequence[Source], format: TextFormat, *, on_progress: OnProgress | None = None
) -> Text:
    """Open texts as one, which is a book or a collection of documents.

    Args:
        sources: corpus names, paths of files or folders, `-`, or opened texts.
        format: how they are read.
        on_progress: called while a corpus is downloaded.

    Raises:
        CharloomError: if a source is missing, unreadable or unsuitable, or a folder has no text.
    """
    opened, notes = _open_all(sources, format, on_progress)
    texts = [one.text for one in opened]
    if len({text.as_bytes for text in texts}) > 1:
        raise CharloomError(
            "cannot join texts read as bytes with texts read as UTF-8: read all of them alike"
        )
    cuts = [one.cut(format) for one in opened]
    from_folder = any(one.folder is not None for one in opened)
    if format.joined or (
        len(texts) == 1 and cuts == [documents.whole] and not from_folder and not format.collection
    ):
        if any(text.ends for text in texts):
            raise CharloomError("a text of documents cannot be read as a book: pass a plain text")
        return replace(join_texts(texts), notes=notes)
    if len(texts) == 1 and texts[0].ends:
        return replace(texts[0], notes=notes)

    def pieces() -> Iterator[str]:
        found = has_carriage_returns = False
        for text, cut in zip(texts, cuts, strict=True):
            count = 0
            for piece in cut(_without_mark(text, format)):
                if format.separator is not None:
                    count += piece.count(END)
                    has_carriage_returns = has_carriage_returns or "\r" in piece
                yield piece
            found = found or count > 1
        if format.separator is not None and not found and not format.collection:
            raise CharloomError(
                f"--separator {shortened(unescape(format.separator))} does not occur between "
                f"documents of {opened[0].label}: "
                + (
                    "omit --keep-newlines, because its lines end with CR LF"
                    if has_carriage_returns
                    else "pass the text between them, with \\n for a line break"
                )
            )

    name, origin = _name_and_origin(opened)
    return Text(
        name,
        origin,
        texts[0].as_bytes,
        pieces,
        ends=True,
        lines=all(cut is documents.lines for cut in cuts),
        encoding=texts[0].encoding if len({text.encoding for text in texts}) == 1 else None,
        notes=notes,
        live=any(text.live for text in texts),
    )


class Document(NamedTuple):
    """A document of a collection and its place.

    Attributes:
        source: the path of its file, or the name of its text.
        unit: `file` if it is a whole text, or the unit of `number`: `line`, `row` or `document`.
        number: its number in the text, from 1. Empty lines and rows are counted too.
        text: its characters.
    """

    source: str
    unit: str
    number: int
    text: str

    @property
    def place(self) -> str:
        """The place for output, without the source of a part of a text."""
        return self.source if self.unit == "file" else f"{self.unit} {self.number}"


@dataclass(frozen=True)
class DocumentReader:
    """The documents of a collection, which are read one by one.

    Attributes:
        parts: the name of each text, the unit of its documents, and the numbered documents.
        notes: of the text, each in a line to print.
        live: True if the documents arrive while they are read.
    """

    parts: Sequence[tuple[str, str, Iterator[tuple[int, str]]]]
    notes: Notes
    live: bool

    @property
    def by_line(self) -> bool:
        """True if the documents are the lines of one text, so that a number is a place."""
        return [unit for _, unit, _ in self.parts] == ["line"]

    def __iter__(self) -> Iterator[Document]:
        """Read the documents. Raises CharloomError like `open_texts`."""
        for name, unit, numbered in self.parts:
            for number, text in numbered:
                yield Document(name, unit, number, text)

    def place(self, document: Document) -> str:
        """Return the place of a document for output, with its text if there are several."""
        if len(self.parts) == 1 or document.unit == "file":
            return document.place
        return f"{document.source}, {document.place}"


def read_documents(
    sources: Sequence[Source], format: TextFormat, *, on_progress: OnProgress | None = None
) -> DocumentReader:
    """Open the documents of a collection. Arguments and errors are those of `open_texts`."""
    opened, notes = _open_all(sources, format, on_progress)
    return DocumentReader(
        [
            (one.text.name if one.path is None else str(one.path), *one.documents(format))
            for one in opened
        ],
        notes,
        any(one.text.live for one in opened),
    )


@dataclass(frozen=True)
class _Opened:
    """An opened source.

    Attributes:
        text: the text.
        label: its name in errors.
        path: the path of its file, if any.
        folder: the folder in which it was found, if any.
        lines: True for a built-in corpus whose documents are its lines.
    """

    text: Text
    label: str
    path: Path | None = None
    folder: Path | None = None
    lines: bool = False

    def cut(self, format: TextFormat) -> Cut:
        """Return the cut that makes documents of this text."""
        if self.text.ends:
            return _keep
        if format.lines or (self.lines and not format.cuts):
            return documents.lines
        if format.separator is not None:
            separator = unescape(format.separator)
            if self.text.as_bytes:
                separator = separator.encode("utf-8").decode("latin-1")
            return documents.separated(separator)
        if format.column is not None:
            return self._column(format, format.column)
        return documents.whole

    def documents(self, format: TextFormat) -> tuple[str, Iterator[tuple[int, str]]]:
        """Return the unit of this text's documents, and the documents with their numbers."""
        cut = self.cut(format)
        pieces = _without_mark(self.text, format)
        if cut is documents.lines:
            return "line", ((n, line) for n, line in enumerate(split_lines(pieces), 1) if line)
        if format.column is not None and not self.text.ends:
            fields = self._table(format, format.column).fields(pieces)
            if not format.keep_newlines:
                fields = (_normalized(field) for field in fields)
            return "row", ((n, field) for n, field in enumerate(fields, 1) if field)
        text = Text(self.text.name, "", self.text.as_bytes, lambda: cut(pieces), ends=True)
        unit = "file" if cut is documents.whole else "line" if self.text.lines else "document"
        return unit, enumerate(text.documents(), 1)

    def _table(self, format: TextFormat, column: str) -> Table:
        from charloom.text.folders import suffix_inside
        from charloom.text.tables import KINDS, Table

        kind = None if self.path is None else KINDS.get(suffix_inside(self.path))
        if self.path is not None and kind is None:
            if format.collection:
                raise CharloomError(
                    f"{self.label} is not a table, but the model reads the column "
                    f"{shortened(column)}: pass a .csv, .tsv or .jsonl file"
                )
            raise CharloomError(
                f"{self.label} is not a table: --column reads .csv, .tsv and .jsonl files"
            )
        return Table(column, self.label, kind, self.text.as_bytes)

    def _column(self, format: TextFormat, column: str) -> Cut:
        cut: Cut = self._table(format, column).cut
        if format.keep_newlines:
            return cut
        # JSON escapes line breaks, so that those of its fields have not been normalized yet.
        return lambda pieces: newline_normalizer(lambda: cut(pieces))()


def _normalized(field: str) -> str:
    return "".join(newline_normalizer(lambda: iter((field,)))())


def _without_mark(text: Text, format: TextFormat) -> Iterator[str]:
    """Return the pieces of a text, without a byte order mark before its first document."""
    return (mark_remover(text.pieces, text.as_bytes) if format.cuts else text.pieces)()


def _kept(training: Mapping[str, Any], unchanged: bool, *, is_book: bool) -> tuple[bool, bool]:
    """Return whether a training text keeps its line ends and its byte order mark.

    Earlier versions kept both (the mark only in a book) and recorded `normalize_newlines`.
    """
    if "normalize_newlines" in training:
        return not training["normalize_newlines"], is_book
    return unchanged or bool(training.get("keep_newlines")), unchanged


def _keep(pieces: Any) -> Iterator[str]:
    yield from pieces


def _open_all(
    sources: Sequence[Source], format: TextFormat, on_progress: OnProgress | None
) -> tuple[list[_Opened], Notes]:
    """Open the texts of all sources and folders; return them and notes about skipped files."""
    from charloom.text.corpora import CORPORA, is_folder, open_source
    from charloom.text.folders import folder_files, named_suffixes

    if not sources:
        raise CharloomError("no text: pass at least one")

    def open_one(source: str | Path) -> Text:
        return open_source(source, format, raw=format.raw, notes=notes, on_progress=on_progress)

    opened: list[_Opened] = []
    notes = Notes()
    for source in sources:
        if isinstance(source, Text):
            opened.append(_Opened(source, f"the text {shortened(source.name)}"))
            continue
        corpus = CORPORA.get(source) if isinstance(source, str) else None
        if corpus is not None:
            opened.append(_Opened(open_one(source), corpus.name, lines=corpus.lines))
        elif source != "-" and is_folder(source):
            folder = Path(source)
            files = folder_files(folder, as_bytes=format.as_bytes, tables=format.column is not None)
            for path in files.paths:
                opened.append(_Opened(open_one(path), quoted_path(path), path, folder))
            if files.skipped:
                notes.add(
                    f"{quoted_path(folder)}: {len(files.paths):,} files are read, and "
                    f"{len(files.skipped):,} skipped that are not text "
                    f"({named_suffixes(files.skipped)})"
                )
        else:
            text = open_one(source)
            piped = text.origin == "-"
            label = "standard input" if source == "-" else quoted_path(source)
            opened.append(_Opened(text, label, None if piped else Path(source)))
    return opened, notes


def _name_and_origin(opened: Sequence[_Opened]) -> tuple[str, str]:
    """Return the name and the origin of a collection. A folder has one name and one origin."""
    names: list[str] = []
    origins: list[str] = []
    folder = None
    for one in opened:
        if one.folder is None:
            names.append(one.text.name)
            origins.append(one.text.origin)
        elif one.folder != folder:
            names.append(safe_name(one.folder.absolute().name))
            origins.append(str(one.folder.absolute()))
        folder = one.folder
    name = names[0] if len(names) == 1 else safe_name(f"{names[0]}-and-{len(names) - 1}-more")
    known = all(origin not in ("", "-") for origin in origins)
    if len(origins) == 1:
        return name, origins[0]
    return name, ORIGIN_SEPARATOR.join(origins) if known else ""


def absolute_source(source: str) -> str:
    """Return a source that means the same from every folder: paths become absolute."""
    from charloom.text.corpora import CORPORA

    return source if source == "-" or source in CORPORA else str(Path(source).absolute())


Opener = Callable[[TextFormat], Text]
