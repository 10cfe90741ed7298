"""Measure charloom, PyTorch and JAX, print a table, and write it as JSON and Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from benchmarks import commands, compile_times
from benchmarks.measuring import CONSOLE, add_arguments, measure, show, versions
from benchmarks.workloads import WORKLOADS, Workload
from charloom.engines.protocol import available_cores

# The package that each system requires.
SYSTEMS = {
    "charloom": "charloom",
    "charloom, engine pytorch": "torch",
    "pytorch": "torch",
    "pytorch compile": "torch",
    "jax": "jax",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add_arguments(parser)
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=tuple(SYSTEMS),
        default=list(SYSTEMS),
        help="systems to measure (charloom always runs)",
    )
    arguments = parser.parse_args()
    wanted = ["charloom"]
    for system in arguments.systems:
        if system != "charloom" and versions(SYSTEMS[system]):
            wanted.append(system)
    if arguments.smoke:
        wanted = [system for system in wanted if system != "pytorch compile"]

    def systems_for(workload: Workload) -> Iterator[tuple[str, int]]:
        cores = available_cores()
        for system in wanted:
            if system == "jax" and workload.kind != "train":
                continue
            if workload.counts and system not in ("charloom", "pytorch"):
                continue
            # Run torch.compile with one thread count only, because compiling takes long.
            few = arguments.smoke or system == "pytorch compile"
            few = few or (bool(workload.counts) and system == "charloom")
            for threads in (cores,) if few else dict.fromkeys((1, cores)):
                yield system, threads

    results = measure(arguments, WORKLOADS, systems_for)
    smoke = arguments.smoke
    if not arguments.only and not smoke:
        CONSOLE.print("first calls")
        results["first_calls"] = compile_times.first_calls(3)
        results["help"] = compile_times.help_time(5)
    if commands.START_UP in arguments.only or not arguments.only:
        CONSOLE.print(commands.START_UP)
        results["start_up"] = commands.start_up(arguments.text, 1 if smoke else 5, smoke)
    if commands.WHOLE in arguments.only or not arguments.only:
        CONSOLE.print(commands.WHOLE)
        results["whole"] = commands.whole(arguments.text, 0.02 if smoke else 1)
    show(results, arguments)


if __name__ == "__main__":
    main()
