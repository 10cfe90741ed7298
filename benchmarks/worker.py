"""A process that runs one workload in one system, controlled over standard input and output.

It reads one JSON object per line and prints one in response. The first line is the setup, and the
response contains the first results, on which all systems must agree. Each further line sets a
number of steps, and the response contains their duration and the peak memory. Another setup can
follow, so that a smoke test imports PyTorch only once for each system.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads import CHECKED_STEPS, Workload


def make_job(
    system: str,
    workload: Workload,
    ids: Any,
    characters: Sequence[str],
    threads: int,
    device: str,
) -> Any:
    if hasattr(os, "sched_setaffinity"):  # a limit that no library can exceed
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    size = len(characters)
    if workload.counts:
        from benchmarks import mixed

        engine = "compiled" if system == "charloom" else "pytorch"
        return mixed.Job(workload, ids, characters, threads, engine)
    how = {"device": device, "bf16": "bf16" in system, "compile": "compile" in system}
    if system == "charloom":
        from benchmarks import ours

        return ours.Job(workload, ids, size, threads)
    if system.startswith("charloom, engine pytorch"):
        from benchmarks import ours

        return ours.Job(workload, ids, size, threads, engine="pytorch", **how)
    if system.startswith("pytorch"):
        from benchmarks import pytorch

        return pytorch.Job(workload, ids, size, threads, **how)
    from benchmarks import in_jax

    return in_jax.Job(workload, ids, size, threads)


def first_results(job: Any) -> list[float]:
    """Return the results on which the systems must agree.

    They are the losses of the first training steps, the characters of greedy decoding, or the
    score.
    """
    workload = job.workload
    if workload.kind == "train":
        return [job.train() for _ in range(CHECKED_STEPS)]
    if workload.kind == "sample":
        drawn = job.sample(temperature=0)
        return [float(x) for x in drawn[:CHECKED_STEPS].ravel()]
    return [job.adapt() if workload.kind == "adapt" else job.score()]


def peak_memory() -> int:
    """Return the peak memory of this process in bytes.

    getrusage is only the fallback, because its value includes the parent process.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_memory_of_gpu() -> int:
    """Return the peak memory of PyTorch's tensors on the GPU, in bytes."""
    import torch

    return int(torch.cuda.max_memory_allocated())


def wait_for_gpu() -> None:
    """Wait until the GPU has finished its work."""
    import torch

    torch.cuda.synchronize()


def set_up(setup: dict[str, Any]) -> Any:
    workload = Workload(
        **{**setup["workload"], "against": ()},
    )
    ids = np.load(setup["ids"])
    system, characters, device = setup["system"], setup["characters"], setup["device"]
    return make_job(system, workload, ids, characters, setup["threads"], device)


def main() -> None:
    job: Any = None
    for line in sys.stdin:
        question = json.loads(line)
        if "workload" in question:
            job = None  # so that the memory of two is not needed
            job = set_up(question)
            print(json.dumps({"results": first_results(job)}), flush=True)
            continue
        kind, count = job.workload.kind, question["steps"]
        step, several = getattr(job, kind), getattr(job, f"{kind}_steps", None)
        started = time.perf_counter()
        if several is None:
            for _ in range(count):
                step()
        else:
            several(count)
        on_gpu = job.device == "cuda"
        if on_gpu:
            wait_for_gpu()
        seconds = time.perf_counter() - started
        peak = peak_memory_of_gpu() if on_gpu else peak_memory()
        print(json.dumps({"seconds": seconds, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    main()
