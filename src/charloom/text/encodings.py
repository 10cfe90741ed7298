"""Encodings of texts, by their names in Python."""

from __future__ import annotations

import codecs

from charloom.errors import CharloomError, shortened


def check_encoding(name: str) -> None:
    """Raise CharloomError unless a name is that of an encoding of text."""
    try:
        found = codecs.lookup(name)
        "".encode(name)  # refuses codecs that are no encodings of text, such as rot13 and zlib
        "\ufeff".encode(name, "replace")
    except (LookupError, ValueError, UnicodeError):
        found = None
    if found is None or found.name in NOT_OF_TEXTS:
        raise CharloomError(
            f"--encoding is {shortened(name)}, which is not an encoding: pass a name such as "
            "utf-8, cp1252, gb18030, shift_jis, koi8-r or utf-16"
        )


# Encodings of names and of Python's source, in which no text is stored.
NOT_OF_TEXTS = frozenset({"idna", "mbcs", "oem", "punycode", "raw-unicode-escape", "undefined"})
