"""Compare compressed bytes between processors: code paths, numbers of threads, an emulated machine.

    python -m benchmarks.portable [--qemu PATH]

Every row is a process that compresses three texts, one of them with a network that learns it.
It restores the texts of the first row, and prints a digest of its own. All digests must be equal.
Each kind of code is compiled anew. `--only` chooses rows by the beginnings of their names.
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
from pathlib import Path

PROCESSORS = ("skylake-avx512", "haswell", "nehalem")
EMULATED = ("Haswell", "EPYC-Rome")
LENGTH = 6_000  # characters


def texts() -> list[bytes]:
    """Return the texts: source code, Russian, and source code for the network."""
    import charloom.compression.kernel as kernel

    source = open(kernel.__file__, "rb").read()[:LENGTH]  # noqa: PTH123, SIM115
    scripts = ("Мороз и солнце; день чудесный! Ещё ты дремлешь, друг прелестный — " * 9).encode()
    return [source, scripts, source[: LENGTH // 2]]


def with_network(text: bytes, packed: bytes | None = None) -> bytes:
    """Return the coder's bytes of a text with a network, or the text of such bytes."""
    from charloom.compression.adaptive import read_text, write_text
    from charloom.compression.characters import Alphabet, codes_of_bytes
    from charloom.compression.network import NetworkPlan

    alphabet, ids = Alphabet.of(codes_of_bytes(text), True)
    plan = NetworkPlan(64, 40)
    if packed is None:
        return write_text(alphabet, ids, 64, plan)
    known, ids = read_text(packed, len(alphabet.codes), len(ids), 64, plan, True)
    return bytes(known.codes[ids].tolist())


def answer() -> None:
    """Compress, restore the given bytes, and print the results as JSON."""
    import charloom

    given = [base64.b64decode(packed) for packed in json.loads(sys.stdin.read() or "[]")]
    *plain, learned = texts()
    packed = [*map(charloom.compress, plain), with_network(learned)]
    if given:
        assert [charloom.decompress(other) for other in given[:-1]] == plain
        assert with_network(learned, given[-1]) == learned
    print(json.dumps([base64.b64encode(p).decode() for p in packed]))


def run(command: list[str], changes: dict[str, str], given: list[str]) -> list[str]:
    """Return the results of a process with other environment variables."""
    done = subprocess.run(
        [*command, sys.executable, "-m", "benchmarks.portable", "--answer"],
        env={**os.environ, **changes}, input=json.dumps(given), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        return [done.stderr.strip().splitlines()[-1]]
    found: list[str] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--qemu", help="the path of qemu-x86_64")
    parser.add_argument("--only", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    if arguments.answer:
        answer()
        return
    rows: list[tuple[str, list[str], dict[str, str]]]
    rows = [("this processor", [], {}), ("one thread", ["taskset", "-c", "0"], {})]
    rows += [(f"code for {name}", [], {"NUMBA_CPU_NAME": name}) for name in PROCESSORS]
    if arguments.qemu:
        rows += [(f"emulated {n}", [arguments.qemu, "-cpu", n], {}) for n in EMULATED]
    first: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, command, changes in rows:
            if not any(map(name.startswith, arguments.only or [""])):
                continue
            kind = name if name.startswith("emulated") else changes.get("NUMBA_CPU_NAME", "own")
            cache = Path(folder) / kind.replace(" ", "-")
            found = run(command, {"NUMBA_CACHE_DIR": str(cache), **changes}, first)
            first = first or found
            digest = hashlib.sha256("".join(found).encode()).hexdigest()[:16]
            note = "equal" if found == first else f"different: {found[0][:100]}"
            print(f"{name:<24} {digest}  {note}", flush=True)


if __name__ == "__main__":
    main()
