"""Format the results as a Markdown table."""

from __future__ import annotations

from typing import Any

from benchmarks import commands
from benchmarks.workloads import PEAK_SHARE

Row = dict[str, Any]


def speed(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def ratios(row: Row) -> list[tuple[str, float, float | None, float | None]]:
    """Return the peer, the ratio, the minimum and the target (None if not set) of each comparison.

    A ratio is the speed of the row's `ours`, by default charloom's compiled engine, divided by the
    speed of the peer.
    """
    best = {name: found["best"] for name, found in row["systems"].items()}
    result = []
    ours = row.get("ours", "charloom")
    if ours not in best:
        return []
    for peer, must, aim in row["against"]:
        if peer == "best":
            peers = {n: s for n, s in best.items() if not n.startswith("charloom")}
            if not peers:
                continue
            name = max(peers, key=lambda n: peers[n])
            result.append((f"best peer: {name}", best[ours] / peers[name], must, aim))
        elif peer in best:
            result.append((peer, best[ours] / best[peer], must, aim))
    return result


def verdict(value: float, must: float, aim: float) -> str:
    return "target" if value >= aim else "minimum" if value >= must else "MISSED"


def markdown(report: Row) -> str:
    machine = report["machine"]
    gpu = f"{machine['gpu']}; " if "gpu" in machine else ""
    lines = [
        "# charloom beside its peers",
        "",
        f"{report['date']}, {gpu}{machine['processor']}, {machine['cores']} cores, Python "
        f"{machine['python']}; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + ".",
        "",
        f"Text: {report['text']}, {report['vocabulary']} distinct characters. Speeds are "
        "characters predicted per second, T·B per step, medians of "
        f"{report['rounds']} rounds. The systems take turns, each in its own process. Each is "
        "shown with its best number of threads (in brackets). All compute in float32. Training "
        "includes the batch, the forward pass, the backward pass, clipping and the optimizer's "
        "update. For a mixture, PyTorch computes the network and NumPy mixes.",
        "",
    ]
    if "device" in report:
        lines += [
            f"charloom is the compiled engine on the CPU. All other systems compute on "
            f"{report['device']}, those with bf16 in their name with products in bfloat16. A round "
            "ends after the device has been synchronized.",
            "",
        ]
    names = list(dict.fromkeys(n for row in report["rows"] for n in row["systems"]))
    has_aims = any(must is not None for row in report["rows"] for _, _, must, _ in ratios(row))
    aims = [" minimum, target |"] if has_aims else []
    lines.append("| workload | " + " | ".join(names) + " | ratio |" + "".join(aims))
    lines.append("| --- " * (len(names) + 2 + len(aims)) + "|")
    for row in report["rows"]:
        cells = []
        for name in names:
            found = row["systems"].get(name)
            cells.append(f"{speed(found['best'])} ({found['threads']})" if found else "")
        compared = ratios(row)
        cells.append("; ".join(f"{value:.2f} × {name}" for name, value, _, _ in compared))
        if has_aims:
            verdicts = (
                f"{must:g}, {aim:g}: {verdict(value, must, aim)}"
                for _, value, must, aim in compared
                if must is not None and aim is not None
            )
            cells.append("; ".join(verdicts))
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    lines += ["", *_physical_limit(report), *_memory(report, names), ""]
    lines += [*_first_calls(report), "", *_commands(report)]
    return "\n".join(lines).rstrip() + "\n"


def _physical_limit(report: Row) -> list[str]:
    peaks = report["peak"]
    if not peaks:
        return []
    lines = [
        "## Distance from the hardware limit",
        "",
        "Operations per second of the fastest square float32 product (n = 512, 1024, 2048), "
        "medians over the rounds of the same run: "
        + "; ".join(
            f"{threads} thread{'s' if int(threads) > 1 else ''}: "
            + ", ".join(f"{name} {value / 1e9:.0f} G" for name, value in found.items())
            for threads, found in peaks.items()
        )
        + ".",
        "",
        "The share is relative to the faster library in the rounds of the same row. Operations are "
        "those of the matrix products. Bytes are the minimum memory traffic per character "
        "(definitions in benchmarks/workloads.py).",
        "",
        "| workload | operations per character | charloom, G per second | share of the peak | "
        "bytes per character |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        done = row["operations"] * row["systems"]["charloom"]["best"]
        share = row["share_of_peak"]
        targets = PEAK_SHARE.get(row["name"])
        note = f" ({verdict(share, *targets)}: minimum 70%, target 82%)" if targets else ""
        lines.append(
            f"| {row['name']} | {row['operations']:,} | {done / 1e9:.1f} | {share:.0%}{note} | "
            f"{row['bytes']:,} |"
        )
    return [*lines, ""]


def _memory(report: Row, names: list[str]) -> list[str]:
    lines = [
        "## Peak memory, MB",
        "",
        "Memory of the process. For a system on a GPU, memory of its tensors there.",
        "",
        "| workload | " + " | ".join(names) + " |",
        "| --- " * (len(names) + 1) + "|",
    ]
    for row in report["rows"]:
        cells = [
            f"{row['systems'][n]['peak_bytes'] / 1e6:,.0f}" if n in row["systems"] else ""
            for n in names
        ]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return lines


def _first_calls(report: Row) -> list[str]:
    if "first_calls" not in report:
        return []
    lines = [
        "## First calls, seconds, without imports",
        "",
        "| cell | training, cold | training, warm | sampling, cold | sampling, warm |",
        "| --- | --- | --- | --- | --- |",
    ]
    for cell, found in report["first_calls"].items():
        numbers = (found[w][c] for w in ("training", "sampling") for c in ("cold", "warm"))
        lines.append(f"| {cell} | " + " | ".join(f"{n:.2f}" for n in numbers) + " |")
    lines += ["", f"`charloom --help`: {report['help']:.2f} s."]
    return lines


def _commands(report: Row) -> list[str]:
    lines = []
    if "start_up" in report:
        lines += ["## Start-up, seconds, with compiled kernels", ""]
        lines += ["| command | median |", "| --- | --- |"]
        lines += [f"| `{name}` | {seconds:.2f} |" for name, seconds in report["start_up"].items()]
        lines.append("")
    if "whole" in report:
        found, share = report["whole"], commands.share_of_kernel(report)
        lines += [
            "## The whole command",
            "",
            f"`charloom train {report['text']} --preset classic --minutes 1`: {found['steps']:,} "
            f"steps in {found['seconds']:.1f} s, {speed(found['speed'])} characters per second"
            + ("." if share is None else f", {share:.0%} of the first row's speed."),
        ]
    return lines
