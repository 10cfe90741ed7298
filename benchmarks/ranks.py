"""Compare training in one process with training on several ranks, on this machine.

    python -m benchmarks.ranks             run the presets, with one rank per core
    python -m benchmarks.ranks --smoke     run a tiny model and check that the losses agree

One process uses all cores, and the ranks divide them. Both train the same steps with the engine
pytorch. The compiled engine is measured beside them, in one process. A speed is the median of the
speeds in metrics.jsonl, over several rounds in which the systems take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from charloom.engines.protocol import available_cores
from charloom.text.corpora import open_text

PRESETS = ("small", "medium", "large")
STEPS = 30
ROUNDS = 3
TEXT = "python-docs"


def train(
    command: list[str], text: Path, options: list[str], folder: Path
) -> tuple[float, list[float]]:
    """Run a training command, and return its characters per second and its losses."""
    options = [*options, "--no-mix", "--validate-every", "1000000", "--out", str(folder)]
    done = subprocess.run(
        [*command, "-m", "charloom", "train", str(text), *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    reports = [line for line in lines if line["event"] == "report"]
    speeds = [line["timing"]["characters_per_second"] for line in reports[5:]]
    return statistics.median(speeds), [line["loss"] for line in reports]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ranks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--ranks", type=int, default=max(2, available_cores()), help="number of ranks"
    )
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[16, 64], help="batch sizes to measure"
    )
    parser.add_argument("--smoke", action="store_true", help="run a tiny model")
    arguments = parser.parse_args()
    alone = [sys.executable]
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={arguments.ranks}",
    ]
    rounds, steps = (1, 20) if arguments.smoke else (ROUNDS, STEPS)
    print(f"characters per second, medians of {rounds} rounds, {available_cores()} cores")
    print(
        f"{'preset':<8}{'rows':>6}{'compiled':>12}{'pytorch':>12}{f'{arguments.ranks} ranks':>12}"
    )
    with tempfile.TemporaryDirectory() as work:
        text = Path(work, "text.txt")
        text.write_text("".join(open_text(TEXT).chunks()), "utf-8")
        for preset in ("tiny",) if arguments.smoke else PRESETS:
            for rows in [8] if arguments.smoke else arguments.batch_sizes:
                options = ["--preset", preset, "--batch-size", str(rows), "--steps", str(steps)]
                ways: dict[str, tuple[list[str], list[str]]] = {
                    "compiled": (alone, [*options, "--engine", "compiled"]),
                    "pytorch": (alone, [*options, "--engine", "pytorch"]),
                    "ranks": ([*alone, *torchrun], options),
                }
                speeds: dict[str, list[float]] = {name: [] for name in ways}
                losses: dict[str, Any] = {}
                for number in range(rounds):
                    for name, (command, given) in ways.items():
                        folder = Path(work, f"{preset}-{rows}-{name}-{number}")
                        speed, losses[name] = train(command, text, given, folder)
                        speeds[name].append(speed)
                for name in ways:
                    pairs = zip(losses[name], losses["compiled"], strict=True)
                    apart = max(abs(one - other) for one, other in pairs)
                    assert apart < 1e-2, f"{name}: losses differ by {apart}"
                medians = [statistics.median(speeds[name]) for name in ways]
                print(f"{preset:<8}{rows:>6}" + "".join(f"{speed:>12,.0f}" for speed in medians))


if __name__ == "__main__":
    main()
