"""Compare compressed sizes, times and memory with those of general compressors.

    python -m benchmarks.compression [TEXT…] [--minutes M] [--model RUN] [--only NAME…] [--write]

A TEXT is the name of a corpus or the path of a file, by default Tiny Shakespeare, *Pride and
Prejudice* and Python's help. Each direction runs in a process of its own, after its kernels are
compiled. The restored text is compared. zstandard and pyppmd are packages of these names.
Without them their rows are missing. `--only` chooses rows by the beginnings of their names.

`--write` keeps the results in benchmarks/results/compression.json, beside earlier ones of other
rows, and replaces the table in docs/compress.md.
"""

from __future__ import annotations

import argparse
import bz2
import functools
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

import charloom

Pair = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
Row = dict[str, Any]
XZ = {"preset": 9 | lzma.PRESET_EXTREME}
TITLES = {
    "tiny-shakespeare": "Tiny Shakespeare",
    "pride-and-prejudice": "*Pride and Prejudice*",
    "python-help": "Python's help",
}
# Measured once with paq8px v216 -8: bytes, seconds of compression (if noted), megabytes.
PAQ8PX = {"tiny-shakespeare": (252_378, 209, 2000), "pride-and-prejudice": (138_185, None, 2000)}
ROOT = Path(__file__).parents[1]
KEPT, PAGE = ROOT / "benchmarks/results/compression.json", ROOT / "docs/compress.md"
FIRST_LINE = "| text | compressor | bytes | bits per character | bytes with the model |"
HEAD = f"{FIRST_LINE} compress | memory | decompress | memory |"


def compressors(minutes: float | None, model: str | None) -> dict[str, Pair]:
    """Return both directions of every compressor that is installed."""
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
    # charloom's parts are imported when they are used, so that others need no memory for them.
    found["charloom"] = (
        lambda data: charloom.compress(data),
        lambda data: charloom.decompress(data),
    )
    if minutes is not None:
        found[f"charloom --minutes {minutes:g}"] = (
            lambda data: charloom.compress(data, minutes=minutes),
            lambda data: charloom.decompress(data),
        )
    if model is not None:
        load = functools.cache(charloom.load)
        found[f"charloom --model {Path(model).name}"] = (
            lambda data: charloom.compress(data, load(model)),
            lambda data: charloom.decompress(data, load(model)),
        )
    return found


def measure(name: str, source: Path, target: Path, back: bool, options: list[Any]) -> None:
    """Run one direction, and print its seconds and the peak memory of the process in megabytes."""
    pair = compressors(*options)[name]
    data = source.read_bytes()
    if name.startswith("charloom"):
        pair[1](pair[0](data[:300]))
    began = time.perf_counter()
    result = pair[int(back)](data)
    seconds = time.perf_counter() - began
    target.write_bytes(result)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps([seconds, peak]))


def measured(name: str, source: Path, target: Path, back: bool, options: list[Any]) -> list[float]:
    """Return the results of `measure` in another process."""
    arguments = json.dumps([name, str(source), str(target), back, options])
    command = [sys.executable, "-m", "benchmarks.compression", "--measure", arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    found: list[float] = json.loads(done.stdout)
    return found


def text_of(name: str) -> bytes:
    """Return a file, or a corpus without the header and license of a book."""
    from charloom.text.corpora import open_text

    if Path(name).is_file():
        return Path(name).read_bytes()
    return open_text(name).read().encode()


def model_bytes(run: Path) -> int:
    """Return the size of a run's model, or of a checkpoint."""
    return (run / "model.safetensors" if run.is_dir() else run).stat().st_size


def compare(text: str, options: list[Any], only: list[str]) -> dict[str, Row]:
    """Return the results of a text by the names of compressors, and print them."""
    found: dict[str, Row] = {}
    data = text_of(text)
    characters = len(data.decode("utf-8", "replace"))
    with tempfile.TemporaryDirectory() as folder:
        source, packed, restored = (Path(folder) / name for name in ("text", "packed", "restored"))
        source.write_bytes(data)
        for name in compressors(*options):
            if not any(map(name.startswith, only)):
                continue
            there = measured(name, source, packed, False, options)
            back = measured(name, packed, restored, True, options)
            if restored.read_bytes() != data:
                raise SystemExit(f"{name} does not restore {text}")
            row: Row = {"bytes": packed.stat().st_size, "characters": characters}
            row["seconds"] = [round(there[0], 2), round(back[0], 2)]
            row["megabytes"] = [round(there[1]), round(back[1])]
            row["date"] = time.strftime("%Y-%m-%d")
            if "--model" in name:
                row["model"] = model_bytes(Path(options[1]))
            found[name] = row
            print(line(text, name, row), flush=True)
    return found


def line(text: str, name: str, row: Row) -> str:
    """Return a row of the table."""
    model = row.get("model")
    times = [f"{seconds:,.1f} s" if seconds is not None else "" for seconds in row["seconds"]]
    memory = [f"{peak:,} MB" if peak is not None else "" for peak in row["megabytes"]]
    with_model = f"{row['bytes'] + model:,}" if model else ""
    cells = [
        TITLES.get(text, Path(text).name), name, f"{row['bytes']:,}",
        f"{8 * row['bytes'] / row['characters']:.3f}", with_model, times[0], memory[0], times[1],
        memory[1],
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def table(results: dict[str, dict[str, Row]]) -> str:
    """Return the whole table, for each text the largest result first."""
    lines = [HEAD, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for text, rows in results.items():
        shown = dict(rows)
        if text in PAQ8PX:
            size, seconds, peak = PAQ8PX[text]
            characters = next(iter(rows.values()))["characters"]
            shown["paq8px v216 -8"] = {
                "bytes": size, "characters": characters, "seconds": [seconds, None],
                "megabytes": [peak, None],
            }  # fmt: skip
        lines += [line(text, *row) for row in sorted(shown.items(), key=lambda r: -r[1]["bytes"])]
    return "\n".join(lines)


def write(results: dict[str, dict[str, Row]]) -> None:
    """Keep results beside earlier ones, and replace the table in the page."""
    kept = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    for text, rows in results.items():
        kept.setdefault(text, {}).update(rows)
    KEPT.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    before, _, after = PAGE.read_text("utf-8").partition(FIRST_LINE)
    _, _, after = after.partition("\n\n")
    PAGE.write_text(f"{before}{table(kept)}\n\n{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", metavar="TEXT", nargs="*")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--model")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[""])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, source, target, back, options = json.loads(arguments.measure)
        measure(name, Path(source), Path(target), back, options)
        return
    model = arguments.model and str(Path(arguments.model).absolute())
    print(f"{HEAD}\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for text in arguments.texts or TITLES:
        rows = compare(text, [arguments.minutes, model], arguments.only)
        if arguments.write:
            write({text: rows})


if __name__ == "__main__":
    main()
