"""Texts that a caller in Python passes: the one rule by which a str is a text or the name of one.

- A `Path` is a file or a folder, and a `Text` is itself.
- In a list, every str is a text of its own.
- A single str to train on is the text itself if it has a line break, or more than 255 characters
  and no file has that name. Else it names a text: a corpus, a path, or `-` for standard input.
- A single str to score is always the text itself.

A str that could be both is refused, before anything is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

from charloom.errors import CharloomError, quoted_path, shortened
from charloom.text.corpora import CORPORA, is_folder
from charloom.text.encodings import EncodingError
from charloom.text.format import Opener, Source, TextFormat, absolute_source, open_texts
from charloom.text.source import Text, refuse_surrogates
from charloom.text.vocabulary import END

LONGEST_NAME = 255  # characters of a str that is a name even if no file has it
REMEDY = "pass a str, a pathlib.Path, or a list of them"

OneText = str | bytes | os.PathLike[str] | Text
Texts = OneText | Iterable[OneText] | Opener


@dataclass(frozen=True)
class PassedTexts:
    """Texts as a caller passed them, checked and not read yet. A call opens them in a format.

    Attributes:
        texts: their sources, where a list has consecutive strings that are texts themselves.
    """

    texts: tuple[Source | bytes | list[str], ...]

    def __call__(self, format: TextFormat) -> Text:
        """Open them as one text. Raises CharloomError as `open_texts`."""
        found: list[Source] = []
        for text in self.texts:
            if isinstance(text, bytes):
                found.append(_text_of_bytes(text, format))
            elif isinstance(text, Text):
                found.append(_in_format(text, format))
            elif not isinstance(text, list):
                found.append(text)
            elif format.cuts or len(self.texts) == len(text) == 1:
                found += map(format.text_of, text)
            else:
                found.append(_documents(text, format))
        return open_texts(found, format)


def texts_to_train_on(value: Texts) -> Opener:
    """Check texts to train on, and return a function that opens them in a format.

    Args:
        value: the texts as a caller passed them. A function that opens them is returned unchanged.

    Raises:
        CharloomError: if they are not texts, or if a str in a list could be a name, too.
    """
    if isinstance(value, str):
        return PassedTexts((_name_or_text(str(value)),))
    return _checked(value, checks_names=True)


def texts_to_score(value: Texts, *, checks_names: bool) -> str | bytes | list[str | bytes] | Opener:
    """Check texts to score; return strings unchanged, and else a function like above.

    Args:
        value: the texts as a caller passed them. A str is the text itself.
        checks_names: whether a str that could be a name, too, is refused. It is not where strings
            of any kind are scored, which can be names of files.

    Raises:
        CharloomError: as `texts_to_train_on`.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        if checks_names:
            _refuse_names([value], "charloom.Text.from_string for the text")
        return str(value)
    passed = _checked(value, checks_names=checks_names)
    if isinstance(passed, PassedTexts) and all(isinstance(t, list | bytes) for t in passed.texts):
        groups = (t if isinstance(t, list) else [t] for t in passed.texts)
        return cast(list[str | bytes], list(chain.from_iterable(groups)))
    return _with_advice(passed)


def _with_advice(passed: Opener) -> Opener:
    """Return texts to score whose errors advise a caller in Python without `encoding`."""

    def open_them(format: TextFormat) -> Text:
        opened = passed(format)

        def pieces() -> Iterator[str]:
            try:
                yield from opened.pieces()
            except EncodingError as error:
                raise CharloomError(error.for_open_text) from None

        return replace(opened, pieces=pieces)

    has_path = isinstance(passed, PassedTexts) and any(isinstance(t, Path) for t in passed.texts)
    return open_them if has_path else passed


def strings_to_score(value: Iterable[str | bytes], kind: str) -> list[str | bytes]:
    """Check strings that are scored one by one, and return them in a list.

    Args:
        value: as a caller passed them.
        kind: `line` or `document`, for error messages.

    Raises:
        CharloomError: if they are a single string, or one is not a str.
    """
    if isinstance(value, str | bytes | os.PathLike | Text):
        what = "string" if isinstance(value, str) else f"{type(value).__name__} object"
        raise CharloomError(f"the {kind}s are a single {what}: pass a list of strings")
    strings: list[str | bytes] = []
    for number, element in enumerate(_elements(value), 1):
        if not isinstance(element, str | bytes):
            raise CharloomError(f"{kind} {number:,} is {_described(element)}: pass a list of str")
        strings.append(element)
    return strings


def source_option(name: str, value: object) -> str:
    """Return the absolute path, or the corpus name, of an option whose text is read again later.

    Raises CharloomError if the value is a text itself, or neither a str nor a Path.
    """
    if isinstance(value, os.PathLike):
        return str(Path(value).absolute())
    if not isinstance(value, str) or "\n" in value:
        raise CharloomError(
            f"{name} is {shortened(value)}: pass the path of a file, because it is read again later"
        )
    return absolute_source(value) if value else value


def _checked(value: Any, *, checks_names: bool) -> Opener:
    """Check texts that are not a single str."""
    if isinstance(value, Text | bytes):
        return PassedTexts((value,))
    if isinstance(value, os.PathLike):
        return PassedTexts((Path(value),))
    if callable(value) and not isinstance(value, Iterable):
        return cast(Opener, value)
    texts: list[Source | bytes | list[str]] = []
    for number, element in enumerate(_elements(value), 1):
        if isinstance(element, str):
            refuse_surrogates(element)
            if not texts or not isinstance(texts[-1], list):
                texts.append([])
            cast(list[str], texts[-1]).append(str(element))
        elif isinstance(element, Text | bytes):
            texts.append(element)
        elif isinstance(element, os.PathLike):
            texts.append(Path(element))
        else:
            raise CharloomError(f"text {number:,} of the list is {_described(element)}: {REMEDY}")
    if not texts:
        raise CharloomError("the list of texts is empty: pass at least one text")
    if checks_names:
        strings = (string for text in texts if isinstance(text, list) for string in text)
        _refuse_names(strings, "charloom.Text.from_documents if all of the list are texts")
    return PassedTexts(tuple(texts))


def _elements(value: Any) -> list[object]:
    """Return the elements of a list or of another iterable in which they are texts in order."""
    if hasattr(value, "read"):
        raise CharloomError("the text is an open file: pass its Path, or what its `read` returns")
    if isinstance(value, Mapping):
        raise CharloomError("the texts are in a dict: pass a list, such as list(texts.values())")
    if isinstance(value, Set):
        raise CharloomError("the texts are in a set, without an order: pass sorted(texts)")
    if hasattr(value, "columns"):
        raise CharloomError("the texts are in a table: pass one of its columns")
    try:
        return list(value)
    except TypeError:
        raise CharloomError(f"the text is {_described(value)}: {REMEDY}") from None


def _described(value: object) -> str:
    return "None" if value is None else f"{shortened(value)}, of type {type(value).__name__}"


def _name_or_text(string: str) -> str | list[str]:
    """Return a single str to train on: a name, or in a list the text itself."""
    is_text = "\n" in string or not string
    if is_text or (len(string) > LONGEST_NAME and not _exists(string)):
        refuse_surrogates(string)
        return [string]
    if " " in string and not _exists(string):
        raise CharloomError(
            f"there is no file {quoted_path(string)}: pass a path, or "
            "charloom.Text.from_string for a text in one line"
        )
    return string


def _refuse_names(strings: Iterable[str], remedy: str) -> None:
    """Raise CharloomError for the first string that could be the name of a text, too."""
    try:
        here = {path.name for path in Path().iterdir()}  # one look is faster than one a string
    except OSError:
        here = set()
    for string in strings:
        if string == "-":
            kind, way = "standard input", "charloom.open_text"
        elif string in CORPORA:
            kind, way = "the corpus", "charloom.open_text"
        elif string in here or (_has_folder(string) and _exists(string)):
            kind, way = "the folder" if is_folder(string) else "the file", "pathlib.Path"
        else:
            continue
        name = quoted_path(string)
        raise CharloomError(
            f"{name} is a text, but could be {kind}: pass {way}({name}) for {kind}, or {remedy}"
        )


def _has_folder(string: str) -> bool:
    return "\n" not in string and ("/" in string or "\\" in string or string in (".", ".."))


def _exists(string: str) -> bool:
    try:
        return Path(string).exists()
    except OSError:  # the name is too long, or its folder cannot be read
        return False


def _in_format(text: Text, format: TextFormat) -> Text:
    """Return an opened text, or its UTF-8 as bytes where a format reads bytes."""
    if text.as_bytes == format.as_bytes:
        return text
    if text.as_bytes:
        raise CharloomError(
            f"the text {shortened(text.name)} was opened as bytes, and the model reads characters: "
            "open it without as_bytes"
        )

    def pieces() -> Iterator[str]:
        for piece in text.pieces():  # the end of a document is not a character
            yield END.join(part.encode().decode("latin-1") for part in piece.split(END))

    return replace(text, as_bytes=True, pieces=pieces)


def _text_of_bytes(content: bytes, format: TextFormat) -> Text:
    if not format.as_bytes:
        raise CharloomError("the text is of type bytes: decode it, or pass bytes=True to train on")
    return Text("text", "", True, lambda: iter((content.decode("latin-1"),)))


def _documents(strings: list[str], format: TextFormat) -> Text:
    """Return strings as a collection. Empty ones are skipped."""

    def pieces() -> Iterator[str]:
        for string in filter(None, strings):
            yield from format.text_of(string).pieces()
            yield END

    return Text("texts", "", format.as_bytes, pieces, ends=True)
