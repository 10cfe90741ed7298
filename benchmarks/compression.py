"""Compare compressed sizes, times and memory with those of general compressors.

    python -m benchmarks.compression FILE… [--minutes M] [--model RUN] [--only NAME]

Prints a Markdown table for docs/compress.md. Each direction runs in a process of its own. zstandard
and pyppmd are packages of these names; without them their rows are missing. Kernels are compiled
before anything is timed.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import json
import lzma
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Pair = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
XZ = {"preset": 9 | lzma.PRESET_EXTREME}


def compressors(minutes: float | None, model: str | None) -> dict[str, Pair]:
    """Return both directions of every compressor that is installed."""
    import charloom

    found: dict[str, Pair] = {
        "gzip -9": (gzip.compress, gzip.decompress),
        "bzip2 -9": (bz2.compress, bz2.decompress),
        "xz -9e": (lambda data: lzma.compress(data, **XZ), lzma.decompress),
    }
    try:
        import zstandard

        found["zstd -19"] = (
            lambda data: zstandard.ZstdCompressor(level=19).compress(data),
            lambda data: zstandard.ZstdDecompressor().decompress(data),
        )
    except ImportError:
        pass
    try:
        import pyppmd

        settings: dict[str, Any] = {"max_order": 6, "mem_size": 256 << 20}
        found["PPMd, order 6"] = (
            lambda data: pyppmd.compress(data, **settings),
            lambda data: pyppmd.decompress(data, **settings),
        )
    except ImportError:
        pass
    found["charloom"] = (charloom.compress, charloom.decompress)
    if minutes is not None:
        found[f"charloom --minutes {minutes:g}"] = (
            lambda data: charloom.compress(data, minutes=minutes),
            charloom.decompress,
        )
    if model is not None:
        loaded = charloom.load(model)
        found["charloom --model"] = (
            lambda data: charloom.compress(data, loaded),
            lambda data: charloom.decompress(data, loaded),
        )
    return found


def measure(name: str, source: Path, target: Path, back: bool, options: list[Any]) -> None:
    """Run one direction, and print its seconds and the peak memory of the process in megabytes."""
    function = compressors(*options)[name][int(back)]
    data = source.read_bytes()
    if name.startswith("charloom"):
        pair = compressors(*options)[name]
        pair[1](pair[0](data[:300]))
    began = time.perf_counter()
    result = function(data)
    seconds = time.perf_counter() - began
    target.write_bytes(result)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps([seconds, peak]))


def measured(name: str, source: Path, target: Path, back: bool, options: list[Any]) -> list[float]:
    """Return the results of `measure` in another process."""
    arguments = json.dumps([name, str(source), str(target), back, options])
    command = [sys.executable, "-m", "benchmarks.compression", "--measure", arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


def model_bytes(run: Path) -> int:
    """Return the size of a run's model, or of a checkpoint."""
    return (run / "model.safetensors" if run.is_dir() else run).stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", metavar="FILE", nargs="*", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--model")
    parser.add_argument("--only", help="beginning of the names of compressors")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, source, target, back, options = json.loads(arguments.measure)
        measure(name, Path(source), Path(target), back, options)
        return
    options = [arguments.minutes, arguments.model]
    print("| text | compressor | bytes | bits per character | compress | decompress | memory |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        packed, restored = Path(folder) / "packed", Path(folder) / "restored"
        for file in arguments.files:
            data = file.read_bytes()
            characters = len(data.decode("utf-8", "replace"))
            for name in compressors(*options):
                if not name.startswith(arguments.only or ""):
                    continue
                there = measured(name, file, packed, False, options)
                back = measured(name, packed, restored, True, options)
                if restored.read_bytes() != data:
                    raise SystemExit(f"{name} does not restore {file}")
                size = packed.stat().st_size
                if name == "charloom --model" and arguments.model:
                    model = model_bytes(Path(arguments.model))
                    whole = size + model
                    print(
                        f"| {file.name} | {name}, with the model | {whole:,} | "
                        f"{8 * whole / characters:.3f} | | | |"
                    )
                print(
                    f"| {file.name} | {name} | {size:,} | {8 * size / characters:.3f} | "
                    f"{there[0]:.1f} s | {back[0]:.1f} s | {max(there[1], back[1]):,.0f} MB |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
