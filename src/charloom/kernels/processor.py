"""The processor that kernels are compiled for, described without LLVM where that is possible.

LLVM knows every processor, but its import takes longer than the kernel of a short sample.
"""

from __future__ import annotations

import os
import sys
from functools import cache

_PROCESSORS = "/proc/cpuinfo"
_FIRST = 1 << 14  # bytes, which contain the entries of the first processor
_NAMES = ("vendor_id", "cpu family", "model", "stepping", "flags")


def machine() -> str:
    """Return the architecture, as in the first part of LLVM's triples."""
    return description()[0]


def has_avx512() -> bool:
    """Return whether vectors have 512 bits."""
    if entries := _entries():
        return "avx512f" in entries["flags"].split()
    from llvmlite import binding

    return bool(binding.get_host_cpu_features().get("avx512f", False))


@cache
def description() -> tuple[str, ...]:
    """Return the properties that code can depend on, beginning with the architecture."""
    if entries := _entries():
        return ("x86_64", *entries.values())
    from llvmlite import binding

    triple = binding.get_process_triple()
    features = binding.get_host_cpu_features().flatten()
    return triple.split("-")[0], triple, binding.get_host_cpu_name(), features


@cache
def _entries() -> dict[str, str]:
    """Return Linux's entries of the first processor, none on other systems and architectures."""
    if sys.platform != "linux" or os.uname().machine != "x86_64" or sys.maxsize < 1 << 32:
        return {}
    try:
        file = os.open(_PROCESSORS, os.O_RDONLY)
    except OSError:
        return {}
    try:
        text = os.read(file, _FIRST).decode("ascii", "replace")
    finally:
        os.close(file)
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    found = {name.strip(): value.strip() for name, _, value in lines}
    return {name: found[name] for name in _NAMES} if found.keys() >= set(_NAMES) else {}
