"""Train for some budgets of time with several seeds, and score the test split.

    python -m benchmarks.budgets TEXT [--seconds S…] [--seeds N…] [--protocol P…] [--write]
                                 [-- OPTION…]
    python -m benchmarks.budgets --table

A run is a whole `charloom train TEXT --split 85/5/10 --minutes M` in a process of its own, with
these further options, on an otherwise idle machine. `charloom evaluate` then scores its
test split with each protocol. `--write` appends every run to benchmarks/results/budgets.jsonl,
`--table` prints the means of all runs in this file.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import processor
from charloom import __version__
from charloom.engines.protocol import available_cores

RESULTS = Path(__file__).parent / "results" / "budgets.jsonl"
CHOSEN = "charloom: chosen for "
Row = dict[str, Any]


def charloom(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of charloom."""
    command = [sys.executable, "-m", "charloom", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def measure(
    text: str, seconds: float, seed: int, protocols: list[str], options: list[str], out: Path
) -> Row:
    """Train and score one run, and return its record, with losses in nats per character.

    Raises:
        subprocess.CalledProcessError: if a command fails.
    """
    began = time.perf_counter()
    budget = ["--split", "85/5/10", "--minutes", str(seconds / 60), "--seed", str(seed)]
    trained = charloom("train", text, *budget, *options, "--out", str(out))
    wall = time.perf_counter() - began
    chosen = [line for line in trained.stderr.splitlines() if line.startswith(CHOSEN)]
    losses, networks = {}, {}
    for protocol in protocols:
        found = json.loads(charloom("evaluate", str(out), "--protocol", protocol, "--json").stdout)
        losses[protocol] = round(found["nats_per_character"], 4)
        if "network" in found["baselines"]:
            bits = found["baselines"]["network"]["bits_per_character"]
            networks[protocol] = round(bits * math.log(2), 4)
    return {
        "text": Path(text).name,
        "seconds": seconds,
        "seed": seed,
        "options": options,
        "plan": chosen[0].removeprefix(CHOSEN) if chosen else None,
        "model": found["model"],
        "counts": found["counts"],
        "base": found["base"],
        "characters": found["characters"],
        "nats_per_character": losses,
        "network": networks,
        "wall_seconds": round(wall, 1),
        "processor": processor(),
        "cores": available_cores(),
        "version": __version__,
    }


def table(rows: list[Row]) -> str:
    """Return means of runs that differ in the seed only, as a table in Markdown."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row["text"], row["seconds"], " ".join(row["options"]), row["base"] or "")
        groups.setdefault(key, []).append(row)
    lines = [
        "| text | seconds | options | base | seeds | protocol | nats per character | network |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, group in sorted(groups.items()):
        for protocol in dict.fromkeys(p for row in group for p in row["nats_per_character"]):
            scored = [row for row in group if protocol in row["nats_per_character"]]
            means = []
            for of in ("nats_per_character", "network"):
                figures = [row[of][protocol] for row in scored if protocol in row[of]]
                means.append(f"{statistics.mean(figures):.4f}" if figures else "")
            seeds = ", ".join(str(row["seed"]) for row in scored)
            lines.append("| " + " | ".join(map(str, (*key, seeds, protocol, *means))) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="?", help="a text's path, or the name of a corpus")
    parser.add_argument("--seconds", type=float, nargs="+", default=[25.0, 132.0, 600.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--protocol", nargs="+", default=["carried", "adaptive", "cold-256"])
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    parser.add_argument("--table", action="store_true", help="print the recorded runs")
    parser.add_argument("--keep", type=Path, help="folder that keeps the runs")
    arguments, options = parser.parse_known_args()
    if arguments.table:
        print(table([json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]))
        return
    if arguments.text is None:
        parser.error("name a text, or --table")
    options = [option for option in options if option != "--"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        for seed in arguments.seeds:
            for seconds in arguments.seconds:
                out = folder / f"{seconds:g}-seconds-seed-{seed}"
                found = measure(arguments.text, seconds, seed, arguments.protocol, options, out)
                line = json.dumps(found)
                print(line, flush=True)
                if arguments.write:
                    with RESULTS.open("a", encoding="utf-8") as file:
                        file.write(line + "\n")


if __name__ == "__main__":
    main()
