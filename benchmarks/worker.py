"""A process that runs one workload in one system, on so many cores, and is told when.

It reads a line of JSON for each command and answers with one: what it is; the first results, which
all systems must agree on; the seconds that so many steps take; its peak memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads import CHECKED_STEPS, Workload


def make_job(
    system: str, workload: Workload, ids: Any, size: int, threads: int, device: str
) -> Any:
    if hasattr(os, "sched_setaffinity"):  # what no setting of a library's can exceed
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
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
    """What the systems must agree on: the losses of the first steps of training; the characters
    that follow when always the likeliest is taken; the score."""
    workload = job.workload
    if workload.kind == "train":
        return [job.train() for _ in range(CHECKED_STEPS)]
    if workload.kind == "sample":
        drawn = job.sample(temperature=0)
        return [float(x) for x in drawn[:CHECKED_STEPS].ravel()]
    return [job.score()]


def peak_memory() -> int:
    """Bytes that this process had in memory at most. What getrusage says counts its parent, too."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_memory_of_gpu() -> int:
    """Bytes of the GPU's memory that PyTorch's tensors took at most."""
    import torch

    return int(torch.cuda.max_memory_allocated())


def wait_for_gpu() -> None:
    """Until it has done what it was given."""
    import torch

    torch.cuda.synchronize()


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    workload = Workload(
        **{**setup["workload"], "against": ()},
    )
    ids = np.load(setup["ids"])
    job = make_job(setup["system"], workload, ids, setup["size"], setup["threads"], setup["device"])
    print(json.dumps({"results": first_results(job)}), flush=True)
    step = getattr(job, workload.kind)
    for line in sys.stdin:
        count = json.loads(line)["steps"]
        started = time.perf_counter()
        for _ in range(count):
            step()
        on_gpu = job.device == "cuda"
        if on_gpu:
            wait_for_gpu()
        seconds = time.perf_counter() - started
        peak = peak_memory_of_gpu() if on_gpu else peak_memory()
        print(json.dumps({"seconds": seconds, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    main()
