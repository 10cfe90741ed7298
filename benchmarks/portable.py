"""Compare compressed bytes between processors: vectors, numbers of threads, emulated machines.

    python -m benchmarks.portable [--qemu PATH] [--aarch64 COMMAND] [--only NAME…]

Prints the table of docs/compress.md. Every row is a process that compresses two texts with a mixer,
one with a network, and one with a model that both sides share. It then restores the texts of the
first row. All bytes must be equal.

PATH is qemu-x86_64 of Debian's package qemu-user. COMMAND runs Python on a machine with aarch64,
real or emulated. An emulated x86-64 processor does not compile: its code is compiled here first, as
for that processor, and runs in a row of its own. OPENBLAS_CORETYPE=Nehalem keeps NumPy's library
from instructions that older processors lack.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

EMULATED = ("Haswell", "EPYC-Rome", "SandyBridge", "Nehalem")
LENGTH = 6_000  # characters
LINE = "the model is kept, and every number is read again\n"


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


def make_model(folder: Path) -> Path:
    """Train a model with a context mixer, and return its file."""
    import charloom

    text = (LINE + "no word of it was lost: the list is long, the numbers are small\n") * 60
    charloom.train(
        text, out=folder, counts="context-mixing", steps=2, hidden_size=8, threads=1, seed=1
    )
    return folder / "model.safetensors"


def pretend(machine: list[Any]) -> None:
    """Compile as on another x86-64 processor, given by its name and features."""
    import llvmlite.binding

    from charloom.kernels import processor

    name, features = machine
    found = llvmlite.binding.get_host_cpu_features()
    unknown = [key for key, value in features.items() if value and not found.get(key)]
    if unknown:
        raise SystemExit(f"this processor lacks {unknown}")
    features = type(found)(features)
    llvmlite.binding.get_host_cpu_name = lambda: name
    llvmlite.binding.get_host_cpu_features = lambda: features
    vars(processor)["_entries"] = dict  # LLVM's description is used instead


def answer(questions: dict[str, Any]) -> dict[str, Any]:
    """Compress, restore the given bytes, and return the results."""
    if questions["machine"]:
        pretend(questions["machine"])
    import llvmlite.binding

    import charloom
    from charloom.engines.protocol import available_cores
    from charloom.kernels.sizes import VECTOR_BYTES

    model = charloom.load(questions["model"], threads=1)
    *plain, learned = texts()
    packed = [*map(charloom.compress, plain), with_network(learned)]
    packed.append(charloom.compress(LINE * 3, model))
    given = [base64.b64decode(p) for p in questions["given"]]
    if given:
        assert [charloom.decompress(p) for p in given[:-2]] == plain
        assert with_network(learned, given[-2]) == learned
        assert charloom.decompress(given[-1], model) == LINE.encode() * 3
    return {
        "packed": [base64.b64encode(p).decode() for p in packed],
        "machine": [llvmlite.binding.get_host_cpu_name(), VECTOR_BYTES, available_cores()],
    }


def machine() -> list[Any]:
    """Return the name and the features of the processor, as the compiler sees it."""
    import llvmlite.binding

    return [llvmlite.binding.get_host_cpu_name(), dict(llvmlite.binding.get_host_cpu_features())]


def ask(command: list[str], cache: Path, questions: Any = None) -> Any:
    """Return the answer of a process, or its last error."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "OPENBLAS_CORETYPE": "Nehalem"}
    done = subprocess.run(
        [*command, "-m", "benchmarks.portable", "--answer", json.dumps(questions)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        return f"failed: {' '.join(done.stderr.strip().splitlines()[-1:])[:100]}"
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    parser.add_argument("--qemu", help="the path of qemu-x86_64")
    parser.add_argument("--aarch64", help="a command that runs Python on aarch64")
    parser.add_argument("--only", nargs="*", metavar="NAME", default=[""])
    parser.add_argument("--cache", type=Path, help="a folder for kernels (default: a new one)")
    arguments = parser.parse_args()
    if arguments.answer:
        questions = json.loads(arguments.answer)
        print(json.dumps(answer(questions) if questions else machine()))
        return
    here = [sys.executable]
    emulated = EMULATED if arguments.qemu else ()
    print("| computed by | code for | vectors | threads | |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        cache = arguments.cache or Path(folder) / "kernels"
        questions = {"given": [], "machine": None, "model": str(make_model(Path(folder) / "run"))}

        def row(name: str, command: list[str], processor: list[Any] | None = None) -> None:
            if not any(map(name.startswith, arguments.only)):
                return
            kept = set(cache.rglob("*.kernel"))
            found = ask(command, cache, {**questions, "machine": processor})
            own = arguments.cache or command != here or set(cache.rglob("*.kernel")) != kept
            if not own and not isinstance(found, str):
                found = "failed: it used the kernels of another processor"
            if isinstance(found, str):
                print(f"| {name} | | | | {found} |", flush=True)
                return
            packed = found["packed"]
            questions["given"] = questions["given"] or packed
            digest = hashlib.sha256("".join(packed).encode()).hexdigest()[:8]
            equal = "equal" if packed == questions["given"] else "**different**"
            kind, width, threads = found["machine"]
            print(
                f"| {name} | {kind} | {width} bytes | {threads} | {equal}, {digest} |", flush=True
            )

        row("this processor", here)
        row("this processor, one core", ["taskset", "-c", "0", *here])
        for name in emulated:
            command = [arguments.qemu, "-cpu", name, *here]
            processor = ask(command, cache)
            if isinstance(processor, str):
                print(f"| {name}, emulated | | | | {processor} |", flush=True)
                continue
            row("this processor", here, processor)
            row(f"{name}, emulated", command, processor)
        if arguments.aarch64:
            row("aarch64", shlex.split(arguments.aarch64))


if __name__ == "__main__":
    main()
