"""The cache of compiled kernels: one file each, which appears whole or not at all.

A file's name is a digest of everything that its code depends on. Its content is the SHA-256 of the
rest, and object code. It is code that will be run, so a folder is used only if just the user
or the administrator can change it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import os
import platform
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from charloom.kernels import processor
from charloom.version import __version__

# Folders and files with sources of kernels.
SOURCES = (
    "kernels",
    "engines/compiled",
    "engines/reference_normalization.py",
    "engines/restrictions.py",
    "ngrams",
    "context_mixing",
    "prediction/mixed",
    "compression",
)
# Settings of Numba that change the code.
_SETTINGS = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_OPT")
_DIGEST = 32  # bytes


def file_name(what: str, signature: str) -> str:
    """Return a file's name, from sources and versions, and from arguments and processor.

    Args:
        what: the kernel's name in messages.
        signature: a description of its arguments.
    """
    settings = [os.environ.get(name) for name in _SETTINGS]
    digest = hashlib.sha256(repr((signature, processor.description(), settings)).encode())
    return f"{_name_begins(what, _digest_of_versions())}{digest.hexdigest()[:32]}.kernel"


def is_kept(what: str | None = None) -> bool:
    """Return whether a kernel was compiled before, from these sources and for any arguments.

    Args:
        what: the kernel's name in messages; None for any kernel.
    """
    try:
        digest = _digest_of_versions()
    except ImportError:
        return False
    named = f"-{digest}-" if what is None else _name_begins(what, digest)
    for folder in _readable():
        with contextlib.suppress(OSError), os.scandir(folder) as files:
            if any(named in file.name for file in files):
                return True
    return False


def read(name: str) -> bytes | None:
    """Return the object code in a file; None if it is missing or damaged."""
    for folder in _readable():
        with contextlib.suppress(OSError):
            data = (folder / name).read_bytes()
            if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
                return data[_DIGEST:]
    return None


def write(name: str, code: bytes) -> None:
    """Write object code to a file if there is a folder for it."""
    import tempfile

    folder = cache_folder()
    if folder is None:
        return
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            Path(temporary).replace(folder / name)
        except BaseException:
            Path(temporary).unlink()
            raise


def cache_folder() -> Path | None:
    """Return the folder for new files; None if no candidate is writable.

    The candidates are NUMBA_CACHE_DIR if it is set, the user's cache folder, and a folder for
    temporary files.
    """
    import tempfile  # which a kernel in the cache does not need

    for place in _candidates():
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_safe(place):
                with tempfile.TemporaryFile(dir=place):
                    return place
    return None


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen) / "charloom"
    import platformdirs

    yield Path(platformdirs.user_cache_dir("charloom")) / "kernels"
    import tempfile

    user = os.getuid() if hasattr(os, "getuid") else "user"
    yield Path(tempfile.gettempdir()) / f"charloom-kernels-{user}"


def _readable() -> Iterator[Path]:
    """Yield the folder for new files, and before it folders that can only be read."""
    for place in _candidates():
        safe = False
        with contextlib.suppress(OSError):
            safe = _is_safe(place)
        if safe:
            yield place
        if place == cache_folder():
            return


def _is_safe(place: Path) -> bool:
    """Return whether a folder belongs to the user or administrator, and no other can write it."""
    found = place.lstat()
    own = not hasattr(os, "getuid") or found.st_uid in (os.getuid(), 0)
    return stat.S_ISDIR(found.st_mode) and own and not found.st_mode & 0o022


def _name_begins(what: str, digest: str) -> str:
    return f"{what.replace(' ', '-')}-{digest}-"


def _digest_of_versions() -> str:
    """Return a digest of the sources, and of the versions of Python, NumPy, Numba and LLVM."""
    digest = hashlib.sha256(_digest_of_sources(Path(__file__).parents[1]))
    versions = (
        __version__,
        platform.python_version(),
        np.__version__,
        *(version_of(name) for name in ("numba", "llvmlite")),
    )
    digest.update(repr(versions).encode())
    return digest.hexdigest()[:32]


@functools.cache
def _digest_of_sources(package: Path) -> bytes:
    digest = hashlib.sha256()
    for name in SOURCES:
        place = package / name
        for path in [place] if place.suffix else sorted(place.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.digest()


@functools.cache
def version_of(name: str) -> str | bytes:
    """Return the version of a library, or the file that has it, without importing it.

    Raises:
        ImportError: if it is missing.
    """
    try:
        found = importlib.util.find_spec(name)
    except ValueError:  # because it is blocked
        found = None
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"No module named {name!r}")
    with contextlib.suppress(OSError):
        return (Path(found.origin).parent / "_version.py").read_bytes()
    return str(importlib.import_module(name).__version__)
