"""Compile the engine of exported pages to WebAssembly: `make player`.

The sources are the C files in src/charloom/pages/web/player, and constants of the context mixer,
which are read from its module. The compiler is clang, from the package `ziglang` (extra `player`).
A section of the result holds the digest of all this. By it, a test recognizes a result that is
older than its sources.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from charloom.context_mixing import layout
from charloom.ngrams import mixing

ROOT = Path(__file__).parents[1]
PLAYER = ROOT / "src" / "charloom" / "pages" / "web" / "player"
RESULT = PLAYER / "player.wasm"
COMPILER = "0.17.1"  # the version of ziglang; another one compiles other bytes
FLAGS = (
    "-target", "wasm32-freestanding", "-std=c17", "-O3", "-msimd128", "-mbulk-memory",
    "-mnontrapping-fptoint", "-ffp-contract=off", "-nostdlib", "-Wall", "-Wextra", "-Werror",
    "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=65536",
)  # fmt: skip
SECTION = "charloom.sources"


def constants() -> str:
    """Return the header `constants.h`: numbers of the context mixer's module, by their names."""
    found = {name: value for name, value in vars(layout).items() if name.isupper()}
    found["LEAST_WEIGHT"] = mixing.LEAST_WEIGHT
    lines = []
    for name, value in found.items():
        if isinstance(value, int | float):
            lines.append(f"#define {name} {_literal(value)}")
        elif all(isinstance(one, int) for one in value):
            lines.append(f"#define {name} {{{', '.join(_literal(one) for one in value)}}}")
    return "\n".join(lines) + "\n"


def _literal(value: float) -> str:
    return f"{value:#x}ull" if value >= 1 << 31 else repr(value)


def sources() -> list[Path]:
    """Return the C files and headers."""
    return sorted([*PLAYER.glob("*.c"), *PLAYER.glob("*.h")])


def digest() -> str:
    """Return the SHA-256 of everything that the result is made from, in hexadecimal digits."""
    found = hashlib.sha256("\0".join([COMPILER, *FLAGS, constants()]).encode())
    for source in sources():
        found.update(f"\0{source.name}\0".encode() + source.read_bytes())
    return found.hexdigest()


def section() -> bytes:
    """Return the custom section at the end of the result, with the digest."""
    payload = bytes([len(SECTION)]) + SECTION.encode() + digest().encode()
    return bytes([0, len(payload)]) + payload  # a length below 128 is one byte


def missing_compiler() -> str:
    """Return why the compiler cannot be used, or nothing."""
    try:
        found = version("ziglang")
    except PackageNotFoundError:
        return f"ziglang is not installed: pip install ziglang=={COMPILER}"
    if found == COMPILER:
        return ""
    return f"ziglang {found} is installed: pip install ziglang=={COMPILER}"


def build() -> bytes:
    """Return the module."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "constants.h").write_text(constants())
        result = folder / "player.wasm"
        files = [str(source.relative_to(PLAYER)) for source in sources() if source.suffix == ".c"]
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, f"-I{folder}", *files]
        subprocess.run([*command, "-o", str(result)], cwd=PLAYER, check=True)
        return result.read_bytes() + section()


def main() -> None:
    if problem := missing_compiler():
        sys.exit(problem)
    RESULT.write_bytes(build())
    print(f"{RESULT.relative_to(ROOT)}: {RESULT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
