"""Object code, loaded for the rest of the process.

LLVM emits kernels for x86-64 as ELF objects with the large code model, whose only relocations are
addresses of 64 bits. To load one is to copy its sections into memory, and to fill in the addresses.
LLVM's own linker takes longer to import than a short sample takes. It loads all other object code.

Source: System V Application Binary Interface, and its supplement for AMD64, chapter 4.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import itertools
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BEGIN = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
_RELOCATABLE, _X86_64 = 1, 62
_SYMBOLS, _RELOCATIONS, _ZEROS, _UNWINDING = 2, 4, 8, 0x70000001  # types of sections
_WRITABLE, _IN_MEMORY = 1, 2  # flags of sections
_ADDRESS = 1  # R_X86_64_64, the type of a relocation: an address of 64 bits
_UNDEFINED = 0  # the section of a symbol that a library of the process defines
_ALIGN = 64  # bytes, of which every section's alignment is a divisor
# Arguments of the system's mmap and mprotect.
_READ, _WRITE, _EXECUTE, _PRIVATE, _ANONYMOUS = 1, 2, 4, 2, 32


def _layout(names: str, kinds: str) -> np.dtype[Any]:
    fields = zip(names.split(), kinds.split(), strict=True)
    return np.dtype([(name, f"<{kind}") for name, kind in fields])


_HEADER = _layout(
    "begin type machine version entry programs sections flags size program_size program_count "
    "section_size section_count names",
    "V16 u2 u2 u4 u8 u8 u8 u4 u2 u2 u2 u2 u2 u2",
)
_SECTION = _layout(
    "name type flags address offset size link info align each", "u4 u4 u8 u8 u8 u8 u4 u4 u8 u8"
)
_SYMBOL = _layout("name info other section value size", "u4 u1 u1 u2 u8 u8")
_RELOCATION = _layout("offset type symbol addend", "u8 u4 u4 u8")
_BYTE = np.dtype(np.uint8)


class _UnknownFormatError(Exception):
    """Object code that only LLVM can load."""


def load_code(code: bytes, entry: str) -> int:
    """Load object code, and return the address of its function `entry`.

    Raises:
        RuntimeError: if it is not object code of this machine, or a symbol is missing.
    """
    try:
        return _load(code, entry)
    except (_UnknownFormatError, OSError, RuntimeError):  # LLVM's linker has symbols of its own
        return _link(code, entry)


def _load(code: bytes, entry: str) -> int:
    """Load an ELF object.

    Raises:
        _UnknownFormatError: if it is another kind of file, or has other sections or relocations.
        OSError: if the system grants no memory for code.
        RuntimeError: if a symbol is missing.
    """
    if sys.platform != "linux" or not code.startswith(_BEGIN):
        raise _UnknownFormatError
    header = np.frombuffer(code, _HEADER, 1)[0]
    if (header["type"], header["machine"]) != (_RELOCATABLE, _X86_64):
        raise _UnknownFormatError
    sections = np.frombuffer(code, _SECTION, header["section_count"], int(header["sections"]))
    kinds, flags = sections["type"], sections["flags"]
    kept = (flags & _IN_MEMORY != 0) & (kinds != _UNWINDING)
    unknown = (flags & _WRITABLE != 0) | (kinds == _ZEROS) | (sections["align"] > _ALIGN)
    if (kept & unknown).any() or np.count_nonzero(kinds == _SYMBOLS) != 1:
        raise _UnknownFormatError
    sizes = -(-np.where(kept, sections["size"], 0).astype(np.int64) // _ALIGN) * _ALIGN
    begins = np.cumsum(sizes) - sizes
    image = np.zeros(sizes.sum(), np.uint8)
    for section, begin in zip(sections[kept], begins[kept], strict=True):
        image[begin : begin + int(section["size"])] = _content(code, section, _BYTE)
    address = _memory_for_code(len(image))
    table = sections[kinds == _SYMBOLS][0]
    names = _content(code, sections[table["link"]], _BYTE).tobytes()
    addresses = np.where(kept, begins + address, 0)
    places, found = _places(_content(code, table, _SYMBOL), names, addresses, entry)
    for section in sections[kinds == _RELOCATIONS]:
        if kept[section["info"]]:
            fill = _content(code, section, _RELOCATION)
            _fill_in(image[begins[section["info"]] :], fill, places)
    _write_code(address, image)
    return found


def _content(code: bytes, section: Any, layout: np.dtype[Any]) -> NDArray[Any]:
    count = int(section["size"]) // layout.itemsize
    return np.frombuffer(code, layout, count, int(section["offset"]))


def _places(
    symbols: NDArray[Any], names: bytes, sections: NDArray[np.int64], entry: str
) -> tuple[NDArray[np.uint64], int]:
    """Return the addresses of all symbols, 0 where it is unknown, and of the function `entry`.

    Args:
        symbols: the table of symbols.
        names: their names, each with a zero byte at its end.
        sections: the addresses of the sections, 0 for one that is not in memory.
        entry: the name of a function.

    Raises:
        RuntimeError: if a symbol is missing.
    """
    places = np.zeros(len(symbols), np.uint64)
    defined = symbols["section"] < len(sections)  # beyond are absolute and common symbols
    places[defined] = sections[symbols["section"][defined]].astype(np.uint64)
    places[places != 0] += symbols["value"][places != 0]
    found = 0
    for number, begin in enumerate(symbols["name"].tolist()):
        name = names[begin : names.index(0, begin)].decode()
        if name == entry:
            found = int(places[number])
        elif name and symbols["section"][number] == _UNDEFINED:
            places[number] = _address_in_process(name)
    if not found:
        raise RuntimeError(f"no function {entry}")
    return places, found


def _address_in_process(name: str) -> int:
    """Return the address of a function of the system's libraries."""
    try:
        function = getattr(_process(), name)
    except AttributeError:
        raise RuntimeError(f"no function {name}") from None
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _fill_in(
    section: NDArray[np.uint8], relocations: NDArray[Any], places: NDArray[np.uint64]
) -> None:
    """Write addresses into a section. Raises _UnknownFormatError."""
    symbols = places[relocations["symbol"]]
    if (relocations["type"] != _ADDRESS).any() or (symbols == 0).any():
        raise _UnknownFormatError
    addresses = symbols + relocations["addend"]
    at = relocations["offset"].astype(np.intp)[:, None] + np.arange(8)
    section[at] = addresses.astype("<u8")[:, None].view(np.uint8)


@functools.cache
def _process() -> Any:
    """Return the libraries of the process, with the functions that allocate memory for code."""
    libraries = ctypes.CDLL(None, use_errno=True)
    libraries.mmap.restype = ctypes.c_void_p
    libraries.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libraries.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libraries


def _memory_for_code(size: int) -> int:
    """Return the address of memory, which is never freed, because a thread can be in its code."""
    flags = _PRIVATE | _ANONYMOUS
    address = _process().mmap(None, size, _READ | _WRITE, flags, -1, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(address)


def _write_code(address: int, image: NDArray[np.uint8]) -> None:
    ctypes.memmove(address, image.ctypes.data, len(image))
    if _process().mprotect(address, len(image), _READ | _EXECUTE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_linked = itertools.count()


@functools.cache
def _linker() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    linker = binding.create_lljit_compiler(suppress_errors=True)
    atexit.register(linker.detach)  # so that no thread's code disappears at the end
    return linker


def _link(code: bytes, entry: str) -> int:
    """Load object code with LLVM's linker. Raises RuntimeError if a symbol is missing."""
    from llvmlite import binding

    builder = binding.JITLibraryBuilder().add_object_img(code).add_current_process()
    library = builder.export_symbol(entry).link(_linker(), f"charloom-{next(_linked)}")
    library.detach()
    return int(library[entry])
