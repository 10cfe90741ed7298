"""`charloom.compress` and `charloom.decompress`."""

from __future__ import annotations

from charloom.compression.adaptive import read_text, write_text
from charloom.compression.characters import Alphabet, as_bytes, codes_of_bytes, codes_of_characters
from charloom.compression.container import (
    BYTES,
    CHARACTERS,
    MARK,
    STORED,
    Header,
    OtherVersionError,
    digest_of,
    read_file,
    write_file,
)
from charloom.compression.layout import Damage
from charloom.context_mixing.layout import LARGEST_VOCABULARY
from charloom.errors import CharloomError
from charloom.progress import OnProgress

LARGEST = 1_000_000_000  # bytes of a text
LARGEST_TABLES = 1_000  # megabytes
TABLES, MOST_TABLES = 64, 256  # megabytes of the mixer's lists: usually, and for long texts
TRIED = 200_000  # bytes of a text that is coded both as characters and as bytes, at most
DAMAGED = "the compressed bytes are damaged or incomplete: use an intact copy"


def compress(data: str | bytes, *, on_progress: OnProgress | None = None) -> bytes:
    """Compress a text, or any bytes, without loss.

    Args:
        data: the text. A str is compressed as UTF-8.
        on_progress: called with the stage, the number of characters coded, and their total.

    Returns:
        The compressed bytes, at most 64 more than `data` has.

    Raises:
        CharloomError: if the text is too long.
    """
    text = _as_bytes(data)
    if len(text) > LARGEST:
        raise CharloomError(
            f"the text has {len(text):,} bytes, above the limit of {LARGEST:,}: compress it in "
            "parts"
        )
    best = write_file(Header(STORED, len(text)), text, text)
    for as_single_bytes in _forms(text):
        found = _coded(text, as_single_bytes, on_progress)
        if len(found) < len(best):
            best = found
    return best


def decompress(
    data: bytes, *, most_bytes: int = LARGEST, on_progress: OnProgress | None = None
) -> bytes:
    """Return the text of compressed bytes.

    Args:
        data: what `compress` returned.
        most_bytes: the largest size of a text that is accepted.
        on_progress: as in `compress`.

    Raises:
        CharloomError: if the bytes are damaged, not charloom's, or those of a larger text.
    """
    if not data.startswith(MARK):
        raise CharloomError(
            "these bytes were not compressed by charloom: pass those of `charloom compress`"
        )
    try:
        text = _decompressed(data, most_bytes, on_progress)
    except OtherVersionError:
        raise CharloomError(
            "another version of charloom compressed this, with numbers that this one does not "
            "compute: use that version"
        ) from None
    except Damage:
        raise CharloomError(DAMAGED) from None
    return text


def _decompressed(data: bytes, most_bytes: int, on_progress: OnProgress | None) -> bytes:
    header, content, digest = read_file(data)
    if header.size > most_bytes:
        raise CharloomError(
            f"the text has {header.size:,} bytes, above the limit of {most_bytes:,}: allow more"
        )
    if header.form == STORED:
        text = content
    else:
        if header.megabytes > LARGEST_TABLES or not 1 <= header.alphabet <= LARGEST_VOCABULARY:
            raise Damage
        alphabet, ids = read_text(
            content, header.alphabet, header.length, header.megabytes, header.form == BYTES,
            on_progress,
        )  # fmt: skip
        text = as_bytes(alphabet.codes[ids], alphabet)
    if len(text) != header.size or digest_of(text) != digest:
        raise Damage
    return text


def _as_bytes(data: str | bytes) -> bytes:
    if isinstance(data, str):
        try:
            return data.encode("utf-8")
        except UnicodeEncodeError:
            raise CharloomError(
                "the text contains half of a surrogate pair: pass bytes instead"
            ) from None
    return bytes(data)


def _forms(text: bytes) -> list[bool]:
    """Return whether a text is to be coded as bytes: one way or both."""
    if not text:
        return []
    codes = codes_of_characters(text)
    if codes is None or len(set(codes.tolist())) > LARGEST_VOCABULARY:
        return [True]
    if len(codes) == len(text) or len(text) > TRIED:
        return [False]
    return [False, True]


def _coded(text: bytes, as_single_bytes: bool, on_progress: OnProgress | None) -> bytes:
    codes = codes_of_bytes(text) if as_single_bytes else codes_of_characters(text)
    assert codes is not None
    alphabet, ids = Alphabet.of(codes, as_single_bytes)
    megabytes = max(TABLES, min(MOST_TABLES, TABLES * len(codes) // 2_000_000))
    content = write_text(alphabet, ids, megabytes, on_progress)
    form = BYTES if as_single_bytes else CHARACTERS
    header = Header(form, len(text), len(codes), len(alphabet.codes), megabytes)
    return write_file(header, content, text)
