"""Compile the engine of exported pages to WebAssembly: `make player`.

The sources are the C files in src/charloom/pages/web/player, and constants of the context mixer,
which are read from its module. The compiler is clang, from the package `ziglang` of the version
below. A section of the result holds the digest of everything that it was made from.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from charloom.context_mixing import layout  # noqa: E402
from charloom.ngrams import mixing  # noqa: E402

PLAYER = ROOT / "src" / "charloom" / "pages" / "web" / "player"
RESULT = PLAYER / "player.wasm"
COMPILER = "0.17.1"  # of the package ziglang
FLAGS = (
    "-target", "wasm32-freestanding", "-std=c17", "-O3", "-msimd128", "-mbulk-memory",
    "-mnontrapping-fptoint", "-ffp-contract=off", "-nostdlib", "-Wall", "-Wextra", "-Werror",
    "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=65536",
)  # fmt: skip
SECTION = "charloom.sources"

NUMBERS = """
    CONTEXT_COUNT ORDERS INDIRECT INPUTS INPUT_COUNT SHORT LONG SHORT_WORDS LONG_WORDS SINGLE_WAYS
    LIST_WAYS COUNT_LEVELS LOGIT_LEVELS RECENT_LEVELS SIDES UNKNOWN NOWHERE RECENT_SHIFT CLASSES
    WORD_LENGTHS COLUMNS SETS REFINED_LEVELS REFINED_ROWS LINE RECENT WORD WORD_BEFORE
    WORD_BEFORE_THAT SHORT_LINE WORD_LENGTH COLUMN ABOVE_LENGTH ABOVE STATE PRIOR_COUNT NEGLIGIBLE
    SMALLEST LETTER BREAK END
""".split()


def constants() -> str:
    """Return the header `constants.h`."""
    lines = [f"#define {name} {getattr(layout, name)!r}" for name in NUMBERS]
    for name in ("LEVEL_BEGINS", "SET_BEGINS"):
        values = ", ".join(str(value) for value in getattr(layout, name))
        lines.append(f"#define {name} {{{values}}}")
    for i, multiplier in enumerate(layout.MULTIPLIERS, 1):
        lines.append(f"#define MULTIPLIER_{i} {multiplier:#x}ull")
    lines.append(f"#define HASH_SPREAD {layout.HASH_SPREAD:#x}ull")
    lines.append(f"#define LEAST_WEIGHT {mixing.LEAST_WEIGHT!r}")
    return "\n".join(lines) + "\n"


def sources() -> list[Path]:
    """Return the C files and headers."""
    return sorted([*PLAYER.glob("*.c"), *PLAYER.glob("*.h")])


def digest() -> str:
    """Return the SHA-256 of everything that the result is made from, in hexadecimal digits."""
    found = hashlib.sha256("\0".join([COMPILER, *FLAGS, constants()]).encode())
    for source in sources():
        found.update(f"\0{source.name}\0".encode() + source.read_bytes())
    return found.hexdigest()


def section(name: str, content: bytes) -> bytes:
    """Return a custom section of a module."""
    payload = bytes([len(name)]) + name.encode() + content
    return b"\0" + _number(len(payload)) + payload


def _number(value: int) -> bytes:
    """Return a number in LEB128."""
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])


def missing_compiler() -> str:
    """Return why the compiler cannot be used, or nothing."""
    try:
        found = version("ziglang")
    except PackageNotFoundError:
        return f"the compiler is missing: pip install ziglang=={COMPILER}"
    return "" if found == COMPILER else f"ziglang {found} is installed, not {COMPILER}"


def build() -> bytes:
    """Return the module."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "constants.h").write_text(constants())
        result = folder / "player.wasm"
        files = [str(source.relative_to(PLAYER)) for source in sources() if source.suffix == ".c"]
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, f"-I{folder}", *files]
        subprocess.run([*command, "-o", str(result)], cwd=PLAYER, check=True)
        return result.read_bytes() + section(SECTION, digest().encode())


def main() -> None:
    if problem := missing_compiler():
        sys.exit(problem)
    RESULT.write_bytes(build())
    print(f"{RESULT.relative_to(ROOT)}: {RESULT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
