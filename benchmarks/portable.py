"""Compare compressed bytes between processors: code paths, numbers of threads, an emulated machine.

    python -m benchmarks.portable [--qemu PATH]

Every row is a process that compiles its own kernels, compresses three texts, restores those of the
first row, and prints a digest of its own. All digests must be equal.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile

PROCESSORS = ("skylake-avx512", "haswell", "nehalem")
EMULATED = ("Haswell", "EPYC-Rome")
LENGTH = 6_000  # characters


def texts() -> list[tuple[bytes, float | None]]:
    """Return texts and the minutes of each."""
    import charloom.compression.kernel as kernel

    source = open(kernel.__file__, "rb").read()[:LENGTH]  # noqa: PTH123, SIM115
    scripts = ("Мороз и солнце; день чудесный! Ещё ты дремлешь, друг прелестный — " * 9).encode()
    return [(source, None), (scripts, None), (source[:3000], 5.0)]


def answer() -> None:
    """Compress, restore the given bytes, and print the results as JSON."""
    import charloom

    given = json.loads(sys.stdin.read() or "[]")
    packed = [charloom.compress(text, minutes=minutes) for text, minutes in texts()]
    for (text, _), other in zip(texts(), given, strict=False):
        assert charloom.decompress(base64.b64decode(other)) == text
    print(json.dumps([base64.b64encode(p).decode() for p in packed]))


def run(command: list[str], changes: dict[str, str], given: list[str]) -> list[str]:
    """Return the results of a process with other environment variables."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder, **changes}
        done = subprocess.run(
            [*command, sys.executable, "-m", "benchmarks.portable", "--answer"],
            env=environment, input=json.dumps(given), capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        return [done.stderr.strip().splitlines()[-1]]
    found: list[str] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--qemu", help="the path of qemu-x86_64")
    arguments = parser.parse_args()
    if arguments.answer:
        answer()
        return
    rows = [("this processor", [], {}), ("one thread", [], {"NUMBA_NUM_THREADS": "1"})]
    rows += [(f"code for {name}", [], {"NUMBA_CPU_NAME": name}) for name in PROCESSORS]
    if arguments.qemu:
        rows += [(f"emulated {n}", [arguments.qemu, "-cpu", n], {}) for n in EMULATED]
    first: list[str] = []
    for name, command, changes in rows:
        found = run(command, changes, first)
        first = first or found
        digest = hashlib.sha256("".join(found).encode()).hexdigest()[:16]
        note = "equal" if found == first else f"different: {found[0][:100]}"
        print(f"{name:<24} {digest}  {note}", flush=True)


if __name__ == "__main__":
    main()
