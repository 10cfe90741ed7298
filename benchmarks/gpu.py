"""Measure training on a GPU by charloom and by PyTorch, beside the compiled engine on the CPU.

    python -m benchmarks.gpu                 print and write the table, like `python -m benchmarks`
    python -m benchmarks.gpu --device cpu    run the same systems without a GPU
    python -m benchmarks.gpu --smoke         run tiny models and check that the systems agree

TensorFloat-32 is disabled for all systems. Every step reads the loss back, and a round ends after
the GPU has been synchronized.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks.measuring import add_arguments, measure, show
from benchmarks.workloads import WORKLOADS, Workload
from charloom.engines.protocol import available_cores

OURS = "charloom, engine pytorch"
SYSTEMS = (
    "charloom",  # the compiled engine, whose losses the other systems must match
    OURS,
    f"{OURS} compile",
    f"{OURS} bf16",
    f"{OURS} bf16 compile",
    "pytorch",
    "pytorch compile",
    "pytorch bf16",
)
TRAINING = [workload for workload in WORKLOADS if workload.kind == "train"]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="PyTorch device")
    arguments = parser.parse_args()
    try:
        gpu = describe_gpu() if arguments.device == "cuda" else None
    except (ImportError, RuntimeError) as error:
        print(f"python -m benchmarks.gpu: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        if arguments.smoke:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
            os.environ["TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"] = "0"
            # No second process that imports PyTorch, and no trial of the processor's vectors.
            os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
            os.environ["TORCHINDUCTOR_VEC_ISA_OK"] = "1"

        def systems_for(workload: Workload) -> Iterator[tuple[str, int]]:
            for system in SYSTEMS:
                # Compile one of the tiny models only, because compiling takes long.
                if system.endswith("compile") and arguments.smoke and workload is not TRAINING[-1]:
                    continue
                if "bf16" in system and workload.classic:  # not supported by charloom
                    continue
                yield system, 1 if arguments.smoke else available_cores()

        results = measure(arguments, TRAINING, systems_for, arguments.device, with_peak=False)
    results["device"] = arguments.device
    for row in results["rows"]:
        row["ours"], row["against"] = OURS, [("pytorch", None, None)]
    if gpu is not None:
        results["machine"]["gpu"] = gpu.pop("gpu")
        results["machine"]["versions"] |= gpu
    name = results["machine"].get("gpu", "cpu").lower()
    show(results, arguments, re.sub("[^a-z0-9]+", "-", name).strip("-"))
    return 0


def describe_gpu() -> dict[str, Any]:
    """Return the GPU's name and the versions of its libraries.

    Raises:
        RuntimeError: PyTorch is not installed, or there is no usable GPU.
    """
    try:
        import torch
    except ImportError:
        raise RuntimeError("PyTorch is not installed: run pip install 'charloom[bench]'.") from None
    if not torch.cuda.is_available():
        raise RuntimeError("no usable GPU found: use --device cpu.")
    return {
        "gpu": torch.cuda.get_device_name(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


if __name__ == "__main__":
    sys.exit(main())
