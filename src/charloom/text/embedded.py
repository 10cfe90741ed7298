"""Corpora made from every Python installation: its documentation, library and Unicode names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from charloom.errors import CharloomError


@dataclass(frozen=True)
class EmbeddedCorpus:
    """A corpus made from this Python, so that it needs no network.

    Attributes:
        name, description, license: as `charloom corpora` lists them.
        pieces: returns the text in pieces.
        check: raises CharloomError where this Python lacks the corpus.
        lines: True if each line is a document.
    """

    name: str
    description: str
    license: str
    pieces: Callable[[], Iterator[str]]
    check: Callable[[], object] = lambda: None
    lines: bool = False


def documentation_topics() -> dict[str, str]:
    """Return the topics of `help()`. Raises CharloomError where this Python lacks them."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise CharloomError(
            "this Python has no documentation (pydoc_data): use python-stdlib or unicode-names, "
            "or pass the path of a text"
        ) from None
    return dict(topics)


def python_docs() -> Iterator[str]:
    """Return the topics of `help()`, in sorted order, with an empty line between them."""
    between = ""
    for _, topic in sorted(documentation_topics().items()):
        yield between + topic.strip("\n") + "\n"
        between = "\n"


_TABLE = re.compile(r"\+[-=]{3}")  # its upper edge


def python_help() -> Iterator[str]:
    """Return the topics of `help()` as `python_docs` does, but each paragraph only once.

    The topics quote one another, so that a split of their text would share whole pages with the
    others. A paragraph is what empty lines enclose. It is omitted if an earlier one has the same
    words, whatever their spaces and line breaks. Tables are omitted too, because they are
    mostly lines and spaces.
    """
    seen: set[str] = set()
    between = ""
    for _, topic in sorted(documentation_topics().items()):
        for paragraph in topic.strip("\n").split("\n\n"):
            words = " ".join(paragraph.split())
            if words and words not in seen and not _TABLE.match(words):
                seen.add(words)
                yield between + paragraph.strip("\n") + "\n"
                between = "\n"


# Installed packages, tests, and files generated when this Python was built.
_NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_GENERATED = re.compile(r"config-\d.*|_sysconfigdata.*|_sysconfig_vars.*")


def library_files() -> list[Path]:
    """Return the standard library's source files, sorted by path.

    Raises CharloomError where this Python lacks them.
    """
    import sysconfig

    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [
            name for name in folders if name not in _NOT_THE_LIBRARY and not _GENERATED.match(name)
        ]
        files += [
            Path(folder, name)
            for name in names
            if name.endswith(".py") and not _GENERATED.match(name)
        ]
    if not files:
        raise CharloomError(
            "this Python has no source code of its standard library: use python-help or "
            "unicode-names, or pass the path of a text"
        )
    return sorted(files, key=lambda path: path.relative_to(root).parts)


def python_stdlib() -> Iterator[str]:
    """Return the library's source files in order, with an empty line between them and LF newlines.

    A file that cannot be read is skipped.
    """
    between = ""
    for path in library_files():
        try:
            source = path.read_text(encoding="utf-8-sig").strip("\n")
        except (OSError, UnicodeDecodeError):
            continue
        if source:
            yield between + source + "\n"
            between = "\n"


def unicode_names() -> Iterator[str]:
    """Return the names of Unicode characters, one a line, in code point order.

    Algorithmic names are omitted, which are those of Hangul syllables and every name that ends in
    its own code point, like CJK UNIFIED IDEOGRAPH-4E00. Rules NR1 and NR2 of the Unicode Standard,
    section 4.8, define them.
    """
    import unicodedata

    lines = []
    for code_point in range(sys.maxunicode + 1):
        name = unicodedata.name(chr(code_point), "")
        if name and not (
            name.startswith("HANGUL SYLLABLE ") or name.endswith(f"-{code_point:04X}")
        ):
            lines.append(name + "\n")
        if len(lines) == 4096:
            yield "".join(lines)
            lines.clear()
    yield "".join(lines)
