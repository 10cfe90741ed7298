"""The text files of a folder, and which of its files are not text."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from charloom.errors import CharloomError, error_reason, plural, quoted_path
from charloom.text.encodings import BEGINNING, recognized
from charloom.text.file_kinds import COMPRESSED, compression_of, kind_of
from charloom.text.reading import block_reader, open_file

# Suffixes of files that are not text. Every other file is read, whatever its suffix.
_PICTURES = "apng avif bmp eps gif heic heif ico jpeg jpg jxl png psd raw svgz tif tiff webp xcf"
_SOUNDS = "aac aif aiff amr flac m4a mid midi mp3 oga ogg opus wav wma"
_FILMS = "3gp avi flv m4v mkv mov mp4 mpeg mpg ogv webm wmv"
_ARCHIVES = "7z apk cab deb dmg iso jar lz4 lzma rar rpm tar tbz2 tgz txz tzst whl z zip"
_DOCUMENTS = "doc docx epub mobi odp ods odt pdf ppt pptx xls xlsx"
_PROGRAMS = "a bin class dll dylib exe nbc nbi o pyc pyd pyo so wasm"
_DATA = "accdb db feather h5 hdf5 mdb mo npy npz parquet pickle pkl sqlite sqlite3"
_MODELS_AND_FONTS = "onnx otf pt pth safetensors ttf woff woff2"
NOT_TEXT = frozenset(
    f".{suffix}"
    for suffixes in (
        _PICTURES,
        _SOUNDS,
        _FILMS,
        _ARCHIVES,
        _DOCUMENTS,
        _PROGRAMS,
        _DATA,
        _MODELS_AND_FONTS,
    )
    for suffix in suffixes.split()
)
RUN_FILE = "resume.safetensors"  # only the folder of a run holds it
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class FolderFiles:
    """The files of a folder that are read, sorted by path, and the suffixes of the others."""

    paths: tuple[Path, ...]
    skipped: tuple[str, ...]


def suffix_inside(path: Path) -> str:
    """Return a file's suffix in lower case; of a compressed file, the one before .gz or so."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def folder_files(folder: Path, *, as_bytes: bool = False, tables: bool = False) -> FolderFiles:
    """Find the files of a folder and of the folders in it, sorted by path.

    Hidden files and folders are ignored, and so are the folders of runs. Files that are not text
    are skipped. Pictures, sounds, archives and the like are recognized by their suffix or their
    first bytes. Other files with null characters in their first bytes are text only if they are
    UTF-16 or UTF-32.

    Args:
        folder: the folder.
        as_bytes: read files of every kind.
        tables: read only tables, which end in .csv, .tsv, .jsonl, .ndjson, or these with .gz or so.

    Raises:
        CharloomError: if no file is left, or the folder cannot be read.
    """
    found, skipped = [], []

    def refuse(error: OSError) -> None:
        raise CharloomError(
            f"cannot read the folder {quoted_path(error.filename or folder)}: {error_reason(error)}"
        )

    for place, folders, names in os.walk(folder, onerror=refuse):
        if RUN_FILE in names:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if name.startswith(".") or not path.is_file():
                continue
            suffix = suffix_inside(path)
            if suffix in TABLES if tables else as_bytes or _is_text(path, suffix):
                found.append(path)
            else:
                skipped.append(suffix or name)
    if not found:
        raise CharloomError(_nothing_found(folder, skipped, tables))
    found.sort(key=lambda path: path.relative_to(folder).parts)
    return FolderFiles(tuple(found), tuple(skipped))


def _is_text(path: Path, suffix: str) -> bool:
    if suffix in NOT_TEXT:
        return False
    label = quoted_path(path)
    open_bytes = partial(open_file, path, label)
    try:
        beginning = next(block_reader(open_bytes, label, BEGINNING)(), b"")
        if compression := compression_of(beginning):
            inside = block_reader(open_bytes, label, BEGINNING, compression=compression)
            beginning = next(inside(), b"")
    except CharloomError:
        return True  # so that opening it raises the error for this path
    if kind_of(beginning) is not None:
        return False
    return b"\0" not in beginning or recognized(beginning) is not None


def _nothing_found(folder: Path, skipped: list[str], tables: bool) -> str:
    name = quoted_path(folder)
    if not skipped:
        return f"the folder {name} has no files: pass a folder with text files"
    kinds = named_suffixes(skipped)
    if tables:
        return (
            f"the folder {name} has no tables, but {kinds}: --column reads .csv, .tsv and .jsonl "
            "files"
        )
    return f"the folder {name} has no text files, but {kinds}: pass a folder with text files"


def named_suffixes(suffixes: list[str] | tuple[str, ...]) -> str:
    """Return the suffixes with their numbers, most frequent first: `12 of .png, 3 of .jpg`."""
    counts = {suffix: suffixes.count(suffix) for suffix in sorted(set(suffixes))}
    ranked = sorted(counts, key=lambda suffix: -counts[suffix])
    named = [f"{counts[suffix]:,} of {suffix}" for suffix in ranked[:3]]
    if len(ranked) > 3:
        named.append(f"{plural(sum(counts[suffix] for suffix in ranked[3:]), 'other')}")
    return ", ".join(named)
