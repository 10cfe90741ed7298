"""`python -m benchmarks`: prints the table, and writes it as JSON and as Markdown."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import compile_times, report
from benchmarks.peak import peak
from benchmarks.workloads import WORKLOADS, Workload, small
from charloom import __version__
from charloom.corpora import open_text
from charloom.dataset import Split, load_dataset
from charloom.engines import available_cores

SYSTEMS = {"charloom": "charloom", "pytorch": "torch", "pytorch compile": "torch", "jax": "jax"}
CONSOLE = Console(stderr=True)


class Worker:
    """A process that runs a workload in a system, see benchmarks.worker."""

    def __init__(self, system: str, workload: Workload, ids: Path, size: int, threads: int) -> None:
        self.system, self.threads = system, threads
        self.speeds: list[float] = []  # characters per second, a round each
        self.peak_bytes = 0
        self.steps = 1
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        setup = {
            "workload": asdict(workload),
            "ids": str(ids),
            "size": size,
            "system": system,
            "threads": threads,
        }
        answer = self._ask(setup)
        self.results: list[float] = answer["results"]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            said = self._process.stderr.read().strip().splitlines()
            raise RuntimeError(said[-1] if said else "the process ended without a word")
        found: dict[str, Any] = json.loads(line)
        return found

    def measure(self, characters: int) -> None:
        answer = self._ask({"steps": self.steps})
        self.speeds.append(self.steps * characters / answer["seconds"])
        self.peak_bytes = answer["peak_bytes"]

    def aim_at(self, seconds: float) -> None:
        """Chooses how many steps a round has, from two rounds that are not counted."""
        for _ in range(2):
            answer = self._ask({"steps": self.steps})
            a_step = answer["seconds"] / self.steps
            self.steps = max(1, math.ceil(seconds / a_step))

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()


def installed(system: str) -> bool:
    try:
        importlib.metadata.version(SYSTEMS[system])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def systems_for(workload: Workload, wanted: list[str], smoke: bool) -> Iterator[tuple[str, int]]:
    cores = available_cores()
    for system in wanted:
        if system == "jax" and workload.kind != "train":
            continue
        # torch.compile takes so long that it gets one try.
        few = smoke or system == "pytorch compile"
        for threads in (cores,) if few else dict.fromkeys((1, cores)):
            yield system, threads


def agree(workload: Workload, workers: list[Worker]) -> list[str]:
    """What is wrong with the first results, which must be charloom's."""
    faults = []
    (ours, *_) = [w for w in workers if w.system == "charloom"]
    for worker in workers:
        if workload.kind == "sample":
            same = worker.results == ours.results
        else:
            same = np.allclose(worker.results, ours.results, rtol=1e-4, atol=0)
        if not same:
            faults.append(
                f"{worker.system} on {worker.threads}: {worker.results[-3:]}, "
                f"charloom: {ours.results[-3:]}"
            )
    return faults


def run_workload(
    workload: Workload,
    ids: Path,
    size: int,
    wanted: list[str],
    rounds: int,
    seconds: float,
    smoke: bool,
) -> dict[str, Any]:
    workers: list[Worker] = []
    peaks: dict[int, dict[str, list[float]]] = {}  # of every round
    failed: dict[str, str] = {}
    try:
        for system, threads in systems_for(workload, wanted, smoke):
            if system in failed:
                continue
            try:
                workers.append(Worker(system, workload, ids, size, threads))
            except RuntimeError as error:
                if system == "charloom":
                    raise
                failed[system] = str(error)
                CONSOLE.print(f"  {system} does not run: {error}", markup=False)
        faults = agree(workload, workers)
        if faults:
            raise SystemExit("the systems do not agree:\n  " + "\n  ".join(faults))
        for worker in workers:
            worker.aim_at(seconds)
        for _ in range(rounds):
            for worker in workers:
                worker.measure(workload.characters)
            for threads in () if smoke else dict.fromkeys((1, available_cores())):
                for name, value in peak(threads).items():
                    peaks.setdefault(threads, {}).setdefault(name, []).append(value)
    finally:
        for worker in workers:
            worker.close()
    systems: dict[str, Any] = {}
    for worker in workers:
        median = statistics.median(worker.speeds)
        found_ = systems.setdefault(worker.system, {"best": 0.0, "by_threads": {}})
        found_["by_threads"][worker.threads] = {
            "median": median,
            "rounds": worker.speeds,
            "peak_bytes": worker.peak_bytes,
        }
        if median > found_["best"]:
            found_.update(best=median, threads=worker.threads, peak_bytes=worker.peak_bytes)
    ours = systems["charloom"]
    operations = workload.operations(size)
    return {
        "name": workload.name,
        "against": workload.against,
        "workload": asdict(workload),
        "systems": systems,
        "failed": failed,
        "operations": operations,
        "bytes": workload.bytes_touched(size),
        "peak": peaks,
        "share_of_peak": (
            operations * ours["best"] / max(map(statistics.median, peaks[ours["threads"]].values()))
            if peaks
            else None
        ),
    }


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def default_text() -> str:
    """Tiny Shakespeare where the folder CHARLOOM_CORPORA has it, else a text of charloom's own."""
    folder = os.environ.get("CHARLOOM_CORPORA")
    if folder and (Path(folder) / "tiny-shakespeare.txt").is_file():
        return str(Path(folder) / "tiny-shakespeare.txt")
    return "python-docs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--text", default=default_text(), help="a corpus's name, or a file")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default 7; at least 5)")
    parser.add_argument("--seconds", type=float, default=0.7, help="of a system's round")
    parser.add_argument("--only", action="append", default=[], help="part of a row's name")
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument(
        "--smoke", action="store_true", help="tiny models: does everything run and agree?"
    )
    arguments = parser.parse_args()
    rounds, seconds = (1, 0.01) if arguments.smoke else (arguments.rounds, arguments.seconds)
    wanted = ["charloom", *(s for s in arguments.systems if s != "charloom" and installed(s))]
    if arguments.smoke:
        wanted = [system for system in wanted if system != "pytorch compile"]
    text = open_text(arguments.text)
    dataset = load_dataset(text, Split.parse("100/0/0"))
    versions = {"charloom": __version__}
    for package in ("numba", "numpy", "torch", "jax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": available_cores(),
            "python": platform.python_version(),
            "versions": versions,
        },
        "text": dataset.name,
        "vocabulary": len(dataset.vocabulary),
        "rounds": rounds,
        "rows": [],
    }
    size = len(dataset.vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        ids = Path(folder) / "ids.npy"
        np.save(ids, np.asarray(dataset.ids))
        for workload in WORKLOADS:
            if arguments.only and not any(part in workload.name for part in arguments.only):
                continue
            CONSOLE.print(workload.name, markup=False)
            one = small(workload) if arguments.smoke else workload
            row = run_workload(one, ids, size, wanted, rounds, seconds, arguments.smoke)
            results["rows"].append(row)
            for name, found in row["systems"].items():
                CONSOLE.print(
                    f"  {name}: {report.speed(found['best'])} characters a second on "
                    f"{found['threads']}",
                    markup=False,
                )
    every: dict[str, dict[str, list[float]]] = {}
    for row in results["rows"]:
        for threads, found in row["peak"].items():
            for name, values in found.items():
                every.setdefault(str(threads), {}).setdefault(name, []).extend(values)
    results["peak"] = {
        threads: {name: statistics.median(values) for name, values in found.items()}
        for threads, found in every.items()
    }
    if not arguments.only and not arguments.smoke:
        CONSOLE.print("first calls")
        results["first_calls"] = compile_times.first_calls(3)
        results["help"] = compile_times.help_time(5)
    if arguments.smoke:
        for row in results["rows"]:
            print(f"{row['name']}, but small: {', '.join(row['systems'])} agree")
    else:
        page = report.markdown(results)
        print(page)
        arguments.out.mkdir(parents=True, exist_ok=True)
        stem = f"{results['date']}-{len(list(arguments.out.glob('*.json'))) + 1}"
        (arguments.out / f"{stem}.json").write_text(json.dumps(results, indent=1) + "\n")
        (arguments.out / f"{stem}.md").write_text(page)
        CONSOLE.print(f"written: {arguments.out / stem}.json and .md", markup=False)


if __name__ == "__main__":
    main()
