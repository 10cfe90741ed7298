"""Measure systems side by side, each in its own process, and write a table, JSON and Markdown."""

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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import report
from benchmarks.peak import peak
from benchmarks.workloads import Workload, small
from charloom import __version__
from charloom.engines.protocol import available_cores
from charloom.text.corpora import open_text
from charloom.text.dataset import Split, load_dataset

CONSOLE = Console(stderr=True)


Process = subprocess.Popen[str]


class Worker:
    """A process that runs one workload in one system (see benchmarks.worker).

    Args:
        kept: processes by system, which run one workload after another; None for a new one, which
            ends with its workload.
    """

    def __init__(
        self,
        system: str,
        workload: Workload,
        ids: Path,
        characters: Sequence[str],
        threads: int,
        device: str,
        kept: dict[str, Process] | None = None,
    ) -> None:
        self.system, self.threads = system, threads
        self.speeds: list[float] = []  # characters per second, one entry per round
        self.peak_bytes = 0
        self.steps = 1
        self._kept = kept
        self._process = (kept or {}).get(system) or start_worker()
        if kept is not None:
            kept[system] = self._process
        setup = {
            "workload": asdict(workload),
            "ids": str(ids),
            "characters": list(characters),
            "system": system,
            "threads": threads,
            "device": device,
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
            if self._kept is not None:
                end_worker(self._kept.pop(self.system))
            raise RuntimeError(said[-1] if said else "the process ended without an error message")
        found: dict[str, Any] = json.loads(line)
        return found

    def measure(self, characters: int) -> None:
        answer = self._ask({"steps": self.steps})
        self.speeds.append(self.steps * characters / answer["seconds"])
        self.peak_bytes = answer["peak_bytes"]

    def aim_at(self, seconds: float) -> None:
        """Choose the number of steps per round, from two rounds that are not recorded."""
        for _ in range(2):
            answer = self._ask({"steps": self.steps})
            a_step = answer["seconds"] / self.steps
            self.steps = max(1, math.ceil(seconds / a_step))

    def close(self) -> None:
        if self._kept is None:
            end_worker(self._process)


def start_worker() -> Process:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )


def end_worker(process: Process) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    process.kill()
    process.wait()


def agree(workload: Workload, workers: list[Worker]) -> list[str]:
    """Return a message for each system whose first results differ from charloom's."""
    faults = []
    (ours, *_) = [w for w in workers if w.system == "charloom"]
    for worker in workers:
        if workload.kind == "sample":
            same = worker.results == ours.results
        else:
            tolerance = 2e-2 if "bf16" in worker.system else 1e-4
            same = np.allclose(worker.results, ours.results, rtol=tolerance, atol=0)
        if not same:
            faults.append(
                f"{worker.system} on {worker.threads} threads computes {worker.results[-3:]}, "
                f"charloom {ours.results[-3:]}"
            )
    return faults


def run_workload(
    workload: Workload,
    ids: Path,
    characters: Sequence[str],
    systems: Iterable[tuple[str, int]],
    rounds: int,
    seconds: float,
    device: str,
    with_peak: bool,
    kept: dict[str, Process] | None = None,
) -> dict[str, Any]:
    workers: list[Worker] = []
    peaks: dict[int, dict[str, list[float]]] = {}  # by threads and library, one entry per round
    failed: dict[str, str] = {}
    try:
        for system, threads in systems:
            if system in failed:
                continue
            try:
                workers.append(Worker(system, workload, ids, characters, threads, device, kept))
            except RuntimeError as error:
                if system == "charloom":
                    raise
                failed[system] = str(error)
                CONSOLE.print(f"  {system} failed: {error}", markup=False)
        faults = agree(workload, workers)
        if faults:
            raise SystemExit("the results of the systems differ:\n  " + "\n  ".join(faults))
        for worker in workers:
            worker.aim_at(seconds)
        for _ in range(rounds):
            for worker in workers:
                worker.measure(workload.characters)
            for threads in dict.fromkeys((1, available_cores())) if with_peak else ():
                for name, value in peak(threads).items():
                    peaks.setdefault(threads, {}).setdefault(name, []).append(value)
    finally:
        for worker in workers:
            worker.close()
    measured: dict[str, Any] = {}
    for worker in workers:
        median = statistics.median(worker.speeds)
        found = measured.setdefault(worker.system, {"best": 0.0, "by_threads": {}})
        found["by_threads"][worker.threads] = {
            "median": median,
            "rounds": worker.speeds,
            "peak_bytes": worker.peak_bytes,
        }
        if median > found["best"]:
            found.update(best=median, threads=worker.threads, peak_bytes=worker.peak_bytes)
    ours, size = measured["charloom"], len(characters)
    operations = workload.operations(size)
    return {
        "name": workload.name,
        "against": workload.against,
        "workload": asdict(workload),
        "systems": measured,
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
    """Return Tiny Shakespeare if CHARLOOM_CORPORA contains it, otherwise a built-in corpus."""
    folder = os.environ.get("CHARLOOM_CORPORA")
    if folder and (Path(folder) / "tiny-shakespeare.txt").is_file():
        return str(Path(folder) / "tiny-shakespeare.txt")
    return "python-docs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", default=default_text(), help="name of a corpus, or a path")
    parser.add_argument(
        "--rounds", type=int, default=7, help="number of rounds, at least 5 (default 7)"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.7, help="duration of a system's round (default 0.7)"
    )
    parser.add_argument(
        "--only", action="append", default=[], help="run only rows whose name contains this text"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results"), help="output folder"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="run tiny models and check that the systems agree"
    )


def measure(
    arguments: argparse.Namespace,
    workloads: Iterable[Workload],
    systems_for: Callable[[Workload], Iterable[tuple[str, int]]],
    device: str = "cpu",
    with_peak: bool = True,
) -> dict[str, Any]:
    """Measure every workload selected by --only, and describe the machine.

    Args:
        arguments: The parsed command line (see add_arguments).
        workloads: The workloads to measure.
        systems_for: Returns the systems that run a workload, each with a number of threads. The
            first is charloom, whose results the others must match.
        device: The device of the PyTorch systems.
        with_peak: Measure the processor's fastest matrix product between the rounds.

    Returns:
        The results as a JSON object.
    """
    smoke = arguments.smoke
    rounds, seconds = (1, 0.01) if smoke else (arguments.rounds, arguments.seconds)
    dataset = load_dataset(open_text(arguments.text), Split.parse("100/0/0"))
    rows = []
    kept: dict[str, Process] | None = {} if smoke else None
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as after:
        after.callback(lambda: [end_worker(process) for process in (kept or {}).values()])
        ids = Path(folder) / "ids.npy"
        np.save(ids, np.asarray(dataset.ids))
        for workload in workloads:
            if arguments.only and not any(part in workload.name for part in arguments.only):
                continue
            CONSOLE.print(workload.name, markup=False)
            row = run_workload(
                small(workload) if smoke else workload,
                ids,
                dataset.vocabulary.characters,
                systems_for(workload),
                rounds,
                seconds,
                device,
                with_peak and not smoke,
                kept,
            )
            rows.append(row)
            for name, found in row["systems"].items():
                CONSOLE.print(
                    f"  {name}: {report.speed(found['best'])} characters per second, threads: "
                    f"{found['threads']}",
                    markup=False,
                )
    every: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for threads, found in row["peak"].items():
            for name, values in found.items():
                every.setdefault(str(threads), {}).setdefault(name, []).extend(values)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": available_cores(),
            "python": platform.python_version(),
            "versions": {"charloom": __version__, **versions("numba", "numpy", "torch", "jax")},
        },
        "text": dataset.name,
        "vocabulary": len(dataset.vocabulary),
        "rounds": rounds,
        "rows": rows,
        "peak": {
            threads: {name: statistics.median(values) for name, values in found.items()}
            for threads, found in every.items()
        },
    }


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def show(results: dict[str, Any], arguments: argparse.Namespace, name: str = "") -> None:
    """Print the table, and write it as JSON and Markdown to files named by the date and `name`.

    With --smoke, only print the systems that agree.
    """
    if arguments.smoke:
        for row in results["rows"]:
            print(f"{row['name']}, small: {'; '.join(row['systems'])} agree")
        return
    page = report.markdown(results)
    print(page)
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.json"))) + 1
    stem = "-".join(part for part in (results["date"], name, str(number)) if part)
    (folder / f"{stem}.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / f"{stem}.md").write_text(page)
    CONSOLE.print(f"results written to {folder / stem}.json and .md", markup=False)
