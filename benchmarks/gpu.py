"""Training on a GPU: charloom's engine pytorch beside torch.nn, and the compiled engine on the CPU.

    python -m benchmarks.gpu                 the table, written as `python -m benchmarks` does
    python -m benchmarks.gpu --device cpu    the same systems without a GPU
    python -m benchmarks.gpu --smoke         tiny models: does everything run and agree?

float32 is float32 for all (TensorFloat-32 is off). Every step reads the loss back, and a round ends
when the GPU has nothing more to do.
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
    "charloom",  # the compiled engine, with whose losses the others have to agree
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
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of PyTorch")
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

        def systems_for(workload: Workload) -> Iterator[tuple[str, int]]:
            for system in SYSTEMS:
                # What compiles takes its time: of the tiny models, one is enough.
                if system.endswith("compile") and arguments.smoke and workload is not TRAINING[-1]:
                    continue
                if "bf16" in system and workload.classic:  # charloom refuses that
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
    """The GPU's name, and the versions of what computes there.

    Raises RuntimeError, in a sentence, where there is none.
    """
    try:
        import torch
    except ImportError:
        raise RuntimeError("it needs PyTorch: pip install 'charloom[bench]'") from None
    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no GPU here that it can use; there is --device cpu")
    return {
        "gpu": torch.cuda.get_device_name(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


if __name__ == "__main__":
    sys.exit(main())
