"""Corpora that come with Python: its documentation, its library, the Unicode names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from charloom.errors import CharloomError

# --- Corpora that every Python carries -----------------------------------------------------------


@dataclass(frozen=True)
class EmbeddedCorpus:
    """A corpus that is made from this Python. `check` raises CharloomError where it cannot be."""

    name: str
    description: str
    license: str
    pieces: Callable[[], Iterator[str]]
    check: Callable[[], object] = lambda: None


def documentation_topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise CharloomError(
            "this Python comes without its documentation (pydoc_data): take python-stdlib or "
            "unicode-names, or give the path of a text"
        ) from None
    return dict(topics)


def python_docs() -> Iterator[str]:
    """The topics of Python's `help()`, in sorted order, an empty line between them."""
    between = ""
    for _, topic in sorted(documentation_topics().items()):
        yield between + topic.strip("\n") + "\n"
        between = "\n"


# What other people installed, tests, and what was generated when this Python was built.
_NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_GENERATED = re.compile(r"config-\d.*|_sysconfigdata.*|_sysconfig_vars.*")


def library_files() -> list[Path]:
    """The standard library's source files, in the order of their paths."""
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
            "this Python comes without the source of its standard library: take python-docs or "
            "unicode-names, or give the path of a text"
        )
    return sorted(files, key=lambda path: path.relative_to(root).parts)


def python_stdlib() -> Iterator[str]:
    """The source files one after another, an empty line between them, newlines as Python reads."""
    between = ""
    for path in library_files():
        try:
            source = path.read_text(encoding="utf-8-sig").strip("\n")
        except (OSError, UnicodeDecodeError):
            continue  # one file less makes no other text of it
        if source:
            yield between + source + "\n"
            between = "\n"


def unicode_names() -> Iterator[str]:
    """The names of characters, one a line, in code point order, without the algorithmic ones.

    Those are the Hangul syllables and every name that ends in its own code point, like CJK
    UNIFIED IDEOGRAPH-4E00: rules NR1 and NR2 of the Unicode Standard, section 4.8.
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
